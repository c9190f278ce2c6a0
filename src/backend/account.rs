//! What a backend has done and is doing: everything that must survive a change of its weight, its
//! address or the table it stands in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::Board;
use super::estimate::Estimator;
use super::load::LoadWord;
use super::outcome::OutcomeCounters;
use super::timeline::Timeline;
use super::{BackendId, Estimate, Limits, Load, Outcome, Outcomes};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// What all backends of one set share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) board: Board,
    pub(crate) timeline: Timeline,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { board: Board::new(), timeline: Timeline::new() }
    }
}

/// The account of one backend.
///
/// The fields that every lease writes come last and on their own line; the ones before are only
/// read by leases.
#[derive(Debug)]
pub(crate) struct Account {
    id: BackendId,
    /// Never used twice in one set: a name that comes back is another backend.
    serial: u64,
    shared: Arc<Shared>,
    group: AtomicU32,
    limits: AtomicU64,
    estimator: Estimator,
    outcomes: OutcomeCounters,
    load: LoadWord,
}

impl Account {
    pub(super) fn new(id: BackendId, serial: u64, limits: Limits, shared: Arc<Shared>) -> Self {
        Self {
            id,
            serial,
            shared,
            group: AtomicU32::new(0),
            limits: AtomicU64::new(pack(limits)),
            estimator: Estimator::new(),
            outcomes: OutcomeCounters::default(),
            load: LoadWord::new(),
        }
    }

    pub(crate) fn id(&self) -> &BackendId {
        &self.id
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn load(&self) -> Load {
        self.load.read()
    }

    pub(crate) fn overloaded(&self, limits: Limits) -> bool {
        self.load.overloaded(limits)
    }

    pub(crate) fn outcomes(&self) -> Outcomes {
        self.outcomes.read()
    }

    pub(crate) fn estimate(&self, now: Option<Instant>) -> Estimate {
        let timeline = &self.shared.timeline;
        self.estimator.read(now.map_or_else(|| timeline.latest(), |now| timeline.at(now)))
    }

    pub(crate) fn set_decay(&self, decay: Duration) {
        self.estimator.set_decay(decay);
    }

    /// Adds one active connection; `false` if the limit forbids it.
    pub(crate) fn bind(&self, force: bool) -> bool {
        let bound = self.load.bind(self.limits(), force);
        if bound {
            self.changed();
        }
        bound
    }

    pub(crate) fn set_active(&self, active: bool) {
        self.load.set_active(active);
        self.changed();
    }

    pub(crate) fn unbind(&self, active: bool, outcome: Outcome) {
        self.load.unbind(active, self.limits());
        self.outcomes.add(outcome);
        self.changed();
    }

    /// Feeds the estimates with the end of a piece of work.
    pub(crate) fn observe(&self, outcome: Outcome, timing: Option<(Duration, Instant)>) {
        let timeline = &self.shared.timeline;
        let at = timing.map_or_else(|| timeline.latest(), |(_, now)| timeline.at(now));
        match outcome {
            Outcome::Cancelled => {}
            Outcome::Ok => {
                if let Some((latency, _)) = timing {
                    self.estimator.observe_latency(latency, at);
                }
                self.estimator.observe_result(false, at);
            }
            _ => self.estimator.observe_result(true, at),
        }
    }

    pub(super) fn mirror(&self, load: Load) {
        self.load.store(load, self.limits());
        self.changed();
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        self.limits.store(pack(limits), Ordering::SeqCst);
    }

    pub(super) fn set_group(&self, group: usize) {
        self.group.store(group as u32, Ordering::SeqCst);
    }

    fn limits(&self) -> Limits {
        // Relaxed: both halves are one word, and a limit that is a moment old is still a limit.
        let word = self.limits.load(Ordering::Relaxed);
        Limits::max(word as u32).resume_below((word >> 32) as u32)
    }

    fn changed(&self) {
        self.shared.board.changed(&self.group);
    }
}

fn pack(limits: Limits) -> u64 {
    u64::from(limits.upper()) | u64::from(limits.lower()) << 32
}
