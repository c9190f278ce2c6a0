//! The writer's own record of a set, from which each snapshot is made.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::SetContext;
use super::board::load_group_size;
use super::{
    AgentOverride, Backend, BackendAdminState, BackendState, BackendStatus, FailMode, Health,
    LeaseHandle, Limits, Member, Members, OutlierState, Quorum, SlowStart, Snapshot,
};

/// How far a backend's slow start has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SlowStartProgress {
    /// It counts in full.
    Done,
    /// It came up, and no tick has said yet when that was.
    AwaitingTick,
    /// It came up at this moment.
    StartedAt(Instant),
}

/// The writer's record of a backend.
#[derive(Debug)]
pub(super) struct BackendRecord<T> {
    pub(super) backend: Arc<Backend<T>>,
    pub(super) lease_handles: Arc<[Arc<LeaseHandle<T>>]>,
    pub(super) weight: u32,
    /// The last weight that counted and was not 0.
    pub(super) table_weight: u32,
    pub(super) tier: u8,
    pub(super) limits: Limits,
    pub(super) address: Option<SocketAddr>,
    pub(super) admin: BackendAdminState,
    pub(super) health: Health,
    pub(super) health_reason: Option<Arc<str>>,
    pub(super) outlier_state: OutlierState,
    pub(super) outlier_reason: Option<Arc<str>>,
    pub(super) agent_override: AgentOverride,
    pub(super) slow_start_progress: SlowStartProgress,
    /// A ramp of its own instead of the set's slow start.
    pub(super) own_slow_start: Option<SlowStart>,
    pub(super) slow_start_percent: u8,
}

impl<T> Clone for BackendRecord<T> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            lease_handles: Arc::clone(&self.lease_handles),
            health_reason: self.health_reason.clone(),
            outlier_reason: self.outlier_reason.clone(),
            ..*self
        }
    }
}

impl<T> BackendRecord<T> {
    pub(super) fn serial(&self) -> u64 {
        self.backend.account.serial()
    }

    /// The weight that counts.
    pub(super) fn effective_weight(&self) -> u32 {
        self.agent_override.weight.map_or(self.weight, |advice| advice.apply(self.weight))
    }

    /// Hash tables are built from the last weight that was not 0.
    pub(super) fn update_table_weight(&mut self) {
        let weight = self.effective_weight();
        if weight != 0 {
            self.table_weight = weight;
        }
    }

    /// The stronger of what the operator and a checker want.
    fn effective_admin(&self) -> BackendAdminState {
        self.agent_override.admin.map_or(self.admin, |advice| advice.max(self.admin))
    }

    fn effective_limits(&self) -> Limits {
        let limits = self.agent_override.max_connections.map_or(self.limits, Limits::new);
        if self.outlier_state == OutlierState::OnTrial && limits == Limits::NONE {
            // Any limit at all sends leases past the place that counts trials.
            return Limits::new(u32::MAX);
        }
        limits
    }

    /// The state by itself, whatever becomes of the set.
    fn own_state(&self) -> BackendState {
        BackendState::resolve(
            self.effective_admin(),
            self.health,
            self.outlier_state,
            self.effective_weight(),
        )
    }

    /// Eligible but for its weight, and not on trial.
    pub(super) fn is_fully_in_service(&self) -> bool {
        self.effective_admin() == BackendAdminState::Enabled
            && self.health == Health::Up
            && self.outlier_state == OutlierState::Good
    }

    fn reason(&self) -> Option<&Arc<str>> {
        match self.own_state() {
            BackendState::Down => self.health_reason.as_ref(),
            BackendState::Ejected => self.outlier_reason.as_ref(),
            _ if self.outlier_state == OutlierState::OnTrial => self.outlier_reason.as_ref(),
            _ => self.health_reason.as_ref().or(self.outlier_reason.as_ref()),
        }
    }
}

/// The writer's whole state; copied for each edit, so that a refused one leaves no trace.
#[derive(Debug)]
pub(super) struct SetState<T> {
    pub(super) context: Arc<SetContext>,
    /// In the kernel's order: newest first.
    pub(super) records: VecDeque<BackendRecord<T>>,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) fail_mode: FailMode,
    pub(super) quorum: Option<Quorum>,
    /// Whether it had its quorum when it was published last.
    has_quorum: bool,
    has_ticked: bool,
    pub(super) next_serial: u64,
    generation: u64,
}

impl<T> Clone for SetState<T> {
    fn clone(&self) -> Self {
        Self { context: Arc::clone(&self.context), records: self.records.clone(), ..*self }
    }
}

impl<T> SetState<T> {
    pub(super) fn new(shared: Arc<SetContext>) -> Self {
        Self {
            context: shared,
            records: VecDeque::new(),
            slow_start: None,
            fail_mode: FailMode::Closed,
            quorum: None,
            has_quorum: true,
            has_ticked: false,
            next_serial: 0,
            generation: 0,
        }
    }

    /// Works out what readers are to see.
    pub(super) fn next_snapshot(&mut self) -> Snapshot<T> {
        self.generation += 1;
        let size = load_group_size(self.records.len());
        let ramping = self.records.iter().any(|e| e.slow_start_percent < 100);
        let fall = self.evaluate();
        self.has_quorum = fall.has_quorum;
        let members = self.records.iter().enumerate().map(|(i, e)| {
            let state = fall.effective_state(e.own_state(), e.effective_weight());
            let weight = e.effective_weight();
            let scale = if ramping { u32::from(e.slow_start_percent) } else { 1 };
            Member {
                account: Arc::clone(&e.backend.account),
                weight,
                table_weight: e.table_weight,
                share: if state == BackendState::Eligible { weight * scale } else { 0 },
                tier: e.tier,
                state,
                limits: e.effective_limits(),
                address: e.address,
                // Below GROUPS, which is 256.
                load_group: (i / size) as u8,
            }
        });
        let lanes = 0..=usize::from(self.context.worker_lanes());
        let seats = lanes.flat_map(|lane| self.records.iter().map(move |e| &e.lease_handles[lane]));
        Snapshot {
            generation: self.generation,
            context: Arc::clone(&self.context),
            lease_handles: seats.map(Arc::clone).collect(),
            members: Members::new(members),
            backends: self.records.iter().map(|e| Arc::clone(&e.backend)).collect(),
            reasons: self.records.iter().map(|e| e.reason().cloned()).collect(),
            panicking: fall.panicking,
            health_counts: (fall.healthy, fall.in_service),
            has_quorum: fall.has_quorum,
        }
    }

    /// What the whole set makes of the states of its members.
    fn evaluate(&self) -> SetHealth {
        let members = || self.records.iter().map(|e| (e.own_state(), e.effective_weight()));
        let healthy = members().filter(|(state, _)| *state == BackendState::Eligible);
        let weight = healthy.map(|(_, weight)| u64::from(weight)).sum();
        let quorum = self.quorum;
        let has_quorum = quorum.is_none_or(|quorum| quorum.is_met(self.has_quorum, weight));
        let withheld = !has_quorum && quorum.is_some_and(|quorum| !quorum.is_advisory());
        let (healthy, wanted) = FailMode::count_healthy(members());
        let panicking = !withheld && self.fail_mode.is_panic(healthy, wanted);
        SetHealth { panicking, has_quorum, withheld, healthy, in_service: wanted }
    }

    /// What operators are to see, newest first.
    pub(super) fn statuses(&self) -> Vec<BackendStatus> {
        let fall = self.evaluate();
        let status = |e: &BackendRecord<T>| BackendStatus {
            id: e.backend.id().clone(),
            address: e.address,
            state: fall.effective_state(e.own_state(), e.effective_weight()),
            reason: e.reason().cloned(),
            admin: e.admin,
            health: e.health,
            outlier_state: e.outlier_state,
            agent_override: e.agent_override,
            weight: e.weight,
            effective_weight: e.effective_weight(),
            slow_start_percent: e.slow_start_percent,
            limits: e.limits,
            tier: e.tier,
        };
        self.records.iter().map(status).collect()
    }

    /// Moves what leases read to the state that is about to be published.
    pub(super) fn apply_to_accounts(&self, snapshot: &Snapshot<T>) {
        for (member, entry) in snapshot.members.iter().zip(&self.records) {
            member.account.set_limits(member.limits, entry.outlier_state == OutlierState::OnTrial);
            member.account.set_load_group(member.load_group);
        }
    }

    /// Lets slow starts move on; `true` if a share changed.
    pub(super) fn advance_slow_start(&mut self, now: Instant) -> bool {
        self.has_ticked = true;
        let slow = self.slow_start;
        let mut changed = false;
        for e in &mut self.records {
            let since = match e.slow_start_progress {
                SlowStartProgress::Done => continue,
                SlowStartProgress::AwaitingTick => now,
                SlowStartProgress::StartedAt(since) => since,
            };
            // Those on their way when slow start was ended have arrived.
            let age = now.saturating_duration_since(since);
            let percent = e.own_slow_start.or(slow).map_or(100, |slow| slow.percent_at_age(age));
            changed |= percent != e.slow_start_percent;
            e.slow_start_percent = percent;
            (e.slow_start_progress, e.own_slow_start) = if percent == 100 {
                (SlowStartProgress::Done, None)
            } else {
                (SlowStartProgress::StartedAt(since), e.own_slow_start)
            };
        }
        changed
    }

    /// How far apart the steps of those ramps are that are going on.
    pub(super) fn slow_start_interval(&self) -> Option<Duration> {
        let ramping =
            self.records.iter().filter(|e| e.slow_start_progress != SlowStartProgress::Done);
        ramping
            .filter_map(|e| e.own_slow_start.or(self.slow_start))
            .map(|slow| slow.update_interval())
            .min()
    }

    pub(super) fn new_lease_handles(
        &self,
        backend: &Arc<Backend<T>>,
    ) -> Arc<[Arc<LeaseHandle<T>>]> {
        LeaseHandle::one_per_lane(backend, self.context.worker_lanes())
    }

    pub(super) fn start_slow_start(&self, entry: &mut BackendRecord<T>) {
        if let (true, Some(slow)) = (self.has_ticked, self.slow_start) {
            entry.slow_start_progress = SlowStartProgress::AwaitingTick;
            entry.own_slow_start = None;
            entry.slow_start_percent = slow.percent_at_age(Duration::ZERO);
        }
    }
}

/// How a set stands as a whole.
#[derive(Clone, Copy, Debug)]
struct SetHealth {
    panicking: bool,
    has_quorum: bool,
    withheld: bool,
    healthy: usize,
    in_service: usize,
}

impl SetHealth {
    fn effective_state(self, own: BackendState, weight: u32) -> BackendState {
        match own {
            BackendState::Eligible if self.withheld => BackendState::Withheld,
            it if it.is_unhealthy() && self.panicking && weight != 0 => BackendState::Eligible,
            it => it,
        }
    }
}
