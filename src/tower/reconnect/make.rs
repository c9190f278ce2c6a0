//! Services that make connections.

use ::tower::{BoxError, Service};

/// A `MakeService` for [`Reconnect`](super::Reconnect): makes a connection to a target.
///
/// It is cloned for each attempt and moves between threads. Every service with these bounds implements
/// it; tower's `service_fn` makes one of a closure.
pub trait Connect<T>:
    Service<T, Response: Send + Sync, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<M, T> Connect<T> for M where
    M: Service<T, Response: Send + Sync, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}
