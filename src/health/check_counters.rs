//! The results of a backend's checks, counted.

use crate::backend::BackendId;

/// The results of one check of one backend, from [`WatchHandle::check_counters`](super::WatchHandle::check_counters).
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct CheckCounters {
    /// The backend.
    pub backend: BackendId,
    /// The name of the check.
    pub check: String,
    /// Results that say something of the backend.
    pub results: u64,
    /// Those of them that are failures.
    pub failures: u64,
}
