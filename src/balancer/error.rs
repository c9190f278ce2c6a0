//! Why no backend was chosen.

use thiserror::Error;

/// Why a pick found nobody.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
#[non_exhaustive]
pub enum PickError {
    /// The set has no backends at all.
    #[error("the set has no backends")]
    NoBackends,
    /// Every backend is quiesced (weight 0), draining or disabled: somebody wants it so.
    #[error("every backend is quiesced")]
    AllQuiesced,
    /// Nobody may be chosen, and at least one backend would be, were it not down.
    #[error("every backend is down")]
    AllDown,
    /// Backends are up, but fewer than the set's [`Quorum`](crate::backend::Quorum) asks for.
    #[error("too few backends are up for the quorum")]
    NoQuorum,
    /// Every backend that may be chosen is at its connection limit.
    #[error("every backend is at its connection limit")]
    AllAtLimit,
    /// Every backend that may be chosen was tried before.
    #[error("every backend was tried already")]
    AllTried,
    /// There are usable backends, but the scheduler's rule gives this flow none of them: `sh`, `dh`
    /// and `mh` without fallback, or `ovf` with all overflowing.
    #[error("the scheduler refuses this flow")]
    SchedulerRefused,
}
