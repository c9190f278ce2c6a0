//! The side that is told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::channel::{NoiseChannel, NoiseRole};
use super::message::{ServiceUpdate, SyncMessage};
use super::{SILENCE_TIMEOUT, SYNC_INTERVAL, StateSync};
use crate::balancer::SavedTemplate;
use crate::director::handle::DirectorShared;
use crate::director::service::{VirtualService, tokio_now};
use crate::sync::lock;

/// How long the first word may take, which is everything.
const FULL_UPDATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Follows the active director while this one is not, for ever.
pub(in crate::director) async fn run_standby(sync: Arc<StateSync>, inner: Arc<DirectorShared>) {
    loop {
        if !inner.is_active() {
            let result = subscribe(&inner, &sync).await;
            let mut state = lock(&sync.progress);
            state.status.in_sync = false;
            state.status.error = result.err().map(|error| error.to_string());
        }
        sleep(SYNC_INTERVAL).await;
    }
}

/// Until this director is active, or something fails.
async fn subscribe(inner: &DirectorShared, sync: &StateSync) -> io::Result<()> {
    let stream = timeout(SILENCE_TIMEOUT, TcpStream::connect(sync.config.peer)).await??;
    let mut channel = NoiseChannel::open(stream, sync.config.key(), NoiseRole::Initiator).await?;
    let mut patience = FULL_UPDATE_TIMEOUT;
    let takeovers = lock(&sync.progress).takeovers;
    loop {
        let before = channel.bytes_received;
        let word: SyncMessage = timeout(patience, channel.receive()).await??;
        // Whoever has become active meanwhile knows better, and must be told everything anew if it is
        // no longer.
        if inner.is_active() || lock(&sync.progress).takeovers != takeovers {
            return Ok(());
        }
        patience = SILENCE_TIMEOUT;
        {
            let mut state = lock(&sync.progress);
            state.status.received += channel.bytes_received - before;
            state.status.error = None;
            state.last_received = Some(tokio_now());
            // Two standbys have nothing to tell each other; what was learned before is kept.
            state.status.in_sync = word.is_active && (word.is_full || state.status.in_sync);
        }
        if word.is_active {
            for said in word.services {
                if let Ok(service) = inner.find_service(&said.name) {
                    apply_update(sync, &service, said);
                }
            }
        }
    }
}

fn apply_update(sync: &StateSync, service: &VirtualService, said: ServiceUpdate) {
    if let Some(persistence) = service.lock_state().persistence.clone() {
        persistence.restore(said.templates.into_iter().map(SavedTemplate::from), tokio_now());
    }
    let Some(slow) = said.slow else { return };
    service.adopt_totals(slow.totals);
    if let Err(error) = service.merge_overrides(&slow.changes) {
        tracing::warn!("sync: service {}: {error}", service.name);
    }
    if let Some(learned) = slow.learned {
        lock(&sync.progress).learned_health.insert(service.name.clone(), learned);
    }
}
