//! The number of worker threads of a forwarder.

use std::num::NonZeroUsize;
use std::thread;

use crate::setting::{SettingError, check_range};

/// The most worker threads of a forwarder: more than a machine has cores.
const MAX_WORKERS: usize = 1024;

/// Returns one worker thread for each core, up to the maximum.
pub(super) fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_WORKERS)
}

/// Checks a number of worker threads, as a forwarder does that starts.
///
/// # Errors
/// [`SettingError`] if the number is 0 or above 1024.
pub(crate) fn validate_workers(workers: usize) -> Result<(), SettingError> {
    check_range("workers", workers, 1..=MAX_WORKERS).map(drop)
}
