//! Estimates from a backend's traffic: how long an answer takes, and how often it is a failure.
//!
//! Both are exponentially weighted moving averages over *time*: an observation that is `t` old
//! weighs `exp(-t / decay)`. The latency is Finagle's peak EWMA: it jumps to a worse observation at
//! once and comes down slowly. Only successes feed it; failures feed the failure rate. Reading is a
//! projection and changes nothing.
//!
//! Each average and its time stamp share one 64-bit word (an `f32` and a count of 100 µs), so a
//! reader never sees one without the other. The stamp wraps after five days: an estimate that was
//! idle for longer looks younger than it is.

use std::time::Duration;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A time of one set's [`CoarseClock`](super::coarse_clock::CoarseClock), in units of 100 µs.
pub(crate) type CoarseInstant = u32;

/// The latency and failure rate of a backend, projected to one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub struct TrafficEstimate {
    /// Peak-sensitive mean time of a successful answer; `None` before the first one.
    pub latency: Option<Duration>,
    /// Share of failures among recent answers, from 0.0 to 1.0.
    pub failure_rate: f32,
}

/// The values of a [`TrafficEstimate`] as the numbers that schedulers compare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RawTrafficEstimate {
    /// In seconds; `None` before the first answer.
    pub(crate) latency: Option<f32>,
    pub(crate) failure_rate: f32,
}

impl From<RawTrafficEstimate> for TrafficEstimate {
    fn from(raw: RawTrafficEstimate) -> Self {
        // A float can hold more seconds than a duration.
        let duration = |seconds| Duration::try_from_secs_f32(seconds).unwrap_or(Duration::MAX);
        Self { latency: raw.latency.map(duration), failure_rate: raw.failure_rate }
    }
}

/// The atomic words behind [`TrafficEstimate`].
#[derive(Debug)]
pub(super) struct TrafficEstimator {
    /// Seconds as `f32`, and their time stamp; a word of 0 means "never observed".
    latency: AtomicU64,
    /// A share as `f32`, and its time stamp.
    failure_rate: AtomicU64,
    /// How often a weight halves in one tick, an `f32`.
    halvings_per_tick: AtomicU32,
}

/// The usual decay of peak EWMA: longer than a slow phase of a server, short enough to forget it.
const DEFAULT_DECAY: Duration = Duration::from_secs(10);

impl TrafficEstimator {
    pub(super) fn new() -> Self {
        Self {
            latency: AtomicU64::new(0),
            failure_rate: AtomicU64::new(0),
            halvings_per_tick: AtomicU32::new(halvings_per_tick(DEFAULT_DECAY)),
        }
    }

    /// Sets the age at which an observation has 1/e of its weight.
    pub(super) fn set_decay(&self, decay: Duration) {
        // Relaxed here and below: an estimate orders nothing, and each word is complete.
        self.halvings_per_tick.store(halvings_per_tick(decay), Ordering::Relaxed);
    }

    pub(super) fn observe_latency(&self, latency: Duration, at: CoarseInstant) {
        // A nanosecond keeps the word from being the "never observed" one.
        let sample = latency.as_secs_f32().max(1e-9);
        self.update_average(&self.latency, at, |old, weight| match old {
            Some(old) if sample < old => old * weight + sample * (1.0 - weight),
            _ => sample,
        });
    }

    pub(super) fn observe_result(&self, failed: bool, at: CoarseInstant) {
        if !failed && self.failure_rate.load(Ordering::Relaxed) == 0 {
            return;
        }
        let sample = if failed { 1.0 } else { 0.0 };
        self.update_average(&self.failure_rate, at, |old, weight| {
            // With the time weight alone a burst within one tick would count nothing.
            let weight = weight.min(1.0 - MIN_RESULT_WEIGHT);
            old.unwrap_or(0.0) * weight + sample * (1.0 - weight)
        });
    }

    #[inline]
    pub(super) fn raw_estimate(&self, at: CoarseInstant) -> RawTrafficEstimate {
        // The estimate of an idle backend improves with time, so that the backend is tried again.
        let project = |(value, stamp)| value * self.decay_weight(stamp, at);
        RawTrafficEstimate {
            latency: unpack_average(self.latency.load(Ordering::Relaxed)).map(project),
            failure_rate: unpack_average(self.failure_rate.load(Ordering::Relaxed))
                .map_or(0.0, project),
        }
    }

    #[inline]
    fn decay_weight(&self, since: CoarseInstant, at: CoarseInstant) -> f32 {
        let age = at.wrapping_sub(since);
        // A later stamp, of another thread, has no age.
        if age == 0 || age > CoarseInstant::MAX / 2 {
            return 1.0;
        }
        exp2_negative(age as f32 * f32::from_bits(self.halvings_per_tick.load(Ordering::Relaxed)))
    }

    fn update_average(
        &self,
        word: &AtomicU64,
        at: CoarseInstant,
        next: impl Fn(Option<f32>, f32) -> f32,
    ) {
        let mut seen = word.load(Ordering::Relaxed);
        // Bounded: an observation that loses this race so often is one of very many.
        for _ in 0..16 {
            let old = unpack_average(seen);
            let (weight, stamp) = old.map_or((1.0, at), |(_, stamp)| {
                let later = at.wrapping_sub(stamp) <= CoarseInstant::MAX / 2;
                (self.decay_weight(stamp, at), if later { at } else { stamp })
            });
            let new = pack_average(next(old.map(|(value, _)| value), weight), stamp);
            match word.compare_exchange(seen, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

/// The least weight of one result in the failure rate: eight failures in a row make it 0.66.
const MIN_RESULT_WEIGHT: f32 = 0.125;

/// Returns the value of [`TrafficEstimator::halvings_per_tick`] for a decay time.
fn halvings_per_tick(decay: Duration) -> u32 {
    (std::f32::consts::LOG2_E / coarse_ticks(decay).max(1) as f32).to_bits()
}

/// Returns `2^-x` for an `x` that is not negative, to one part in ten thousand; 1 for 0.
///
/// A pick computes two or four of these, and the exponential of the C library takes longer than the
/// rest of the pick.
#[inline]
fn exp2_negative(x: f32) -> f32 {
    // A float of this size has no fraction bits: adding it rounds to a whole number.
    const WHOLE: f32 = (3 << 22) as f32;
    // A value below 2^-120 counts as 0.
    let x = x.min(120.0);
    let nearest = x + WHOLE;
    let rest = x - (nearest - WHOLE);
    // In -0.5..=0.5; the polynomial is the one of least relative error that is 1 at 0.
    let of_rest = (1.0 - 0.693_282_9 * rest) + rest * rest * (0.242_211 - 0.055_008_91 * rest);
    // The whole part goes into the exponent.
    f32::from_bits(of_rest.to_bits() - (nearest.to_bits() << 23))
}

/// Rounds a duration to whole ticks.
pub(crate) fn coarse_ticks(duration: Duration) -> CoarseInstant {
    // In 64 bits: a division of 128 costs more than the whole pick.
    let whole = duration.as_secs().wrapping_mul(10_000);
    whole.wrapping_add(u64::from(duration.subsec_nanos() / 100_000)) as CoarseInstant
}

#[inline]
fn unpack_average(word: u64) -> Option<(f32, CoarseInstant)> {
    (word != 0).then(|| (f32::from_bits((word >> 32) as u32), word as CoarseInstant))
}

fn pack_average(value: f32, stamp: CoarseInstant) -> u64 {
    // A value of 0.0 at tick 0 would read as "never observed", so the least positive value replaces it.
    u64::from(value.max(f32::MIN_POSITIVE).to_bits()) << 32 | u64::from(stamp)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    const SECOND: CoarseInstant = 10_000;

    fn millis(estimate: RawTrafficEstimate) -> u128 {
        TrafficEstimate::from(estimate).latency.expect("observed").as_micros().div_ceil(1000)
    }

    #[test]
    fn a_peak_counts_at_once_and_decays_slowly() {
        let estimator = TrafficEstimator::new();
        estimator.observe_latency(Duration::from_millis(10), SECOND);
        estimator.observe_latency(Duration::from_millis(100), SECOND);
        assert_eq!(millis(estimator.raw_estimate(SECOND)), 100);
        estimator.observe_latency(Duration::from_millis(10), 11 * SECOND);
        assert_eq!(millis(estimator.raw_estimate(11 * SECOND)), 44, "10 + 90 / e");
    }

    #[test]
    fn failures_raise_the_rate_and_time_or_successes_lower_it() {
        let estimator = TrafficEstimator::new();
        estimator.observe_result(false, SECOND);
        assert_eq!(
            TrafficEstimate::from(estimator.raw_estimate(SECOND)),
            TrafficEstimate::default(),
            "a success alone changes nothing"
        );
        (0..8).for_each(|_| estimator.observe_result(true, SECOND));
        let high = estimator.raw_estimate(SECOND).failure_rate;
        assert!((0.65..0.67).contains(&high), "{high}");
        estimator.observe_result(false, SECOND);
        assert!(estimator.raw_estimate(SECOND).failure_rate < high);
        assert!(estimator.raw_estimate(60 * SECOND).failure_rate < 0.01);
    }

    #[test]
    fn halving_is_exact_at_whole_numbers_and_close_between() {
        assert_eq!([0.0, 1.0, 2.0, 10.0].map(exp2_negative), [1.0, 0.5, 0.25, 1.0 / 1024.0]);
        for x in (0..12_000).map(|i| i as f32 / 100.0) {
            let (got, want) = (exp2_negative(x), (-x).exp2());
            assert!((got / want - 1.0).abs() < 1.2e-4, "2^-{x}: {got}, not {want}");
        }
        assert!([121.0, 1e9, f32::MAX].into_iter().all(|x| exp2_negative(x) < 1e-36));
    }

    #[test]
    fn a_stamp_from_the_future_has_no_age() {
        let estimator = TrafficEstimator::new();
        estimator.observe_latency(Duration::from_millis(8), 5 * SECOND);
        assert_eq!(millis(estimator.raw_estimate(SECOND)), 8);
        estimator.observe_latency(Duration::from_millis(4), SECOND);
        assert_eq!(millis(estimator.raw_estimate(5 * SECOND)), 8);
    }
}
