//! The errors of a change of a set.

use thiserror::Error;

use super::{BackendId, Limits, MAX_BACKENDS, MAX_WEIGHT};

/// The reason why a set refused a change. The set has not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetError {
    /// The set already has a backend of this name.
    #[error("backend {id} is already in the set")]
    DuplicateBackend {
        /// The name given twice.
        id: BackendId,
    },
    /// The set has no backend of this name.
    #[error("backend {id} is not in the set")]
    UnknownBackend {
        /// The name asked for.
        id: BackendId,
    },
    /// The weight is above [`MAX_WEIGHT`].
    #[error("weight {weight} of backend {id} is above {MAX_WEIGHT}")]
    InvalidWeight {
        /// The backend.
        id: BackendId,
        /// The weight asked for.
        weight: u32,
    },
    /// The lower limit is above the upper one, or the upper one is too large.
    #[error("backend {id}: resume_below {} is above max_connections {}",
        limits.resume_below(), limits.max_connections())]
    InvalidLimits {
        /// The backend.
        id: BackendId,
        /// The limits asked for.
        limits: Limits,
    },
    /// The set holds [`MAX_BACKENDS`] already.
    #[error("cannot add backend {id}: the set holds {MAX_BACKENDS} already")]
    Full {
        /// The backend that was to be added.
        id: BackendId,
    },
    /// A scheduler of the set cannot use the result.
    #[error("scheduler {scheduler} cannot use the set: {source}")]
    Scheduler {
        /// The scheduler's short name.
        scheduler: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
