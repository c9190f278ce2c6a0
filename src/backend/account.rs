//! What a backend has done and is doing: everything that must survive a change of its weight, its
//! address or the table it stands in.

use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "health")]
use super::alarm::Runs;
use super::alarm::{Alarm, Conduct, Trial};
use super::board::Board;
use super::estimate::{Estimator, Projection, Tick};
use super::lane::Lanes;
use super::load::LoadWord;
use super::outcome::{self, Failures, UsualEnds};
use super::timeline::Timeline;
use super::{BackendId, Estimate, Limits, Load, Outcome, Outcomes};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What all backends of one set share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) alarm: Alarm,
    pub(crate) board: Board,
    pub(crate) timeline: Timeline,
    /// Was any estimate ever fed?
    learned: AtomicBool,
    /// How many lanes each account has for workers.
    workers: u8,
    next_worker: AtomicUsize,
}

impl Shared {
    pub(super) fn new(workers: u8) -> Self {
        Self {
            alarm: Alarm::new(),
            board: Board::new(),
            timeline: Timeline::new(),
            learned: AtomicBool::new(false),
            workers,
            next_worker: AtomicUsize::new(0),
        }
    }

    /// Tells whether traffic has said anything of any backend yet.
    #[inline]
    pub(crate) fn has_learned(&self) -> bool {
        // Relaxed: a pick that is a moment late is as good.
        self.learned.load(Ordering::Relaxed)
    }

    fn learn(&self) {
        // Written once, so that it is not a line that every thread fights over.
        if !self.has_learned() {
            self.learned.store(true, Ordering::Relaxed);
        }
    }

    /// How many workers have lanes of their own; 0 in a set without lanes.
    pub(crate) fn workers(&self) -> u8 {
        self.workers
    }

    /// The lane for one more worker; 0, that of everybody, in a set without lanes.
    pub(super) fn next_lane(&self) -> u8 {
        // Relaxed: each call gets a number of its own, whatever the order.
        let turn = self.next_worker.fetch_add(1, Ordering::Relaxed);
        // Below 256, as `workers` is.
        turn.checked_rem(usize::from(self.workers)).map_or(0, |turn| turn as u8 + 1)
    }
}

/// The account of one backend.
#[derive(Debug)]
pub(crate) struct Account {
    hot: Hot,
    lanes: Lanes,
    id: BackendId,
    /// Never used twice in one set: a name that comes back is another backend.
    serial: u64,
    group: AtomicU32,
    failures: Failures,
    conduct: Conduct,
}

/// All that picks and leases touch in a set without lanes, on one cache line of 64 bytes and nothing
/// else on it: two busy backends do not slow each other down.
#[derive(Debug)]
#[cfg_attr(not(lvs_loom), repr(align(64)))]
struct Hot {
    load: LoadWord,
    limits: AtomicU64,
    ends: UsualEnds,
    estimator: Estimator,
    shared: Arc<Shared>,
}

#[cfg(not(lvs_loom))]
const _: () = assert!(size_of::<Hot>() <= 64);

impl Account {
    pub(super) fn new(id: BackendId, serial: u64, limits: Limits, shared: Arc<Shared>) -> Self {
        let lanes = Lanes::new(usize::from(shared.workers));
        let hot = Hot {
            load: LoadWord::new(),
            limits: AtomicU64::new(pack(limits, &lanes, false)),
            ends: UsualEnds::default(),
            estimator: Estimator::new(),
            shared,
        };
        let (group, failures, conduct) = (AtomicU32::new(0), Failures::default(), Conduct::new());
        Self { hot, lanes, id, serial, group, failures, conduct }
    }

    pub(crate) fn id(&self) -> &BackendId {
        &self.id
    }

    #[inline]
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.hot.shared
    }

    #[inline]
    pub(crate) fn load(&self) -> Load {
        let load = self.hot.load.read();
        if self.has_lanes() { self.with_lanes(load) } else { load }
    }

    /// The active connections that are not counted on lanes: all, in a set without.
    #[inline]
    pub(crate) fn active_common(&self) -> u32 {
        self.hot.load.read().active
    }

    /// The active connections as the worker of a lane sees them at little cost; see [`super::lane`].
    #[inline]
    pub(crate) fn active_near(&self, lane: u8) -> u32 {
        self.active_common().saturating_add(self.lanes.near(lane))
    }

    #[inline]
    pub(crate) fn overloaded(&self, limits: Limits) -> bool {
        limits != Limits::NONE && self.beyond(limits)
    }

    pub(crate) fn outcomes(&self) -> Outcomes {
        let lanes = self.lanes.iter().map(|lane| outcome::read(&lane.ends, &lane.failures));
        lanes.fold(outcome::read(&self.hot.ends, &self.failures), Outcomes::plus)
    }

    pub(crate) fn estimate(&self, now: Option<Instant>) -> Estimate {
        self.project(self.hot.shared.timeline.read(now)).into()
    }

    /// What traffic says of it, projected to a moment.
    #[inline]
    pub(crate) fn project(&self, at: Tick) -> Projection {
        self.hot.estimator.read(at)
    }

    pub(crate) fn set_decay(&self, decay: Duration) {
        self.hot.estimator.set_decay(decay);
    }

    /// Adds one active connection and says on which lane it is counted; `None` if the limit forbids
    /// it. A backend with a limit is counted in one place, so that the limit is exact.
    #[inline]
    pub(crate) fn bind(&self, lane: u8, force: bool) -> Option<u8> {
        if self.is_limited() {
            return self.bind_within(force);
        }
        let counted = match self.lanes.get(lane) {
            Some(it) => {
                self.lanes.add(it);
                lane
            }
            None => {
                self.hot.load.bind(Limits::NONE, 0, true);
                0
            }
        };
        self.changed();
        Some(counted)
    }

    /// Moves an active connection from its lane to the place where the inactive ones are counted,
    /// and says which that is.
    pub(crate) fn leave_lane(&self, lane: u8) -> u8 {
        let Some(it) = self.lanes.get(lane) else { return lane };
        self.hot.load.bind(Limits::NONE, 0, true);
        self.lanes.take(it);
        0
    }

    pub(crate) fn set_active(&self, active: bool) {
        self.hot.load.set_active(active);
        self.changed();
    }

    #[inline]
    pub(crate) fn unbind(&self, lane: u8, active: bool, outcome: Outcome) {
        match self.lanes.get(lane) {
            Some(it) => {
                self.lanes.take(it);
                outcome::count(outcome, &it.ends, &it.failures);
            }
            None => {
                if self.is_limited() {
                    self.unbind_within(active);
                } else {
                    self.hot.load.unbind(active, Limits::NONE, 0);
                }
                outcome::count(outcome, &self.hot.ends, &self.failures);
            }
        }
        self.changed();
        if lane == ON_TRIAL || outcome.is_failure() {
            self.tell(lane, outcome);
        }
    }

    /// Feeds the estimates with the end of a piece of work.
    pub(crate) fn observe(&self, outcome: Outcome, timing: Option<(Duration, Instant)>) {
        let timeline = &self.hot.shared.timeline;
        let at = timing.map_or_else(|| timeline.latest(), |(_, now)| timeline.at(now));
        match outcome {
            Outcome::Cancelled => return,
            Outcome::Ok => {
                if let Some((latency, _)) = timing {
                    self.hot.estimator.observe_latency(latency, at);
                }
                self.hot.estimator.observe_result(false, at);
            }
            _ => self.hot.estimator.observe_result(true, at),
        }
        self.hot.shared.learn();
    }

    /// Feeds the latency estimate alone, before the work has ended either way.
    pub(crate) fn observe_latency(&self, latency: Duration, now: Instant) {
        self.hot.estimator.observe_latency(latency, self.hot.shared.timeline.at(now));
        self.hot.shared.learn();
    }

    pub(super) fn mirror(&self, load: Load) {
        self.lanes.clear();
        self.hot.load.store(load, self.limits());
        self.changed();
    }

    /// Adds to the counts of how leases ended: those of an earlier life.
    #[cfg(feature = "health")]
    pub(super) fn carry_over(&self, outcomes: Outcomes) {
        outcome::carry_over(outcomes, &self.hot.ends, &self.failures);
    }

    pub(super) fn set_limits(&self, limits: Limits, on_trial: bool) {
        self.conduct.set_on_trial(on_trial);
        self.hot.limits.store(pack(limits, &self.lanes, on_trial), Ordering::SeqCst);
    }

    /// The failures in a row, and lets the account raise its hand again.
    #[cfg(feature = "health")]
    pub(crate) fn heard(&self) -> Runs {
        self.conduct.heard(self.outcomes())
    }

    /// How its trial stands.
    pub(crate) fn trial(&self) -> Trial {
        self.conduct.trial()
    }

    pub(super) fn set_group(&self, group: u8) {
        self.group.store(u32::from(group), Ordering::SeqCst);
    }

    // What follows is for limits and lanes, and kept out of the way of picks without.

    #[inline(never)]
    fn with_lanes(&self, load: Load) -> Load {
        Load { active: load.active.saturating_add(self.lanes.total()), ..load }
    }

    #[inline(never)]
    fn beyond(&self, limits: Limits) -> bool {
        (self.is_on_trial() && self.trial() != Trial::Open)
            || self.hot.load.overloaded(limits, self.lanes.total())
    }

    #[inline(never)]
    fn bind_within(&self, force: bool) -> Option<u8> {
        let alarm = &self.hot.shared.alarm;
        let tried = self.is_on_trial() && self.conduct.take_trial(alarm, self.serial);
        let allowed = force || tried || !self.is_on_trial();
        if allowed && self.hot.load.bind(self.limits(), self.lanes.total(), force) {
            self.changed();
            return Some(if tried { ON_TRIAL } else { 0 });
        }
        if tried {
            self.conduct.end_trial(alarm, self.serial, Outcome::Cancelled);
        }
        None
    }

    /// Tells whoever judges the backend how a lease ended.
    #[cold]
    #[inline(never)]
    fn tell(&self, lane: u8, outcome: Outcome) {
        let alarm = &self.hot.shared.alarm;
        if lane == ON_TRIAL {
            self.conduct.end_trial(alarm, self.serial, outcome);
        }
        if outcome.is_failure() {
            self.conduct.failed(alarm, self.serial, outcome, self.outcomes());
        }
    }

    #[inline(never)]
    fn unbind_within(&self, active: bool) {
        self.hot.load.unbind(active, self.limits(), self.lanes.total());
    }

    /// Looks on the line that is at hand anyway.
    #[inline]
    fn has_lanes(&self) -> bool {
        // Relaxed: never changes.
        self.hot.limits.load(Ordering::Relaxed) & HAS_LANES != 0
    }

    #[inline]
    fn is_limited(&self) -> bool {
        // Relaxed: a limit that is a moment old is still a limit.
        self.hot.limits.load(Ordering::Relaxed) & !HAS_LANES != 0
    }

    #[inline]
    fn is_on_trial(&self) -> bool {
        // Relaxed: as above.
        self.hot.limits.load(Ordering::Relaxed) & TRIAL != 0
    }

    fn limits(&self) -> Limits {
        // Relaxed: both halves are one word, and a limit that is a moment old is still a limit.
        let word = self.hot.limits.load(Ordering::Relaxed);
        Limits::max((word & !TRIAL) as u32).resume_below(((word & !HAS_LANES) >> 32) as u32)
    }

    #[inline]
    fn changed(&self) {
        self.hot.shared.board.changed(&self.group);
    }
}

/// A bit of the word of limits, whose halves are 2^30 at the most.
const HAS_LANES: u64 = 1 << 63;

/// Another one.
const TRIAL: u64 = 1 << 31;

/// The lane of the one lease that a backend on trial has; sets have fewer.
const ON_TRIAL: u8 = u8::MAX;

fn pack(limits: Limits, lanes: &Lanes, on_trial: bool) -> u64 {
    let lanes = if lanes.is_empty() { 0 } else { HAS_LANES };
    let trial = if on_trial { TRIAL } else { 0 };
    u64::from(limits.upper()) | u64::from(limits.lower()) << 32 | lanes | trial
}
