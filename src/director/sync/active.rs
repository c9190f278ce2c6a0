//! The side that tells.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::channel::{Channel, Side};
use super::word::{ServiceWord, SlowWord, TemplateWord, Word};
use super::{SLOW, Sync, TICK};
use crate::director::running::Inner;
use crate::director::service::{Service, now};
use crate::sync::lock;

/// A pair has one standby; a second connection is its new one while the old one is found dead.
const FOLLOWERS: usize = 4;
/// How long a standby may take to read what it is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells those who connect and have the key, for ever.
pub(in crate::director) async fn tell(sync: Arc<Sync>, inner: Arc<Inner>) {
    let places = Arc::new(Semaphore::new(FOLLOWERS));
    // They end with this.
    let mut followers = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while followers.try_join_next().is_some() {}
        match sync.listener.accept().await {
            Ok((stream, _)) => {
                let (inner, sync) = (Arc::clone(&inner), Arc::clone(&sync));
                followers.spawn(async move {
                    if let Err(error) = talk(&inner, &sync, stream).await {
                        tracing::debug!("sync: a standby is gone: {error}");
                    }
                    drop(place);
                });
            }
            // Out of descriptors, or the client has gone: in a while.
            Err(_) => tokio::time::sleep(TICK).await,
        }
    }
}

async fn talk(inner: &Inner, sync: &Sync, stream: TcpStream) -> io::Result<()> {
    let mut channel = Channel::open(stream, sync.config.key(), Side::Responder).await?;
    let _follower = Follower::new(sync);
    let mut told = Told::default();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let word = told.next(inner.is_active(), &inner.services(), now());
        let sent = channel.sent;
        tokio::time::timeout(PATIENCE, channel.send(&word)).await??;
        lock(&sync.state).status.sent += channel.sent - sent;
    }
}

/// What one standby has been told.
#[derive(Debug, Default)]
struct Told {
    ticks: u64,
    /// When it was told of persistence last; not yet, or not since this director became active.
    since: Option<Instant>,
    slow: BTreeMap<String, SlowWord>,
}

impl Told {
    fn next(&mut self, is_active: bool, services: &[Arc<Service>], now: Instant) -> Word {
        if !is_active {
            *self = Self::default();
            return Word::default();
        }
        let (since, is_full) = (self.since, self.since.is_none());
        let all = is_full || self.ticks.is_multiple_of(SLOW);
        self.ticks += 1;
        // What is used in this instant may be told twice, and not never.
        self.since = Some(now);
        let words = services.iter().filter_map(|service| {
            let persistence = service.parts().persistence.clone();
            let templates = persistence.map(|it| it.export(now, since)).unwrap_or_default();
            let word = ServiceWord {
                name: service.name.clone(),
                templates: templates.into_iter().map(TemplateWord::from).collect(),
                slow: if all { self.slow(service) } else { None },
            };
            (!word.templates.is_empty() || word.slow.is_some()).then_some(word)
        });
        Word { is_active, is_full, services: words.collect() }
    }

    /// What is to be told, unless it has been.
    fn slow(&mut self, service: &Service) -> Option<SlowWord> {
        let word = SlowWord {
            learned: service.learned(),
            totals: service.totals(),
            changes: service.parts().changes.clone(),
        };
        let is_news = self.slow.get(&service.name) != Some(&word);
        is_news.then(|| {
            self.slow.insert(service.name.clone(), word.clone());
            word
        })
    }
}

/// Counts a standby while it is there.
struct Follower<'a>(&'a Sync);

impl<'a> Follower<'a> {
    fn new(sync: &'a Sync) -> Self {
        lock(&sync.state).status.followers += 1;
        Self(sync)
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).status.followers -= 1;
    }
}
