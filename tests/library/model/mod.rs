//! The model of a set, its balancer and its leases.
//!
//! The model has no plane, load versions or hash tables: a list of records in the kernel's order, plain
//! counters, and a list of leases. What it says is what the documentation says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs::backend::{BackendAdminState, BackendState, MAX_WEIGHT};
use lvs::scheduler::{Rng, parse};
use lvs::{
    Backend, BackendId, BackendSet, Balancer, Flow, Health, Lease, Limits, Load, Outcome,
    PickError, SetError, SlowStart, Spec,
};
use proptest::prelude::*;

use crate::properties::REFUSING;

pub(crate) const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Insert {
        name: &'static str,
        weight: u32,
        tier: u8,
        limits: Limits,
        health: Health,
    },
    Remove {
        name: &'static str,
    },
    SetTarget {
        name: &'static str,
    },
    SetWeight {
        name: &'static str,
        weight: u32,
    },
    SetLimits {
        name: &'static str,
        limits: Limits,
    },
    SetTier {
        name: &'static str,
        tier: u8,
    },
    SetAdmin {
        name: &'static str,
        admin: BackendAdminState,
    },
    SetHealth {
        name: &'static str,
        health: Health,
    },
    /// An edit of several changes, the last of which is refused.
    RefusedEdit {
        name: &'static str,
        weight: u32,
    },
    SlowStart {
        seconds: Option<u64>,
    },
    Tick {
        seconds: u64,
    },
    SetScheduler,
    Pick {
        flow: Wanted,
    },
    PickId {
        name: &'static str,
    },
    SetActive {
        lease: usize,
        active: bool,
    },
    End {
        lease: usize,
        how: End,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) source: Option<u8>,
    pub(crate) destination: Option<u8>,
    pub(crate) key: Option<u64>,
    pub(crate) timed: bool,
    /// The backends tried before, by name.
    pub(crate) tried: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) enum End {
    Drop,
    Complete(Outcome),
    CompleteAfter(Outcome, u64),
}

/// What the model knows of a backend, configured or removed.
struct Record {
    backend: Arc<Backend<u32>>,
    name: &'static str,
    target: u32,
    weight: u32,
    tier: u8,
    limits: Limits,
    admin: BackendAdminState,
    health: Health,
    active: u32,
    inactive: u32,
    /// It was at its maximum, and has not fallen far enough since.
    overflowed: bool,
    made: u64,
    ended: [u64; Outcome::ALL.len()],
}

impl Record {
    fn state(&self) -> BackendState {
        match (self.admin, self.health, self.weight) {
            (BackendAdminState::Disabled, ..) => BackendState::Disabled,
            (BackendAdminState::Draining, ..) => BackendState::Draining,
            (_, Health::Down, _) => BackendState::Down,
            (.., 0) => BackendState::Quiesced,
            _ => BackendState::Eligible,
        }
    }

    fn total(&self) -> u32 {
        self.active + self.inactive
    }

    fn overloaded(&self) -> bool {
        self.limits.max_connections() != 0
            && (self.total() >= self.limits.max_connections()
                || self.overflowed && self.total() >= self.limits.resume_threshold())
    }

    /// Notes after each change of the total on which side of the thresholds it is.
    fn counted(&mut self) {
        if self.limits.max_connections() != 0 {
            self.overflowed = self.overloaded();
        }
    }
}

/// Wants an answer to be one particular error.
macro_rules! refused {
    ($answer:expr, $error:ident) => {
        let answer = $answer.map(drop);
        prop_assert!(matches!(answer, Err(SetError::$error { .. })), "{:?}", answer)
    };
}

struct Held {
    lease: Lease<u32>,
    record: usize,
    target: u32,
    active: bool,
}

pub(crate) struct World {
    set: BackendSet<u32>,
    balancer: Balancer<u32>,
    expression: &'static str,
    rng: Rng,
    now: Instant,
    records: Vec<Record>,
    /// The configured records, newest first.
    listed: Vec<usize>,
    held: Vec<Held>,
    targets: u32,
}

fn limits_sound(limits: Limits) -> bool {
    limits.resume_below() <= limits.max_connections()
}

pub(crate) fn names_in(expression: &str) -> impl Iterator<Item = &str> {
    expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
}

impl World {
    pub(crate) fn new(expression: &'static str) -> Self {
        let set = BackendSet::new();
        let scheduler = parse(expression).expect("an expression of the list");
        let balancer = Balancer::new(&set, scheduler).expect("takes an empty set");
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        let now = Instant::now();
        Self {
            set,
            balancer,
            expression,
            rng: Rng::with_seed(1),
            now,
            records: Vec::new(),
            listed: Vec::new(),
            held: Vec::new(),
            targets: 0,
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.listed.iter().copied().find(|&i| self.records[i].name == name)
    }

    fn in_state(&self, state: BackendState) -> Vec<usize> {
        self.listed.iter().copied().filter(|&i| self.records[i].state() == state).collect()
    }

    fn may_refuse(&self) -> bool {
        names_in(self.expression).any(|name| REFUSING.contains(&name))
    }

    fn may_panic(&self) -> bool {
        names_in(self.expression).any(|name| name == "priority")
            && !self.expression.contains("panic=0")
    }

    pub(crate) fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match op {
            Op::Insert { name, weight, tier, limits, health } => {
                let target = self.next_target();
                let spec = Spec::new(*name, target);
                let spec = spec.weight(*weight).tier(*tier).limits(*limits).health(*health);
                // An argument that is wrong in itself is reported before one that does not fit.
                let answer = self.set.insert(spec);
                if *weight > MAX_WEIGHT {
                    refused!(answer, InvalidWeight);
                } else if !limits_sound(*limits) {
                    refused!(answer, InvalidLimits);
                } else if self.find(name).is_some() {
                    refused!(answer, DuplicateBackend);
                } else {
                    let backend = answer.map_err(|error| TestCaseError::fail(error.to_string()))?;
                    self.listed.insert(0, self.records.len());
                    self.records.push(Record {
                        backend,
                        name,
                        target,
                        weight: *weight,
                        tier: *tier,
                        limits: *limits,
                        admin: BackendAdminState::Enabled,
                        health: *health,
                        active: 0,
                        inactive: 0,
                        overflowed: false,
                        made: 0,
                        ended: [0; Outcome::ALL.len()],
                    });
                }
            }
            Op::Remove { name } => {
                let answer = self.set.remove(&BackendId::from(*name)).map(drop);
                if self.known(name, answer)?.is_some() {
                    self.listed.retain(|&i| self.records[i].name != *name);
                }
            }
            Op::SetTarget { name } => {
                let target = self.next_target();
                let answer = self.set.set_target(&BackendId::from(*name), target, None).map(drop);
                if let Some(record) = self.known(name, answer)? {
                    record.target = target;
                }
            }
            Op::SetWeight { name, weight } => {
                let answer = self.set.set_weight(&BackendId::from(*name), *weight);
                if *weight > MAX_WEIGHT {
                    refused!(answer, InvalidWeight);
                } else if let Some(record) = self.known(name, answer)? {
                    record.weight = *weight;
                }
            }
            Op::SetLimits { name, limits } => {
                let answer = self.set.set_limits(&BackendId::from(*name), *limits);
                if !limits_sound(*limits) {
                    refused!(answer, InvalidLimits);
                } else if let Some(record) = self.known(name, answer)? {
                    record.limits = *limits;
                }
            }
            Op::SetTier { name, tier } => {
                let answer = self.set.edit(|edit| edit.set_tier(&BackendId::from(*name), *tier));
                if let Some(record) = self.known(name, answer)? {
                    record.tier = *tier;
                }
            }
            Op::SetAdmin { name, admin } => {
                let id = BackendId::from(*name);
                let answer = match admin {
                    BackendAdminState::Draining => self.set.drain(&id),
                    BackendAdminState::Disabled => self.set.disable(&id),
                    _ => self.set.enable(&id),
                };
                if let Some(record) = self.known(name, answer)? {
                    record.admin = *admin;
                }
            }
            Op::SetHealth { name, health } => {
                let answer = self.set.set_health(&BackendId::from(*name), *health);
                if let Some(record) = self.known(name, answer)? {
                    record.health = *health;
                }
            }
            Op::RefusedEdit { name, weight } => {
                let answer: Result<(), SetError> = self.set.edit(|edit| {
                    for member in NAMES {
                        // Some are unknown; all that were changed must come back.
                        let _ = edit.set_weight(&BackendId::from(member), 7);
                        let _ =
                            edit.set_admin(&BackendId::from(member), BackendAdminState::Disabled);
                    }
                    let _ = edit.remove(&BackendId::from(*name));
                    edit.insert(Spec::new(*name, 0).weight(*weight))?;
                    edit.remove(&BackendId::from("unknown"))?;
                    Ok(())
                });
                prop_assert!(answer.is_err());
            }
            Op::SlowStart { seconds } => {
                let rule = seconds.map(|seconds| SlowStart::new(Duration::from_secs(seconds)));
                self.set.set_slow_start(rule);
            }
            Op::Tick { seconds } => {
                self.now += Duration::from_secs(*seconds);
                let next = self.set.advance_slow_start(self.now);
                let next = next.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert!(next.is_none_or(|next| next > self.now));
            }
            Op::SetScheduler => {
                let scheduler = parse(self.expression).expect("as before");
                prop_assert!(self.balancer.set_scheduler(scheduler).is_ok());
            }
            Op::Pick { flow } => self.pick(flow)?,
            Op::PickId { name } => {
                let lease = self.balancer.lease_by_id(&BackendId::from(*name));
                let wanted =
                    self.find(name).filter(|&i| self.records[i].state() == BackendState::Eligible);
                prop_assert_eq!(lease.is_some(), wanted.is_some(), "pick_id({})", name);
                if let (Some(lease), Some(record)) = (lease, wanted) {
                    self.hold(lease, record)?;
                }
            }
            Op::SetActive { lease, active } => {
                let count = self.held.len();
                if let Some(held) = self.held.get_mut(lease.checked_rem(count).unwrap_or(0)) {
                    held.lease.set_active(*active);
                    let record = &mut self.records[held.record];
                    match (held.active, *active) {
                        (true, false) => {
                            (record.active, record.inactive) =
                                (record.active - 1, record.inactive + 1)
                        }
                        (false, true) => {
                            (record.active, record.inactive) =
                                (record.active + 1, record.inactive - 1)
                        }
                        _ => {}
                    }
                    held.active = *active;
                }
            }
            Op::End { lease, how } => {
                if let Some(at) = lease.checked_rem(self.held.len()) {
                    self.end(at, how)?;
                }
            }
        }
        self.check()
    }

    /// Compares the answer to a change of one backend with whether there is one.
    fn known(
        &mut self,
        name: &str,
        answer: Result<(), SetError>,
    ) -> Result<Option<&mut Record>, TestCaseError> {
        match (self.find(name), answer) {
            (Some(record), Ok(())) => Ok(Some(&mut self.records[record])),
            (None, Err(SetError::UnknownBackend { id })) if id.as_str() == name => Ok(None),
            (found, answer) => {
                Err(TestCaseError::fail(format!("{name} is {found:?}, but {answer:?}")))
            }
        }
    }

    fn next_target(&mut self) -> u32 {
        self.targets += 1;
        self.targets
    }

    fn pick(&mut self, wanted: &Wanted) -> Result<(), TestCaseError> {
        let address = |last, port| SocketAddr::from((Ipv4Addr::new(10, 0, 0, last), port));
        let mut flow = Flow::new();
        if let Some(last) = wanted.source {
            flow = flow.source(address(last, 1000 + u16::from(last)));
        }
        if let Some(last) = wanted.destination {
            flow = flow.destination(address(last, 80));
        }
        if let Some(key) = wanted.key {
            flow = flow.key(key);
        }
        if wanted.timed {
            flow = flow.time(self.now);
        }
        let tried: Vec<usize> = wanted.tried.iter().filter_map(|name| self.find(name)).collect();
        tried.iter().for_each(|&i| flow.exclude(&*self.records[i].backend));

        let eligible = self.in_state(BackendState::Eligible);
        // The kernel's lblc leaves a destination with its server while that recovers from overload.
        let keeps_home = names_in(self.expression).any(|name| name == "lblc");
        let keeps = |&i: &usize| {
            let record = &self.records[i];
            keeps_home && record.total() < record.limits.max_connections() && !tried.contains(&i)
        };
        let free = |&i: &usize| !self.records[i].overloaded() && !tried.contains(&i);
        let mut down = self.in_state(BackendState::Down);
        down.retain(|&i| self.records[i].weight != 0);
        let panicking: &[usize] = if self.may_panic() { &down } else { &[] };

        match self.balancer.pick_with_rng(&flow, &mut self.rng) {
            Ok(lease) => {
                let record = self.find(lease.id().as_str());
                let allowed = record.filter(|i| eligible.contains(i) || panicking.contains(i));
                let Some(record) = allowed.filter(|i| free(i) || keeps(i)) else {
                    return Err(TestCaseError::fail(format!(
                        "{} is not to be chosen: {:?}",
                        lease.id(),
                        record.map(|i| (
                            self.records[i].state(),
                            self.records[i].overloaded(),
                            tried.contains(&i)
                        ))
                    )));
                };
                self.hold(lease, record)
            }
            Err(error) => {
                let expected = if self.listed.is_empty() {
                    PickError::NoBackends
                } else if eligible.is_empty() {
                    if down.is_empty() { PickError::AllQuiesced } else { PickError::AllDown }
                } else if eligible.iter().all(|i| tried.contains(i)) {
                    PickError::AllTried
                } else if !eligible.iter().any(free) {
                    PickError::AllAtLimit
                } else {
                    PickError::SchedulerRefused
                };
                prop_assert_eq!(error, expected);
                prop_assert!(
                    error != PickError::SchedulerRefused || self.may_refuse(),
                    "the pick was refused although a backend is usable"
                );
                Ok(())
            }
        }
    }

    fn hold(&mut self, lease: Lease<u32>, record: usize) -> Result<(), TestCaseError> {
        let it = &mut self.records[record];
        prop_assert_eq!(*lease.target(), it.target);
        it.active += 1;
        it.made += 1;
        it.counted();
        let target = it.target;
        self.held.push(Held { lease, record, target, active: true });
        Ok(())
    }

    fn end(&mut self, at: usize, how: &End) -> Result<(), TestCaseError> {
        let Held { lease, record, target, active } = self.held.swap_remove(at);
        prop_assert_eq!(*lease.target(), target, "a lease keeps the target it was given");
        let outcome = match *how {
            End::Drop => {
                drop(lease);
                Outcome::Cancelled
            }
            End::Complete(outcome) => {
                lease.complete(outcome);
                outcome
            }
            End::CompleteAfter(outcome, millis) => {
                lease.complete_with_latency(outcome, Duration::from_millis(millis), self.now);
                outcome
            }
        };
        let it = &mut self.records[record];
        *(if active { &mut it.active } else { &mut it.inactive }) -= 1;
        it.ended[outcome as usize] += 1;
        it.counted();
        Ok(())
    }

    /// Compares everything that can be seen with the model.
    fn check(&self) -> Result<(), TestCaseError> {
        for record in &self.records {
            let load = record.backend.load();
            prop_assert_eq!((load.active, load.inactive), (record.active, record.inactive));
            prop_assert_eq!(load.total(), record.total());
            let it = record.backend.outcomes();
            let seen = [it.ok, it.app_error, it.connect_error, it.timeout, it.cancelled];
            prop_assert_eq!(seen, record.ended);
        }
        let published = self.balancer.snapshot();
        prop_assert_eq!(published.generation(), self.set.snapshot().generation());
        prop_assert_eq!(published.members().len(), self.listed.len());
        for ((backend, member), &i) in published.iter().zip(&self.listed) {
            let record = &self.records[i];
            prop_assert_eq!(member.id().as_str(), record.name);
            prop_assert_eq!(backend.id(), member.id());
            prop_assert_eq!(*backend.target(), record.target);
            prop_assert_eq!(member.weight(), record.weight);
            prop_assert_eq!(member.tier(), record.tier);
            prop_assert_eq!(member.limits(), record.limits);
            prop_assert_eq!(member.state(), record.state());
            prop_assert_eq!(member.share() != 0, record.state() == BackendState::Eligible);
            prop_assert_eq!(member.is_overloaded(), record.overloaded());
        }
        Ok(())
    }

    /// Lets go of everything and looks at what is left.
    pub(crate) fn finish(mut self) -> Result<(), TestCaseError> {
        while !self.held.is_empty() {
            self.end(0, &End::Drop)?;
        }
        self.check()?;
        for record in &self.records {
            prop_assert_eq!(record.backend.load(), Load::default());
            prop_assert_eq!(record.backend.outcomes().total(), record.made);
        }
        Ok(())
    }
}
