//! The active director's side: it publishes its state to the standby.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::channel::{MessageKind, NoiseChannel, NoiseRole};
use super::flow_publisher::FlowPublisher;
use super::message::{ServiceUpdate, SlowUpdate, SyncMessage, TemplateUpdate};
use super::state::{SYNC_INTERVAL, StateSync};
use crate::director::engines::EngineSet;
use crate::director::registry::ServiceRegistry;
use crate::director::role::RoleWatch;
use crate::director::service::ServiceOutline;
use crate::director::service::VirtualService;
use crate::director::supervisor::TaskSupervisor;
use crate::director::time::tokio_now;
use crate::health::SavedHealth;
use crate::panics::catch_panic;

/// Standbys at a time. A pair has one; it may have a new connection before the old one is known to be
/// dead.
const MAX_FOLLOWERS: usize = 4;
/// Connections that have not proved yet that they have the key: from the address of the peer, and from
/// all others together, so that no other machine takes the place of the peer.
const MAX_HANDSHAKES: usize = 4;
/// How long a standby may take to read one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything but persistence is sent each time that this many intervals have passed.
const SLOW_UPDATE_TICKS: u64 = 4;
/// How many intervals pass between two messages with check results that have not changed: a standby
/// weighs them by their age.
const UNCHANGED_HEALTH_TICKS: u64 = 20;

/// The name of the connections among the tasks.
const CONNECTION_TASK: &str = "sync connection";

/// Publishes this director's state to every peer that connects and has the key. It never returns.
pub(super) async fn publish(
    listener: Arc<TcpListener>,
    state: Arc<StateSync>,
    (registry, engines): (ServiceRegistry, EngineSet),
    role: RoleWatch,
    supervisor: TaskSupervisor,
) {
    supervisor.register(CONNECTION_TASK);
    let semaphore = |permits| Arc::new(Semaphore::new(permits));
    let (peer_handshakes, other_handshakes) =
        (semaphore(MAX_HANDSHAKES), semaphore(MAX_HANDSHAKES));
    let followers = semaphore(MAX_FOLLOWERS);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let is_peer = from.ip().to_canonical() == state.config.peer.ip().to_canonical();
                let handshakes = if is_peer { &peer_handshakes } else { &other_handshakes };
                let Ok(permit) = Arc::clone(handshakes).try_acquire_owned() else {
                    state.report_refusal(from, "too many connections without the key");
                    continue;
                };
                let (state, registry, role) = (Arc::clone(&state), registry.clone(), role.clone());
                let flows = FlowPublisher::new(engines.clone());
                let (supervisor, followers) = (supervisor.clone(), Arc::clone(&followers));
                connections.spawn(async move {
                    let key = state.config.key();
                    let channel = NoiseChannel::open(stream, key, NoiseRole::Responder).await;
                    drop(permit);
                    let channel = match channel {
                        Ok(channel) => channel,
                        Err(error) => return state.report_refusal(from, &error.to_string()),
                    };
                    let Ok(_permit) = followers.try_acquire() else {
                        return state.report_refusal(from, "too many standbys");
                    };
                    let publishing =
                        publish_to_follower(&state, (&registry, flows), &role, channel);
                    match catch_panic(publishing).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::debug!(
                                "sync: the connection of standby {from} ended: {error}"
                            );
                        }
                        Err(message) => supervisor.record_panic(CONNECTION_TASK, &message),
                    }
                });
            }
            // Out of descriptors, or the peer has closed the connection already.
            Err(_) => tokio::time::sleep(SYNC_INTERVAL).await,
        }
    }
}

async fn publish_to_follower(
    state: &StateSync,
    (registry, mut flows): (&ServiceRegistry, FlowPublisher),
    role: &RoleWatch,
    mut channel: NoiseChannel,
) -> io::Result<()> {
    let mut follower = FollowerGuard::new(state);
    let mut progress = FollowerProgress::default();
    let mut tick = tokio::time::interval(SYNC_INTERVAL);
    loop {
        let batch = tokio::select! {
            _ = tick.tick() => None,
            batch = flows.next() => Some(batch),
        };
        let (kind, message, flow_count) = match batch {
            Some(batch) => (MessageKind::Flows, batch.encode(), batch.flows.len()),
            None => {
                let is_active = role.is_active();
                flows.follow(is_active && channel.takes_flows, tokio_now()).await;
                let mut message =
                    progress.next_message(is_active, &registry.services(), tokio_now());
                message.has_flows = flows.is_running();
                (MessageKind::State, serde_json::to_vec(&message)?, 0)
            }
        };
        let sent_before = channel.bytes_sent;
        tokio::time::timeout(SEND_TIMEOUT, channel.send(kind, &message)).await??;
        follower.set_synchronized(progress.last_export.is_some() && flows.has_told_all());
        let mut progress = state.lock_progress();
        progress.status.sent += channel.bytes_sent - sent_before;
        progress.status.flows_sent += flow_count as u64;
    }
}

/// What one standby has received.
#[derive(Debug, Default)]
struct FollowerProgress {
    ticks: u64,
    /// When persistence was exported last; `None` before the first time, and while this director is
    /// standby.
    last_export: Option<Instant>,
    sent_slow_updates: BTreeMap<String, SlowUpdate>,
    sent_outlines: Option<Vec<ServiceOutline>>,
}

impl FollowerProgress {
    fn next_message(
        &mut self,
        is_active: bool,
        services: &[Arc<VirtualService>],
        now: Instant,
    ) -> SyncMessage {
        if !is_active {
            *self = Self::default();
            return SyncMessage::default();
        }
        let (since, is_full) = (self.last_export, self.last_export.is_none());
        let is_slow_due = is_full || self.ticks.is_multiple_of(SLOW_UPDATE_TICKS);
        let is_unchanged_due = self.ticks.is_multiple_of(UNCHANGED_HEALTH_TICKS);
        self.ticks += 1;
        // A template that is used in this very instant may be sent twice, but never not at all.
        self.last_export = Some(now);
        let outlines = if is_slow_due { self.changed_outlines(services) } else { None };
        let updates = services.iter().filter_map(|service| {
            let templates = service.persistence().map(|table| table.export(now, since));
            let update = ServiceUpdate {
                name: service.name.clone(),
                templates: templates.into_iter().flatten().map(TemplateUpdate::from).collect(),
                slow: is_slow_due.then(|| self.slow_update(service, is_unchanged_due)).flatten(),
            };
            (!update.templates.is_empty() || update.slow.is_some()).then_some(update)
        });
        let updates = updates.collect();
        SyncMessage { is_active, is_full, has_flows: false, outlines, services: updates }
    }

    /// Returns what the other director's configuration must have too, unless it is what was sent last.
    fn changed_outlines(
        &mut self,
        services: &[Arc<VirtualService>],
    ) -> Option<Vec<ServiceOutline>> {
        let outlines = Some(services.iter().map(|service| service.outline()).collect());
        if self.sent_outlines == outlines {
            return None;
        }
        self.sent_outlines.clone_from(&outlines);
        outlines
    }

    /// Returns everything but persistence; if it is what was sent last, only where that is asked for.
    fn slow_update(
        &mut self,
        service: &VirtualService,
        may_be_unchanged: bool,
    ) -> Option<SlowUpdate> {
        let update = SlowUpdate {
            learned: service.export_health(),
            totals: service.totals(),
            changes: service.overrides(),
        };
        let learned = update.learned.clone().map(SavedHealth::without_ages);
        let known = SlowUpdate { learned, totals: update.totals, changes: update.changes.clone() };
        let is_changed = self.sent_slow_updates.get(&service.name) != Some(&known);
        (is_changed || may_be_unchanged).then(|| {
            self.sent_slow_updates.insert(service.name.clone(), known);
            update
        })
    }
}

/// Counts a standby while it is connected, and whether it has this director's state.
struct FollowerGuard<'a> {
    state: &'a StateSync,
    is_synchronized: bool,
}

impl<'a> FollowerGuard<'a> {
    fn new(state: &'a StateSync) -> Self {
        state.lock_progress().status.followers += 1;
        Self { state, is_synchronized: false }
    }

    fn set_synchronized(&mut self, is_synchronized: bool) {
        let was_synchronized = std::mem::replace(&mut self.is_synchronized, is_synchronized);
        let mut progress = self.state.lock_progress();
        progress.synchronized_followers -= usize::from(was_synchronized);
        progress.synchronized_followers += usize::from(is_synchronized);
    }
}

impl Drop for FollowerGuard<'_> {
    fn drop(&mut self) {
        self.set_synchronized(false);
        self.state.lock_progress().status.followers -= 1;
    }
}
