//! The whole of a monitor but for sockets and clock: who is asked, when, and what follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::check::{Failure, FailureKind, Probe, Report};
use super::events::EventKind;
use super::plan::ProbeKey;
use super::room::{Member, Room};
use super::saved::{Saved, SavedVerdict, SavedVerdicts};
use super::service::{Seen, Service, Word};
use super::timetable::{Lateness, ProbeId, Timetable};
use super::verdict::Verdict;
use crate::backend::{Advice, BackendId, Health, SetError};

/// Names a service; never used twice.
pub(super) type ServiceId = u64;

/// All services, and all probes that they share.
pub(super) struct Engine {
    timetable: Timetable,
    probes: HashMap<ProbeId, Shared>,
    by_key: HashMap<ProbeKey, ProbeId>,
    services: HashMap<ServiceId, Room>,
    next_service: ServiceId,
    failures: Failures,
}

/// How many checks failed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failures {
    /// The backend's fault.
    pub(super) remote: u64,
    /// This machine's.
    pub(super) local: u64,
}

/// A probe, and whom its answers concern.
#[derive(Debug)]
struct Shared {
    key: ProbeKey,
    /// Whom the check is told it asks: the first who wanted it.
    id: BackendId,
    subscribers: Vec<(ServiceId, u64)>,
    verdict: Verdict,
    /// What the verdict rests on.
    why: Arc<str>,
    advice: Advice,
    warning: Option<Arc<str>>,
}

/// A check to be made.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: ProbeId,
    pub(super) key: ProbeKey,
    pub(super) probe: Probe,
}

impl Engine {
    pub(super) fn new(most_in_flight: usize, seed: u64) -> Self {
        Self {
            timetable: Timetable::new(most_in_flight, seed),
            probes: HashMap::new(),
            by_key: HashMap::new(),
            services: HashMap::new(),
            next_service: 0,
            failures: Failures::default(),
        }
    }

    pub(super) fn set_most_in_flight(&mut self, most: usize) {
        self.timetable.set_most_in_flight(most);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.timetable.in_flight()
    }

    pub(super) fn probes(&self) -> usize {
        self.probes.len()
    }

    pub(super) fn failures(&self) -> Failures {
        self.failures
    }

    /// Asks again what is asked now, and whose answers will not come.
    pub(super) fn give_up(&mut self) {
        self.timetable.give_up();
    }

    pub(super) fn lateness(&self) -> Lateness {
        self.timetable.lateness()
    }

    pub(super) fn insert(&mut self, service: Arc<dyn Service>) -> ServiceId {
        let id = self.next_service;
        self.next_service += 1;
        self.services.insert(id, Room::new(service));
        id
    }

    pub(super) fn remove(&mut self, id: ServiceId) {
        let Some(room) = self.services.remove(&id) else { return };
        for (serial, member) in room.members {
            member.probes.into_iter().for_each(|probe| self.unsubscribe(probe, (id, serial)));
        }
    }

    /// When to call [`poll`](Self::poll) again, if nothing happens before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let rooms =
            self.services.values().flat_map(|room| [room.tell_at(), room.tick_at, room.judge_at()]);
        rooms.chain([self.timetable.poll_timeout()]).flatten().min()
    }

    /// Follows the sets, tells them what is known, and says whom to ask now.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Job> {
        let ids: Vec<_> = self.services.keys().copied().collect();
        for id in ids {
            if self.services.get(&id).is_some_and(|room| room.service.take_changed()) {
                self.follow(id, now);
            }
            if let Some(room) = self.services.get_mut(&id) {
                room.judge(now);
                room.settle(now);
            }
        }
        let mut jobs = Vec::new();
        while let Some(id) = self.timetable.begin(now) {
            jobs.extend(self.job(id));
        }
        jobs
    }

    fn job(&self, id: ProbeId) -> Option<Job> {
        let shared = self.probes.get(&id)?;
        let probe = Probe::new(shared.id.clone(), shared.key.address);
        let probe = match shared.key.source {
            Some(source) => probe.from_source(source),
            None => probe,
        };
        Some(Job { id, key: shared.key.clone(), probe })
    }

    /// Takes the answer to a [`Job`].
    pub(super) fn finish(&mut self, id: ProbeId, answer: Result<Report, Failure>, now: Instant) {
        let Some(shared) = self.probes.get_mut(&id) else { return };
        if let Err(failure) = &answer {
            let local = failure.kind() == FailureKind::Local;
            let count = if local { &mut self.failures.local } else { &mut self.failures.remote };
            *count += 1;
            let (check, address) = (shared.key.check.name(), shared.key.address);
            debug!(check, %address, kind = %failure.kind(), "{failure}");
        }
        let changed = shared.note(answer);
        self.timetable.finish(id, shared.verdict, now);
        if !changed.verdict && !changed.warning {
            return;
        }
        let (subscribers, warning) = (shared.subscribers.clone(), shared.warning.clone());
        for (service, serial) in subscribers {
            if changed.verdict {
                self.conclude(service, serial);
            }
            let room = self.services.get(&service).filter(|_| changed.warning);
            let member = room.and_then(|room| Some((room, room.members.get(&serial)?)));
            if let (Some((room, member)), Some(text)) = (member, &warning) {
                let (id, text) = (member.seen.id.clone(), Arc::clone(text));
                room.service.tell(EventKind::Warning { id, text });
            }
        }
    }

    /// What is known of a service, to be taken up after a restart.
    pub(super) fn export(&self, id: ServiceId, now: Instant) -> Saved {
        let Some(room) = self.services.get(&id) else { return Saved::default() };
        let verdicts = room.members.values().map(|member| SavedVerdicts {
            id: member.seen.id.to_string(),
            checks: member
                .probes
                .iter()
                .filter_map(|probe| self.probes.get(probe))
                .map(|shared| SavedVerdict {
                    check: shared.key.check.name().to_owned(),
                    verdict: shared.verdict,
                    why: shared.why.to_string(),
                })
                .collect(),
        });
        Saved {
            backends: room.service.export(now),
            verdicts: verdicts.collect(),
            ejections: room.export_ejections(now),
        }
    }

    /// Takes up what was saved. What has been found out since goes before it.
    pub(super) fn restore(
        &mut self,
        id: ServiceId,
        saved: &Saved,
        now: Instant,
    ) -> Result<(), SetError> {
        let Some(service) = self.services.get(&id).map(|room| Arc::clone(&room.service)) else {
            return Ok(());
        };
        service.restore(&saved.backends, now)?;
        if service.take_changed() {
            self.follow(id, now);
        }
        let by_name: HashMap<_, _> =
            saved.verdicts.iter().map(|it| (it.id.as_str(), &it.checks)).collect();
        let Some(room) = self.services.get(&id) else { return Ok(()) };
        let mut serials = Vec::new();
        for (serial, member) in &room.members {
            serials.push(*serial);
            let Some(checks) = by_name.get(member.seen.id.as_str()) else { continue };
            for (probe, saved) in member.probes.iter().zip(*checks) {
                let shared = self.probes.get_mut(probe);
                let shared = shared.filter(|it| it.key.check.name() == saved.check);
                if let Some(shared) = shared.filter(|it| it.verdict.health().is_none()) {
                    shared.verdict = saved.verdict;
                    shared.why = saved.why.as_str().into();
                }
            }
        }
        serials.into_iter().for_each(|serial| self.conclude(id, serial));
        if let Some(room) = self.services.get_mut(&id) {
            room.restore_ejections(&saved.ejections, now);
        }
        Ok(())
    }

    /// Compares a set with what is known of it.
    fn follow(&mut self, id: ServiceId, now: Instant) {
        let Some(room) = self.services.get_mut(&id) else { return };
        let mut old = std::mem::take(&mut room.members);
        let service = Arc::clone(&room.service);
        // Slow starts may have begun.
        room.tick_at = Some(now);
        let mut new = Vec::new();
        for seen in service.members() {
            let serial = seen.serial;
            let member = match old.remove(&serial) {
                Some(member) if member.seen.address == seen.address => member,
                moved => {
                    let probes = self.subscribe(id, &seen, service.plan(), now);
                    // After the new ones, so that one that stays is not made anew.
                    if let Some(moved) = moved {
                        moved.probes.into_iter().for_each(|it| self.unsubscribe(it, (id, serial)));
                    }
                    new.push(serial);
                    Member { seen, probes }
                }
            };
            let Some(room) = self.services.get_mut(&id) else { return };
            room.members.insert(serial, member);
        }
        for (serial, gone) in old {
            if let Some(room) = self.services.get_mut(&id) {
                room.forget(serial);
            }
            gone.probes.into_iter().for_each(|probe| self.unsubscribe(probe, (id, serial)));
        }
        if let Some(room) = self.services.get_mut(&id) {
            room.recount(now);
        }
        // A new member may share a probe that knows already.
        new.into_iter().for_each(|serial| self.conclude(id, serial));
    }

    fn subscribe(
        &mut self,
        service: ServiceId,
        seen: &Seen,
        plan: &super::Plan,
        now: Instant,
    ) -> Vec<ProbeId> {
        let address = seen.address;
        let keys = plan.checks.iter().filter_map(|checks| checks.key(address?));
        let probes = keys.map(|key| {
            let timetable = &mut self.timetable;
            let id = *self
                .by_key
                .entry(key.clone())
                .or_insert_with(|| timetable.insert(key.timing, now));
            let shared = self.probes.entry(id).or_insert_with(|| Shared::new(key, &seen.id));
            // A set may hold an address twice; each name counts.
            shared.subscribers.push((service, seen.serial));
            id
        });
        probes.collect()
    }

    fn unsubscribe(&mut self, id: ProbeId, who: (ServiceId, u64)) {
        let Some(shared) = self.probes.get_mut(&id) else { return };
        if let Some(at) = shared.subscribers.iter().position(|it| *it == who) {
            shared.subscribers.swap_remove(at);
        }
        if shared.subscribers.is_empty() {
            let key = shared.key.clone();
            self.by_key.remove(&key);
            self.probes.remove(&id);
            self.timetable.remove(id);
        }
    }

    /// Works out what all its probes together say of a member.
    fn conclude(&mut self, service: ServiceId, serial: u64) {
        let Some(room) = self.services.get_mut(&service) else { return };
        let Some(member) = room.members.get(&serial) else { return };
        let probes = || member.probes.iter().filter_map(|id| self.probes.get(id));
        let down = probes().find(|it| it.verdict.health() == Some(Health::Down));
        let unknown = probes().any(|it| it.verdict.health().is_none());
        let (health, why) = match (down, unknown) {
            (Some(probe), _) => (Some(Health::Down), Arc::clone(&probe.why)),
            // Until all have answered it stays what it was said to be.
            (None, true) => (None, "".into()),
            (None, false) => match probes().next() {
                Some(probe) => (Some(Health::Up), Arc::clone(&probe.why)),
                None => (None, "".into()),
            },
        };
        let advice = probes().fold(Advice::default(), |all, probe| all.then(probe.advice));
        if health.is_none() && advice == Advice::default() {
            return;
        }
        let id = member.seen.id.clone();
        room.words.insert(serial, Word { id, health, why, advice });
    }
}

/// What an answer has changed.
#[derive(Clone, Copy, Debug)]
struct Changed {
    /// What is to be told to sets.
    verdict: bool,
    warning: bool,
}

impl Shared {
    fn new(key: ProbeKey, id: &BackendId) -> Self {
        Self {
            key,
            id: id.clone(),
            subscribers: Vec::new(),
            verdict: Verdict::default(),
            why: "not checked yet".into(),
            advice: Advice::default(),
            warning: None,
        }
    }

    fn note(&mut self, answer: Result<Report, Failure>) -> Changed {
        let name = self.key.check.name();
        let (ok, advice, warning, reason) = match answer {
            // Says nothing about the backend.
            Err(failure) if failure.kind() == FailureKind::Local => {
                return Changed { verdict: false, warning: false };
            }
            Ok(report) => (true, report.advice, report.warning, None),
            Err(failure) => (false, failure.advice(), None, Some(failure)),
        };
        let mut changed = self.verdict.note(ok, &self.key.timing);
        if changed {
            self.why = match reason {
                Some(failure) => format!("{name} check: {failure}").into(),
                None => format!("{name} check passed").into(),
            };
        }
        let advice = self.advice.then(advice);
        changed |= advice != self.advice;
        self.advice = advice;
        let new = warning.as_deref() != self.warning.as_deref();
        if ok && new {
            self.warning = warning.map(Into::into);
        }
        Changed { verdict: changed, warning: ok && new && self.warning.is_some() }
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
