//! The side that is told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::channel::{Channel, Side};
use super::word::{ServiceWord, Word};
use super::{SILENCE, Sync, TICK};
use crate::balancer::SavedTemplate;
use crate::director::running::Inner;
use crate::director::service::{Service, now};
use crate::sync::lock;

/// How long the first word may take, which is everything.
const FIRST: Duration = Duration::from_secs(30);

/// Follows the active director while this one is not, for ever.
pub(in crate::director) async fn follow(sync: Arc<Sync>, inner: Arc<Inner>) {
    loop {
        if !inner.is_active() {
            let result = listen(&inner, &sync).await;
            let mut state = lock(&sync.state);
            state.status.in_sync = false;
            state.status.error = result.err().map(|error| error.to_string());
        }
        sleep(TICK).await;
    }
}

/// Until this director is active, or something fails.
async fn listen(inner: &Inner, sync: &Sync) -> io::Result<()> {
    let stream = timeout(SILENCE, TcpStream::connect(sync.config.peer)).await??;
    let mut channel = Channel::open(stream, sync.config.key(), Side::Initiator).await?;
    let mut patience = FIRST;
    let takeovers = lock(&sync.state).takeovers;
    loop {
        let before = channel.received;
        let word: Word = timeout(patience, channel.receive()).await??;
        // Whoever has become active meanwhile knows better, and must be told everything anew if it is
        // no longer.
        if inner.is_active() || lock(&sync.state).takeovers != takeovers {
            return Ok(());
        }
        patience = SILENCE;
        {
            let mut state = lock(&sync.state);
            state.status.received += channel.received - before;
            state.status.error = None;
            state.heard = Some(now());
            // Two standbys have nothing to tell each other; what was learned before is kept.
            state.status.in_sync = word.is_active && (word.is_full || state.status.in_sync);
        }
        if word.is_active {
            for said in word.services {
                if let Ok(service) = inner.service(&said.name) {
                    take(sync, &service, said);
                }
            }
        }
    }
}

fn take(sync: &Sync, service: &Service, said: ServiceWord) {
    if let Some(persistence) = service.parts().persistence.clone() {
        persistence.restore(said.templates.into_iter().map(SavedTemplate::from), now());
    }
    let Some(slow) = said.slow else { return };
    service.take_totals(slow.totals);
    if let Err(error) = service.merge(&slow.changes) {
        tracing::warn!("sync: service {}: {error}", service.name);
    }
    if let Some(learned) = slow.learned {
        lock(&sync.state).learned.insert(service.name.clone(), learned);
    }
}
