//! The core of a monitor, without sockets and clock: which checks start when, and what follows from
//! their results.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::check::{CheckContext, CheckFailure, CheckFailureKind, CheckReport};
use super::check_counters::CheckCounters;
use super::events::HealthEventKind;
use super::plan::{HealthPlan, ProbeKey};
use super::saved::SavedHealth;
use super::shared_probe::{ProbeChanges, SharedProbe};
use super::timetable::{ProbeId, ProbeTimetable, TimetableStats};
use super::watched_service::{WatchedMember, WatchedService, WatchedServiceId};
use super::watched_set::{HealthUpdate, MemberInfo, WatchedSet};
use crate::backend::{AgentOverride, Health};

mod saving;

/// The watched services, and the probes that they share.
pub(super) struct MonitorCore {
    timetable: ProbeTimetable,
    probes: HashMap<ProbeId, SharedProbe>,
    probe_ids: HashMap<ProbeKey, ProbeId>,
    services: HashMap<WatchedServiceId, WatchedService>,
    next_service: WatchedServiceId,
    failure_counts: CheckFailureCounts,
}

/// The numbers of failed checks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CheckFailureCounts {
    /// Failures of backends.
    pub(super) backend: u64,
    /// Failures of this machine.
    pub(super) local: u64,
}

/// A check to start.
#[derive(Debug)]
pub(super) struct CheckJob {
    pub(super) probe_id: ProbeId,
    pub(super) key: ProbeKey,
    pub(super) context: CheckContext,
}

impl MonitorCore {
    pub(super) fn new(max_in_flight: NonZeroUsize, seed: u64) -> Self {
        Self {
            timetable: ProbeTimetable::new(max_in_flight, seed),
            probes: HashMap::new(),
            probe_ids: HashMap::new(),
            services: HashMap::new(),
            next_service: 0,
            failure_counts: CheckFailureCounts::default(),
        }
    }

    pub(super) fn set_max_in_flight(&mut self, max: NonZeroUsize) {
        self.timetable.set_max_in_flight(max);
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

    /// Schedules the checks in flight again, because their results will not arrive.
    pub(super) fn reschedule_in_flight(&mut self) {
        self.timetable.reschedule_in_flight();
    }

    pub(super) fn stats(&self) -> TimetableStats {
        self.timetable.stats()
    }

    /// Adds a service, with the knowledge of an earlier watch of the same set, if there was one.
    /// Publishes the initial health of its members.
    pub(super) fn insert(
        &mut self,
        set: Arc<dyn WatchedSet>,
        known: Option<&SavedHealth>,
        now: Instant,
    ) -> WatchedServiceId {
        let id = self.next_service;
        self.next_service += 1;
        let _ = set.take_changed();
        self.services.insert(id, WatchedService::new(set));
        self.sync_members(id, now);
        if let Some(known) = known {
            self.restore_verdicts(id, known, now);
        }
        if let Some(service) = self.services.get_mut(&id) {
            service.publish_pending(now);
        }
        id
    }

    pub(super) fn remove(&mut self, id: WatchedServiceId) {
        let Some(service) = self.services.remove(&id) else { return };
        for (serial, member) in service.members {
            member.probes.into_iter().for_each(|probe| self.unsubscribe(probe, (id, serial)));
        }
    }

    /// Returns when to call [`poll`](Self::poll) again, if no set changes and no result arrives
    /// before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let services = self.services.values().flat_map(|service| {
            [service.next_publish(), service.slow_start_at, service.next_ejector_run()]
        });
        services.chain([self.timetable.poll_timeout()]).flatten().min()
    }

    /// Follows changes of the sets, publishes pending results, and returns the checks to start.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<CheckJob> {
        let ids: Vec<_> = self.services.keys().copied().collect();
        for id in ids {
            if self.services.get(&id).is_some_and(|service| service.set.take_changed()) {
                self.sync_members(id, now);
            }
            if let Some(service) = self.services.get_mut(&id) {
                service.run_ejector(now);
                service.publish_pending(now);
            }
        }
        let mut jobs = Vec::new();
        while let Some(id) = self.timetable.start_next_due(now) {
            jobs.extend(self.build_job(id));
        }
        jobs
    }

    fn build_job(&self, id: ProbeId) -> Option<CheckJob> {
        let probe = self.probes.get(&id)?;
        let context = CheckContext::new(probe.backend_id.clone(), probe.key.address);
        let context = match probe.key.source {
            Some(source) => context.with_source(source),
            None => context,
        };
        let context = match probe.key.proxy_header {
            Some(header) => context.with_proxy_header(header),
            None => context,
        };
        Some(CheckJob { probe_id: id, key: probe.key.clone(), context })
    }

    /// Handles the result of a [`CheckJob`].
    pub(super) fn handle_result(
        &mut self,
        id: ProbeId,
        result: Result<CheckReport, CheckFailure>,
        now: Instant,
    ) {
        let Some(probe) = self.probes.get_mut(&id) else { return };
        let is_local = matches!(&result, Err(failure) if failure.kind() == CheckFailureKind::Local);
        if !is_local {
            probe.last_result = Some(now);
        }
        if let Err(failure) = &result {
            let count = match is_local {
                true => &mut self.failure_counts.local,
                false => &mut self.failure_counts.backend,
            };
            *count += 1;
            let (check, address) = (probe.key.check.name(), probe.key.address);
            debug!(
                check, %address, kind = %failure.kind(),
                "{check} check of {address} failed: {failure}"
            );
        }
        let has_passed = matches!(&result, Ok(report) if !report.leaves_health);
        let changed = probe.record_result(result);
        self.timetable.reschedule(id, probe.verdict, now);
        if has_passed {
            for (service, serial) in &probe.subscribers {
                if let Some(service) = self.services.get_mut(service) {
                    service.handle_check_passed(*serial, now);
                }
            }
        }
        let text = match changed {
            ProbeChanges { local_failure: true, .. } => probe.local_failure.clone(),
            ProbeChanges { warning: true, .. } => probe.warning.clone(),
            ProbeChanges { verdict: true, .. } => None,
            _ => return,
        };
        let subscribers = probe.subscribers.clone();
        for (service_id, serial) in subscribers {
            if changed.verdict {
                self.evaluate_member(service_id, serial);
            }
            let service = self.services.get(&service_id);
            let member = service.and_then(|service| Some((service, service.members.get(&serial)?)));
            if let (Some((service, member)), Some(text)) = (member, &text) {
                let (id, text) = (member.info.id.clone(), Arc::clone(text));
                service.set.publish_event(match changed.local_failure {
                    true => HealthEventKind::LocalFailure { id, reason: text },
                    false => HealthEventKind::Warning { id, text },
                });
            }
        }
    }

    /// Returns the results of each check of each member of a service.
    pub(super) fn check_counters(&self, id: WatchedServiceId) -> Vec<CheckCounters> {
        let mut counters = BTreeMap::new();
        for member in self.services.get(&id).into_iter().flat_map(|it| it.members.values()) {
            for probe in member.probes.iter().filter_map(|probe| self.probes.get(probe)) {
                let check = probe.key.check.name();
                let sum: &mut (u64, u64) = counters.entry((&member.info.id, check)).or_default();
                *sum = (sum.0 + probe.results, sum.1 + probe.failures);
            }
        }
        let counters = counters.into_iter().map(|((id, check), (results, failures))| {
            CheckCounters { backend: id.clone(), check: check.to_owned(), results, failures }
        });
        counters.collect()
    }

    /// Follows a change of a set: adds new members, moves changed ones, removes old ones.
    fn sync_members(&mut self, id: WatchedServiceId, now: Instant) {
        let Some(service) = self.services.get_mut(&id) else { return };
        let mut old = std::mem::take(&mut service.members);
        let set = Arc::clone(&service.set);
        // The change may have started a slow start.
        service.slow_start_at = Some(now);
        let mut new = Vec::new();
        for info in set.members() {
            let serial = info.serial;
            let member = match old.remove(&serial) {
                Some(member) if member.info.address == info.address => member,
                moved => {
                    let probes = self.subscribe(id, &info, set.plan(), now);
                    // Unsubscribes after the new subscription, so that a probe in both is kept.
                    if let Some(moved) = moved {
                        for probe in moved.probes {
                            self.unsubscribe(probe, (id, serial));
                        }
                    }
                    new.push(serial);
                    WatchedMember { info, probes }
                }
            };
            let Some(service) = self.services.get_mut(&id) else { return };
            service.members.insert(serial, member);
        }
        for (serial, removed) in old {
            if let Some(service) = self.services.get_mut(&id) {
                service.forget_member(serial);
            }
            removed.probes.into_iter().for_each(|probe| self.unsubscribe(probe, (id, serial)));
        }
        if let Some(service) = self.services.get_mut(&id) {
            service.track_members(now);
        }
        self.report_unchecked(id, &new);
        // A new member may share a probe that has a verdict already.
        new.into_iter().for_each(|serial| self.evaluate_member(id, serial));
    }

    /// Reports the new members of a service that a check of its plan cannot check.
    fn report_unchecked(&self, id: WatchedServiceId, new: &[u64]) {
        let Some(service) = self.services.get(&id) else { return };
        let plan = service.set.plan();
        // By the name of the check: the members may have checks of their own.
        let mut unchecked: BTreeMap<&str, Vec<&WatchedMember>> = BTreeMap::new();
        for member in new.iter().filter_map(|serial| service.members.get(serial)) {
            let address = member.info.address;
            for check in plan.checks_of(address).iter().filter(|check| !check.can_check(address)) {
                unchecked.entry(check.name()).or_default().push(member);
            }
        }
        for (check, members) in unchecked {
            if let [first, others @ ..] = members.as_slice() {
                let (id, check) = (first.info.id.clone(), check.into());
                let others = others.len();
                service.set.publish_event(HealthEventKind::NotChecked { id, check, others });
            }
        }
    }

    fn subscribe(
        &mut self,
        service: WatchedServiceId,
        member: &MemberInfo,
        plan: &HealthPlan,
        now: Instant,
    ) -> Vec<ProbeId> {
        let address = member.address;
        let keys = plan.checks_of(address).iter().filter_map(|check| check.probe_key(address?));
        let probes = keys.map(|key| {
            let timetable = &mut self.timetable;
            let id = *self
                .probe_ids
                .entry(key.clone())
                .or_insert_with(|| timetable.insert(key.timing, now));
            let probe = self.probes.entry(id).or_insert_with(|| SharedProbe::new(key, &member.id));
            // A set may hold an address under two names; both subscribe.
            probe.subscribers.push((service, member.serial));
            id
        });
        probes.collect()
    }

    fn unsubscribe(&mut self, id: ProbeId, subscriber: (WatchedServiceId, u64)) {
        let Some(probe) = self.probes.get_mut(&id) else { return };
        if let Some(index) = probe.subscribers.iter().position(|entry| *entry == subscriber) {
            probe.subscribers.swap_remove(index);
        }
        if probe.subscribers.is_empty() {
            let key = probe.key.clone();
            self.probe_ids.remove(&key);
            self.probes.remove(&id);
            self.timetable.remove(id);
        }
    }

    /// Queues the health of a member that follows from the verdicts of all its probes.
    fn evaluate_member(&mut self, service: WatchedServiceId, serial: u64) {
        let Some(service) = self.services.get_mut(&service) else { return };
        let Some(member) = service.members.get(&serial) else { return };
        let probes = || member.probes.iter().filter_map(|id| self.probes.get(id));
        let down = probes().find(|probe| probe.verdict.health() == Some(Health::Down));
        let has_unknown = probes().any(|probe| probe.verdict.health().is_none());
        let (health, reason) = match (down, has_unknown) {
            (Some(probe), _) => (Some(Health::Down), Arc::clone(&probe.reason)),
            // Until every probe has a result the member keeps its health.
            (None, true) => (None, "".into()),
            (None, false) => match probes().next() {
                Some(probe) => (Some(Health::Up), Arc::clone(&probe.reason)),
                None => (None, "".into()),
            },
        };
        let agent_override = probes().fold(AgentOverride::default(), |combined, probe| {
            combined.updated_with(probe.agent_override)
        });
        let problem = probes().find_map(SharedProbe::problem);
        let id = member.info.id.clone();
        let update = HealthUpdate { id, health, reason, agent_override, problem };
        service.pending_health.insert(serial, update);
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
