//! The whole of a monitor but for sockets and clock: who is asked, when, and what follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::check::{CheckContext, CheckFailure, CheckFailureKind, CheckReport};
use super::events::HealthEventKind;
use super::plan::ProbeKey;
use super::saved::{SavedCheckVerdict, SavedHealth, SavedMemberVerdicts};
use super::timetable::{ProbeId, ProbeTimetable, TimetableStats};
use super::verdict::CheckVerdict;
use super::watched_service::{WatchedMember, WatchedService};
use super::watched_set::{HealthUpdate, MemberInfo, WatchedSet};
use crate::backend::{AgentOverride, BackendId, Health, SetError};

/// Names a service; never used twice.
pub(super) type WatchedServiceId = u64;

/// All services, and all probes that they share.
pub(super) struct MonitorCore {
    timetable: ProbeTimetable,
    probes: HashMap<ProbeId, SharedProbe>,
    probe_ids: HashMap<ProbeKey, ProbeId>,
    services: HashMap<WatchedServiceId, WatchedService>,
    next_service: WatchedServiceId,
    failure_counts: CheckFailureCounts,
}

/// How many checks failed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CheckFailureCounts {
    /// The backend's fault.
    pub(super) backend: u64,
    /// This machine's.
    pub(super) local: u64,
}

/// A probe, and whom its answers concern.
#[derive(Debug)]
struct SharedProbe {
    key: ProbeKey,
    /// Whom the check is told it asks: the first who wanted it.
    backend_id: BackendId,
    subscribers: Vec<(WatchedServiceId, u64)>,
    verdict: CheckVerdict,
    /// What the verdict rests on.
    reason: Arc<str>,
    agent_override: AgentOverride,
    warning: Option<Arc<str>>,
}

/// A check to be made.
#[derive(Debug)]
pub(super) struct CheckJob {
    pub(super) probe_id: ProbeId,
    pub(super) key: ProbeKey,
    pub(super) context: CheckContext,
}

impl MonitorCore {
    pub(super) fn new(most_in_flight: usize, seed: u64) -> Self {
        Self {
            timetable: ProbeTimetable::new(most_in_flight, seed),
            probes: HashMap::new(),
            probe_ids: HashMap::new(),
            services: HashMap::new(),
            next_service: 0,
            failure_counts: CheckFailureCounts::default(),
        }
    }

    pub(super) fn set_max_in_flight(&mut self, most: usize) {
        self.timetable.set_max_in_flight(most);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.timetable.in_flight()
    }

    pub(super) fn probe_count(&self) -> usize {
        self.probes.len()
    }

    pub(super) fn failure_counts(&self) -> CheckFailureCounts {
        self.failure_counts
    }

    /// Asks again what is asked now, and whose answers will not come.
    pub(super) fn reschedule_in_flight(&mut self) {
        self.timetable.reschedule_in_flight();
    }

    pub(super) fn stats(&self) -> TimetableStats {
        self.timetable.stats()
    }

    pub(super) fn insert(&mut self, service: Arc<dyn WatchedSet>) -> WatchedServiceId {
        let id = self.next_service;
        self.next_service += 1;
        self.services.insert(id, WatchedService::new(service));
        id
    }

    pub(super) fn remove(&mut self, id: WatchedServiceId) {
        let Some(room) = self.services.remove(&id) else { return };
        for (serial, member) in room.members {
            member.probes.into_iter().for_each(|probe| self.unsubscribe(probe, (id, serial)));
        }
    }

    /// When to call [`poll`](Self::poll) again, if nothing happens before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let rooms = self
            .services
            .values()
            .flat_map(|room| [room.next_publish(), room.slow_start_at, room.next_ejector_run()]);
        rooms.chain([self.timetable.poll_timeout()]).flatten().min()
    }

    /// Follows the sets, tells them what is known, and says whom to ask now.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<CheckJob> {
        let ids: Vec<_> = self.services.keys().copied().collect();
        for id in ids {
            if self.services.get(&id).is_some_and(|room| room.set.take_changed()) {
                self.sync_members(id, now);
            }
            if let Some(room) = self.services.get_mut(&id) {
                room.run_ejector(now);
                room.publish_pending(now);
            }
        }
        let mut jobs = Vec::new();
        while let Some(id) = self.timetable.start_next_due(now) {
            jobs.extend(self.build_job(id));
        }
        jobs
    }

    fn build_job(&self, id: ProbeId) -> Option<CheckJob> {
        let shared = self.probes.get(&id)?;
        let probe = CheckContext::new(shared.backend_id.clone(), shared.key.address);
        let probe = match shared.key.source {
            Some(source) => probe.with_source(source),
            None => probe,
        };
        Some(CheckJob { probe_id: id, key: shared.key.clone(), context: probe })
    }

    /// Takes the answer to a [`CheckJob`].
    pub(super) fn handle_result(
        &mut self,
        id: ProbeId,
        answer: Result<CheckReport, CheckFailure>,
        now: Instant,
    ) {
        let Some(shared) = self.probes.get_mut(&id) else { return };
        if let Err(failure) = &answer {
            let local = failure.kind() == CheckFailureKind::Local;
            let count = if local {
                &mut self.failure_counts.local
            } else {
                &mut self.failure_counts.backend
            };
            *count += 1;
            let (check, address) = (shared.key.check.name(), shared.key.address);
            debug!(check, %address, kind = %failure.kind(), "{failure}");
        }
        let changed = shared.record_result(answer);
        self.timetable.reschedule(id, shared.verdict, now);
        if !changed.verdict && !changed.warning {
            return;
        }
        let (subscribers, warning) = (shared.subscribers.clone(), shared.warning.clone());
        for (service, serial) in subscribers {
            if changed.verdict {
                self.evaluate_member(service, serial);
            }
            let room = self.services.get(&service).filter(|_| changed.warning);
            let member = room.and_then(|room| Some((room, room.members.get(&serial)?)));
            if let (Some((room, member)), Some(text)) = (member, &warning) {
                let (id, text) = (member.info.id.clone(), Arc::clone(text));
                room.set.publish_event(HealthEventKind::Warning { id, text });
            }
        }
    }

    /// What is known of a service, to be taken up after a restart.
    pub(super) fn export(&self, id: WatchedServiceId, now: Instant) -> SavedHealth {
        let Some(room) = self.services.get(&id) else { return SavedHealth::default() };
        let verdicts = room.members.values().map(|member| SavedMemberVerdicts {
            id: member.info.id.to_string(),
            checks: member
                .probes
                .iter()
                .filter_map(|probe| self.probes.get(probe))
                .map(|shared| SavedCheckVerdict {
                    check: shared.key.check.name().to_owned(),
                    verdict: shared.verdict,
                    reason: shared.reason.to_string(),
                })
                .collect(),
        });
        SavedHealth {
            backends: room.set.export(now),
            verdicts: verdicts.collect(),
            ejections: room.export_ejections(now),
        }
    }

    /// Takes up what was saved. What has been found out since goes before it.
    pub(super) fn restore(
        &mut self,
        id: WatchedServiceId,
        saved: &SavedHealth,
        now: Instant,
    ) -> Result<(), SetError> {
        let Some(service) = self.services.get(&id).map(|room| Arc::clone(&room.set)) else {
            return Ok(());
        };
        service.restore(&saved.backends, now)?;
        if service.take_changed() {
            self.sync_members(id, now);
        }
        let by_name: HashMap<_, _> =
            saved.verdicts.iter().map(|it| (it.id.as_str(), &it.checks)).collect();
        let Some(room) = self.services.get(&id) else { return Ok(()) };
        let mut serials = Vec::new();
        for (serial, member) in &room.members {
            serials.push(*serial);
            let Some(checks) = by_name.get(member.info.id.as_str()) else { continue };
            for (probe, saved) in member.probes.iter().zip(*checks) {
                let shared = self.probes.get_mut(probe);
                let shared = shared.filter(|it| it.key.check.name() == saved.check);
                if let Some(shared) = shared.filter(|it| it.verdict.health().is_none()) {
                    shared.verdict = saved.verdict;
                    shared.reason = saved.reason.as_str().into();
                }
            }
        }
        serials.into_iter().for_each(|serial| self.evaluate_member(id, serial));
        if let Some(room) = self.services.get_mut(&id) {
            room.restore_ejections(&saved.ejections, now);
        }
        Ok(())
    }

    /// Compares a set with what is known of it.
    fn sync_members(&mut self, id: WatchedServiceId, now: Instant) {
        let Some(room) = self.services.get_mut(&id) else { return };
        let mut old = std::mem::take(&mut room.members);
        let service = Arc::clone(&room.set);
        // Slow starts may have begun.
        room.slow_start_at = Some(now);
        let mut new = Vec::new();
        for seen in service.members() {
            let serial = seen.serial;
            let member = match old.remove(&serial) {
                Some(member) if member.info.address == seen.address => member,
                moved => {
                    let probes = self.subscribe(id, &seen, service.plan(), now);
                    // After the new ones, so that one that stays is not made anew.
                    if let Some(moved) = moved {
                        moved.probes.into_iter().for_each(|it| self.unsubscribe(it, (id, serial)));
                    }
                    new.push(serial);
                    WatchedMember { info: seen, probes }
                }
            };
            let Some(room) = self.services.get_mut(&id) else { return };
            room.members.insert(serial, member);
        }
        for (serial, gone) in old {
            if let Some(room) = self.services.get_mut(&id) {
                room.forget_member(serial);
            }
            gone.probes.into_iter().for_each(|probe| self.unsubscribe(probe, (id, serial)));
        }
        if let Some(room) = self.services.get_mut(&id) {
            room.track_members(now);
        }
        // A new member may share a probe that knows already.
        new.into_iter().for_each(|serial| self.evaluate_member(id, serial));
    }

    fn subscribe(
        &mut self,
        service: WatchedServiceId,
        seen: &MemberInfo,
        plan: &super::HealthPlan,
        now: Instant,
    ) -> Vec<ProbeId> {
        let address = seen.address;
        let keys = plan.checks.iter().filter_map(|checks| checks.probe_key(address?));
        let probes = keys.map(|key| {
            let timetable = &mut self.timetable;
            let id = *self
                .probe_ids
                .entry(key.clone())
                .or_insert_with(|| timetable.insert(key.timing, now));
            let shared = self.probes.entry(id).or_insert_with(|| SharedProbe::new(key, &seen.id));
            // A set may hold an address twice; each name counts.
            shared.subscribers.push((service, seen.serial));
            id
        });
        probes.collect()
    }

    fn unsubscribe(&mut self, id: ProbeId, who: (WatchedServiceId, u64)) {
        let Some(shared) = self.probes.get_mut(&id) else { return };
        if let Some(at) = shared.subscribers.iter().position(|it| *it == who) {
            shared.subscribers.swap_remove(at);
        }
        if shared.subscribers.is_empty() {
            let key = shared.key.clone();
            self.probe_ids.remove(&key);
            self.probes.remove(&id);
            self.timetable.remove(id);
        }
    }

    /// Works out what all its probes together say of a member.
    fn evaluate_member(&mut self, service: WatchedServiceId, serial: u64) {
        let Some(room) = self.services.get_mut(&service) else { return };
        let Some(member) = room.members.get(&serial) else { return };
        let probes = || member.probes.iter().filter_map(|id| self.probes.get(id));
        let down = probes().find(|it| it.verdict.health() == Some(Health::Down));
        let unknown = probes().any(|it| it.verdict.health().is_none());
        let (health, why) = match (down, unknown) {
            (Some(probe), _) => (Some(Health::Down), Arc::clone(&probe.reason)),
            // Until all have answered it stays what it was said to be.
            (None, true) => (None, "".into()),
            (None, false) => match probes().next() {
                Some(probe) => (Some(Health::Up), Arc::clone(&probe.reason)),
                None => (None, "".into()),
            },
        };
        let advice = probes()
            .fold(AgentOverride::default(), |all, probe| all.updated_with(probe.agent_override));
        if health.is_none() && advice == AgentOverride::default() {
            return;
        }
        let id = member.info.id.clone();
        room.pending_health
            .insert(serial, HealthUpdate { id, health, reason: why, agent_override: advice });
    }
}

/// What an answer has changed.
#[derive(Clone, Copy, Debug)]
struct ProbeChanges {
    /// What is to be told to sets.
    verdict: bool,
    warning: bool,
}

impl SharedProbe {
    fn new(key: ProbeKey, id: &BackendId) -> Self {
        Self {
            key,
            backend_id: id.clone(),
            subscribers: Vec::new(),
            verdict: CheckVerdict::default(),
            reason: "not checked yet".into(),
            agent_override: AgentOverride::default(),
            warning: None,
        }
    }

    fn record_result(&mut self, answer: Result<CheckReport, CheckFailure>) -> ProbeChanges {
        let name = self.key.check.name();
        let (ok, advice, warning, reason) = match answer {
            // Says nothing about the backend.
            Err(failure) if failure.kind() == CheckFailureKind::Local => {
                return ProbeChanges { verdict: false, warning: false };
            }
            Ok(report) => (true, report.agent_override, report.warning, None),
            Err(failure) => (false, failure.agent_override(), None, Some(failure)),
        };
        let mut changed = self.verdict.record_result(ok, &self.key.timing);
        if changed {
            self.reason = match reason {
                Some(failure) => format!("{name} check: {failure}").into(),
                None => format!("{name} check passed").into(),
            };
        }
        let advice = self.agent_override.updated_with(advice);
        changed |= advice != self.agent_override;
        self.agent_override = advice;
        let new = warning.as_deref() != self.warning.as_deref();
        if ok && new {
            self.warning = warning.map(Into::into);
        }
        ProbeChanges { verdict: changed, warning: ok && new && self.warning.is_some() }
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
