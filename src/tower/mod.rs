//! Any scheduler as a [`tower::Service`](https://docs.rs/tower), shared by clones, keys included.
//!
//! [`Balance`] picks in `call`, by the request's key if it has one, and is what most stacks want.
//! [`ReadyFirst`] picks in `poll_ready`, for instances whose readiness is real and callers that are to
//! be held up by it.

mod balance;
mod classify;
mod error;
mod future;
mod held;
#[cfg(feature = "tower-http")]
mod http;
mod key;
mod ready_first;
mod search;
mod shared;
mod wait;

pub use self::balance::Balance;
pub use self::classify::{ByResult, Classify};
pub use self::error::BalanceError;
pub use self::future::BalanceFuture;
pub use self::held::{Finish, Held, OnResponse};
#[cfg(feature = "tower-http")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower-http")))]
pub use self::http::{
    CookieKey, ExtensionKey, GrpcStatus, HeaderKey, HttpStatus, LeasedBody, OnBodyEnd, PathKey,
    PeerKey, Trailers,
};
pub use self::key::{Key, NoKey, WithoutKey};
pub use self::ready_first::ReadyFirst;
