//! The time line of one set: moments handed in by callers, as ticks since the first of them.

use std::sync::OnceLock;
use std::time::Instant;

use super::estimate::{CoarseInstant, coarse_ticks};
use crate::sync::{AtomicU32, Ordering};

/// Turns the instants that callers hand in into small numbers, and remembers the latest.
#[derive(Debug)]
pub(crate) struct CoarseClock {
    start: OnceLock<Instant>,
    latest: AtomicU32,
}

impl CoarseClock {
    pub(super) fn new() -> Self {
        Self { start: OnceLock::new(), latest: AtomicU32::new(0) }
    }

    /// The tick of `now`; the latest one moves on.
    pub(crate) fn advance_to(&self, now: Instant) -> CoarseInstant {
        let start = *self.start.get_or_init(|| now);
        // Tick 0 stays free for "nothing has happened yet".
        let tick = coarse_ticks(now.saturating_duration_since(start)).wrapping_add(1);
        // Relaxed: a hint of what time it is. Written at most once a tick, so that it is not a line
        // that every thread fights over.
        let latest = self.latest.load(Ordering::Relaxed);
        if tick != latest && tick.wrapping_sub(latest) <= CoarseInstant::MAX / 2 {
            self.latest.store(tick, Ordering::Relaxed);
        }
        tick
    }

    /// The tick of `now`, or the latest one for those who were given no time.
    #[inline]
    pub(crate) fn advance_or_latest(&self, now: Option<Instant>) -> CoarseInstant {
        now.map_or_else(|| self.latest(), |now| self.advance_to(now))
    }

    /// The latest tick that anybody named: for readers that were given no time.
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
        let line = CoarseClock::new();
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        let start = Instant::now();
        assert_eq!(line.latest(), 0);
        assert_eq!(line.advance_to(start), 1);
        assert_eq!(line.advance_to(start + Duration::from_millis(5)), 51);
        assert_eq!(line.advance_to(start + Duration::from_millis(2)), 21);
        assert_eq!(line.latest(), 51);
    }
}
