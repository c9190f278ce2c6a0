//! The writer's own record of a set, from which each snapshot is made.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::Shared;
use super::board::group_size;
use super::{
    Admin, Advice, Backend, FailMode, Health, Limits, Member, Members, Quorum, Seat, SlowStart,
    Snapshot, Standing, State, Status,
};

/// How far a backend's slow start has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ramp {
    /// It counts in full.
    Done,
    /// It came up, and no tick has said yet when that was.
    Waiting,
    /// It came up at this moment.
    Since(Instant),
}

/// The writer's record of a backend.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) backend: Arc<Backend<T>>,
    pub(super) seats: Arc<[Arc<Seat<T>>]>,
    pub(super) weight: u32,
    /// The last weight that counted and was not 0.
    pub(super) last_weight: u32,
    pub(super) tier: u8,
    pub(super) limits: Limits,
    pub(super) address: Option<SocketAddr>,
    pub(super) admin: Admin,
    pub(super) health: Health,
    pub(super) health_why: Option<Arc<str>>,
    pub(super) standing: Standing,
    pub(super) standing_why: Option<Arc<str>>,
    pub(super) advice: Advice,
    pub(super) ramp: Ramp,
    /// A ramp of its own instead of the set's slow start.
    pub(super) ramp_by: Option<SlowStart>,
    pub(super) percent: u8,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            seats: Arc::clone(&self.seats),
            health_why: self.health_why.clone(),
            standing_why: self.standing_why.clone(),
            ..*self
        }
    }
}

impl<T> Entry<T> {
    pub(super) fn serial(&self) -> u64 {
        self.backend.account.serial()
    }

    /// The weight that counts.
    pub(super) fn effective_weight(&self) -> u32 {
        self.advice.weight.map_or(self.weight, |advice| advice.apply(self.weight))
    }

    /// Hash tables are built from the last weight that was not 0.
    pub(super) fn remember_weight(&mut self) {
        let weight = self.effective_weight();
        if weight != 0 {
            self.last_weight = weight;
        }
    }

    /// The stronger of what the operator and a checker want.
    fn effective_admin(&self) -> Admin {
        self.advice.admin.map_or(self.admin, |advice| advice.max(self.admin))
    }

    fn effective_limits(&self) -> Limits {
        let limits = self.advice.max_connections.map_or(self.limits, Limits::max);
        if self.standing == Standing::OnTrial && limits == Limits::NONE {
            // Any limit at all sends leases past the place that counts trials.
            return Limits::max(u32::MAX);
        }
        limits
    }

    /// The state by itself, whatever becomes of the set.
    fn state(&self) -> State {
        State::of(self.effective_admin(), self.health, self.standing, self.effective_weight())
    }

    /// Eligible but for its weight, and not on trial.
    pub(super) fn is_up(&self) -> bool {
        self.effective_admin() == Admin::Enabled
            && self.health == Health::Up
            && self.standing == Standing::Good
    }

    fn why(&self) -> Option<&Arc<str>> {
        match self.state() {
            State::Down => self.health_why.as_ref(),
            State::Ejected => self.standing_why.as_ref(),
            _ if self.standing == Standing::OnTrial => self.standing_why.as_ref(),
            _ => self.health_why.as_ref().or(self.standing_why.as_ref()),
        }
    }
}

/// The writer's whole state; copied for each edit, so that a refused one leaves no trace.
#[derive(Debug)]
pub(super) struct Draft<T> {
    pub(super) shared: Arc<Shared>,
    /// In the kernel's order: newest first.
    pub(super) entries: VecDeque<Entry<T>>,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) fail_mode: FailMode,
    pub(super) quorum: Option<Quorum>,
    /// Whether it had its quorum when it was published last.
    has_quorum: bool,
    ticked: bool,
    pub(super) next_serial: u64,
    generation: u64,
}

impl<T> Clone for Draft<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), entries: self.entries.clone(), ..*self }
    }
}

impl<T> Draft<T> {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            entries: VecDeque::new(),
            slow_start: None,
            fail_mode: FailMode::Closed,
            quorum: None,
            has_quorum: true,
            ticked: false,
            next_serial: 0,
            generation: 0,
        }
    }

    /// Works out what readers are to see.
    pub(super) fn snapshot(&mut self) -> Snapshot<T> {
        self.generation += 1;
        let size = group_size(self.entries.len());
        let ramping = self.entries.iter().any(|e| e.percent < 100);
        let fall = self.fall();
        self.has_quorum = fall.has_quorum;
        let members = self.entries.iter().enumerate().map(|(i, e)| {
            let state = fall.state(e.state(), e.effective_weight());
            let weight = e.effective_weight();
            let scale = if ramping { u32::from(e.percent) } else { 1 };
            Member {
                account: Arc::clone(&e.backend.account),
                weight,
                last_weight: e.last_weight,
                share: if state == State::Eligible { weight * scale } else { 0 },
                tier: e.tier,
                state,
                limits: e.effective_limits(),
                address: e.address,
                // Below GROUPS, which is 256.
                group: (i / size) as u8,
            }
        });
        let lanes = 0..=usize::from(self.shared.workers());
        let seats = lanes.flat_map(|lane| self.entries.iter().map(move |e| &e.seats[lane]));
        Snapshot {
            generation: self.generation,
            shared: Arc::clone(&self.shared),
            seats: seats.map(Arc::clone).collect(),
            members: Members::new(members),
            backends: self.entries.iter().map(|e| Arc::clone(&e.backend)).collect(),
            whys: self.entries.iter().map(|e| e.why().cloned()).collect(),
            panicking: fall.panicking,
            health_count: (fall.healthy, fall.wanted),
            has_quorum: fall.has_quorum,
        }
    }

    /// What the whole set makes of the states of its members.
    fn fall(&self) -> Fall {
        let members = || self.entries.iter().map(|e| (e.state(), e.effective_weight()));
        let healthy = members().filter(|(state, _)| *state == State::Eligible);
        let weight = healthy.map(|(_, weight)| u64::from(weight)).sum();
        let quorum = self.quorum;
        let has_quorum = quorum.is_none_or(|quorum| quorum.holds(self.has_quorum, weight));
        let withheld = !has_quorum && quorum.is_some_and(|quorum| !quorum.is_advisory());
        let (healthy, wanted) = FailMode::count(members());
        let panicking = !withheld && self.fail_mode.is_panic(healthy, wanted);
        Fall { panicking, has_quorum, withheld, healthy, wanted }
    }

    /// What operators are to see, newest first.
    pub(super) fn status(&self) -> Vec<Status> {
        let fall = self.fall();
        let status = |e: &Entry<T>| Status {
            id: e.backend.id().clone(),
            address: e.address,
            state: fall.state(e.state(), e.effective_weight()),
            why: e.why().cloned(),
            admin: e.admin,
            health: e.health,
            standing: e.standing,
            advice: e.advice,
            weight: e.weight,
            effective_weight: e.effective_weight(),
            share_percent: e.percent,
            limits: e.limits,
            tier: e.tier,
        };
        self.entries.iter().map(status).collect()
    }

    /// Moves what leases read to the state that is about to be published.
    pub(super) fn settle(&self, snapshot: &Snapshot<T>) {
        for (member, entry) in snapshot.members.iter().zip(&self.entries) {
            member.account.set_limits(member.limits, entry.standing == Standing::OnTrial);
            member.account.set_group(member.group);
        }
    }

    /// Lets slow starts move on; `true` if a share changed.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        self.ticked = true;
        let slow = self.slow_start;
        let mut changed = false;
        for e in &mut self.entries {
            let since = match e.ramp {
                Ramp::Done => continue,
                Ramp::Waiting => now,
                Ramp::Since(since) => since,
            };
            // Those on their way when slow start was ended have arrived.
            let age = now.saturating_duration_since(since);
            let percent = e.ramp_by.or(slow).map_or(100, |slow| slow.percent(age));
            changed |= percent != e.percent;
            e.percent = percent;
            (e.ramp, e.ramp_by) =
                if percent == 100 { (Ramp::Done, None) } else { (Ramp::Since(since), e.ramp_by) };
        }
        changed
    }

    /// How far apart the steps of those ramps are that are going on.
    pub(super) fn step(&self) -> Option<Duration> {
        let ramping = self.entries.iter().filter(|e| e.ramp != Ramp::Done);
        ramping.filter_map(|e| e.ramp_by.or(self.slow_start)).map(|slow| slow.step()).min()
    }

    pub(super) fn seats(&self, backend: &Arc<Backend<T>>) -> Arc<[Arc<Seat<T>>]> {
        Seat::for_lanes(backend, self.shared.workers())
    }

    pub(super) fn start_ramp(&self, entry: &mut Entry<T>) {
        if let (true, Some(slow)) = (self.ticked, self.slow_start) {
            entry.ramp = Ramp::Waiting;
            entry.ramp_by = None;
            entry.percent = slow.percent(Duration::ZERO);
        }
    }
}

/// How a set stands as a whole.
#[derive(Clone, Copy, Debug)]
struct Fall {
    panicking: bool,
    has_quorum: bool,
    withheld: bool,
    healthy: usize,
    wanted: usize,
}

impl Fall {
    fn state(self, own: State, weight: u32) -> State {
        match own {
            State::Eligible if self.withheld => State::Withheld,
            it if it.is_unhealthy() && self.panicking && weight != 0 => State::Eligible,
            it => it,
        }
    }
}
