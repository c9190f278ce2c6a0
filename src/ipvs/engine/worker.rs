//! The thread that asks the kernel.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::check_services::{CheckServices, CheckTarget, remove_all};
use super::command::EngineCommand;
use super::counters::CounterSums;
use super::kernel_service::read_service;
use super::owned_service::{OwnedService, ServiceDrain};
use super::settings::{IpvsSettings, run_daemon};
use crate::engine::{EngineDrainReport, EngineRequest, NewConnections, SharedService};
use crate::ipvs::client::IpvsClient;
use crate::ipvs::daemon::IpvsDaemon;
use crate::ipvs::error::IpvsError;
use crate::ipvs::service::{IpvsService, IpvsServiceKey};

/// The kernel's own interval of counting.
const MIN_AUDIT_INTERVAL: Duration = Duration::from_secs(2);
/// Some two hundred times what reading a service takes, so that readings cost half a percent of a core.
const AUDIT_INTERVAL_PER_SERVICE: Duration = Duration::from_millis(20);

/// How often the connections of services that drain are counted.
const DRAIN_INTERVAL: Duration = Duration::from_millis(200);

/// Reads the clock.
#[expect(clippy::disallowed_methods, reason = "the thread is a shell: it waits for real time")]
fn now() -> Instant {
    Instant::now()
}

/// The state of the thread.
pub(super) struct EngineWorker {
    client: IpvsClient,
    received: Receiver<EngineCommand>,
    waker: Waker,
    wake: Arc<ChangeWaker>,
    services: BTreeMap<IpvsServiceKey, OwnedService>,
    check_services: CheckServices,
    next_audit: Instant,
    settings: IpvsSettings,
    /// The synchronization daemon that is wanted; `None` before the engine had one of its own.
    daemon: Option<Option<IpvsDaemon>>,
    /// What was logged of the daemon last.
    daemon_failure: String,
}

/// Wakes the thread, by one command for all the changes until it looks.
struct ChangeWaker {
    commands: Sender<EngineCommand>,
    is_sent: AtomicBool,
}

impl Wake for ChangeWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_sent.swap(true, Ordering::AcqRel) {
            // The thread may have ended.
            let _ = self.commands.send(EngineCommand::SetChanged);
        }
    }
}

impl EngineWorker {
    pub(super) fn new(
        client: IpvsClient,
        commands: Sender<EngineCommand>,
        received: Receiver<EngineCommand>,
    ) -> Self {
        let wake = Arc::new(ChangeWaker { commands, is_sent: AtomicBool::new(false) });
        Self {
            client,
            received,
            waker: Waker::from(Arc::clone(&wake)),
            wake,
            services: BTreeMap::new(),
            check_services: CheckServices::new(IpvsSettings::default().check_mark_range()),
            next_audit: now() + MIN_AUDIT_INTERVAL,
            settings: IpvsSettings::default(),
            daemon: None,
            daemon_failure: String::new(),
        }
    }

    /// Runs commands and follows the sets until the engine ends.
    pub(super) fn run(mut self) {
        loop {
            let mut wait = self.next_audit.saturating_duration_since(now());
            if self.services.values().any(OwnedService::is_ending) {
                wait = wait.min(DRAIN_INTERVAL);
            }
            match self.received.recv_timeout(wait) {
                Ok(EngineCommand::Begin { request, service, owner, reply }) => {
                    let result = self.begin(request, service, owner);
                    // The owner waits for the reply.
                    let _ = reply.send(result);
                }
                Ok(EngineCommand::Drain { key, owner, within, new_connections }) => {
                    self.drain(key, &owner, within, new_connections);
                }
                Ok(EngineCommand::HandOver(key, owner)) => {
                    if self.is_owner(&key, &owner) {
                        self.services.remove(&key);
                        let wanted = self.check_targets();
                        self.check_services.forget_unwanted(&wanted);
                    }
                    owner.finish(EngineDrainReport::default());
                }
                Ok(EngineCommand::Configure(settings)) => {
                    settings.apply(&mut self.client);
                    let replaced = self.check_services.move_to(settings.check_mark_range());
                    self.settings = settings;
                    if !replaced.is_empty() {
                        self.follow_check_targets();
                        // Those that could not be removed are found by whoever has these marks next.
                        let _ = remove_all(&mut self.client, &replaced);
                    }
                }
                Ok(EngineCommand::RunDaemon(daemon)) => {
                    // Without one of its own before, those that run are another program's.
                    if daemon.is_some() || self.daemon.is_some() {
                        self.daemon = Some(daemon);
                        self.run_daemon();
                    }
                }
                Ok(EngineCommand::SetChanged) => self.follow_sets(),
                Ok(EngineCommand::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.end_leaving(),
            }
            if now() >= self.next_audit {
                self.audit();
            }
            self.end_drained();
        }
    }

    fn is_owner(&self, key: &IpvsServiceKey, owner: &Arc<SharedService>) -> bool {
        self.services.get(key).is_some_and(|service| Arc::ptr_eq(&service.owner, owner))
    }

    fn begin(
        &mut self,
        request: Box<EngineRequest>,
        service: IpvsService,
        owner: Arc<SharedService>,
    ) -> Result<(), IpvsError> {
        let key = service.key;
        let existing = read_service(&mut self.client, &key)?;
        let sums = match &existing {
            Some((status, destinations)) => CounterSums::start_from(status, destinations),
            None => CounterSums::default(),
        };
        match existing {
            None => self.client.add_service(&service)?,
            Some((status, _)) if status.service != service => self.client.edit_service(&service)?,
            Some(_) => {}
        }
        let subscription = request.balancer.backend_set().subscribe();
        let mut owned = OwnedService {
            request,
            service,
            owner,
            subscription,
            sums,
            said: String::new(),
            drain: None,
            leaving: BTreeMap::new(),
            check_targets: BTreeMap::new(),
        };
        // Registers the waker.
        let _ = owned.next_snapshot(&self.waker);
        owned.reconcile(&mut self.client, now());
        let mut has_new_targets = owned.update_check_targets();
        if let Some(replaced) = self.services.insert(key, owned) {
            has_new_targets |= !replaced.check_targets.is_empty();
            replaced.owner.finish(EngineDrainReport::default());
        }
        if has_new_targets {
            self.follow_check_targets();
        } else if let Some(owned) = self.services.get(&key) {
            owned.publish_check_marks(&self.check_services);
        }
        Ok(())
    }

    fn drain(
        &mut self,
        key: IpvsServiceKey,
        owner: &Arc<SharedService>,
        within: Duration,
        new_connections: NewConnections,
    ) {
        let service = self.services.get_mut(&key);
        let Some(service) = service.filter(|service| Arc::ptr_eq(&service.owner, owner)) else {
            return owner.finish(EngineDrainReport::default());
        };
        let now = now();
        // A second call may shorten the time.
        let begun = service.drain.as_ref().map(|drain| (drain.begun_at, drain.connections));
        let (begun_at, connections) = begun.unwrap_or((now, (0, 0)));
        service.drain = Some(ServiceDrain {
            deadline: now.checked_add(within),
            new_connections,
            begun_at,
            connections,
            is_unsettled: true,
        });
        service.reconcile(&mut self.client, now);
        if let (Some(drain), None) = (&mut service.drain, begun) {
            drain.connections.0 = drain.connections.1;
        }
        service.publish_check_marks(&self.check_services);
        if service.update_check_targets() {
            self.follow_check_targets();
        }
    }

    /// Returns what the checks of all services need a mark for.
    fn check_targets(&self) -> HashSet<CheckTarget> {
        self.services.values().flat_map(|service| service.check_targets.values().copied()).collect()
    }

    /// Makes the services for checks what the sets need, and tells the checks their marks.
    fn follow_check_targets(&mut self) {
        let wanted = self.check_targets();
        self.check_services.follow(&mut self.client, &wanted);
        self.publish_check_marks();
    }

    fn publish_check_marks(&self) {
        self.services
            .values()
            .for_each(|service| service.publish_check_marks(&self.check_services));
    }

    /// Removes the destinations that have left the sets, when their connections have ended.
    fn end_leaving(&mut self) {
        let services = self.services.values_mut().filter(|service| !service.leaving.is_empty());
        let (now, repair) = (now(), self.settings.repair);
        services.for_each(|service| service.audit(&mut self.client, repair, now));
    }

    /// Removes the services that have drained. One that the kernel does not remove is tried again.
    fn end_drained(&mut self) {
        let client = &mut self.client;
        let now = now();
        self.services.retain(|key, service| {
            if service.drain.is_some() {
                service.reconcile(client, now);
            }
            let Some(drain) = &service.drain else { return true };
            if !drain.is_over(now) {
                return true;
            }
            let (begun, left) = drain.connections;
            match client.remove_service(key) {
                Err(error) if !error.is_absent() => {
                    service.say(error.to_string());
                    true
                }
                _ => {
                    let mut report = EngineDrainReport::default();
                    (report.finished, report.cut) = (begun.saturating_sub(left), left);
                    service.owner.finish(report);
                    false
                }
            }
        });
    }

    /// Applies what has changed in the sets.
    fn follow_sets(&mut self) {
        // Before looking: a change after that sends another command.
        self.wake.is_sent.store(false, Ordering::Release);
        let mut has_new_targets = false;
        for service in self.services.values_mut() {
            if service.next_snapshot(&self.waker).is_some() {
                service.reconcile(&mut self.client, now());
                has_new_targets |= service.update_check_targets();
            }
        }
        if has_new_targets {
            self.follow_check_targets();
        }
    }

    /// Runs the synchronization daemon that is wanted. A failure is logged once for as long as it is the same.
    fn run_daemon(&mut self) {
        let Some(wanted) = &self.daemon else { return };
        let result = run_daemon(&mut self.client, wanted.as_ref());
        let failure = result.err().map(|error| error.to_string()).unwrap_or_default();
        if !failure.is_empty() && failure != self.daemon_failure {
            tracing::error!("engine ipvs: {failure}");
        }
        self.daemon_failure = failure;
    }

    /// Reads the counters, and repairs what another program has changed.
    fn audit(&mut self) {
        self.run_daemon();
        for service in self.services.values_mut() {
            service.audit(&mut self.client, self.settings.repair, now());
        }
        let wanted = self.check_targets();
        let services = &self.services;
        let is_owned = |key: &IpvsServiceKey| services.contains_key(key);
        self.check_services.audit(&mut self.client, &wanted, is_owned);
        self.publish_check_marks();
        let services = self.services.len() + self.check_services.len();
        let services = u32::try_from(services).unwrap_or(u32::MAX);
        let interval = MIN_AUDIT_INTERVAL.max(AUDIT_INTERVAL_PER_SERVICE.saturating_mul(services));
        self.next_audit = now() + interval;
    }
}
