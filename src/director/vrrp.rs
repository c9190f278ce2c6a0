//! The director's part in the election for the virtual addresses: it starts and stops the election,
//! reports to it which tracked resources are up, and publishes its events and the role that results.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::command::WeakControlSender;
use super::config::{SERVICE_TRACK_PREFIX, TrackConfig, VrrpConfig};
use super::error::DirectorError;
use super::event_log::EventLog;
use super::events::DirectorEvent;
use super::registry::ServiceRegistry;
use super::role::{DirectorRole, RoleSender, RoleWatch};
use super::service::VirtualService;
use super::supervisor::{RESTART_DELAY, TaskSupervisor};
use super::sync::SyncStatusSlot;
use crate::backend::{BackendSet, BackendState, Spec};
use crate::health::{Monitor, WatchHandle};
use crate::sync::{Mutex, lock};
use crate::vrrp::{NotifyCommands, TrackEffect, VirtualRouterConfig, Vrrp, VrrpEvents, VrrpState};

/// The name of the election's thread among the tasks.
pub(super) const ELECTION_TASK: &str = "election";

/// How often tracked services and links are read.
const TRACK_INTERVAL: Duration = Duration::from_millis(100);

/// A running election. Dropped, it blocks until the addresses are handed over: [`stop`](Self::stop)
/// does the same without blocking a worker thread.
#[derive(Debug)]
pub(super) struct VrrpDriver {
    vrrp: Arc<Vrrp>,
    role: RoleSender,
    supervisor: TaskSupervisor,
    end: Arc<ElectionEnd>,
    service_weight: Option<u8>,
    resources: Vec<Arc<PriorityTracker>>,
    tracking: AbortOnDropHandle<()>,
    _readiness: AbortOnDropHandle<()>,
}

/// What a director waits for before it replaces a master of lower priority.
#[derive(Clone, Debug)]
pub(super) struct TakeoverConditions {
    /// The number of services whose checks must have had a first result.
    pub(super) services: usize,
    /// The synchronization with the active director, if there is a `[sync]` table.
    pub(super) sync: Option<SyncStatusSlot>,
}

/// How long a director waits at most.
const MAX_TAKEOVER_WAIT: Duration = Duration::from_secs(30);

impl TakeoverConditions {
    /// Holds preemption back until the conditions are met, or the time is over: after the start, and again each time
    /// that the director is active no more, because the other one knows better since.
    async fn hold_preemption(
        self,
        registry: ServiceRegistry,
        vrrp: Arc<Vrrp>,
        mut role: RoleWatch,
    ) {
        loop {
            vrrp.hold_preemption(true);
            // Those before the time in which it is active, which may have begun.
            let (now, takeovers) = role.role_and_takeovers();
            let takeovers = takeovers - u64::from(now == DirectorRole::Active);
            self.wait(&registry, &role).await;
            vrrp.hold_preemption(false);
            while role.is_active() || role.role_and_takeovers().1 == takeovers {
                if !role.changed().await {
                    return;
                }
            }
        }
    }

    /// Waits until the conditions are met, the time is over, or this director is active without preemption.
    async fn wait(&self, registry: &ServiceRegistry, role: &RoleWatch) {
        let wait = async {
            let mut tick = tokio::time::interval(TRACK_INTERVAL);
            while !self.are_met(registry) && !role.is_active() {
                tick.tick().await;
            }
        };
        if tokio::time::timeout(MAX_TAKEOVER_WAIT, wait).await.is_err() {
            tracing::warn!(
                "[vrrp]: this director may replace a master of lower priority, although after \
                 {MAX_TAKEOVER_WAIT:?} a check had no result or the state was not received"
            );
        }
    }

    fn are_met(&self, registry: &ServiceRegistry) -> bool {
        let services = registry.services();
        // That the other director has this one's state does not count.
        let in_sync = |slot: &SyncStatusSlot| slot.followed_peer().is_some();
        services.len() >= self.services
            && services.iter().all(|service| service.has_first_verdicts())
            && self.sync.as_ref().is_none_or(in_sync)
    }
}

/// What the election belongs to.
#[derive(Clone, Copy)]
pub(super) struct ElectionContext<'a> {
    pub(super) registry: &'a ServiceRegistry,
    pub(super) role: &'a RoleSender,
    pub(super) supervisor: &'a TaskSupervisor,
    pub(super) control: &'a WeakControlSender,
}

/// How the election ends.
#[derive(Debug, Default)]
struct ElectionEnd {
    /// The driver ends it.
    is_stopping: AtomicBool,
    /// Its thread has ended by itself.
    has_failed: AtomicBool,
}

impl VrrpDriver {
    /// Starts the election, and makes it decide the role.
    pub(super) fn start(
        configs: &[VrrpConfig],
        conditions: TakeoverConditions,
        context: ElectionContext<'_>,
    ) -> Result<Self, DirectorError> {
        let ElectionContext { registry, role, supervisor, control } = context;
        let routers = virtual_routers(configs)?;
        let service_weight = configs.iter().find_map(|config| config.service_weight);
        let resources = start_trackers(configs, &[], registry.monitor())?;
        supervisor.register(ELECTION_TASK);
        let notify = build_notify(configs, supervisor);
        let vrrp = Arc::new(Vrrp::start_with_notify(routers, notify)?);
        vrrp.hold_preemption(true);
        let mut events = vrrp.events();
        role.set_vrrp(&vrrp);
        let (services, held, watch) = (registry.clone(), Arc::clone(&vrrp), role.watch());
        let readiness = supervisor.spawn("election readiness", move || {
            let (services, held) = (services.clone(), Arc::clone(&held));
            conditions.clone().hold_preemption(services, held, watch.clone())
        });
        let (election, sender) = (Arc::downgrade(&vrrp), role.clone());
        let log = registry.events().clone();
        let end = Arc::new(ElectionEnd::default());
        let (ended, restarts, control) = (Arc::clone(&end), supervisor.clone(), control.clone());
        let spawned = thread::Builder::new().name("lvs-vrrp-events".to_owned()).spawn(move || {
            restarts.run_thread("election events", || {
                follow_election(&mut events, &election, &sender, &log);
            });
            if !ended.is_stopping.load(Ordering::Acquire) {
                sender.set_by_vrrp(&election, DirectorRole::Standby);
                ended.has_failed.store(true, Ordering::Release);
                // A thread that ends each time must not use up a core.
                thread::sleep(RESTART_DELAY);
                control.restart_election_blocking();
            }
        });
        let trackers = ElectionTrackers {
            service_weight,
            resources: resources.clone(),
            reported: BTreeMap::new(),
        };
        let tracking = trackers.spawn(registry, &vrrp, supervisor);
        // On an error the driver is dropped, which ends the election.
        let driver = Self {
            vrrp,
            role: role.clone(),
            supervisor: supervisor.clone(),
            end,
            service_weight,
            resources,
            tracking,
            _readiness: readiness,
        };
        spawned.map_err(|source| DirectorError::VrrpThread { source })?;
        Ok(driver)
    }

    /// Returns whether the election has ended by itself.
    pub(super) fn has_failed(&self) -> bool {
        self.end.has_failed.load(Ordering::Acquire)
    }

    /// Changes the virtual routers while they run; returns `false` if that is not possible, and the
    /// election must be started anew. On an error nothing has changed.
    pub(super) fn reconfigure(
        &mut self,
        configs: &[VrrpConfig],
        registry: &ServiceRegistry,
    ) -> Result<bool, DirectorError> {
        let routers = virtual_routers(configs)?;
        let resources = start_trackers(configs, &self.resources, registry.monitor())?;
        let notify = build_notify(configs, &self.supervisor);
        if !self.vrrp.reconfigure(routers, notify)? {
            return Ok(false);
        }
        let service_weight = configs.iter().find_map(|config| config.service_weight);
        let mut reported = BTreeMap::new();
        for service in registry.services().iter() {
            let (label, is_up) = (service_track(service), service.can_serve());
            if service_weight != self.service_weight {
                // Added again at once, with the other weight.
                self.vrrp.remove_track(&label);
            } else if self.vrrp.set_track(&label, is_up).is_ok() {
                reported.insert(label, is_up);
            }
        }
        (self.service_weight, self.resources) = (service_weight, resources);
        let resources = self.resources.clone();
        let trackers = ElectionTrackers { service_weight, resources, reported };
        self.tracking = trackers.spawn(registry, &self.vrrp, &self.supervisor);
        Ok(true)
    }

    /// Hands the addresses over, and waits until that is done. The role is standby from then on.
    ///
    /// # Cancel safety
    /// Dropped, the addresses are handed over all the same.
    pub(super) async fn stop(self) {
        // If that panics, the addresses expire by themselves.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for VrrpDriver {
    fn drop(&mut self) {
        self.end.is_stopping.store(true, Ordering::Release);
        self.vrrp.stop();
        self.role.set_without_vrrp(DirectorRole::Standby);
    }
}

/// Returns the name of the tracked item of a service.
fn service_track(service: &VirtualService) -> String {
    format!("{SERVICE_TRACK_PREFIX}{}", service.name)
}

/// Returns the notify commands of all tables. A panic of their threads is counted.
fn build_notify(
    configs: &[VrrpConfig],
    supervisor: &TaskSupervisor,
) -> impl Iterator<Item = NotifyCommands> {
    const TASK: &str = "election notify";
    supervisor.register(TASK);
    let commands = configs.iter().filter_map(VrrpConfig::build_notify);
    commands.map(|commands| {
        let supervisor = supervisor.clone();
        commands.on_panic(move |message| supervisor.record_panic(TASK, message))
    })
}

fn virtual_routers(configs: &[VrrpConfig]) -> Result<Vec<VirtualRouterConfig>, DirectorError> {
    let mut routers = Vec::new();
    for config in configs {
        routers.extend(config.virtual_routers()?);
    }
    Ok(routers)
}

/// Starts the trackers of all tables' items; of those that run already, the tracker is kept with what its
/// check has found out.
fn start_trackers(
    configs: &[VrrpConfig],
    running: &[Arc<PriorityTracker>],
    monitor: &Monitor,
) -> Result<Vec<Arc<PriorityTracker>>, DirectorError> {
    let mut resources: Vec<Arc<PriorityTracker>> = Vec::new();
    for track in configs.iter().flat_map(|config| &config.tracks) {
        if resources.iter().any(|tracker| tracker.config.name == track.name) {
            continue;
        }
        let kept = running.iter().find(|tracker| tracker.config.is_same_item(track));
        resources.push(match kept {
            Some(tracker) => Arc::clone(tracker),
            None => Arc::new(PriorityTracker::start(track, monitor)?),
        });
    }
    Ok(resources)
}

/// Publishes the election's events and the role, until the election ends. It blocks, and needs a
/// thread of its own; a task would publish the role later, when the runtime schedules it.
fn follow_election(
    events: &mut VrrpEvents,
    election: &Weak<Vrrp>,
    role: &RoleSender,
    log: &EventLog,
) {
    while let Some(event) = events.blocking_next() {
        let is_master = match event {
            Ok(event) => {
                let state = event.new_state();
                log.publish(DirectorEvent::Vrrp(event));
                state.map(|state| state == VrrpState::Master)
            }
            Err(missed) => {
                tracing::warn!("[vrrp]: {missed}");
                election.upgrade().map(|vrrp| vrrp.is_master())
            }
        };
        match is_master {
            Some(true) => role.set_by_vrrp(election, DirectorRole::Active),
            Some(false) => role.set_by_vrrp(election, DirectorRole::Standby),
            None => {}
        }
    }
}

/// Everything that the priority depends on.
#[derive(Debug)]
struct ElectionTrackers {
    /// What the priority loses for each service that has no eligible server.
    service_weight: Option<u8>,
    resources: Vec<Arc<PriorityTracker>>,
    /// What was last reported to the election, by the label of the tracked resource.
    reported: BTreeMap<String, bool>,
}

/// A link or a check that the priority depends on.
#[derive(Debug)]
struct PriorityTracker {
    config: TrackConfig,
    resource: TrackedResource,
}

#[derive(Debug)]
enum TrackedResource {
    Link(String),
    /// A set of one backend, which is eligible while its check passes.
    Check(BackendSet<SocketAddr>, WatchHandle),
}

/// Reports to the election at each interval. It never returns.
async fn run_trackers(
    trackers: Arc<Mutex<ElectionTrackers>>,
    registry: ServiceRegistry,
    vrrp: Arc<Vrrp>,
) {
    let mut tick = tokio::time::interval(TRACK_INTERVAL);
    loop {
        tick.tick().await;
        lock(&trackers).update(&vrrp, &registry.services());
    }
}

impl ElectionTrackers {
    /// Starts the task that reports to the election.
    fn spawn(
        self,
        registry: &ServiceRegistry,
        vrrp: &Arc<Vrrp>,
        supervisor: &TaskSupervisor,
    ) -> AbortOnDropHandle<()> {
        let (trackers, registry, vrrp) =
            (Arc::new(Mutex::new(self)), registry.clone(), Arc::clone(vrrp));
        supervisor.spawn("election tracking", move || {
            run_trackers(Arc::clone(&trackers), registry.clone(), Arc::clone(&vrrp))
        })
    }

    /// Reports what has changed.
    fn update(&mut self, vrrp: &Vrrp, services: &[Arc<VirtualService>]) {
        let mut current = BTreeMap::new();
        if let Some(weight) = self.service_weight {
            for service in services {
                let label = service_track(service);
                if !self.reported.contains_key(&label) {
                    vrrp.add_track(&label, TrackEffect::Minus(weight));
                }
                current.insert(label, service.can_serve());
            }
        }
        let is_removed = |label: &&String| {
            label.starts_with(SERVICE_TRACK_PREFIX) && !current.contains_key(*label)
        };
        self.reported.keys().filter(is_removed).for_each(|label| vrrp.remove_track(label));
        for tracker in &self.resources {
            current.insert(tracker.config.name.clone(), tracker.is_up());
        }
        for (label, is_up) in &current {
            if self.reported.get(label) != Some(is_up) {
                // The label is known: added above, or part of the virtual routers' configuration.
                let _ = vrrp.set_track(label, *is_up);
            }
        }
        self.reported = current;
    }
}

impl PriorityTracker {
    fn start(config: &TrackConfig, monitor: &Monitor) -> Result<Self, DirectorError> {
        let track_error =
            |reason: String| DirectorError::Track { track: config.name.clone(), reason };
        let resource = match (
            &config.interface,
            config.check_plan().map_err(|problem| track_error(problem.reason))?,
        ) {
            (Some(interface), _) => TrackedResource::Link(interface.clone()),
            (None, Some(plan)) => {
                let set = BackendSet::new();
                let spec = Spec::new(&*config.name, config.check_address())
                    .address(config.check_address());
                set.insert(spec).map_err(|error| track_error(error.to_string()))?;
                let watch =
                    monitor.watch(&set, plan).map_err(|error| track_error(error.to_string()))?;
                TrackedResource::Check(set, watch)
            }
            (None, None) => return Err(track_error("neither `check` nor `interface`".to_owned())),
        };
        Ok(Self { config: config.clone(), resource })
    }

    fn is_up(&self) -> bool {
        self.resource.is_up() != self.config.inverted
    }
}

impl TrackedResource {
    fn is_up(&self) -> bool {
        match self {
            // Without a carrier the file cannot be read, or holds 0.
            Self::Link(interface) => {
                let carrier = std::fs::read(format!("/sys/class/net/{interface}/carrier"));
                carrier.is_ok_and(|text| text.starts_with(b"1"))
            }
            Self::Check(set, _) => {
                let snapshot = set.snapshot();
                snapshot.members().iter().all(|member| member.state() == BackendState::Eligible)
            }
        }
    }
}

impl Drop for PriorityTracker {
    fn drop(&mut self) {
        if let TrackedResource::Check(_, watch) = &self.resource {
            watch.stop();
        }
    }
}

#[cfg(test)]
mod tests;
