//! The clock of the director, and durations as its JSON has them.

use std::time::{Duration, Instant, SystemTime};

/// Returns the current time by tokio's clock, which tests can pause.
pub(super) fn tokio_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns a duration in milliseconds; `u64::MAX` if it is longer.
pub(super) fn saturating_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time of day in milliseconds since 1970; 0 if the machine's clock is before that.
pub(super) fn unix_millis() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, saturating_millis)
}
