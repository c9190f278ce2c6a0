//! The machine's monotonic clock, which all processes read the same.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since some moment that is the same for all processes.
pub(crate) fn now() -> Duration {
    read(ClockId::Monotonic)
}

/// What this thread has had of a processor.
pub(crate) fn of_this_thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().unwrap_or_default()
}

/// Sleeps until a moment; returns at once if it has passed.
pub(crate) fn sleep_until(moment: Duration) {
    std::thread::sleep(moment.saturating_sub(now()));
}
