//! When each probe asks next: pure, by a clock that is handed in.
//!
//! Checks keep their own beat: the next one is due an interval after the last one *was due*, however
//! long it took and however late it came. New probes are placed by the golden ratio, which spreads
//! any number of them evenly over their interval; the first check of each comes within a second.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use super::plan::CheckTiming;
use super::verdict::CheckVerdict;
use crate::backend::Health;

/// Names a probe; never used twice.
pub(super) type ProbeId = u64;

/// How soon a new probe asks for the first time.
const MAX_FIRST_CHECK_DELAY: Duration = Duration::from_secs(1);

/// The probes, and who is next.
#[derive(Debug)]
pub(super) struct ProbeTimetable {
    entries: HashMap<ProbeId, TimetableEntry>,
    due: BinaryHeap<Reverse<(Instant, ProbeId)>>,
    next_id: ProbeId,
    in_flight: usize,
    max_in_flight: usize,
    rng: fastrand::Rng,
    stats: TimetableStats,
}

#[derive(Debug)]
struct TimetableEntry {
    timing: CheckTiming,
    /// When the present or next check was, or is, due.
    due: Instant,
    /// The probe's place in its interval: where the beat begins after the first check.
    aligned_start: Option<Instant>,
    in_flight: bool,
}

/// How well the beat is kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct TimetableStats {
    /// Checks that were begun.
    pub(super) started: u64,
    /// Those that began more than a tenth of their interval late.
    pub(super) late: u64,
    /// The longest that one was late.
    pub(super) max_lateness: Duration,
}

impl ProbeTimetable {
    pub(super) fn new(most_in_flight: usize, seed: u64) -> Self {
        Self {
            entries: HashMap::new(),
            due: BinaryHeap::new(),
            next_id: 0,
            in_flight: 0,
            max_in_flight: most_in_flight.max(1),
            rng: fastrand::Rng::with_seed(seed),
            stats: TimetableStats::default(),
        }
    }

    pub(super) fn set_max_in_flight(&mut self, most: usize) {
        self.max_in_flight = most.max(1);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn stats(&self) -> TimetableStats {
        self.stats
    }

    /// Places a new probe.
    pub(super) fn insert(&mut self, timing: CheckTiming, now: Instant) -> ProbeId {
        let id = self.next_id;
        self.next_id += 1;
        let place = golden_ratio_fraction(id);
        let due = now + timing.interval.min(MAX_FIRST_CHECK_DELAY).mul_f64(place);
        let beat = Some(now + timing.interval.mul_f64(place));
        self.entries
            .insert(id, TimetableEntry { timing, due, aligned_start: beat, in_flight: false });
        self.due.push(Reverse((due, id)));
        id
    }

    /// Takes a probe out; what it is asking now is no longer waited for.
    pub(super) fn remove(&mut self, id: ProbeId) {
        if self.entries.remove(&id).is_some_and(|slot| slot.in_flight) {
            self.in_flight -= 1;
        }
    }

    /// Gives up what is asked now: it is asked again.
    pub(super) fn reschedule_in_flight(&mut self) {
        self.in_flight = 0;
        for (id, slot) in self.entries.iter_mut().filter(|(_, slot)| slot.in_flight) {
            slot.in_flight = false;
            self.due.push(Reverse((slot.due, *id)));
        }
    }

    /// When to [begin](Self::start_next_due) again; `None` if there is nothing to begin, or no room.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let has_room = self.in_flight < self.max_in_flight;
        self.due.peek().filter(|_| has_room).map(|Reverse((due, _))| *due)
    }

    /// The next probe that is due, which begins to ask.
    pub(super) fn start_next_due(&mut self, now: Instant) -> Option<ProbeId> {
        while self.poll_timeout()? <= now {
            let Reverse((_, id)) = self.due.pop()?;
            // One that was taken out.
            let Some(slot) = self.entries.get_mut(&id) else { continue };
            slot.in_flight = true;
            self.in_flight += 1;
            let late = now.saturating_duration_since(slot.due);
            self.stats.started += 1;
            self.stats.late += u64::from(late > slot.timing.interval / 10);
            self.stats.max_lateness = self.stats.max_lateness.max(late);
            return Some(id);
        }
        None
    }

    /// Takes note that a probe has its answer, and places its next check by the verdict.
    pub(super) fn reschedule(&mut self, id: ProbeId, verdict: CheckVerdict, now: Instant) {
        let Some(slot) = self.entries.get_mut(&id).filter(|slot| slot.in_flight) else { return };
        self.in_flight -= 1;
        slot.in_flight = false;
        let timing = &slot.timing;
        let usual = match verdict.health() {
            Some(Health::Down) => timing.down_interval.unwrap_or(timing.interval),
            _ => timing.interval,
        };
        let step = match timing.fast_interval {
            Some(fast) if verdict.is_changing() => fast,
            _ => usual,
        };
        let early = f64::from(timing.jitter) / 100.0 * self.rng.f64();
        let next = slot.due + step.mul_f64(1.0 - early);
        // After its first check a probe goes to its place, if that does not make it wait longer.
        let next =
            slot.aligned_start.take().filter(|beat| *beat > slot.due).map_or(next, |b| next.min(b));
        // Far behind (a stalled process, a suspended machine) nothing is made up for.
        slot.due = next.max(now);
        self.due.push(Reverse((slot.due, id)));
    }
}

/// The n-th of a sequence that fills the range from 0 to 1 evenly, however long it gets.
fn golden_ratio_fraction(n: u64) -> f64 {
    // 2^64 divided by the golden ratio.
    let fraction = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (fraction >> 11) as f64 / (1u64 << 53) as f64
}
