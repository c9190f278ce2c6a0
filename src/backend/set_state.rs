//! The writer's record of a set, from which each snapshot is made.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::SetContext;
use super::load::MAX_CONNECTION_LIMIT;
use super::load_versions::load_group_size;
use super::{
    AgentOverride, Backend, BackendAdminState, BackendState, BackendStatus, FailMode, Health,
    InitialHealthRule, LeaseHandle, Limits, Member, Members, OutlierState, Quorum, SlowStart,
    Snapshot, Zone,
};

/// The progress of a backend's slow start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SlowStartProgress {
    /// The backend counts with its full weight.
    Done,
    /// The backend came up; the next tick sets the time from which slow start counts.
    AwaitingTick,
    /// The backend came up at this time.
    StartedAt(Instant),
}

/// The writer's record of a backend.
#[derive(Debug)]
pub(super) struct BackendRecord<T> {
    pub(super) backend: Arc<Backend<T>>,
    pub(super) lease_handles: Arc<[Arc<LeaseHandle<T>>]>,
    pub(super) weight: u32,
    /// The last effective weight that was not 0.
    pub(super) table_weight: u32,
    pub(super) tier: u8,
    pub(super) zone: Option<Zone>,
    pub(super) limits: Limits,
    pub(super) address: Option<SocketAddr>,
    pub(super) admin: BackendAdminState,
    pub(super) health: Health,
    pub(super) health_reason: Option<Arc<str>>,
    /// Why a check of the backend does not run at present.
    pub(super) check_problem: Option<Arc<str>>,
    pub(super) outlier_state: OutlierState,
    pub(super) outlier_reason: Option<Arc<str>>,
    pub(super) agent_override: AgentOverride,
    pub(super) slow_start_progress: SlowStartProgress,
    /// A slow start of this backend, which replaces that of the set.
    pub(super) own_slow_start: Option<SlowStart>,
    pub(super) slow_start_percent: u8,
}

impl<T> Clone for BackendRecord<T> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            lease_handles: Arc::clone(&self.lease_handles),
            health_reason: self.health_reason.clone(),
            check_problem: self.check_problem.clone(),
            outlier_reason: self.outlier_reason.clone(),
            ..*self
        }
    }
}

impl<T> BackendRecord<T> {
    pub(super) fn serial(&self) -> u64 {
        self.backend.account.serial()
    }

    /// Returns the weight that counts: the configured one with the agent's override.
    pub(super) fn effective_weight(&self) -> u32 {
        self.agent_override.weight.map_or(self.weight, |agent| agent.apply(self.weight))
    }

    /// Records the weight that hash tables are built from: the last one that was not 0.
    pub(super) fn update_table_weight(&mut self) {
        let weight = self.effective_weight();
        if weight != 0 {
            self.table_weight = weight;
        }
    }

    /// Returns the stronger of the operator's state and the agent's.
    fn effective_admin(&self) -> BackendAdminState {
        self.agent_override.admin.map_or(self.admin, |agent| agent.max(self.admin))
    }

    fn effective_limits(&self) -> Limits {
        let agent = self.agent_override.max_connections;
        let limits = agent.map_or(self.limits, |max| Limits::new(max.min(MAX_CONNECTION_LIMIT)));
        if self.outlier_state == OutlierState::OnTrial && limits == Limits::NONE {
            // A limit, of any size, makes leases take the path that counts trials.
            return Limits::new(MAX_CONNECTION_LIMIT);
        }
        limits
    }

    /// Returns the backend's own state, before the set's fail mode and quorum apply.
    fn own_state(&self) -> BackendState {
        BackendState::resolve(
            self.effective_admin(),
            self.health,
            self.outlier_state,
            self.effective_weight(),
        )
    }

    /// Tells whether the backend is enabled, up and not an outlier, whatever its weight.
    pub(super) fn is_fully_in_service(&self) -> bool {
        self.effective_admin() == BackendAdminState::Enabled
            && self.health == Health::Up
            && self.outlier_state == OutlierState::Good
    }

    fn reason(&self) -> Option<&Arc<str>> {
        match self.own_state() {
            BackendState::Ejected => self.outlier_reason.as_ref(),
            _ if self.check_problem.is_some() => self.check_problem.as_ref(),
            BackendState::Down => self.health_reason.as_ref(),
            _ if self.outlier_state == OutlierState::OnTrial => self.outlier_reason.as_ref(),
            _ => self.health_reason.as_ref().or(self.outlier_reason.as_ref()),
        }
    }
}

/// The writer's whole state. Each edit works on a copy, so that a refused edit changes nothing.
#[derive(Debug)]
pub(super) struct SetState<T> {
    pub(super) context: Arc<SetContext>,
    /// In the kernel's order: newest first.
    pub(super) records: VecDeque<BackendRecord<T>>,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) fail_mode: FailMode,
    pub(super) quorum: Option<Quorum>,
    /// The health of backends that are inserted, unless they are inserted as down.
    pub(super) initial_health: Arc<InitialHealthRule>,
    /// Whether the quorum was met at the last publication.
    has_quorum: bool,
    has_ticked: bool,
    pub(super) next_serial: u64,
    generation: u64,
}

impl<T> Clone for SetState<T> {
    fn clone(&self) -> Self {
        Self {
            context: Arc::clone(&self.context),
            records: self.records.clone(),
            initial_health: Arc::clone(&self.initial_health),
            ..*self
        }
    }
}

impl<T> SetState<T> {
    pub(super) fn new(context: Arc<SetContext>) -> Self {
        Self {
            context,
            records: VecDeque::new(),
            slow_start: None,
            fail_mode: FailMode::Closed,
            quorum: None,
            initial_health: Arc::default(),
            has_quorum: true,
            has_ticked: false,
            next_serial: 0,
            generation: 0,
        }
    }

    /// Makes the snapshot that readers see next.
    pub(super) fn next_snapshot(&mut self) -> Snapshot<T> {
        self.generation += 1;
        let size = load_group_size(self.records.len());
        let any_in_slow_start = self.records.iter().any(|e| e.slow_start_percent < 100);
        let health = self.evaluate();
        self.has_quorum = health.has_quorum;
        let members = self.records.iter().enumerate().map(|(i, e)| {
            let state = health.effective_state(e.own_state(), e.effective_weight());
            let weight = e.effective_weight();
            let scale = if any_in_slow_start { u32::from(e.slow_start_percent) } else { 1 };
            Member {
                account: Arc::clone(&e.backend.account),
                weight,
                table_weight: e.table_weight,
                share: if state == BackendState::Eligible { weight * scale } else { 0 },
                tier: e.tier,
                zone: e.zone,
                state,
                limits: e.effective_limits(),
                address: e.address,
                // Below MAX_LOAD_GROUPS, which is 256.
                load_group: (i / size) as u8,
            }
        });
        let lanes = 0..=usize::from(self.context.worker_lanes());
        let handles =
            lanes.flat_map(|lane| self.records.iter().map(move |e| &e.lease_handles[lane]));
        Snapshot {
            generation: self.generation,
            context: Arc::clone(&self.context),
            lease_handles: handles.map(Arc::clone).collect(),
            members: Members::new(members),
            backends: self.records.iter().map(|e| Arc::clone(&e.backend)).collect(),
            reasons: self.records.iter().map(|e| e.reason().cloned()).collect(),
            panicking: health.panicking,
            health_counts: (health.healthy, health.in_service),
            has_quorum: health.has_quorum,
            quorum: self.quorum,
            healthy_weight: health.healthy_weight,
        }
    }

    /// Evaluates fail mode and quorum over the states of all members.
    fn evaluate(&self) -> SetHealth {
        let members = || self.records.iter().map(|e| (e.own_state(), e.effective_weight()));
        let healthy = members().filter(|(state, _)| *state == BackendState::Eligible);
        let healthy_weight = healthy.map(|(_, weight)| u64::from(weight)).sum();
        let quorum = self.quorum;
        let has_quorum = quorum.is_none_or(|quorum| quorum.is_met(self.has_quorum, healthy_weight));
        let withheld = !has_quorum && quorum.is_some_and(|quorum| !quorum.is_advisory());
        let (healthy, in_service) = FailMode::count_healthy(members());
        let panicking = !withheld && self.fail_mode.is_panic(healthy, in_service);
        SetHealth { panicking, has_quorum, withheld, healthy, in_service, healthy_weight }
    }

    /// Returns the status of every backend, newest first.
    pub(super) fn statuses(&self) -> Vec<BackendStatus> {
        let health = self.evaluate();
        let status = |e: &BackendRecord<T>| BackendStatus {
            id: e.backend.id().clone(),
            address: e.address,
            state: health.effective_state(e.own_state(), e.effective_weight()),
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
            zone: e.zone,
        };
        self.records.iter().map(status).collect()
    }

    /// Gives the accounts, which leases read, the limits and groups of the next publication.
    pub(super) fn apply_to_accounts(&self, snapshot: &Snapshot<T>) {
        for (member, record) in snapshot.members.iter().zip(&self.records) {
            member.account.set_limits(member.limits, record.outlier_state == OutlierState::OnTrial);
            member.account.set_load_group(member.load_group);
        }
    }

    /// Advances every slow start to `now`; returns `true` if a share changed.
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
            // Where the set's slow start was removed meanwhile, the backend counts in full.
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

    /// Returns the shortest update interval of the slow starts in progress.
    pub(super) fn slow_start_interval(&self) -> Option<Duration> {
        let in_slow_start =
            self.records.iter().filter(|e| e.slow_start_progress != SlowStartProgress::Done);
        in_slow_start
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

    /// Starts the set's slow start for a backend. Before the first tick all backends are new and
    /// count in full.
    pub(super) fn start_slow_start(&self, record: &mut BackendRecord<T>) {
        if let (true, Some(slow)) = (self.has_ticked, self.slow_start) {
            record.slow_start_progress = SlowStartProgress::AwaitingTick;
            record.own_slow_start = None;
            record.slow_start_percent = slow.percent_at_age(Duration::ZERO);
        }
    }
}

/// The health of a set as a whole.
#[derive(Clone, Copy, Debug)]
struct SetHealth {
    panicking: bool,
    has_quorum: bool,
    withheld: bool,
    healthy: usize,
    in_service: usize,
    healthy_weight: u64,
}

impl SetHealth {
    fn effective_state(self, own: BackendState, weight: u32) -> BackendState {
        match own {
            BackendState::Eligible if self.withheld => BackendState::Withheld,
            state if state.is_unhealthy() && self.panicking && weight != 0 => {
                BackendState::Eligible
            }
            state => state,
        }
    }
}
