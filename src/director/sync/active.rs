//! The side that tells.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::channel::{NoiseChannel, NoiseRole};
use super::message::{ServiceUpdate, SlowUpdate, SyncMessage, TemplateUpdate};
use super::{SLOW_UPDATE_TICKS, SYNC_INTERVAL, StateSync};
use crate::director::handle::DirectorShared;
use crate::director::service::{VirtualService, tokio_now};
use crate::sync::lock;

/// A pair has one standby; a second connection is its new one while the old one is found dead.
const MAX_FOLLOWERS: usize = 4;
/// How long a standby may take to read what it is told.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells those who connect and have the key, for ever.
pub(in crate::director) async fn publish(sync: Arc<StateSync>, inner: Arc<DirectorShared>) {
    let places = Arc::new(Semaphore::new(MAX_FOLLOWERS));
    // They end with this.
    let mut followers = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while followers.try_join_next().is_some() {}
        match sync.listener.accept().await {
            Ok((stream, _)) => {
                let (inner, sync) = (Arc::clone(&inner), Arc::clone(&sync));
                followers.spawn(async move {
                    if let Err(error) = publish_to_follower(&inner, &sync, stream).await {
                        tracing::debug!("sync: a standby is gone: {error}");
                    }
                    drop(place);
                });
            }
            // Out of descriptors, or the client has gone: in a while.
            Err(_) => tokio::time::sleep(SYNC_INTERVAL).await,
        }
    }
}

async fn publish_to_follower(
    inner: &DirectorShared,
    sync: &StateSync,
    stream: TcpStream,
) -> io::Result<()> {
    let mut channel = NoiseChannel::open(stream, sync.config.key(), NoiseRole::Responder).await?;
    let _follower = FollowerGuard::new(sync);
    let mut told = FollowerProgress::default();
    let mut tick = tokio::time::interval(SYNC_INTERVAL);
    loop {
        tick.tick().await;
        let word = told.next_message(inner.is_active(), &inner.services(), tokio_now());
        let sent = channel.bytes_sent;
        tokio::time::timeout(SEND_TIMEOUT, channel.send(&word)).await??;
        lock(&sync.progress).status.sent += channel.bytes_sent - sent;
    }
}

/// What one standby has been told.
#[derive(Debug, Default)]
struct FollowerProgress {
    ticks: u64,
    /// When it was told of persistence last; not yet, or not since this director became active.
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
        let all = is_full || self.ticks.is_multiple_of(SLOW_UPDATE_TICKS);
        self.ticks += 1;
        // What is used in this instant may be told twice, and not never.
        self.last_export = Some(now);
        let words = services.iter().filter_map(|service| {
            let persistence = service.lock_state().persistence.clone();
            let templates = persistence.map(|it| it.export(now, since)).unwrap_or_default();
            let word = ServiceUpdate {
                name: service.name.clone(),
                templates: templates.into_iter().map(TemplateUpdate::from).collect(),
                slow: if all { self.changed_slow_update(service) } else { None },
            };
            (!word.templates.is_empty() || word.slow.is_some()).then_some(word)
        });
        SyncMessage { is_active, is_full, services: words.collect() }
    }

    /// What is to be told, unless it has been.
    fn changed_slow_update(&mut self, service: &VirtualService) -> Option<SlowUpdate> {
        let word = SlowUpdate {
            learned: service.export_health(),
            totals: service.totals(),
            changes: service.lock_state().overrides.clone(),
        };
        let is_news = self.sent_slow_updates.get(&service.name) != Some(&word);
        is_news.then(|| {
            self.sent_slow_updates.insert(service.name.clone(), word.clone());
            word
        })
    }
}

/// Counts a standby while it is there.
struct FollowerGuard<'a>(&'a StateSync);

impl<'a> FollowerGuard<'a> {
    fn new(sync: &'a StateSync) -> Self {
        lock(&sync.progress).status.followers += 1;
        Self(sync)
    }
}

impl Drop for FollowerGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.progress).status.followers -= 1;
    }
}
