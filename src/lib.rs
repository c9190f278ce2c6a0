//! The Linux Virtual Server for tower and tokio.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
pub mod balancer;
#[cfg(feature = "forward")]
#[cfg_attr(docsrs, doc(cfg(feature = "forward")))]
pub mod forward;
pub mod scheduler;
mod sync;

pub use self::backend::{
    Backend, BackendId, BackendSet, Health, Limits, Load, Outcome, SetError, SlowStart, Spec,
};
pub use self::balancer::{Balancer, Lease, PickError};
pub use self::scheduler::{Flow, Scheduler};
