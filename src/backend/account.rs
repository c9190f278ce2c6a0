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
#[derive(Debug)]
pub(crate) struct Account {
    hot: Hot,
    id: BackendId,
    /// Never used twice in one set: a name that comes back is another backend.
    serial: u64,
    group: AtomicU32,
    estimator: Estimator,
}

/// All that a lease touches, on one cache line of 64 bytes, and nothing else on it: two busy
/// backends do not slow each other down.
#[derive(Debug)]
#[cfg_attr(not(lvs_loom), repr(align(64)))]
struct Hot {
    load: LoadWord,
    limits: AtomicU64,
    outcomes: OutcomeCounters,
    shared: Arc<Shared>,
}

#[cfg(not(lvs_loom))]
const _: () = assert!(size_of::<Hot>() <= 64);

impl Account {
    pub(super) fn new(id: BackendId, serial: u64, limits: Limits, shared: Arc<Shared>) -> Self {
        let hot = Hot {
            load: LoadWord::new(),
            limits: AtomicU64::new(pack(limits)),
            outcomes: OutcomeCounters::default(),
            shared,
        };
        Self { hot, id, serial, group: AtomicU32::new(0), estimator: Estimator::new() }
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
        self.hot.load.read()
    }

    #[inline]
    pub(crate) fn overloaded(&self, limits: Limits) -> bool {
        self.hot.load.overloaded(limits)
    }

    pub(crate) fn outcomes(&self) -> Outcomes {
        self.hot.outcomes.read()
    }

    pub(crate) fn estimate(&self, now: Option<Instant>) -> Estimate {
        let timeline = &self.hot.shared.timeline;
        self.estimator.read(now.map_or_else(|| timeline.latest(), |now| timeline.at(now)))
    }

    pub(crate) fn set_decay(&self, decay: Duration) {
        self.estimator.set_decay(decay);
    }

    /// Adds one active connection; `false` if the limit forbids it.
    #[inline]
    pub(crate) fn bind(&self, force: bool) -> bool {
        let bound = self.hot.load.bind(self.limits(), force);
        if bound {
            self.changed();
        }
        bound
    }

    pub(crate) fn set_active(&self, active: bool) {
        self.hot.load.set_active(active);
        self.changed();
    }

    #[inline]
    pub(crate) fn unbind(&self, active: bool, outcome: Outcome) {
        self.hot.load.unbind(active, self.limits());
        self.hot.outcomes.add(outcome);
        self.changed();
    }

    /// Feeds the estimates with the end of a piece of work.
    pub(crate) fn observe(&self, outcome: Outcome, timing: Option<(Duration, Instant)>) {
        let timeline = &self.hot.shared.timeline;
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

    /// Feeds the latency estimate alone, before the work has ended either way.
    pub(crate) fn observe_latency(&self, latency: Duration, now: Instant) {
        self.estimator.observe_latency(latency, self.hot.shared.timeline.at(now));
    }

    pub(super) fn mirror(&self, load: Load) {
        self.hot.load.store(load, self.limits());
        self.changed();
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        self.hot.limits.store(pack(limits), Ordering::SeqCst);
    }

    pub(super) fn set_group(&self, group: u8) {
        self.group.store(u32::from(group), Ordering::SeqCst);
    }

    #[inline]
    fn limits(&self) -> Limits {
        // Relaxed: both halves are one word, and a limit that is a moment old is still a limit.
        let word = self.hot.limits.load(Ordering::Relaxed);
        Limits::max(word as u32).resume_below((word >> 32) as u32)
    }

    #[inline]
    fn changed(&self) {
        self.hot.shared.board.changed(&self.group);
    }
}

fn pack(limits: Limits) -> u64 {
    u64::from(limits.upper()) | u64::from(limits.lower()) << 32
}
