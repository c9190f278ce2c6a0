//! Counts and latencies of hedged requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::delay::HedgeDelay;
use crate::histogram::DurationHistogram;
use crate::sync::{AtomicU64, Ordering};

/// The live statistics of a [`Hedged`](super::Hedged) and its clones; cheap to clone.
#[derive(Clone)]
pub struct HedgeStats(Arc<HedgeCounters>);

struct HedgeCounters {
    delay: HedgeDelay,
    sent: AtomicU64,
    won: AtomicU64,
}

impl HedgeStats {
    pub(super) fn new(delay: HedgeDelay) -> Self {
        Self(Arc::new(HedgeCounters { delay, sent: AtomicU64::new(0), won: AtomicU64::new(0) }))
    }

    /// Returns the number of second requests that were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Returns the number of second requests whose answer was used.
    #[must_use]
    pub fn won(&self) -> u64 {
        self.0.won.load(Ordering::Relaxed)
    }

    /// Returns the current delay after which a request is hedged; `None` while fewer than a hundred
    /// latencies are known.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.0.delay.current()
    }

    /// Returns the latencies of the last half window to whole window.
    #[must_use]
    pub fn latencies(&self) -> DurationHistogram {
        self.0.delay.latencies()
    }

    pub(super) fn record_latency(&self, latency: Duration, now: Instant) {
        self.0.delay.record(latency, now);
    }

    pub(super) fn count_sent(&self) {
        self.0.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_won(&self) {
        self.0.won.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for HedgeStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeStats")
            .field("delay", &self.0.delay)
            .field("sent", &self.sent())
            .field("won", &self.won())
            .finish()
    }
}
