//! Lanes: connection counters of one backend, one for each worker, as in the kernel's `percpu_counter`.
//!
//! Threads that count connections on the same backends exchange the cache line of each counter between
//! their processors, which costs more than the pick. In a set with lanes each worker counts on cache
//! lines of its own. A lane holds what its worker has counted and not yet moved to lane 0, which all
//! workers read; when that reaches [`LANE_BATCH`], the worker moves it.
//!
//! The sum over all lanes is exact. The approximate count, lane 0 and the worker's own lane, lacks at
//! most `LANE_BATCH - 1` connections of each other worker.
//!
//! # Orderings
//! `SeqCst`, as for the load word, so that the argument in [`super::load_versions`] covers lanes too.

use super::outcome::{CommonOutcomeCounters, FailureCounters};
use crate::sync::{AtomicU64, Ordering};

/// The connections that a worker counts before it moves them to lane 0.
const LANE_BATCH: i64 = 4;

/// The counters of one worker at one backend, on a cache line of their own.
#[derive(Debug, Default)]
#[cfg_attr(not(lvs_loom), repr(align(64)))]
pub(super) struct CounterLane {
    /// A signed number in two's complement.
    count: AtomicU64,
    pub(super) common_outcomes: CommonOutcomeCounters,
    pub(super) failure_counters: FailureCounters,
}

/// The lanes of one backend; empty in a set without lanes.
///
/// Lane 0 holds the batches that workers moved; workers count on the others.
#[derive(Debug)]
pub(super) struct CounterLanes(Box<[CounterLane]>);

impl CounterLanes {
    pub(super) fn new(workers: usize) -> Self {
        let lanes = if workers == 0 { 0 } else { workers + 1 };
        Self((0..lanes).map(|_| CounterLane::default()).collect())
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the lane of a worker; `None` for lane 0 and in a set without lanes.
    #[inline]
    pub(super) fn get(&self, lane: u8) -> Option<&CounterLane> {
        if lane == 0 { None } else { self.0.get(usize::from(lane)) }
    }

    /// Adds a connection to a worker's lane.
    #[inline]
    pub(super) fn increment(&self, lane: &CounterLane) {
        let count = lane.count.fetch_add(1, Ordering::SeqCst).wrapping_add(1) as i64;
        if count >= LANE_BATCH {
            // Added before it is subtracted: meanwhile the batch counts twice, and never not at all.
            self.0[0].count.fetch_add(LANE_BATCH as u64, Ordering::SeqCst);
            lane.count.fetch_sub(LANE_BATCH as u64, Ordering::SeqCst);
        }
    }

    /// Removes a connection from a worker's lane.
    #[inline]
    pub(super) fn decrement(&self, lane: &CounterLane) {
        let count = lane.count.fetch_sub(1, Ordering::SeqCst).wrapping_sub(1) as i64;
        if count <= -LANE_BATCH {
            lane.count.fetch_add(LANE_BATCH as u64, Ordering::SeqCst);
            self.0[0].count.fetch_sub(LANE_BATCH as u64, Ordering::SeqCst);
        }
    }

    /// Returns the connections on all lanes.
    #[inline]
    pub(super) fn total(&self) -> u32 {
        clamp_to_u32(self.0.iter().map(CounterLane::count).sum())
    }

    /// Returns what a worker sees without reading the lanes of others.
    #[inline]
    pub(super) fn approximate_total(&self, lane: u8) -> u32 {
        let (Some(shared), Some(own)) = (self.0.first(), self.get(lane)) else {
            return self.total();
        };
        clamp_to_u32(shared.count() + own.count())
    }

    /// Sets all counts to 0, for mirrors of counters that are kept elsewhere.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|lane| lane.count.store(0, Ordering::SeqCst));
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, CounterLane> {
        self.0.iter()
    }
}

impl CounterLane {
    #[inline]
    fn count(&self) -> i64 {
        self.count.load(Ordering::SeqCst) as i64
    }
}

/// Clamps a sum, which can be below 0 while it changes.
fn clamp_to_u32(sum: i64) -> u32 {
    sum.clamp(0, i64::from(u32::MAX)) as u32
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn workers_move_batches_and_the_sum_is_exact() {
        let lanes = CounterLanes::new(2);
        let (one, two) = (lanes.get(1).expect("a lane"), lanes.get(2).expect("a lane"));
        for taken in 1..=10 {
            lanes.increment(one);
            assert_eq!((lanes.total(), lanes.approximate_total(1)), (taken, taken));
            assert_eq!(lanes.approximate_total(2), taken / 4 * 4, "in batches of four");
        }
        lanes.increment(two);
        for left in (0..10).rev() {
            lanes.decrement(one);
            assert_eq!((lanes.total(), lanes.approximate_total(1)), (left + 1, left));
            assert!(lanes.approximate_total(2).abs_diff(left + 1) < 4);
        }
        lanes.decrement(two);
        assert_eq!(lanes.total(), 0);
    }

    #[test]
    fn counts_that_go_up_and_down_are_never_moved() {
        let lanes = CounterLanes::new(1);
        let lane = lanes.get(1).expect("a lane");
        for _ in 0..100 {
            lanes.increment(lane);
            lanes.decrement(lane);
        }
        assert_eq!(lanes.0[0].count(), 0);
    }

    #[test]
    fn a_set_without_lanes_has_none() {
        let lanes = CounterLanes::new(0);
        assert!(lanes.get(0).is_none() && lanes.get(1).is_none());
        assert_eq!(
            (lanes.total(), lanes.approximate_total(0), lanes.approximate_total(3)),
            (0, 0, 0)
        );
    }
}

#[cfg(all(test, lvs_loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// A lease may end on another thread than it began on.
    #[test]
    fn the_sum_is_exact_when_all_threads_are_done() {
        loom::model(|| {
            let lanes = Arc::new(CounterLanes::new(1));
            let lane = || lanes.get(1).expect("a lane");
            (0..LANE_BATCH + 1).for_each(|_| lanes.increment(lane()));
            let other = {
                let lanes = Arc::clone(&lanes);
                thread::spawn(move || lanes.decrement(lanes.get(1).expect("a lane")))
            };
            lanes.increment(lane());
            lanes.decrement(lane());
            other.join().expect("no panic");
            assert_eq!(i64::from(lanes.total()), LANE_BATCH);
        });
    }
}
