//! The errors of a pick.

use thiserror::Error;

/// The reason why a pick chose no backend.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
#[non_exhaustive]
pub enum PickError {
    /// The set has no backends.
    #[error("the set has no backends")]
    NoBackends,
    /// Every backend is quiesced (weight 0), draining or disabled, as the operator or an agent asked.
    #[error("every backend is quiesced, draining or disabled")]
    AllQuiesced,
    /// No backend may be chosen, and at least one only because it is down or ejected.
    #[error("every backend is down")]
    AllDown,
    /// The healthy backends do not meet the set's [`Quorum`](crate::backend::Quorum).
    #[error("too few backends are healthy for the quorum")]
    NoQuorum,
    /// Every backend that may be chosen is at its connection limit.
    #[error("every backend is at its connection limit")]
    AllAtLimit,
    /// Every backend that may be chosen was tried before.
    #[error("every backend was tried before")]
    AllTried,
    /// Backends are usable, but the scheduler's rule gives this flow none of them: `sh`, `dh` and `mh`
    /// without fallback, or `ovf` when every backend overflows.
    #[error("the scheduler has no backend for this flow")]
    SchedulerRefused,
}
