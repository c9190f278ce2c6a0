//! The error of a balancer that sent a request nowhere, or had no answer in time.

use std::time::Duration;

use ::tower::BoxError;
use thiserror::Error;

use crate::backend::BackendId;
use crate::balancer::PickError;

/// The reason why a balancer did not send a request, or waits for its answer no longer.
///
/// Errors of an instance are passed on unchanged, unless the balancer
/// [names](super::Balance::name_errors) them. Both are `Box<dyn Error>`, as usual with tower;
/// `downcast_ref` tells them apart.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum BalanceError {
    /// No backend could be picked within the [wait timeout](super::Balance::wait_timeout).
    #[error("no backend for the request{}: {reason}", after(*waited))]
    NoBackend {
        /// Why the last pick failed.
        reason: PickError,
        /// How long the request waited.
        waited: Duration,
    },
    /// All instances that were asked were busy until the
    /// [wait timeout](super::Balance::wait_timeout).
    #[error("none of {asked} candidate backends became ready{}", after(*waited))]
    Busy {
        /// How many instances the last search asked.
        asked: usize,
        /// How long the request waited.
        waited: Duration,
    },
    /// The backend did not answer within the [timeout](super::Balance::timeout).
    #[error("backend {backend} did not answer within {timeout:?}")]
    Timeout {
        /// The backend that the request was sent to.
        backend: BackendId,
        /// The timeout of an attempt.
        timeout: Duration,
    },
    /// The request has no key, and the balancer
    /// [refuses](super::MissingKeyPolicy::Refuse) requests without one.
    #[error("the request has no key, and this balancer refuses requests without a key")]
    NoKey,
    /// `call` was not preceded by a `poll_ready` that returned `Ready`.
    #[error("the service was called before poll_ready returned Ready")]
    NotReady,
}

fn after(waited: Duration) -> String {
    if waited.is_zero() { String::new() } else { format!(" after {waited:?}") }
}

/// An error of an instance, with the name of its backend; see
/// [`Balance::name_errors`](super::Balance::name_errors).
#[derive(Debug, Error)]
#[error("backend {backend}: {source}")]
#[non_exhaustive]
pub struct InstanceError {
    /// The backend whose instance failed.
    pub backend: BackendId,
    /// The error of the instance.
    pub source: BoxError,
}

impl BalanceError {
    /// Returns the same error with the time waited.
    pub(super) fn with_waited(self, waited: Duration) -> Self {
        match self {
            Self::NoBackend { reason, .. } => Self::NoBackend { reason, waited },
            Self::Busy { asked, .. } => Self::Busy { asked, waited },
            error => error,
        }
    }
}
