//! A histogram of durations that many threads write and read.
//!
//! Buckets are log-linear: whole microseconds up to 16, then six to each doubling up to 2^32 us (72
//! minutes), and one for longer durations. A quantile is the middle of its bucket, so it is at most a
//! tenth or half a microsecond off. A histogram takes 1.5 KB; one with an error of a hundredth would
//! take twenty times as much.
//!
//! The `hdrhistogram` crate does not fit: its histogram is recorded through `&mut`, and its shared one
//! keeps a recorder for each thread and lets readers wait until all of them have reported. It takes 3.7
//! KB for one digit and 27 KB for two, for each listener and backend.

use std::fmt;
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// Each microsecond below this has a bucket of its own.
const LINEAR_BUCKETS: u64 = 1 << LINEAR_BITS;
const LINEAR_BITS: u32 = 4;
/// Buckets to each doubling.
const BUCKETS_PER_DOUBLING: u64 = 6;
/// 2 to the power of this is the first number of microseconds without a bounded bucket.
const MAX_MICROS_BITS: u32 = 32;
/// The buckets with an upper bound.
const BOUNDED_BUCKETS: usize =
    (LINEAR_BUCKETS + BUCKETS_PER_DOUBLING * (MAX_MICROS_BITS - LINEAR_BITS) as u64) as usize;
const BUCKET_COUNT: usize = BOUNDED_BUCKETS + 1;

/// A histogram that any number of threads record into.
///
/// Recording takes two relaxed additions and a load, about 10 ns without other writers, and neither
/// locks nor allocates.
pub(crate) struct AtomicHistogram {
    counts: [AtomicU64; BUCKET_COUNT],
    /// In microseconds: nanoseconds would overflow after three weeks of ten thousand connections.
    sum: AtomicU64,
    max: AtomicU64,
}

impl AtomicHistogram {
    pub(crate) fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_index(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanos.saturating_add(500) / 1000, Ordering::Relaxed);
        // A new maximum is rare; a load alone does not take the cache line from other threads.
        if nanos > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// Removes all records. A duration that is recorded meanwhile may be removed in part.
    #[cfg(feature = "tower")]
    pub(crate) fn clear(&self) {
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        self.sum.store(0, Ordering::Relaxed);
        self.max.store(0, Ordering::Relaxed);
    }

    /// Returns the records so far. A duration that is recorded meanwhile may be in the counts and not
    /// yet in the sum.
    pub(crate) fn snapshot(&self) -> DurationHistogram {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let counts = Box::new(self.counts.each_ref().map(read));
        DurationHistogram { counts, sum: read(&self.sum), max: read(&self.max) }
    }
}

impl Default for AtomicHistogram {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl fmt::Debug for AtomicHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.snapshot(), f)
    }
}

/// Returns the bucket of a duration in nanoseconds. A bound belongs to the bucket below it, as with
/// Prometheus's `le`.
fn bucket_index(nanos: u64) -> usize {
    let micros = nanos.saturating_sub(1) / 1000;
    if micros < LINEAR_BUCKETS {
        return micros as usize;
    }
    let bits = micros.ilog2();
    if bits >= MAX_MICROS_BITS {
        return BOUNDED_BUCKETS;
    }
    let step = ((micros - (1 << bits)) * BUCKETS_PER_DOUBLING) >> bits;
    (LINEAR_BUCKETS + u64::from(bits - LINEAR_BITS) * BUCKETS_PER_DOUBLING + step) as usize
}

/// Returns the microseconds above which a bucket starts.
fn bucket_lower_micros(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < LINEAR_BUCKETS {
        return bucket;
    }
    let (doubling, step) = (
        (bucket - LINEAR_BUCKETS) / BUCKETS_PER_DOUBLING,
        (bucket - LINEAR_BUCKETS) % BUCKETS_PER_DOUBLING,
    );
    let base = 1_u64 << (u64::from(LINEAR_BITS) + doubling);
    base + (base * step).div_ceil(BUCKETS_PER_DOUBLING)
}

/// A histogram of durations, as of one moment.
///
/// The counters of forwarders and of hedges make it. Histograms of several workers, listeners or
/// backends can be [merged](DurationHistogram::merge) without loss, which quantiles cannot.
///
/// # Examples
/// ```
/// use lvs::DurationHistogram;
///
/// let mut all = DurationHistogram::default();
/// all.merge(&DurationHistogram::default());
/// assert_eq!((all.count(), all.quantile(0.99)), (0, None));
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct DurationHistogram {
    counts: Box<[u64; BUCKET_COUNT]>,
    sum: u64,
    max: u64,
}

impl DurationHistogram {
    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum, of durations that are each rounded to the microsecond.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    /// Returns the longest duration, exactly; zero if there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Returns the mean, or `None` without durations.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        self.sum.checked_div(self.count()).map(Duration::from_micros)
    }

    /// Returns a quantile: 0.5 is the median, 0.99 leaves out the slowest hundredth, 1 is the longest.
    ///
    /// The result is at most 10 % or 0.5 us off, whichever is more, and exact if it is the longest.
    /// Returns `None` without durations, and for a value that is not from 0 to 1.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        if !(0.0..=1.0).contains(&part) {
            return None;
        }
        let count = self.count();
        let rank = ((part * count as f64).ceil() as u64).clamp(1, count.max(1));
        if rank == count {
            return Some(self.max());
        }
        let mut below = 0;
        let bucket = self.counts.iter().position(|&here| {
            below += here;
            below >= rank
        })?;
        if bucket == BOUNDED_BUCKETS {
            return Some(self.max());
        }
        let middle = (bucket_lower_micros(bucket) + bucket_lower_micros(bucket + 1)) * 500;
        Some(Duration::from_nanos(middle.min(self.max)))
    }

    /// Returns upper bounds in ascending order, each with the number of durations that do not exceed
    /// it, as Prometheus's cumulative `le` buckets, whose `+Inf` is
    /// [`count`](DurationHistogram::count).
    ///
    /// There are 184 bounds, and any selection of them is valid: from the 15th (16 us) on every sixth is
    /// a doubling.
    ///
    /// # Examples
    /// ```
    /// use lvs::DurationHistogram;
    ///
    /// let durations = DurationHistogram::default();
    /// let doublings = durations.cumulative_buckets().skip(15).step_by(6);
    /// assert_eq!(doublings.map(|(le, _)| le.as_micros()).take(3).collect::<Vec<_>>(), [16, 32, 64]);
    /// ```
    pub fn cumulative_buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let mut below = 0;
        self.counts[..BOUNDED_BUCKETS].iter().enumerate().map(move |(bucket, here)| {
            below += here;
            (Duration::from_micros(bucket_lower_micros(bucket + 1)), below)
        })
    }

    /// Returns the durations that were added since an earlier snapshot of the same histograms. Its
    /// maximum is the upper bound of the highest bucket.
    #[must_use]
    pub fn delta_since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts.clone();
        for (now, then) in counts.iter_mut().zip(earlier.counts.iter()) {
            *now = now.saturating_sub(*then);
        }
        let longest = counts.iter().rposition(|&count| count > 0);
        let max = match longest {
            None => 0,
            Some(BOUNDED_BUCKETS) => self.max,
            Some(bucket) => self.max.min(bucket_lower_micros(bucket + 1) * 1000),
        };
        Self { counts, sum: self.sum.saturating_sub(earlier.sum), max }
    }

    /// Adds the durations of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine = mine.saturating_add(*theirs);
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKET_COUNT]), sum: 0, max: 0 }
    }
}

/// As the number of durations, with mean, quantiles and maximum in microseconds: `count`, `mean_us`,
/// `p50_us`, `p99_us`, `max_us`.
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl serde::Serialize for DurationHistogram {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut summary = serializer.serialize_struct("DurationHistogram", 5)?;
        summary.serialize_field("count", &self.count())?;
        summary.serialize_field("mean_us", &self.mean().map(micros))?;
        summary.serialize_field("p50_us", &self.quantile(0.5).map(micros))?;
        summary.serialize_field("p99_us", &self.quantile(0.99).map(micros))?;
        summary.serialize_field("max_us", &micros(self.max()))?;
        summary.end()
    }
}

impl fmt::Debug for DurationHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurationHistogram")
            .field("count", &self.count())
            .field("mean", &self.mean())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish()
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn histogram_of(nanos: impl IntoIterator<Item = u64>) -> DurationHistogram {
        let live = AtomicHistogram::default();
        nanos.into_iter().for_each(|nanos| live.record(Duration::from_nanos(nanos)));
        live.snapshot()
    }

    #[test]
    fn what_came_since_is_what_was_added() {
        let early = histogram_of([1_000, 50_000, 3_000_000]);
        let mut later = early.clone();
        later.merge(&histogram_of([2_000, 70_000]));
        let since = later.delta_since(&early);
        assert_eq!((since.count(), since.sum()), (2, Duration::from_micros(72)));
        assert!(
            since.max() >= Duration::from_micros(70) && since.max() < Duration::from_micros(90)
        );
        assert_eq!(later.delta_since(&later), DurationHistogram::default());
    }

    #[test]
    fn each_bucket_begins_where_the_last_one_ends() {
        for at in 0..BOUNDED_BUCKETS {
            let (low, high) = (bucket_lower_micros(at) * 1000, bucket_lower_micros(at + 1) * 1000);
            assert!(low < high, "{at}");
            assert_eq!(
                (bucket_index(low + 1), bucket_index(high)),
                (at, at),
                "{at}: {low}..={high}"
            );
        }
        assert_eq!(bucket_lower_micros(BOUNDED_BUCKETS), 1 << MAX_MICROS_BITS);
        assert_eq!(
            (bucket_index((1000 << MAX_MICROS_BITS) + 1), bucket_index(u64::MAX)),
            (BOUNDED_BUCKETS, BOUNDED_BUCKETS)
        );
        assert_eq!(bucket_index(0), 0);
    }

    #[test]
    fn it_is_as_small_as_it_says() {
        assert!(size_of::<AtomicHistogram>() <= 1536, "{}", size_of::<AtomicHistogram>());
        assert_eq!(histogram_of([]).cumulative_buckets().count(), 184);
    }

    #[test]
    fn a_bound_counts_what_is_equal_to_it() {
        let durations = histogram_of([1_000, 1_001, 2_000, 16_000, 16_001]);
        let at = |micros| {
            let bound = Duration::from_micros(micros);
            durations.cumulative_buckets().find(|(le, _)| *le == bound).map(|(_, count)| count)
        };
        assert_eq!((at(1), at(2), at(15), at(16)), (Some(1), Some(3), Some(3), Some(4)));
        assert_eq!(
            durations.cumulative_buckets().last(),
            Some((Duration::from_micros(1 << 32), 5))
        );
    }

    #[test]
    fn what_is_longer_than_all_bounds_is_counted_and_has_its_place() {
        let day = Duration::from_secs(86_400);
        let live = AtomicHistogram::default();
        [Duration::from_micros(5), day, Duration::MAX].into_iter().for_each(|d| live.record(d));
        let durations = live.snapshot();
        assert_eq!(
            (durations.count(), durations.cumulative_buckets().last().map(|b| b.1)),
            (3, Some(1))
        );
        assert_eq!(durations.quantile(0.5), Some(Duration::from_nanos(u64::MAX)));
    }

    #[test]
    fn a_quantile_needs_durations_and_a_part_from_0_to_1() {
        assert_eq!(
            (histogram_of([]).quantile(0.5), histogram_of([]).mean(), histogram_of([]).max()),
            (None, None, Duration::ZERO)
        );
        let durations = histogram_of([10_000, 20_000_000]);
        let (low, high) = (durations.quantile(0.0), Some(Duration::from_millis(20)));
        assert_eq!(low, Some(Duration::from_nanos(9_500)));
        assert_eq!(durations.quantile(1.0), high);
        for part in [-0.1, 1.1, f64::NAN, f64::NEG_INFINITY, f64::INFINITY] {
            assert_eq!(durations.quantile(part), None, "{part}");
        }
        assert_eq!(durations.mean(), Some(Duration::from_micros(10_005)));
    }

    #[test]
    fn threads_lose_nothing() {
        let live = AtomicHistogram::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let live = &live;
                scope.spawn(move || {
                    for step in 0..10_000 {
                        live.record(Duration::from_micros(thread * 10_000 + step));
                    }
                });
            }
        });
        let durations = live.snapshot();
        assert_eq!((durations.count(), durations.max()), (40_000, Duration::from_micros(39_999)));
        assert_eq!(durations.sum(), Duration::from_micros(39_999 * 40_000 / 2));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::default()
        })]

        /// Against the sorted list.
        #[test]
        fn a_quantile_is_a_tenth_off_at_most(
            // Evenly over the magnitudes: 1 ns to 18 minutes.
            nanos in prop::collection::vec((0_u32..40, any::<u64>()), 1..100),
            part in 0.0_f64..=1.0,
        ) {
            let mut nanos: Vec<u64> =
                nanos.into_iter().map(|(bits, low)| (1 << bits) | (low & ((1 << bits) - 1))).collect();
            let durations = histogram_of(nanos.iter().copied());
            nanos.sort_unstable();
            let rank = ((part * nanos.len() as f64).ceil() as usize).clamp(1, nanos.len());
            let exact = nanos[rank - 1] as f64;
            let estimate = durations.quantile(part).expect("not empty").as_nanos() as f64;
            prop_assert!((estimate - exact).abs() <= (exact / 10.0).max(500.0), "{estimate} for {exact}");
            prop_assert_eq!(durations.max().as_nanos() as u64, nanos[nanos.len() - 1]);
        }

        #[test]
        fn merging_is_recording_both(
            left in prop::collection::vec(0_u64..1 << 45, 0..50),
            right in prop::collection::vec(0_u64..1 << 45, 0..50),
        ) {
            let mut merged = histogram_of(left.iter().copied());
            merged.merge(&histogram_of(right.iter().copied()));
            prop_assert_eq!(&merged, &histogram_of(left.into_iter().chain(right)));
            let counts: Vec<u64> = merged.cumulative_buckets().map(|(_, count)| count).collect();
            prop_assert!(counts.is_sorted());
        }
    }
}
