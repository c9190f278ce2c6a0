//! The pool of probe results: one word each, without a lock.
//!
//! # Orderings
//! Everything is `Relaxed`: each word is whole in itself, and a result that another thread has used
//! up, overwritten or dropped in the meantime is only a little staler than it seemed. A pick that
//! loses a race leaves the pool as the winner made it.

use std::time::Duration;

use super::ProbeResult;
use crate::scheduler::PickContext;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub(super) const POOL_MAX: usize = 16;
/// How many results the quantile is taken of.
const RECENT: usize = 64;
/// After how many results the quantile is worked out anew.
const RECENT_STEP: usize = 16;
/// Ticks (of 100 us) in a unit of age, as a power of two: 102 ms.
const AGE_SHIFT: u32 = 10;

/// How a pool works.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    pub(super) size: usize,
    /// The quantile above which a member is hot.
    pub(super) permille: usize,
    pub(super) uses: u8,
    /// In units of [`AGE_SHIFT`].
    pub(super) max_age: u8,
}

impl Tuning {
    pub(super) fn set_max_age(&mut self, age: Duration) {
        let units = (age.as_micros() / 100) >> AGE_SHIFT;
        // Half of what the stamp tells apart.
        self.max_age = units.clamp(1, 120) as u8;
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self { size: POOL_MAX, permille: 840, uses: 1, max_age: 10 }
    }
}

/// One probe result.
///
/// From the top: 16 bits position, 20 bits requests in flight per share, 16 bits latency, 8 bits
/// time stamp, 4 bits uses left. The two in the middle are the leading bits of a positive `f32`,
/// which compare as integers do. A word without uses is no result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Answer(u64);

impl Answer {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn new(position: usize, share: u32, result: ProbeResult, tick: u32) -> Self {
        let crowd = crowd_bits(result.in_flight as f32 / share.max(1) as f32);
        let latency = (result.latency.as_secs_f32().to_bits() >> 16) as u64;
        Self((position as u64) << 48 | crowd << 28 | latency << 12 | u64::from(stamp(tick)) << 4)
    }

    fn position(self) -> usize {
        (self.0 >> 48) as usize
    }

    fn crowd(self) -> u32 {
        (self.0 >> 28) as u32 & 0xf_ffff
    }

    fn latency(self) -> u32 {
        (self.0 >> 12) as u32 & 0xffff
    }

    fn is_fresh(self, tick: u32, max_age: u8) -> bool {
        // A thread whose clock reading is a unit behind may meet a result from its future.
        let age = stamp(tick).wrapping_sub((self.0 >> 4) as u8).wrapping_add(1);
        self.0 & 0xf != 0 && age <= max_age + 1
    }

    fn with_uses(self, uses: u8) -> Self {
        Self(self.0 & !0xf | u64::from(uses))
    }

    /// After a pick of its member: one request more in flight.
    fn with_one_more(self, share: u32) -> Self {
        if self.latency() == 0 {
            // What is unknown is tried once.
            return Self::NONE;
        }
        let crowd = f32::from_bits(self.crowd() << 12) + 1.0 / share.max(1) as f32;
        Self(self.0 & !(0xf_ffff << 28) | crowd_bits(crowd) << 28)
    }

    /// Cold before hot; cold ones by latency, hot ones by crowd. The least is the best.
    #[inline]
    fn rank(self, threshold: u32) -> u64 {
        let (crowd, latency) = (u64::from(self.crowd()), u64::from(self.latency()));
        let hot = self.crowd() > threshold;
        if hot { 1 << 40 | crowd << 20 | latency } else { latency << 20 | crowd }
    }
}

/// Above every rank.
const UNRANKED: u64 = u64::MAX;
const PLACE_BITS: u32 = POOL_MAX.ilog2();

fn place_of(rank: u64) -> usize {
    rank as usize % POOL_MAX
}

fn crowd_bits(crowd: f32) -> u64 {
    u64::from(crowd.to_bits() >> 12)
}

fn stamp(tick: u32) -> u8 {
    (tick >> AGE_SHIFT) as u8
}

#[derive(Debug)]
pub(super) struct Pool {
    tuning: Tuning,
    /// How many results were ever added; places in both rings follow from it.
    added: AtomicUsize,
    /// The crowd above which a member is hot.
    threshold: AtomicU32,
    entries: [AtomicU64; POOL_MAX],
    recent: [AtomicU32; RECENT],
}

impl Pool {
    pub(super) fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            added: AtomicUsize::new(0),
            threshold: AtomicU32::new(u32::MAX),
            entries: std::array::from_fn(|_| AtomicU64::new(0)),
            recent: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Puts results in place of the oldest; answers how many there were before.
    pub(super) fn add(&self, answers: &[Answer]) -> usize {
        let before = self.added.fetch_add(answers.len(), Ordering::Relaxed);
        let mut oldest = before % self.tuning.size;
        for (place, answer) in (before..).zip(answers) {
            let entry = answer.with_uses(self.tuning.uses).0;
            self.entries[oldest].store(entry, Ordering::Relaxed);
            self.recent[place % RECENT].store(answer.crowd(), Ordering::Relaxed);
            oldest = if oldest + 1 == self.tuning.size { 0 } else { oldest + 1 };
        }
        let after = before + answers.len();
        if after < RECENT || after / RECENT_STEP != before / RECENT_STEP {
            self.measure(after.min(RECENT));
        }
        before
    }

    /// Works out the quantile of the first `len` recent results.
    fn measure(&self, len: usize) {
        let mut crowds = [0; RECENT];
        let crowds = &mut crowds[..len];
        for (crowd, recent) in crowds.iter_mut().zip(&self.recent) {
            *crowd = recent.load(Ordering::Relaxed);
        }
        let Some(last) = len.checked_sub(1) else { return };
        let (_, &mut quantile, _) = crowds.select_nth_unstable(last * self.tuning.permille / 1000);
        self.threshold.store(quantile, Ordering::Relaxed);
    }

    /// The best usable member of the pool.
    pub(super) fn choose(&self, cx: &PickContext<'_>, tick: u32, turn: usize) -> Option<usize> {
        let threshold = self.threshold.load(Ordering::Relaxed);
        let mut pool = [Answer::NONE; POOL_MAX];
        // Rank and place in one number, so that the best and the worst are found without branches.
        let mut ranks = [UNRANKED; POOL_MAX];
        let (mut known, mut worst) = (0, 0);
        for (place, entry) in self.entries.iter().enumerate() {
            let answer = Answer(entry.load(Ordering::Relaxed));
            if answer.is_fresh(tick, self.tuning.max_age) {
                pool[place] = answer;
                ranks[place] = answer.rank(threshold) << PLACE_BITS | place as u64;
                worst = worst.max(ranks[place]);
                known += 1;
            }
        }
        // So that the pool does not fill with what nobody would choose. The only one is the best.
        if known > 1 && turn % 2 == 1 {
            let place = place_of(worst);
            self.replace(place, pool[place], Answer::NONE);
            (pool[place], ranks[place]) = (Answer::NONE, UNRANKED);
        }
        for _ in 0..known {
            let best = ranks.iter().fold(UNRANKED, |best, &rank| best.min(rank));
            if best == UNRANKED {
                return None;
            }
            let place = place_of(best);
            let position = pool[place].position();
            if position < cx.members().len() && cx.usable(position) {
                self.count(&pool, place, cx.members()[position].share());
                return Some(position);
            }
            ranks[place] = UNRANKED;
        }
        None
    }

    /// Counts one request more for the member chosen, wherever the pool knows it, and one use less
    /// for the result that it was chosen by.
    fn count(&self, pool: &[Answer; POOL_MAX], chosen: usize, share: u32) {
        let position = pool[chosen].position();
        for (place, &answer) in pool.iter().enumerate() {
            if answer == Answer::NONE || answer.position() != position {
                continue;
            }
            let mut next = answer.with_one_more(share);
            if place == chosen && next != Answer::NONE {
                // No borrow: a result in the pool has a use left.
                next = Answer(next.0 - 1);
            }
            self.replace(place, answer, next);
        }
    }

    fn replace(&self, place: usize, seen: Answer, next: Answer) {
        // Lost to another thread: its result is newer.
        let _lost = self.entries[place].compare_exchange(
            seen.0,
            next.0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    fn answer(in_flight: u32, millis: u64) -> Answer {
        let result = ProbeResult::new(in_flight, Duration::from_millis(millis));
        Answer::new(40_000, 1, result, 50 << AGE_SHIFT).with_uses(3)
    }

    #[test]
    fn a_word_keeps_what_was_put_into_it_in_order() {
        let it = answer(7, 20);
        assert_eq!((it.position(), it.0 & 0xf), (40_000, 3));
        assert_eq!(f32::from_bits(it.crowd() << 12), 7.0);
        assert!(answer(7, 20).latency() < answer(7, 21).latency());
        assert!(answer(2000, 20).crowd() < answer(2001, 20).crowd());
        assert!(answer(u32::MAX, 1).crowd() > answer(1 << 30, 1).crowd());
    }

    #[test]
    fn one_more_request_counts_by_share_and_the_unknown_is_tried_once() {
        let it = answer(7, 20).with_one_more(1);
        assert_eq!(f32::from_bits(it.crowd() << 12), 8.0);
        assert_eq!((it.position(), it.latency()), (40_000, answer(7, 20).latency()));
        assert_eq!(f32::from_bits(answer(7, 20).with_one_more(4).crowd() << 12), 7.25);
        assert_eq!(answer(0, 0).with_one_more(1), Answer::NONE);
    }

    #[test]
    fn age_is_told_by_the_stamp() {
        let fresh = |units: u32| answer(1, 1).is_fresh(units << AGE_SHIFT, 10);
        assert_eq!([48, 49, 50, 60, 61, 170].map(fresh), [false, true, true, true, false, false]);
        assert!(!answer(1, 1).with_uses(0).is_fresh(50 << AGE_SHIFT, 10));
    }

    #[test]
    fn cold_ones_rank_by_latency_and_before_hot_ones_by_crowd() {
        let threshold = answer(5, 0).crowd();
        let mut answers = [answer(9, 1), answer(6, 90), answer(5, 30), answer(0, 40)];
        answers.sort_by_key(|it| it.rank(threshold));
        assert_eq!(answers, [answer(5, 30), answer(0, 40), answer(6, 90), answer(9, 1)]);
    }

    #[test]
    fn the_threshold_is_the_quantile_of_recent_results() {
        let pool = Pool::new(Tuning::default());
        let threshold = || f32::from_bits(pool.threshold.load(Ordering::Relaxed) << 12);
        for n in 1..=64 {
            pool.add(&[answer(n, 1)]);
            assert!(n > 1 || threshold() == 1.0, "known from the first result on");
        }
        assert_eq!(threshold(), 53.0, "0.84 of the way through 1..=64");
    }
}
