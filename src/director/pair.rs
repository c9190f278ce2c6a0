//! The virtual addresses: who has them, and what that depends on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::config::VrrpConfig;
use super::running::Inner;
use super::service::Service;
use crate::sync::{Mutex, lock};
use crate::vrrp::{Event, Events, Impact, StartError, State, VirtualRouter, Vrrp, What};

/// How often services are looked at.
const TURN: Duration = Duration::from_millis(100);
/// Events that wait; more than there are in a bad minute.
const EVENTS: usize = 256;

/// This director's part in the pair.
#[derive(Debug)]
pub(super) struct Pair {
    vrrp: Vrrp,
    /// Those since the start, until they are followed.
    events: Mutex<Option<Events>>,
    /// Do services count?
    tracks: bool,
}

impl Pair {
    pub(super) fn start(asked: &VrrpConfig, services: &[Service]) -> Result<Self, StartError> {
        let mut routers = asked.routers()?;
        let weight = asked.service_weight();
        for service in services.iter().filter(|_| weight.is_some()) {
            let impact = Impact::Minus(weight.unwrap_or_default());
            let track = |router: VirtualRouter| router.track(label(service), impact);
            routers = routers.into_iter().map(track).collect();
        }
        let vrrp = Vrrp::start(routers)?;
        let events = Mutex::new(Some(vrrp.events()));
        if let Some(notify) = asked.notify() {
            vrrp.notify(notify);
        }
        Ok(Self { vrrp, events, tracks: weight.is_some() })
    }

    pub(super) fn vrrp(&self) -> &Vrrp {
        &self.vrrp
    }

    /// Hands over.
    pub(super) fn stop(&self) {
        self.vrrp.halt();
    }
}

fn label(service: &Service) -> String {
    format!("service {}", service.name)
}

/// Looks after services and the election, for ever.
pub(super) async fn follow(inner: Arc<Inner>) {
    let Some(pair) = &inner.pair else { return };
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
            _ = turn.tick() => {
                for service in inner.services.iter().filter(|_| pair.tracks) {
                    let (label, is_up) = (label(service), service.is_up());
                    if were.insert(label.clone(), is_up) != Some(is_up) {
                        // It was said at the start that it is tracked.
                        let _ = pair.vrrp.set(&label, is_up);
                    }
                }
            }
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
        && let Some(sync) = &inner.sync
    {
        sync.take_over(&inner.services);
    }
}
