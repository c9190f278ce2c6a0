//! The virtual addresses: who has them, and what that depends on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::config::{TrackConfig, VrrpConfig};
use super::error::DirectorError;
use super::running::Inner;
use super::service::Service;
use crate::backend::{BackendSet, Spec, State as ServerState};
use crate::health::{Monitor, Watch};
use crate::sync::{Mutex, lock};
use crate::vrrp::{Event, Events, Impact, State, Vrrp, What};

/// How often services and links are looked at.
const TURN: Duration = Duration::from_millis(100);
/// Events that wait; more than there are in a bad minute.
const EVENTS: usize = 256;

/// This director's part in the pair.
#[derive(Debug)]
pub(super) struct Pair {
    vrrp: Arc<Vrrp>,
    /// Those since the start, until they are followed.
    events: Mutex<Option<Events>>,
    /// What is taken off the priority for a service that cannot serve.
    service_weight: Option<u8>,
    tracks: Vec<Track>,
}

/// Something else that the priority depends on.
#[derive(Debug)]
struct Track {
    label: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Link(String),
    /// A set of one, which is up while its check passes.
    Check(BackendSet<SocketAddr>, Watch),
}

impl Pair {
    pub(super) fn start(asked: &[VrrpConfig], monitor: &Monitor) -> Result<Self, DirectorError> {
        let mut routers = Vec::new();
        for one in asked {
            routers.extend(one.routers()?);
        }
        let vrrp = Vrrp::start(routers)?;
        let events = Mutex::new(Some(vrrp.events()));
        for notify in asked.iter().filter_map(VrrpConfig::notify) {
            vrrp.notify(notify);
        }
        let service_weight = asked.iter().find_map(|it| it.service_weight);
        let mut tracks: Vec<Track> = Vec::new();
        for track in asked.iter().flat_map(|it| &it.tracks) {
            if !tracks.iter().any(|it| it.label == track.label()) {
                tracks.push(Track::start(track, monitor)?);
            }
        }
        Ok(Self { vrrp: Arc::new(vrrp), events, service_weight, tracks })
    }

    pub(super) fn vrrp(&self) -> &Arc<Vrrp> {
        &self.vrrp
    }

    /// Hands over, which goes on if nobody waits for it.
    pub(super) async fn stop(&self) {
        let vrrp = Arc::clone(&self.vrrp);
        // If that panics the addresses go by themselves.
        let _ = tokio::task::spawn_blocking(move || vrrp.halt()).await;
    }

    /// Tells the election what is up; `were` is what it was told before.
    fn look(&self, services: &[Arc<Service>], were: &mut BTreeMap<String, bool>) {
        let mut are = BTreeMap::new();
        if let Some(weight) = self.service_weight {
            for service in services {
                let label = format!("service {}", service.name);
                if !were.contains_key(&label) {
                    self.vrrp.track(&label, Impact::Minus(weight));
                }
                are.insert(label, service.is_up());
            }
        }
        for gone in were.keys().filter(|it| it.starts_with("service ") && !are.contains_key(*it)) {
            self.vrrp.untrack(gone);
        }
        for track in &self.tracks {
            are.insert(track.label.clone(), track.is_up());
        }
        for (label, is_up) in &are {
            if were.get(label) != Some(is_up) {
                // It was said before that it is tracked.
                let _ = self.vrrp.set(label, *is_up);
            }
        }
        *were = are;
    }
}

impl Track {
    fn start(asked: &TrackConfig, monitor: &Monitor) -> Result<Self, DirectorError> {
        let wrong = |what: String| DirectorError::Track { track: asked.name.clone(), what };
        let kind = match (&asked.interface, asked.plan().map_err(|fault| wrong(fault.what))?) {
            (Some(interface), _) => Kind::Link(interface.clone()),
            (None, Some(plan)) => {
                let set = BackendSet::new();
                let spec = Spec::new(&*asked.name, asked.address()).address(asked.address());
                set.insert(spec).map_err(|error| wrong(error.to_string()))?;
                let watch = monitor.watch(&set, plan).map_err(|error| wrong(error.to_string()))?;
                Kind::Check(set, watch)
            }
            (None, None) => return Err(wrong("neither `check` nor `interface`".to_owned())),
        };
        Ok(Self { label: asked.label(), kind })
    }

    fn is_up(&self) -> bool {
        match &self.kind {
            // What has no carrier cannot be read, or is 0.
            Kind::Link(interface) => {
                let carrier = std::fs::read(format!("/sys/class/net/{interface}/carrier"));
                carrier.is_ok_and(|text| text.starts_with(b"1"))
            }
            Kind::Check(set, _) => {
                let snapshot = set.snapshot();
                snapshot.members().iter().all(|it| it.state() == ServerState::Eligible)
            }
        }
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        if let Kind::Check(_, watch) = &self.kind {
            watch.stop();
        }
    }
}

/// Looks after services and the election, for ever.
pub(super) async fn follow(inner: Arc<Inner>, pair: Arc<Pair>) {
    let events = lock(&pair.events).take();
    let mut events = forward(events.unwrap_or_else(|| pair.vrrp.events()));
    let mut turn = tokio::time::interval(TURN);
    let mut were = BTreeMap::new();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => take(&inner, &event),
                None => return,
            },
            _ = turn.tick() => pair.look(&inner.services(), &mut were),
        }
    }
}

/// Events, for a task: they come from a thread that waits for them.
fn forward(events: Events) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(EVENTS);
    std::thread::spawn(move || {
        for event in events {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

fn take(inner: &Inner, event: &Event) {
    match &event.what {
        What::Changed(..) | What::Tracked { is_up: true, .. } => tracing::info!("{event}"),
        _ => tracing::warn!("{event}"),
    }
    if event.became() == Some(State::Master)
        && let Some(sync) = inner.sync()
    {
        sync.take_over(&inner.services());
    }
}
