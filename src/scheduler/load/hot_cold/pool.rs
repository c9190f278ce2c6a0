//! The pool of probe results: a word for each result, without a lock.
//!
//! # Orderings
//! Every access is `Relaxed`, and reads and writes are separate: each word is complete in itself,
//! and of two threads that change the same word the later wins. A result that is lost that way, or
//! used once too often, is one of sixteen; an atomic exchange for each would cost more than the
//! result is worth.

use std::hint::select_unpredictable;
use std::time::Duration;

use super::probe::LoadProbeResult;
use crate::scheduler::PickContext;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub(super) const MAX_POOL_SIZE: usize = 16;
/// The number of results of which the quantile is computed.
const RECENT_RESULTS: usize = 64;
/// Ticks (of 100 us) in a unit of age, as a power of two: 102 ms.
const AGE_SHIFT: u32 = 10;

/// The settings of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbePoolConfig {
    pub(super) size: usize,
    /// The quantile above which a member is hot.
    pub(super) hot_quantile_permille: usize,
    pub(super) uses_per_result: u8,
    /// In units of [`AGE_SHIFT`].
    pub(super) max_age_units: u8,
}

impl ProbePoolConfig {
    pub(super) fn set_max_age(&mut self, age: Duration) {
        let units = (age.as_micros() / 100) >> AGE_SHIFT;
        // At most 117 of the 12 s that the rule accepts: less than half of the stamp's 256 values.
        self.max_age_units = units.max(1) as u8;
    }
}

impl Default for ProbePoolConfig {
    fn default() -> Self {
        Self {
            size: MAX_POOL_SIZE,
            hot_quantile_permille: 840,
            uses_per_result: 1,
            max_age_units: 10,
        }
    }
}

/// One probe result.
///
/// From the top: 16 bits latency, 20 bits requests in flight per share (the crowd), 16 bits
/// position, 8 bits time stamp, 4 bits uses left. The first two are the leading bits of a positive
/// `f32`, which compare as integers do: among members that are cold the least is the best.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PackedProbeResult(u64);

/// The crowd of a result that is used up; greater than any number.
const NO_RESULT_BITS: u32 = 0xf_ffff;

impl PackedProbeResult {
    /// No result, with any time stamp.
    pub(super) const NONE: Self = Self((NO_RESULT_BITS as u64) << 28);

    pub(super) fn new(position: usize, share: u32, result: LoadProbeResult, tick: u32) -> Self {
        let crowd = in_flight_bits(result.in_flight as f32 / share.max(1) as f32);
        let latency = u64::from(result.latency_seconds.to_bits() >> 16);
        Self(
            latency << 48 | crowd << 28 | (position as u64) << 12 | u64::from(age_stamp(tick)) << 4,
        )
    }

    fn position(self) -> usize {
        usize::from((self.0 >> 12) as u16)
    }

    fn in_flight_per_share(self) -> u32 {
        (self.0 >> 28) as u32 & NO_RESULT_BITS
    }

    fn latency(self) -> u32 {
        (self.0 >> 48) as u32
    }

    fn is_some(self) -> bool {
        self.in_flight_per_share() != NO_RESULT_BITS
    }

    fn is_fresh(self, tick: u32, max_age: u8) -> bool {
        // A thread whose clock is a unit behind may read a result with a later stamp.
        let age = age_stamp(tick).wrapping_sub((self.0 >> 4) as u8).wrapping_add(1);
        age <= max_age + 1
    }

    fn with_uses(self, uses: u8) -> Self {
        Self(self.0 & !0xf | u64::from(uses))
    }

    fn into_used_up(self) -> Self {
        Self(self.0 | Self::NONE.0)
    }

    /// Returns the result after a pick of its member: one request more in flight.
    fn with_one_more_request(self, share: u32) -> Self {
        if self.latency() == 0 {
            // A member of unknown latency is selected once.
            return self.into_used_up();
        }
        let crowd = f32::from_bits(self.in_flight_per_share() << 12) + 1.0 / share.max(1) as f32;
        Self(self.0 & !Self::NONE.0 | in_flight_bits(crowd) << 28)
    }

    /// Returns a number that orders by latency, then crowd; the lower 28 bits are free for a place.
    fn latency_order(self) -> u64 {
        self.0 >> 28 << 28
    }

    /// Returns a number that orders by crowd, then latency.
    fn in_flight_order(self) -> u64 {
        u64::from(self.in_flight_per_share()) << 16 | u64::from(self.latency())
    }

    /// Returns the result after a pick that it decided.
    fn after_use(self) -> Self {
        if self.0 & 0xf <= 1 { self.into_used_up() } else { Self(self.0 - 1) }
    }
}

fn in_flight_bits(crowd: f32) -> u64 {
    u64::from(crowd.to_bits() >> 12)
}

fn age_stamp(tick: u32) -> u8 {
    (tick >> AGE_SHIFT) as u8
}

#[derive(Debug)]
pub(super) struct ProbePool {
    config: ProbePoolConfig,
    /// The place of the oldest result, which the next result overwrites.
    oldest_place: AtomicUsize,
    /// The number of results that were ever added.
    added_count: AtomicUsize,
    /// The crowd above which a member is hot.
    hot_threshold: AtomicU32,
    results: [AtomicU64; MAX_POOL_SIZE],
    recent_in_flight: [AtomicU32; RECENT_RESULTS],
}

impl ProbePool {
    pub(super) fn new(config: ProbePoolConfig) -> Self {
        Self {
            config,
            oldest_place: AtomicUsize::new(0),
            added_count: AtomicUsize::new(0),
            hot_threshold: AtomicU32::new(NO_RESULT_BITS - 1),
            results: std::array::from_fn(|_| AtomicU64::new(PackedProbeResult::NONE.0)),
            recent_in_flight: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Adds a result in place of the oldest.
    #[inline]
    pub(super) fn add(&self, answer: PackedProbeResult) {
        // Of two threads that read the same place one result is lost.
        let oldest = self.oldest_place.load(Ordering::Relaxed);
        let next = if oldest + 1 < self.config.size { oldest + 1 } else { 0 };
        self.oldest_place.store(next, Ordering::Relaxed);
        let entry = answer.with_uses(self.config.uses_per_result).0;
        self.results[oldest % MAX_POOL_SIZE].store(entry, Ordering::Relaxed);
        let added = self.added_count.load(Ordering::Relaxed).wrapping_add(1);
        self.added_count.store(added, Ordering::Relaxed);
        self.recent_in_flight[added % RECENT_RESULTS]
            .store(answer.in_flight_per_share(), Ordering::Relaxed);
        if added < RECENT_RESULTS || added.is_multiple_of(RECENT_RESULTS) {
            self.update_hot_threshold(added.min(RECENT_RESULTS));
        }
    }

    /// Computes the quantile of the first `len` recent results: of all results each time that all
    /// are new, and of the few results at the beginning.
    #[inline(never)]
    fn update_hot_threshold(&self, len: usize) {
        // Until every place is written once, place 0 is empty: the first result went to place 1.
        let skipped = usize::from(len < RECENT_RESULTS);
        let mut crowds = [0; RECENT_RESULTS];
        let crowds = &mut crowds[..len];
        for (crowd, recent) in crowds.iter_mut().zip(&self.recent_in_flight[skipped..]) {
            *crowd = recent.load(Ordering::Relaxed);
        }
        let Some(last) = len.checked_sub(1) else { return };
        let (_, &mut quantile, _) =
            crowds.select_nth_unstable(last * self.config.hot_quantile_permille / 1000);
        self.hot_threshold.store(quantile, Ordering::Relaxed);
    }

    /// Returns the best usable member of the pool.
    #[inline]
    pub(super) fn choose(&self, cx: &PickContext<'_>, tick: u32) -> Option<usize> {
        // Results are added in order: if the oldest is fresh, all are.
        let oldest = self.oldest_place.load(Ordering::Relaxed) % MAX_POOL_SIZE;
        let oldest = PackedProbeResult(self.results[oldest].load(Ordering::Relaxed));
        if !oldest.is_fresh(tick, self.config.max_age_units) {
            self.remove_expired(tick);
        }
        let (place, position) = self.best_result(|_| true)?;
        if !cx.is_usable(position) {
            return self.choose_next_best(cx);
        }
        self.count_request(place, position, cx.members()[position].share());
        Some(position)
    }

    /// Returns the place and member of the best result that `is_admitted` accepts: the quickest
    /// cold result or, if all are hot, the least crowded. Of equal results it returns the first
    /// place; places are reused in turn.
    #[inline]
    fn best_result(
        &self,
        is_admitted: impl Fn(PackedProbeResult) -> bool,
    ) -> Option<(usize, usize)> {
        let threshold = self.hot_threshold.load(Ordering::Relaxed);
        let results = || {
            (0..)
                .zip(&self.results)
                .map(|(place, word)| (place, PackedProbeResult(word.load(Ordering::Relaxed))))
        };
        let best = results().fold(u64::MAX, |best, (place, result)| {
            let is_cold = is_admitted(result) && result.in_flight_per_share() <= threshold;
            best.min(select_unpredictable(is_cold, result.latency_order() | place, u64::MAX))
        });
        if best != u64::MAX {
            let place = best as usize % MAX_POOL_SIZE;
            let result = PackedProbeResult(self.results[place].load(Ordering::Relaxed));
            return Some((place, result.position()));
        }
        let hot = results().filter(|(_, result)| is_admitted(*result) && result.is_some());
        hot.min_by_key(|(_, result)| result.in_flight_order())
            .map(|(place, result)| (place as usize, result.position()))
    }

    /// Returns the next best usable member if the best is not usable.
    #[cold]
    fn choose_next_best(&self, cx: &PickContext<'_>) -> Option<usize> {
        let (place, position) = self.best_result(|result| cx.is_usable(result.position()))?;
        // Another thread may have replaced the result meanwhile.
        if !cx.is_usable(position) {
            return None;
        }
        self.count_request(place, position, cx.members()[position].share());
        Some(position)
    }

    /// Counts one request more in every result of the selected member, and one use less in the
    /// result that selected it.
    #[inline]
    fn count_request(&self, chosen: usize, position: usize, share: u32) {
        // As bits, so that only the end of the second loop is hard to predict.
        let mut known = (0..).zip(&self.results).fold(0u32, |known, (place, entry)| {
            let result = PackedProbeResult(entry.load(Ordering::Relaxed));
            known | u32::from(result.position() == position) << place
        });
        while known != 0 {
            let place = known.trailing_zeros() as usize % MAX_POOL_SIZE;
            known &= known - 1;
            let answer = PackedProbeResult(self.results[place].load(Ordering::Relaxed));
            if answer.is_some() {
                let next = answer.with_one_more_request(share);
                let next = if place == chosen { next.after_use() } else { next };
                // A result that another thread stored meanwhile is lost.
                self.results[place].store(next.0, Ordering::Relaxed);
            }
        }
    }

    /// Removes expired results: rarely, because each pick overwrites the oldest.
    #[cold]
    fn remove_expired(&self, tick: u32) {
        for entry in &self.results {
            let answer = PackedProbeResult(entry.load(Ordering::Relaxed));
            if !answer.is_fresh(tick, self.config.max_age_units) {
                entry.store(answer.into_used_up().0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    fn answer(in_flight: u32, millis: u64) -> PackedProbeResult {
        let result = LoadProbeResult::new(in_flight, Duration::from_millis(millis));
        PackedProbeResult::new(40_000, 1, result, 50 << AGE_SHIFT).with_uses(3)
    }

    #[test]
    fn a_packed_result_keeps_its_fields_and_their_order() {
        let result = answer(7, 20);
        assert_eq!((result.position(), result.0 & 0xf, result.is_some()), (40_000, 3, true));
        assert_eq!(f32::from_bits(result.in_flight_per_share() << 12), 7.0);
        assert!(answer(7, 20).latency() < answer(7, 21).latency());
        assert!(answer(2000, 20).in_flight_per_share() < answer(2001, 20).in_flight_per_share());
        assert!(
            answer(u32::MAX, 1).in_flight_per_share() > answer(1 << 30, 1).in_flight_per_share()
        );
    }

    #[test]
    fn one_more_request_counts_by_share_and_an_unknown_member_is_selected_once() {
        let result = answer(7, 20).with_one_more_request(1);
        assert_eq!(f32::from_bits(result.in_flight_per_share() << 12), 8.0);
        assert_eq!((result.position(), result.latency()), (40_000, answer(7, 20).latency()));
        assert_eq!(
            f32::from_bits(answer(7, 20).with_one_more_request(4).in_flight_per_share() << 12),
            7.25
        );
        assert!(!answer(0, 0).with_one_more_request(1).is_some());
    }

    #[test]
    fn the_stamp_gives_the_age() {
        let fresh = |units: u32| answer(1, 1).is_fresh(units << AGE_SHIFT, 10);
        assert_eq!([48, 49, 50, 60, 61, 170].map(fresh), [false, true, true, true, false, false]);
    }

    #[test]
    fn a_result_is_used_up_after_its_number_of_uses() {
        let result = answer(7, 20);
        let uses: Vec<_> = std::iter::successors(Some(result), |result| Some(result.after_use()))
            .take(4)
            .collect();
        assert_eq!(
            uses.iter().map(|result| result.is_some()).collect::<Vec<_>>(),
            [true, true, true, false]
        );
    }

    #[test]
    fn the_best_is_the_quickest_cold_result_or_the_least_crowded() {
        let pool = ProbePool::new(ProbePoolConfig::default());
        let answers = [answer(9, 1), answer(6, 90), answer(5, 30), answer(0, 40), answer(5, 30)];
        answers.iter().for_each(|&result| pool.add(result));
        pool.hot_threshold.store(answer(5, 0).in_flight_per_share(), Ordering::Relaxed);
        let mut order = Vec::new();
        while let Some((place, _)) = pool.best_result(|_| true) {
            order.push(place);
            pool.results[place].store(PackedProbeResult::NONE.0, Ordering::Relaxed);
        }
        assert_eq!(order, [2, 4, 3, 1, 0]);
    }

    #[test]
    fn the_oldest_result_is_overwritten_and_expired_results_are_removed() {
        let pool = ProbePool::new(ProbePoolConfig { size: 2, ..ProbePoolConfig::default() });
        let there = || {
            let answers =
                pool.results.each_ref().map(|word| PackedProbeResult(word.load(Ordering::Relaxed)));
            answers
                .into_iter()
                .filter(|result| result.is_some())
                .map(PackedProbeResult::latency)
                .count()
        };
        (1..=3).for_each(|millis| pool.add(answer(1, millis)));
        assert_eq!((there(), pool.best_result(|_| true)), (2, Some((1, 40_000))));
        pool.remove_expired(60 << AGE_SHIFT);
        assert_eq!(there(), 2);
        pool.remove_expired(61 << AGE_SHIFT);
        assert_eq!(there(), 0);
    }

    #[test]
    fn the_threshold_is_the_quantile_of_recent_results() {
        let pool = ProbePool::new(ProbePoolConfig::default());
        let threshold = || f32::from_bits(pool.hot_threshold.load(Ordering::Relaxed) << 12);
        for n in 1..=64 {
            pool.add(answer(n, 1));
            assert!(n > 1 || threshold() == 1.0, "known from the first result on");
        }
        assert_eq!(threshold(), 53.0, "0.84 of the way through 1..=64");
    }
}
