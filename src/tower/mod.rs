//! Any scheduler as a [`tower::Service`](https://docs.rs/tower), shared by clones, keys included.
//!
//! [`Balance`] picks in `call`, by the request's key if it has one, and is what most stacks want.
//! [`ReadyFirst`] picks in `poll_ready`, for instances whose readiness is real and callers that are to
//! be held up by it.
//!
//! # From `tower::balance::p2c` to here
//! There, a list of services under keys goes into a balancer, which is put into a buffer to be shared:
//!
//! ```
//! # use std::sync::Arc;
//! # use tower::{BoxError, service_fn};
//! use tower::balance::p2c::Balance;
//! use tower::discover::ServiceList;
//! use tower::load::{CompleteOnResponse, PendingRequests};
//!
//! # let one = service_fn(async |_: String| Ok::<_, BoxError>("one"));
//! # let other = one;
//! let instances = [one, other].map(|it| PendingRequests::new(it, CompleteOnResponse::default()));
//! let service = Balance::new(ServiceList::new::<String>(Vec::from(instances)));
//! // let service = tower::buffer::Buffer::new(service, 1024);
//! # let _ = service;
//! ```
//!
//! Here the services are the targets of a set, under names that logs and metrics show; the scheduler
//! is a value, the load is counted by leases, and the service is cloned:
//!
//! ```
//! # use tower::{BoxError, service_fn};
//! use lvs::scheduler::PowerOfTwo;
//! use lvs::tower::Balance;
//! use lvs::{BackendSet, Balancer, Spec};
//!
//! # let one = service_fn(async |_: String| Ok::<_, BoxError>("one"));
//! # let other = one;
//! let set = BackendSet::new();
//! set.insert(Spec::new("one", one))?;
//! set.insert(Spec::new("other", other).weight(2))?;
//! let service = Balance::new(Balancer::new(&set, PowerOfTwo::default())?);
//! let shared = service.clone();
//! # let _ = shared;
//! # Ok::<(), lvs::SetError>(())
//! ```
//!
//! | there | here |
//! |---|---|
//! | `ServiceList`, or a stream of changes | [`BackendSet::insert`](crate::BackendSet::insert), or a stream through `discovery::DiscoverSource` (feature `discovery-tower`) and a `Feed` |
//! | the end or an error of that stream ends the updates, or the balancer | the members stay, and the feed asks again |
//! | `Load`, `PendingRequests`, `PeakEwma` around each service | the scheduler: `PowerOfTwo`, `PeakEwma`, or any other; weights with all of them |
//! | `CompleteOnResponse`, a `TrackCompletion` of one's own | [`OnResponse`], `OnBodyEnd` (feature `tower-http`), a [`Completion`] of one's own |
//! | no keys; `Steer` where all services must be ready | [`Balance::key`] |
//! | `Buffer`, a task, and a queue in front, to share it | a clone |
//! | every ready service holds a permit or a slot | one candidate at a time does |
//! | `ConcurrencyLimit` around each service | [`Limits`](crate::Limits) of the backend, which schedulers see |
//! | `Retry` around the balancer, which may pick the same service again | [`Balance::retry`], which does not |
//! | `Hedge` around the balancer, which may pick the same service again | [`Balance::hedge`], which does not, within a budget |
//! | `MakeBalance`, `BalanceLayer`: a service that gives a `Discover` of services | `MakeBalance`, `BalanceLayer` (feature `discovery-tower`): a `MakeService`, and a `Discover` or another source of its targets |
//! | `Reconnect` around a `MakeService`, and a `Buffer` to share it | [`Reconnect`], shared by cloning |
//! | an error of `poll_ready` removes the service until it is discovered again | it is passed over for this request; [health](crate::BackendSet::set_health) says whether it is out |
//! | an empty set is pending for ever | [`BalanceError::NoBackend`] within [`Balance::wait`] |
//! | no health, drain, limits, slow start, panic threshold | those of the set: [`backend`](crate::backend) |
//!
//! What is needed of an instance: `Clone` (one is cloned for each request, as clients of hyper and
//! channels of tonic are made for), `Send` and `Sync`. One that is not `Sync` goes into tower's
//! `BoxCloneSyncService`; one that cannot be cloned, into a `Buffer` of its own.
//!
//! # What it costs
//! Ready, call and answer of an instance that does nothing take 0.37 to 0.44 of what they take by
//! tower's `p2c` with 10 to 1000 instances (61 to 76 ns by 150 to 173, AMD EPYC); nothing is
//! allocated. [`PeakEwma`](crate::scheduler::PeakEwma) reads the clock twice, here as there: 0.4 to 0.5
//! of tower's. Shared by two tasks it is a fifth of a `Buffer` on one thread and less than a tenth on
//! two.
//!
//! Threads that share a set write to the counts of the same backends, and cache lines travel: on two
//! processors two threads do no more than one with 10 backends, and 1.3 times as much with 1000. Make
//! the set with [lanes](crate::BackendSet::with_lanes), one for each thread, and it is 1.3 to 1.5 times,
//! where two threads with nothing in common do 1.6 to 1.9 times as much on that machine. What the
//! instances share themselves, such as the count of an `Arc` that is cloned, comes on top.
//! `cargo run --release --manifest-path benches/peers/Cargo.toml` measures all this on yours.

mod balance;
mod classify;
mod context;
mod error;
mod future;
mod hedge;
#[cfg(feature = "tower-http")]
mod http;
mod in_flight;
mod key;
#[cfg(feature = "discovery-tower")]
mod make;
mod ready_first;
mod reconnect;
mod retry;
mod search;
mod wait;

pub use self::balance::Balance;
pub use self::classify::{Classify, ResultClassifier};
pub use self::error::BalanceError;
pub use self::future::BalanceFuture;
pub use self::hedge::{Hedge, HedgeFuture, Hedged};
#[cfg(feature = "tower-http")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower-http")))]
pub use self::http::{
    ClassifyTrailers, CookieKey, ExtensionKey, GrpcStatusClassifier, HeaderKey,
    HttpStatusClassifier, LeasedBody, OnBodyEnd, PathKey, PeerKey,
};
pub use self::in_flight::{Completion, InFlight, OnResponse};
pub use self::key::{MissingKeyPolicy, NoKey, RequestKey};
#[cfg(feature = "discovery-tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "discovery-tower")))]
pub use self::make::{BalanceLayer, MakeBalance};
pub use self::ready_first::ReadyFirst;
pub use self::reconnect::{Connect, ConnectError, ConnectTimeout, Reconnect, ReconnectFuture};
pub use self::retry::{NoRetry, Retry, RetryPolicy};
