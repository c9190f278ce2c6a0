//! The timetable of the probes: when each makes its next check. It reads no clock.
//!
//! The next check is due one interval after the previous one *was due*, however long that took and
//! however late it started. The golden ratio places new probes, which spreads any number of them
//! evenly over their interval; the first check of each probe is due within a second.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use super::plan::CheckTiming;
use super::verdict::CheckVerdict;
use crate::backend::Health;

/// The number of a probe, never reused.
pub(super) type ProbeId = u64;

/// How soon a new probe makes its first check.
const MAX_FIRST_CHECK_DELAY: Duration = Duration::from_secs(1);

/// The probes, ordered by when their next check is due.
#[derive(Debug)]
pub(super) struct ProbeTimetable {
    entries: HashMap<ProbeId, TimetableEntry>,
    /// May hold removed probes, which are skipped.
    due: BinaryHeap<Reverse<(Instant, ProbeId)>>,
    next_id: ProbeId,
    in_flight: usize,
    max_in_flight: NonZeroUsize,
    rng: fastrand::Rng,
    stats: TimetableStats,
}

#[derive(Debug)]
struct TimetableEntry {
    timing: CheckTiming,
    /// When the check in flight was due, or when the next check is due.
    due: Instant,
    /// The evenly spread start of the regular interval; taken after the first check.
    aligned_start: Option<Instant>,
    in_flight: bool,
}

/// How punctual the checks are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct TimetableStats {
    /// Checks started.
    pub(super) started: u64,
    /// Checks that started late by more than a tenth of their interval.
    pub(super) late: u64,
    /// The largest delay of a start.
    pub(super) max_lateness: Duration,
}

impl ProbeTimetable {
    pub(super) fn new(max_in_flight: NonZeroUsize, seed: u64) -> Self {
        Self {
            entries: HashMap::new(),
            due: BinaryHeap::new(),
            next_id: 0,
            in_flight: 0,
            max_in_flight,
            rng: fastrand::Rng::with_seed(seed),
            stats: TimetableStats::default(),
        }
    }

    pub(super) fn set_max_in_flight(&mut self, max: NonZeroUsize) {
        self.max_in_flight = max;
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn stats(&self) -> TimetableStats {
        self.stats
    }

    /// Adds a probe.
    pub(super) fn insert(&mut self, timing: CheckTiming, now: Instant) -> ProbeId {
        let id = self.next_id;
        self.next_id += 1;
        let fraction = golden_ratio_fraction(id);
        let due = now + timing.interval.min(MAX_FIRST_CHECK_DELAY).mul_f64(fraction);
        let aligned_start = Some(now + timing.interval.mul_f64(fraction));
        self.entries.insert(id, TimetableEntry { timing, due, aligned_start, in_flight: false });
        self.due.push(Reverse((due, id)));
        id
    }

    /// Removes a probe. Its check in flight, if any, no longer counts as in flight.
    pub(super) fn remove(&mut self, id: ProbeId) {
        if self.entries.remove(&id).is_some_and(|entry| entry.in_flight) {
            self.in_flight -= 1;
        }
    }

    /// Schedules the checks in flight again, because their results will not arrive.
    pub(super) fn reschedule_in_flight(&mut self) {
        self.in_flight = 0;
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.in_flight) {
            entry.in_flight = false;
            self.due.push(Reverse((entry.due, *id)));
        }
    }

    /// Returns when to call [`start_next_due`](Self::start_next_due); `None` if no check is planned,
    /// or if the limit on checks in flight is reached.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let may_start = self.in_flight < self.max_in_flight.get();
        self.due.peek().filter(|_| may_start).map(|Reverse((due, _))| *due)
    }

    /// Returns the next probe that is due, and counts its check as in flight.
    pub(super) fn start_next_due(&mut self, now: Instant) -> Option<ProbeId> {
        while self.poll_timeout()? <= now {
            let Reverse((_, id)) = self.due.pop()?;
            // The probe was removed.
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.in_flight = true;
            self.in_flight += 1;
            let lateness = now.saturating_duration_since(entry.due);
            self.stats.started += 1;
            self.stats.late += u64::from(lateness > entry.timing.interval / 10);
            self.stats.max_lateness = self.stats.max_lateness.max(lateness);
            return Some(id);
        }
        None
    }

    /// Ends the check in flight of a probe, and schedules the next by the verdict.
    pub(super) fn reschedule(&mut self, id: ProbeId, verdict: CheckVerdict, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.in_flight) else {
            return;
        };
        self.in_flight -= 1;
        entry.in_flight = false;
        let timing = &entry.timing;
        let regular = match verdict.health() {
            Some(Health::Down) => timing.down_interval.unwrap_or(timing.interval),
            _ => timing.interval,
        };
        let interval = match timing.fast_interval {
            Some(fast) if verdict.is_changing() => fast,
            _ => regular,
        };
        let early = f64::from(timing.jitter) / 100.0 * self.rng.f64();
        let next = entry.due + interval.mul_f64(1.0 - early);
        // After its first check a probe moves to its evenly spread start, unless that is later than
        // the interval.
        let next = entry
            .aligned_start
            .take()
            .filter(|start| *start > entry.due)
            .map_or(next, |start| next.min(start));
        // After a long delay (a stalled process, a suspended machine) missed checks are not made up.
        entry.due = next.max(now);
        self.due.push(Reverse((entry.due, id)));
    }
}

/// Returns the n-th element of a sequence that fills the range from 0 to 1 evenly at every length.
fn golden_ratio_fraction(n: u64) -> f64 {
    // 2^64 divided by the golden ratio.
    let fraction = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (fraction >> 11) as f64 / (1u64 << 53) as f64
}
