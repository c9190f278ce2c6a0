//! Why a change of a set was refused.

use thiserror::Error;

use super::{BackendId, Limits, MAX_BACKENDS, MAX_WEIGHT};

/// Why a set refused a change. The set is as it was before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetError {
    /// A backend of this name is already there.
    #[error("backend {id} is already in the set")]
    DuplicateBackend {
        /// The name given twice.
        id: BackendId,
    },
    /// No backend of this name is there (any more).
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
    /// The lower threshold is above the upper one.
    #[error("backend {id} cannot resume below {} of at most {} connections",
        limits.resume_below(), limits.max_connections())]
    InvalidLimits {
        /// The backend.
        id: BackendId,
        /// The limits asked for.
        limits: Limits,
    },
    /// The set holds [`MAX_BACKENDS`] already.
    #[error("backend {id} does not fit: the set holds {MAX_BACKENDS} already")]
    Full {
        /// The backend that found no place.
        id: BackendId,
    },
    /// A scheduler that reads the set cannot work with the result.
    #[error("scheduler {scheduler} cannot use the set")]
    Scheduler {
        /// The scheduler's short name.
        scheduler: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
