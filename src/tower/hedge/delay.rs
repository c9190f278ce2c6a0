//! The delay before a second request: a quantile of recent latencies.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

use crate::histogram::{AtomicHistogram, DurationHistogram};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// The number of latencies below which a quantile is chance and no request is hedged.
const MIN_LATENCIES: u64 = 100;
/// How often the quantile is computed in a window.
const UPDATES_PER_WINDOW: u32 = 20;
/// The quantiles that a histogram of so many latencies can tell from its maximum.
pub(super) const QUANTILES: RangeInclusive<f64> = 0.5..=0.9999;
/// The shortest window: a millisecond for each update.
pub(super) const MIN_WINDOW: Duration = Duration::from_millis(UPDATES_PER_WINDOW as u64);

/// A quantile of the latencies of about one window, in two histograms: of the current half window,
/// and of the half window before it.
pub(super) struct HedgeDelay {
    quantile: f64,
    window: Duration,
    halves: [AtomicHistogram; 2],
    /// The delay in nanoseconds; 0 while too few latencies are known.
    delay: AtomicU64,
    /// Nanoseconds from `started_at` to the next update.
    next_update: AtomicU64,
    started_at: Instant,
    /// The number of updates; locked by the thread that updates.
    updates: Mutex<u32>,
    /// The number of the current half window; its parity is the histogram that is filled.
    current_half: AtomicU64,
}

impl HedgeDelay {
    /// Creates a delay without latencies. The quantile is one of [`QUANTILES`], the window at least
    /// [`MIN_WINDOW`].
    pub(super) fn new(quantile: f64, window: Duration) -> Self {
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

    pub(super) fn current(&self) -> Option<Duration> {
        let delay = self.delay.load(Ordering::Relaxed);
        (delay != 0).then(|| Duration::from_nanos(delay))
    }

    pub(super) fn latencies(&self) -> DurationHistogram {
        let mut latencies = self.halves[0].snapshot();
        latencies.merge(&self.halves[1].snapshot());
        latencies
    }

    /// Records a latency, and updates the delay if an update is due.
    pub(super) fn record(&self, latency: Duration, now: Instant) {
        // Relaxed: a latency may be recorded in the half that another thread has just ended.
        self.halves[self.current_half.load(Ordering::Relaxed) as usize % 2].record(latency);
        let now = nanos(now.saturating_duration_since(self.started_at));
        if now >= self.next_update.load(Ordering::Relaxed)
            && let Ok(mut updates) = self.updates.try_lock()
        {
            self.update(&mut updates, now);
        }
    }

    fn update(&self, updates: &mut u32, now: u64) {
        let late = now.saturating_sub(self.next_update.load(Ordering::Relaxed));
        let missed = u32::try_from(late / self.update_interval())
            .unwrap_or(u32::MAX)
            .min(2 * UPDATES_PER_WINDOW);
        self.next_update.store(now.saturating_add(self.update_interval()), Ordering::Relaxed);
        let latencies = self.latencies();
        let has_enough = latencies.count() >= MIN_LATENCIES;
        let quantile = if has_enough { latencies.quantile(self.quantile) } else { None };
        // At least 1: 0 means unknown.
        let delay = quantile.map_or(0, |delay| nanos(delay).max(1));
        self.delay.store(delay, Ordering::Relaxed);
        for _ in 0..=missed {
            *updates += 1;
            if updates.is_multiple_of(UPDATES_PER_WINDOW / 2) {
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
        f.debug_struct("HedgeDelay")
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
    const WINDOW: Duration = Duration::from_secs(10);

    /// Records `count` equal latencies, evenly over half a second from `start` on.
    fn fill(delay: &HedgeDelay, count: u32, latency: Duration, start: Duration) {
        for i in 0..count {
            delay.record(latency, delay.started_at + start + 500 * MS * i / count);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_delay_is_unknown_below_the_minimum_of_latencies() {
        let delay = HedgeDelay::new(0.95, WINDOW);
        fill(&delay, 90, 10 * MS, Duration::ZERO);
        delay.record(MS, delay.started_at + 501 * MS);
        assert_eq!(delay.current(), None, "91 latencies are too few");
        fill(&delay, 100, 10 * MS, 600 * MS);
        delay.record(MS, delay.started_at + 1101 * MS);
        let current = delay.current().expect("192 latencies are enough");
        assert!((9 * MS..=11 * MS).contains(&current), "{current:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_delay_is_the_configured_quantile() {
        let delay = HedgeDelay::new(0.9, WINDOW);
        for i in 0..1000_u32 {
            delay.record(MS * i, delay.started_at + MS * i);
        }
        delay.record(MS, delay.started_at + 1001 * MS);
        let current = delay.current().expect("1001 latencies are enough");
        assert!((810 * MS..=990 * MS).contains(&current), "{current:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn latencies_older_than_the_window_do_not_count() {
        let delay = HedgeDelay::new(0.95, WINDOW);
        for second in 0..10 {
            fill(&delay, 200, 100 * MS, Duration::from_secs(second));
        }
        assert!(delay.current().is_some_and(|current| current >= 90 * MS));
        for second in 10..21 {
            fill(&delay, 200, 10 * MS, Duration::from_secs(second));
        }
        assert!(delay.current().is_some_and(|current| current <= 11 * MS), "{:?}", delay.current());
    }

    #[tokio::test(start_paused = true)]
    async fn latencies_from_before_a_long_idle_time_do_not_count() {
        let delay = HedgeDelay::new(0.95, WINDOW);
        fill(&delay, 1000, 100 * MS, Duration::ZERO);
        fill(&delay, 10, 100 * MS, Duration::from_secs(1));
        assert!(delay.current().is_some());
        let night = Duration::from_secs(8 * 3600);
        delay.record(MS, delay.started_at + night);
        delay.record(MS, delay.started_at + night + Duration::from_secs(1));
        assert_eq!((delay.current(), delay.latencies().count()), (None, 1));
    }
}
