//! The virtual addresses: who has them, and what that depends on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::config::{TrackConfig, VrrpConfig};
use super::error::DirectorError;
use super::handle::DirectorShared;
use super::service::VirtualService;
use crate::backend::{BackendSet, BackendState as ServerState, Spec};
use crate::health::{Monitor, WatchHandle};
use crate::sync::{Mutex, lock};
use crate::vrrp::{TrackEffect, Vrrp, VrrpEvent, VrrpEventKind, VrrpEvents, VrrpState};

/// How often services and links are looked at.
const TRACK_INTERVAL: Duration = Duration::from_millis(100);
/// Events that wait; more than there are in a bad minute.
const EVENT_QUEUE_CAPACITY: usize = 256;

/// This director's part in the pair.
#[derive(Debug)]
pub(super) struct VrrpDriver {
    vrrp: Arc<Vrrp>,
    /// Those since the start, until they are followed.
    events: Mutex<Option<VrrpEvents>>,
    /// What is taken off the priority for a service that cannot serve.
    service_weight: Option<u8>,
    trackers: Vec<PriorityTracker>,
}

/// Something else that the priority depends on.
#[derive(Debug)]
struct PriorityTracker {
    label: String,
    resource: TrackedResource,
}

#[derive(Debug)]
enum TrackedResource {
    Link(String),
    /// A set of one, which is up while its check passes.
    Check(BackendSet<SocketAddr>, WatchHandle),
}

impl VrrpDriver {
    pub(super) fn start(asked: &[VrrpConfig], monitor: &Monitor) -> Result<Self, DirectorError> {
        let mut routers = Vec::new();
        for one in asked {
            routers.extend(one.virtual_routers()?);
        }
        let vrrp = Vrrp::start(routers)?;
        let events = Mutex::new(Some(vrrp.events()));
        for notify in asked.iter().filter_map(VrrpConfig::build_notify) {
            vrrp.run_on_transition(notify);
        }
        let service_weight = asked.iter().find_map(|it| it.service_weight);
        let mut tracks: Vec<PriorityTracker> = Vec::new();
        for track in asked.iter().flat_map(|it| &it.tracks) {
            if !tracks.iter().any(|it| it.label == track.label()) {
                tracks.push(PriorityTracker::start(track, monitor)?);
            }
        }
        Ok(Self { vrrp: Arc::new(vrrp), events, service_weight, trackers: tracks })
    }

    pub(super) fn vrrp(&self) -> &Arc<Vrrp> {
        &self.vrrp
    }

    /// Hands over, which goes on if nobody waits for it.
    pub(super) async fn stop(&self) {
        let vrrp = Arc::clone(&self.vrrp);
        // If that panics the addresses go by themselves.
        let _ = tokio::task::spawn_blocking(move || vrrp.shutdown()).await;
    }

    /// Tells the election what is up; `were` is what it was told before.
    fn update_tracking(&self, services: &[Arc<VirtualService>], were: &mut BTreeMap<String, bool>) {
        let mut are = BTreeMap::new();
        if let Some(weight) = self.service_weight {
            for service in services {
                let label = format!("service {}", service.name);
                if !were.contains_key(&label) {
                    self.vrrp.add_track(&label, TrackEffect::Minus(weight));
                }
                are.insert(label, service.has_eligible_server());
            }
        }
        for gone in were.keys().filter(|it| it.starts_with("service ") && !are.contains_key(*it)) {
            self.vrrp.remove_track(gone);
        }
        for track in &self.trackers {
            are.insert(track.label.clone(), track.is_up());
        }
        for (label, is_up) in &are {
            if were.get(label) != Some(is_up) {
                // It was said before that it is tracked.
                let _ = self.vrrp.set_track(label, *is_up);
            }
        }
        *were = are;
    }
}

impl PriorityTracker {
    fn start(asked: &TrackConfig, monitor: &Monitor) -> Result<Self, DirectorError> {
        let wrong = |what: String| DirectorError::Track { track: asked.name.clone(), reason: what };
        let kind =
            match (&asked.interface, asked.check_plan().map_err(|fault| wrong(fault.reason))?) {
                (Some(interface), _) => TrackedResource::Link(interface.clone()),
                (None, Some(plan)) => {
                    let set = BackendSet::new();
                    let spec = Spec::new(&*asked.name, asked.check_address())
                        .address(asked.check_address());
                    set.insert(spec).map_err(|error| wrong(error.to_string()))?;
                    let watch =
                        monitor.watch(&set, plan).map_err(|error| wrong(error.to_string()))?;
                    TrackedResource::Check(set, watch)
                }
                (None, None) => return Err(wrong("neither `check` nor `interface`".to_owned())),
            };
        Ok(Self { label: asked.label(), resource: kind })
    }

    fn is_up(&self) -> bool {
        match &self.resource {
            // What has no carrier cannot be read, or is 0.
            TrackedResource::Link(interface) => {
                let carrier = std::fs::read(format!("/sys/class/net/{interface}/carrier"));
                carrier.is_ok_and(|text| text.starts_with(b"1"))
            }
            TrackedResource::Check(set, _) => {
                let snapshot = set.snapshot();
                snapshot.members().iter().all(|it| it.state() == ServerState::Eligible)
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

/// Looks after services and the election, for ever.
pub(super) async fn run_vrrp_driver(inner: Arc<DirectorShared>, pair: Arc<VrrpDriver>) {
    let events = lock(&pair.events).take();
    let mut events = forward_events(events.unwrap_or_else(|| pair.vrrp.events()));
    let mut turn = tokio::time::interval(TRACK_INTERVAL);
    let mut were = BTreeMap::new();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => handle_event(&inner, &event),
                None => return,
            },
            _ = turn.tick() => pair.update_tracking(&inner.services(), &mut were),
        }
    }
}

/// Events, for a task: they come from a thread that waits for them.
fn forward_events(events: VrrpEvents) -> mpsc::Receiver<VrrpEvent> {
    let (sender, receiver) = mpsc::channel(EVENT_QUEUE_CAPACITY);
    std::thread::spawn(move || {
        for event in events {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

fn handle_event(inner: &DirectorShared, event: &VrrpEvent) {
    match &event.kind {
        VrrpEventKind::StateChanged(..) | VrrpEventKind::TrackChanged { is_up: true, .. } => {
            tracing::info!("{event}")
        }
        _ => tracing::warn!("{event}"),
    }
    if event.new_state() == Some(VrrpState::Master)
        && let Some(sync) = inner.state_sync()
    {
        sync.handle_takeover(&inner.services());
    }
}
