//! Requests that are sent to a second backend when the first is slow.

mod delay;
mod future;
mod policy;
mod service;
mod stats;

pub use self::future::HedgeFuture;
pub use self::policy::Hedge;
pub use self::service::Hedged;
pub use self::stats::HedgeStats;
