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
use super::role::{DirectorRole, RoleSender};
use super::service::VirtualService;
use super::supervisor::TaskSupervisor;
use crate::backend::{BackendSet, BackendState, Spec};
use crate::health::{Monitor, WatchHandle};
use crate::sync::{Mutex, lock};
use crate::vrrp::{TrackEffect, Vrrp, VrrpEvents, VrrpState};

/// How often tracked services and links are read.
const TRACK_INTERVAL: Duration = Duration::from_millis(100);

/// A running election. Dropped, it blocks until the addresses are handed over: [`stop`](Self::stop)
/// does the same without blocking a worker thread.
#[derive(Debug)]
pub(super) struct VrrpDriver {
    vrrp: Arc<Vrrp>,
    role: RoleSender,
    end: Arc<ElectionEnd>,
    _tracking: AbortOnDropHandle<()>,
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
        context: ElectionContext<'_>,
    ) -> Result<Self, DirectorError> {
        let ElectionContext { registry, role, supervisor, control } = context;
        let mut routers = Vec::new();
        for config in configs {
            routers.extend(config.virtual_routers()?);
        }
        let mut trackers = ElectionTrackers {
            service_weight: configs.iter().find_map(|config| config.service_weight),
            resources: Vec::new(),
            reported: BTreeMap::new(),
        };
        for track in configs.iter().flat_map(|config| &config.tracks) {
            if !trackers.resources.iter().any(|tracker| tracker.label == track.name) {
                trackers.resources.push(PriorityTracker::start(track, registry.monitor())?);
            }
        }
        let notify = configs.iter().filter_map(VrrpConfig::build_notify);
        let vrrp = Arc::new(Vrrp::start_with_notify(routers, notify)?);
        let mut events = vrrp.events();
        role.set_vrrp(&vrrp);
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
                control.restart_election();
            }
        });
        let trackers = Arc::new(Mutex::new(trackers));
        let (tracked, services) = (Arc::clone(&vrrp), registry.clone());
        let tracking = supervisor.spawn("election tracking", move || {
            run_trackers(Arc::clone(&trackers), services.clone(), Arc::clone(&tracked))
        });
        // On an error the driver is dropped, which ends the election.
        let driver = Self { vrrp, role: role.clone(), end, _tracking: tracking };
        spawned.map_err(|source| DirectorError::VrrpThread { source })?;
        Ok(driver)
    }

    /// Returns whether the election has ended by itself.
    pub(super) fn has_failed(&self) -> bool {
        self.end.has_failed.load(Ordering::Acquire)
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
    resources: Vec<PriorityTracker>,
    /// What was last reported to the election, by the label of the tracked resource.
    reported: BTreeMap<String, bool>,
}

/// A link or a check that the priority depends on.
#[derive(Debug)]
struct PriorityTracker {
    label: String,
    is_inverted: bool,
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
    fn update(&mut self, vrrp: &Vrrp, services: &[Arc<VirtualService>]) {
        let mut current = BTreeMap::new();
        if let Some(weight) = self.service_weight {
            for service in services {
                let label = format!("{SERVICE_TRACK_PREFIX}{}", service.name);
                if !self.reported.contains_key(&label) {
                    vrrp.add_track(&label, TrackEffect::Minus(weight));
                }
                current.insert(label, service.has_eligible_server());
            }
        }
        let is_removed = |label: &&String| {
            label.starts_with(SERVICE_TRACK_PREFIX) && !current.contains_key(*label)
        };
        self.reported.keys().filter(is_removed).for_each(|label| vrrp.remove_track(label));
        for tracker in &self.resources {
            current.insert(tracker.label.clone(), tracker.is_up());
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
        Ok(Self { label: config.name.clone(), is_inverted: config.inverted, resource })
    }

    fn is_up(&self) -> bool {
        self.resource.is_up() != self.is_inverted
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
