//! The account of one backend: its load, outcomes, estimates and outlier state, which survive every
//! change of its weight, its address and the table that lists it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::coarse_clock::CoarseClock;
use super::counter_lane::CounterLanes;
use super::estimate::{CoarseInstant, RawTrafficEstimate, TrafficEstimator};
use super::load::AtomicLoad;
use super::load_versions::LoadVersions;
use super::outcome::{self, CommonOutcomeCounters, FailureCounters};
#[cfg(feature = "health")]
use super::passive_health::FailureStreak;
use super::passive_health::{OutlierSignal, PassiveHealth, TrialState};
use super::{BackendId, Limits, Load, Outcome, OutcomeCounts, TrafficEstimate};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The state that all backends of one set share.
#[derive(Debug)]
pub(crate) struct SetContext {
    pub(crate) outlier_signal: OutlierSignal,
    pub(crate) load_versions: LoadVersions,
    pub(crate) clock: CoarseClock,
    /// Whether any estimate of the set has been fed.
    has_estimates: AtomicBool,
    /// The counter lanes of each account, one for a worker.
    worker_lanes: u8,
    next_lane_index: AtomicUsize,
}

impl SetContext {
    pub(super) fn new(workers: u8) -> Self {
        Self {
            outlier_signal: OutlierSignal::new(),
            load_versions: LoadVersions::new(),
            clock: CoarseClock::new(),
            has_estimates: AtomicBool::new(false),
            worker_lanes: workers,
            next_lane_index: AtomicUsize::new(0),
        }
    }

    /// Tells whether any backend has a traffic estimate yet.
    #[inline]
    pub(crate) fn has_estimates(&self) -> bool {
        // Relaxed: a pick may see this a moment late.
        self.has_estimates.load(Ordering::Relaxed)
    }

    fn mark_estimated(&self) {
        // Stored once only, so that threads do not contend for the cache line.
        if !self.has_estimates() {
            self.has_estimates.store(true, Ordering::Relaxed);
        }
    }

    /// Returns how many workers have lanes of their own; 0 in a set without lanes.
    pub(crate) fn worker_lanes(&self) -> u8 {
        self.worker_lanes
    }

    /// Returns the lane for one more worker; in a set without lanes 0, which all share.
    pub(super) fn assign_lane(&self) -> u8 {
        // Relaxed: each call gets a different number in any order.
        let index = self.next_lane_index.fetch_add(1, Ordering::Relaxed);
        // Below 256, as `workers` is.
        index.checked_rem(usize::from(self.worker_lanes)).map_or(0, |index| index as u8 + 1)
    }
}

/// The account of one backend.
#[derive(Debug)]
pub(crate) struct BackendAccount {
    hot: HotCounters,
    lanes: CounterLanes,
    id: BackendId,
    /// Unique in the set: a backend that is removed and inserted again has another serial.
    serial: u64,
    load_group: AtomicU32,
    failure_counters: FailureCounters,
    passive_health: PassiveHealth,
}

/// What picks and leases touch in a set without lanes, alone on one cache line of 64 bytes, so that two
/// busy backends do not slow each other down.
#[derive(Debug)]
#[cfg_attr(not(lvs_loom), repr(align(64)))]
struct HotCounters {
    load: AtomicLoad,
    limits: AtomicU64,
    common_outcomes: CommonOutcomeCounters,
    estimator: TrafficEstimator,
    context: Arc<SetContext>,
}

#[cfg(not(lvs_loom))]
const _: () = assert!(size_of::<HotCounters>() <= 64);

impl BackendAccount {
    pub(super) fn new(
        id: BackendId,
        serial: u64,
        limits: Limits,
        context: Arc<SetContext>,
    ) -> Self {
        let lanes = CounterLanes::new(usize::from(context.worker_lanes));
        let hot = HotCounters {
            load: AtomicLoad::new(),
            limits: AtomicU64::new(pack_limits(limits, &lanes, false)),
            common_outcomes: CommonOutcomeCounters::default(),
            estimator: TrafficEstimator::new(),
            context,
        };
        Self {
            hot,
            lanes,
            id,
            serial,
            load_group: AtomicU32::new(0),
            failure_counters: FailureCounters::default(),
            passive_health: PassiveHealth::new(),
        }
    }

    pub(crate) fn id(&self) -> &BackendId {
        &self.id
    }

    #[inline]
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn context(&self) -> &Arc<SetContext> {
        &self.hot.context
    }

    #[inline]
    pub(crate) fn load(&self) -> Load {
        let load = self.hot.load.read();
        if self.has_lanes() { self.add_lane_counts(load) } else { load }
    }

    /// Returns the active connections that are not counted on lanes: all of them in a set without.
    #[inline]
    pub(crate) fn active_outside_lanes(&self) -> u32 {
        self.hot.load.read().active
    }

    /// Returns the active connections as the worker of a lane sees them at little cost; see
    /// [`super::counter_lane`].
    #[inline]
    pub(crate) fn approximate_active(&self, lane: u8) -> u32 {
        self.active_outside_lanes().saturating_add(self.lanes.approximate_total(lane))
    }

    #[inline]
    pub(crate) fn is_overloaded(&self, limits: Limits) -> bool {
        limits != Limits::NONE && self.is_overloaded_slow_path(limits)
    }

    pub(crate) fn outcomes(&self) -> OutcomeCounts {
        let lanes = self
            .lanes
            .iter()
            .map(|lane| outcome::read_outcomes(&lane.common_outcomes, &lane.failure_counters));
        lanes.fold(
            outcome::read_outcomes(&self.hot.common_outcomes, &self.failure_counters),
            OutcomeCounts::plus,
        )
    }

    pub(crate) fn estimate(&self, now: Option<Instant>) -> TrafficEstimate {
        self.raw_estimate(self.hot.context.clock.advance_or_latest(now)).into()
    }

    /// Returns the traffic estimate, projected to a time.
    #[inline]
    pub(crate) fn raw_estimate(&self, at: CoarseInstant) -> RawTrafficEstimate {
        self.hot.estimator.raw_estimate(at)
    }

    pub(crate) fn set_estimate_decay(&self, decay: Duration) {
        self.hot.estimator.set_decay(decay);
    }

    /// Adds one active connection and returns the lane that counts it; `None` if the limit forbids the
    /// connection. A backend with a limit counts on lane 0 only, so that the limit is exact.
    #[inline]
    pub(crate) fn bind(&self, lane: u8, force: bool) -> Option<u8> {
        if self.is_limited() {
            return self.bind_limited(force);
        }
        let counted = match self.lanes.get(lane) {
            Some(counters) => {
                self.lanes.increment(counters);
                lane
            }
            None => {
                self.hot.load.bind(Limits::NONE, 0, true);
                0
            }
        };
        self.mark_load_changed();
        Some(counted)
    }

    /// Moves an active connection from its lane to lane 0, which also counts inactive ones, and
    /// returns the lane that counts it now.
    pub(crate) fn move_off_lane(&self, lane: u8) -> u8 {
        let Some(counters) = self.lanes.get(lane) else { return lane };
        self.hot.load.bind(Limits::NONE, 0, true);
        self.lanes.decrement(counters);
        0
    }

    pub(crate) fn set_active(&self, active: bool) {
        self.hot.load.set_active(active);
        self.mark_load_changed();
    }

    #[inline]
    pub(crate) fn unbind(&self, lane: u8, active: bool, outcome: Outcome) {
        match self.lanes.get(lane) {
            Some(counters) => {
                self.lanes.decrement(counters);
                outcome::count_outcome(
                    outcome,
                    &counters.common_outcomes,
                    &counters.failure_counters,
                );
            }
            None => {
                if self.is_limited() {
                    self.unbind_limited(active);
                } else {
                    self.hot.load.unbind(active, Limits::NONE, 0);
                }
                outcome::count_outcome(outcome, &self.hot.common_outcomes, &self.failure_counters);
            }
        }
        self.mark_load_changed();
        if lane == TRIAL_LANE || outcome.is_failure() {
            self.report_to_passive_health(lane, outcome);
        }
    }

    /// Feeds the estimates with the end of a lease.
    pub(crate) fn observe_outcome(&self, outcome: Outcome, timing: Option<(Duration, Instant)>) {
        let clock = &self.hot.context.clock;
        let at = timing.map_or_else(|| clock.latest(), |(_, now)| clock.advance_to(now));
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
        self.hot.context.mark_estimated();
    }

    /// Feeds the latency estimate alone, while the lease goes on.
    pub(crate) fn observe_latency(&self, latency: Duration, now: Instant) {
        self.hot.estimator.observe_latency(latency, self.hot.context.clock.advance_to(now));
        self.hot.context.mark_estimated();
    }

    /// Records that the connection of a lease was made, which may end a trial.
    pub(crate) fn report_connected(&self, lane: u8) {
        if lane == TRIAL_LANE {
            let signal = &self.hot.context.outlier_signal;
            self.passive_health.record_trial_connected(signal, self.serial);
        }
    }

    pub(super) fn set_load(&self, load: Load) {
        self.lanes.clear();
        self.hot.load.store(load, self.limits());
        self.mark_load_changed();
    }

    /// Adds the outcomes that an earlier process counted.
    #[cfg(feature = "health")]
    pub(super) fn add_outcomes(&self, outcomes: OutcomeCounts) {
        outcome::add_outcomes(outcomes, &self.hot.common_outcomes, &self.failure_counters);
    }

    pub(super) fn set_limits(&self, limits: Limits, on_trial: bool) {
        self.passive_health.set_on_trial(on_trial);
        self.hot.limits.store(pack_limits(limits, &self.lanes, on_trial), Ordering::SeqCst);
    }

    /// Returns the failures in a row, and lets the backend notify outlier detection again.
    #[cfg(feature = "health")]
    pub(crate) fn take_failure_streak(&self) -> FailureStreak {
        self.passive_health.take_failure_streak(self.outcomes())
    }

    /// Returns the state of its trial.
    pub(crate) fn trial_state(&self) -> TrialState {
        self.passive_health.trial_state()
    }

    pub(super) fn set_load_group(&self, group: u8) {
        self.load_group.store(u32::from(group), Ordering::SeqCst);
    }

    // The methods below serve limits and lanes; they stay out of line for picks without either.

    #[inline(never)]
    fn add_lane_counts(&self, load: Load) -> Load {
        Load { active: load.active.saturating_add(self.lanes.total()), ..load }
    }

    #[inline(never)]
    fn is_overloaded_slow_path(&self, limits: Limits) -> bool {
        (self.is_on_trial() && self.trial_state() != TrialState::Available)
            || self.hot.load.is_overloaded(limits, self.lanes.total())
    }

    #[inline(never)]
    fn bind_limited(&self, force: bool) -> Option<u8> {
        let signal = &self.hot.context.outlier_signal;
        let is_trial = self.is_on_trial() && self.passive_health.claim_trial(signal, self.serial);
        let allowed = force || is_trial || !self.is_on_trial();
        if allowed && self.hot.load.bind(self.limits(), self.lanes.total(), force) {
            self.mark_load_changed();
            return Some(if is_trial { TRIAL_LANE } else { 0 });
        }
        if is_trial {
            self.passive_health.end_trial(signal, self.serial, Outcome::Cancelled);
        }
        None
    }

    /// Reports the end of a lease to outlier detection.
    #[cold]
    #[inline(never)]
    fn report_to_passive_health(&self, lane: u8, outcome: Outcome) {
        let signal = &self.hot.context.outlier_signal;
        if lane == TRIAL_LANE {
            self.passive_health.end_trial(signal, self.serial, outcome);
        }
        if outcome.is_failure() {
            self.passive_health.record_failure(signal, self.serial, outcome, self.outcomes());
        }
    }

    #[inline(never)]
    fn unbind_limited(&self, active: bool) {
        self.hot.load.unbind(active, self.limits(), self.lanes.total());
    }

    /// Reads the cache line that the caller needs anyway.
    #[inline]
    fn has_lanes(&self) -> bool {
        // Relaxed: never changes.
        self.hot.limits.load(Ordering::Relaxed) & HAS_LANES_BIT != 0
    }

    #[inline]
    fn is_limited(&self) -> bool {
        // Relaxed: a pick may see a new limit a moment late.
        self.hot.limits.load(Ordering::Relaxed) & !HAS_LANES_BIT != 0
    }

    #[inline]
    fn is_on_trial(&self) -> bool {
        // Relaxed: as above.
        self.hot.limits.load(Ordering::Relaxed) & ON_TRIAL_BIT != 0
    }

    fn limits(&self) -> Limits {
        // Relaxed: both halves are one word, and a pick may see a new limit a moment late.
        let word = self.hot.limits.load(Ordering::Relaxed);
        Limits::new((word & !ON_TRIAL_BIT) as u32)
            .with_resume_below(((word & !HAS_LANES_BIT) >> 32) as u32)
    }

    #[inline]
    fn mark_load_changed(&self) {
        self.hot.context.load_versions.mark_changed(&self.load_group);
    }
}

/// The account has lanes: a bit above the two limits of the word, which are 2^30 at most.
const HAS_LANES_BIT: u64 = 1 << 63;

/// The backend is on trial: a bit above the upper limit of the word.
const ON_TRIAL_BIT: u64 = 1 << 31;

/// The lane that marks the lease of a trial; a set has fewer lanes.
const TRIAL_LANE: u8 = u8::MAX;

fn pack_limits(limits: Limits, lanes: &CounterLanes, on_trial: bool) -> u64 {
    let lanes = if lanes.is_empty() { 0 } else { HAS_LANES_BIT };
    let trial = if on_trial { ON_TRIAL_BIT } else { 0 };
    u64::from(limits.max_connections()) | u64::from(limits.resume_below()) << 32 | lanes | trial
}
