//! The active director's side: it publishes its state to the standby.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::channel::{NoiseChannel, NoiseRole};
use super::message::{ServiceUpdate, SlowUpdate, SyncMessage, TemplateUpdate};
use super::state::{SYNC_INTERVAL, StateSync};
use crate::director::registry::ServiceRegistry;
use crate::director::role::RoleWatch;
use crate::director::service::VirtualService;
use crate::director::supervisor::TaskSupervisor;
use crate::director::time::tokio_now;
use crate::panics::catch_panic;

/// Connections at a time. A pair has one standby; it may have a new connection before the old one is
/// known to be dead.
const MAX_FOLLOWERS: usize = 4;
/// How long a standby may take to read one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything but persistence is sent each time that this many intervals have passed.
const SLOW_UPDATE_TICKS: u64 = 4;

/// Publishes this director's state to every peer that connects and has the key. It never returns.
pub(super) async fn publish(
    listener: Arc<TcpListener>,
    state: Arc<StateSync>,
    registry: ServiceRegistry,
    role: RoleWatch,
    supervisor: TaskSupervisor,
) {
    let permits = Arc::new(Semaphore::new(MAX_FOLLOWERS));
    let mut followers = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        while followers.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (state, registry, role) = (Arc::clone(&state), registry.clone(), role.clone());
                let supervisor = supervisor.clone();
                followers.spawn(async move {
                    let publishing = publish_to_follower(&state, &registry, &role, stream);
                    match catch_panic(publishing).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::debug!("sync: the connection of a standby ended: {error}");
                        }
                        Err(message) => supervisor.record_panic("sync connection", &message),
                    }
                    drop(permit);
                });
            }
            // Out of descriptors, or the peer has closed the connection already.
            Err(_) => tokio::time::sleep(SYNC_INTERVAL).await,
        }
    }
}

async fn publish_to_follower(
    state: &StateSync,
    registry: &ServiceRegistry,
    role: &RoleWatch,
    stream: TcpStream,
) -> io::Result<()> {
    let mut channel = NoiseChannel::open(stream, state.config.key(), NoiseRole::Responder).await?;
    let _follower = FollowerGuard::new(state);
    let mut progress = FollowerProgress::default();
    let mut tick = tokio::time::interval(SYNC_INTERVAL);
    loop {
        tick.tick().await;
        let message = progress.next_message(role.is_active(), &registry.services(), tokio_now());
        let sent_before = channel.bytes_sent;
        tokio::time::timeout(SEND_TIMEOUT, channel.send(&message)).await??;
        state.lock_progress().status.sent += channel.bytes_sent - sent_before;
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
        self.ticks += 1;
        // A template that is used in this very instant may be sent twice, but never not at all.
        self.last_export = Some(now);
        let updates = services.iter().filter_map(|service| {
            let templates = service.persistence().map(|table| table.export(now, since));
            let update = ServiceUpdate {
                name: service.name.clone(),
                templates: templates.into_iter().flatten().map(TemplateUpdate::from).collect(),
                slow: if is_slow_due { self.changed_slow_update(service) } else { None },
            };
            (!update.templates.is_empty() || update.slow.is_some()).then_some(update)
        });
        SyncMessage { is_active, is_full, services: updates.collect() }
    }

    /// Returns everything but persistence, unless it is what was sent last.
    fn changed_slow_update(&mut self, service: &VirtualService) -> Option<SlowUpdate> {
        let update = SlowUpdate {
            learned: service.export_health(),
            totals: service.totals(),
            changes: service.overrides(),
        };
        let is_changed = self.sent_slow_updates.get(&service.name) != Some(&update);
        is_changed.then(|| {
            self.sent_slow_updates.insert(service.name.clone(), update.clone());
            update
        })
    }
}

/// Counts a standby while it is connected.
struct FollowerGuard<'a>(&'a StateSync);

impl<'a> FollowerGuard<'a> {
    fn new(state: &'a StateSync) -> Self {
        state.lock_progress().status.followers += 1;
        Self(state)
    }
}

impl Drop for FollowerGuard<'_> {
    fn drop(&mut self) {
        self.0.lock_progress().status.followers -= 1;
    }
}
