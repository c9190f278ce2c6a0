//! Why a request found no instance.

use std::time::Duration;

use thiserror::Error;

use crate::balancer::PickError;

/// Why a balancer did not send a request.
///
/// What an instance says itself comes through as it is. Services of tower say their errors as
/// `Box<dyn Error>`: `downcast_ref` tells this one from those.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum BalanceError {
    /// Nobody could be chosen, for as long as a request [waits](super::Balance::wait).
    #[error("no backend within {waited:?}: {reason}")]
    NoBackend {
        /// What the last look found.
        reason: PickError,
        /// How long the request waited.
        waited: Duration,
    },
    /// All that were asked were busy, for as long as a request waits.
    #[error("{asked} backends asked, and none ready within {waited:?}")]
    Busy {
        /// How many were asked at the last look.
        asked: usize,
        /// How long the request waited.
        waited: Duration,
    },
    /// The request has no key, and [may not go without](super::WithoutKey::Refuse).
    #[error("the request has no key")]
    NoKey,
    /// `call` came without a `poll_ready` that said `Ready`.
    #[error("called before it was ready")]
    NotReady,
}

impl BalanceError {
    /// The same after a wait.
    pub(super) fn with_waited(self, waited: Duration) -> Self {
        match self {
            Self::NoBackend { reason: why, .. } => Self::NoBackend { reason: why, waited },
            Self::Busy { asked, .. } => Self::Busy { asked, waited },
            error => error,
        }
    }
}
