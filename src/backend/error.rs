//! The errors of a change of a set.

use thiserror::Error;

use super::{BackendId, MAX_BACKENDS};
use crate::setting::SettingError;

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
    /// The weight is above [`MAX_WEIGHT`](super::MAX_WEIGHT).
    #[error("backend {id}: {source}")]
    InvalidWeight {
        /// The backend.
        id: BackendId,
        /// The weight asked for, and the allowed ones.
        source: SettingError,
    },
    /// The lower limit is above the upper one, or the upper one is above
    /// [`MAX_CONNECTION_LIMIT`](super::MAX_CONNECTION_LIMIT).
    #[error("backend {id}: {source}")]
    InvalidLimits {
        /// The backend.
        id: BackendId,
        /// The limit asked for, and the allowed ones.
        source: SettingError,
    },
    /// The percentage of [`FailMode::PanicBelow`](super::FailMode::PanicBelow) is not from 1 to 100.
    #[error(transparent)]
    InvalidFailMode(SettingError),
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
