//! How long to wait for an answer: a quantile of the last ones.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::histogram::{AtomicHistogram, DurationHistogram};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// So many latencies must be known: below, a quantile is chance.
const MIN_LATENCIES: u64 = 100;
/// How often in a window the quantile is taken.
const UPDATES_PER_WINDOW: u32 = 20;

/// A quantile of the latencies of about a window: of the half that is being filled and of the one
/// before.
pub(super) struct HedgeDelay {
    quantile: f64,
    window: Duration,
    halves: [AtomicHistogram; 2],
    /// The delay in nanoseconds; 0 while it is not known.
    delay: AtomicU64,
    /// Nanoseconds from `begun` to the next look.
    next_update: AtomicU64,
    started_at: Instant,
    /// The looks taken; held by whoever takes one.
    updates: Mutex<u32>,
    /// Which half is filled.
    current_half: AtomicU64,
}

impl Default for HedgeDelay {
    fn default() -> Self {
        Self::new(0.95, Duration::from_secs(10))
    }
}

impl HedgeDelay {
    fn new(quantile: f64, window: Duration) -> Self {
        let delay = Self {
            quantile,
            window,
            halves: Default::default(),
            delay: AtomicU64::new(0),
            next_update: AtomicU64::new(0),
            started_at: Instant::now(),
            updates: Mutex::new(0),
            current_half: AtomicU64::new(0),
        };
        delay.next_update.store(delay.update_interval(), Ordering::Relaxed);
        delay
    }

    pub(super) fn with_quantile(&self, quantile: f64) -> Self {
        let quantile = if quantile.is_nan() { 0.5 } else { quantile };
        Self::new(quantile.clamp(0.5, 0.9999), self.window)
    }

    pub(super) fn with_window(&self, window: Duration) -> Self {
        Self::new(self.quantile, window.max(Duration::from_millis(u64::from(UPDATES_PER_WINDOW))))
    }

    pub(super) fn current(&self) -> Option<Duration> {
        let delay = self.delay.load(Ordering::Relaxed);
        (delay != 0).then(|| Duration::from_nanos(delay))
    }

    pub(super) fn latencies(&self) -> DurationHistogram {
        let mut all = self.halves[0].snapshot();
        all.merge(&self.halves[1].snapshot());
        all
    }

    /// Counts one that took so long, and looks anew if it is time to.
    pub(super) fn record(&self, took: Duration, now: Instant) {
        // Relaxed: what is counted in the half that has just ended is counted there.
        self.halves[self.current_half.load(Ordering::Relaxed) as usize % 2].record(took);
        let now = nanos(now.saturating_duration_since(self.started_at));
        if now >= self.next_update.load(Ordering::Relaxed)
            && let Ok(mut looks) = self.updates.try_lock()
        {
            self.update(&mut looks, now);
        }
    }

    fn update(&self, looks: &mut u32, now: u64) {
        let late = now.saturating_sub(self.next_update.load(Ordering::Relaxed));
        let missed = u32::try_from(late / self.update_interval())
            .unwrap_or(u32::MAX)
            .min(2 * UPDATES_PER_WINDOW);
        self.next_update.store(now.saturating_add(self.update_interval()), Ordering::Relaxed);
        let all = self.latencies();
        let known = if all.count() < MIN_LATENCIES { None } else { all.quantile(self.quantile) };
        // Not 0, which is not known.
        let delay = known.map_or(0, |delay| nanos(delay).max(1));
        self.delay.store(delay, Ordering::Relaxed);
        for _ in 0..=missed {
            *looks += 1;
            if looks.is_multiple_of(UPDATES_PER_WINDOW / 2) {
                let next = self.current_half.load(Ordering::Relaxed) + 1;
                self.halves[next as usize % 2].clear();
                self.current_half.store(next, Ordering::Relaxed);
            }
        }
    }

    fn update_interval(&self) -> u64 {
        nanos(self.window / UPDATES_PER_WINDOW)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for HedgeDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay")
            .field("quantile", &self.quantile)
            .field("window", &self.window)
            .field("delay", &self.current())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Records so many of a length, evenly over half a second.
    fn fill(delay: &HedgeDelay, count: u32, took: Duration, from: Duration) {
        for i in 0..count {
            delay.record(took, delay.started_at + from + 500 * MS * i / count);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_known_before_there_is_enough() {
        let delay = HedgeDelay::default();
        fill(&delay, 90, 10 * MS, Duration::ZERO);
        delay.record(MS, delay.started_at + 501 * MS);
        assert_eq!(delay.current(), None, "a quantile of 91");
        fill(&delay, 100, 10 * MS, 600 * MS);
        delay.record(MS, delay.started_at + 1101 * MS);
        let known = delay.current().expect("192 are enough");
        assert!((9 * MS..=11 * MS).contains(&known), "{known:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_the_quantile_that_was_asked_for() {
        let delay = HedgeDelay::default().with_quantile(0.9);
        for i in 0..1000_u32 {
            delay.record(MS * i, delay.started_at + MS * i);
        }
        delay.record(MS, delay.started_at + 1001 * MS);
        let known = delay.current().expect("1001");
        assert!((810 * MS..=990 * MS).contains(&known), "{known:?}");
        let odd = [f64::NAN, -1.0, 7.0].map(|quantile| delay.with_quantile(quantile).quantile);
        assert_eq!(odd, [0.5, 0.5, 0.9999]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_the_window_is_forgotten() {
        let delay = HedgeDelay::default();
        for second in 0..10 {
            fill(&delay, 200, 100 * MS, Duration::from_secs(second));
        }
        assert!(delay.current().is_some_and(|known| known >= 90 * MS));
        for second in 10..21 {
            fill(&delay, 200, 10 * MS, Duration::from_secs(second));
        }
        assert!(delay.current().is_some_and(|known| known <= 11 * MS), "{:?}", delay.current());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_night_of_nothing_the_evening_is_forgotten() {
        let delay = HedgeDelay::default();
        fill(&delay, 1000, 100 * MS, Duration::ZERO);
        fill(&delay, 10, 100 * MS, Duration::from_secs(1));
        assert!(delay.current().is_some());
        let night = Duration::from_secs(8 * 3600);
        delay.record(MS, delay.started_at + night);
        delay.record(MS, delay.started_at + night + Duration::from_secs(1));
        assert_eq!((delay.current(), delay.latencies().count()), (None, 1));
    }
}
