//! The clock of one set: times that callers hand in, as ticks since the first of them.

use std::sync::OnceLock;
use std::time::Instant;

use super::estimate::{CoarseInstant, coarse_ticks};
use crate::sync::{AtomicU32, Ordering};

/// Converts the times that callers hand in into ticks of 100 µs, and keeps the latest.
#[derive(Debug)]
pub(crate) struct CoarseClock {
    start: OnceLock<Instant>,
    latest: AtomicU32,
}

impl CoarseClock {
    pub(super) fn new() -> Self {
        Self { start: OnceLock::new(), latest: AtomicU32::new(0) }
    }

    /// Returns the tick of `now`, and makes it the latest one if it is later.
    pub(crate) fn advance_to(&self, now: Instant) -> CoarseInstant {
        let start = *self.start.get_or_init(|| now);
        // Tick 0 means that no time was handed in yet.
        let tick = coarse_ticks(now.saturating_duration_since(start)).wrapping_add(1);
        // Relaxed: the time is approximate. Stored at most once a tick, so that threads do not contend
        // for the cache clock.
        let latest = self.latest.load(Ordering::Relaxed);
        if tick != latest && tick.wrapping_sub(latest) <= CoarseInstant::MAX / 2 {
            self.latest.store(tick, Ordering::Relaxed);
        }
        tick
    }

    /// Returns the tick of `now`, or the latest one without a time.
    #[inline]
    pub(crate) fn advance_or_latest(&self, now: Option<Instant>) -> CoarseInstant {
        now.map_or_else(|| self.latest(), |now| self.advance_to(now))
    }

    /// Returns the latest tick, for readers without a time.
    #[inline]
    pub(crate) fn latest(&self) -> CoarseInstant {
        self.latest.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_latest_moment_never_goes_back() {
        let clock = CoarseClock::new();
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        let start = Instant::now();
        assert_eq!(clock.latest(), 0);
        assert_eq!(clock.advance_to(start), 1);
        assert_eq!(clock.advance_to(start + Duration::from_millis(5)), 51);
        assert_eq!(clock.advance_to(start + Duration::from_millis(2)), 21);
        assert_eq!(clock.latest(), 51);
    }
}
