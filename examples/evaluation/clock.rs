//! The machine's monotonic clock, which reads the same in all processes.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns the time since a moment that is the same for all processes.
pub(crate) fn now() -> Duration {
    read(ClockId::Monotonic)
}

/// Returns the processor time of this thread.
pub(crate) fn thread_cpu_time() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().unwrap_or_default()
}

/// Sleeps until a moment; returns at once if it has passed.
pub(crate) fn sleep_until(moment: Duration) {
    std::thread::sleep(moment.saturating_sub(now()));
}
