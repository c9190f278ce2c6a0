//! One worker: takes connections from one listener and sees them to their end.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::books::{Books, Page};
use super::config::Config;
use super::connection::{Arrival, spawn};
use super::listener::{Door, Listener};
use crate::backend::Snapshot;
use crate::forward::backoff::Backoff;
use crate::forward::clock::now;
use crate::forward::counters::add;
use crate::forward::handle::Phase;
use crate::forward::limits::{AcceptRate, PerClient, Slot, Slots};
use crate::forward::queue::Queue;
use crate::forward::{Drained, Handle};
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// What the workers of a forwarder share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) books: Arc<Books>,
    /// The one that clients use, unless they may use several.
    pub(super) address: Option<SocketAddr>,
    slots: Slots,
    pub(super) per_client: Option<Arc<PerClient>>,
    rate: Option<Mutex<AcceptRate>>,
    pub(super) queue: Option<Arc<Queue>>,
    turns: AtomicUsize,
}

impl Shared {
    pub(super) fn new(config: Config, handle: &Handle) -> Arc<Self> {
        let queue = config.queue.map(|line| {
            Arc::clone(handle.queue.get_or_init(|| Arc::new(Queue::new(line.capacity))))
        });
        Arc::new(Self {
            slots: Slots::new(config.max_connections),
            per_client: config.max_per_client.map(|limit| PerClient::new(limit).build()),
            rate: config.accept_rate.map(|rate| Mutex::new(AcceptRate::new(rate))),
            queue,
            turns: AtomicUsize::new(0),
            config,
            books: Arc::clone(&handle.books),
            address: handle.address,
        })
    }

    /// Whose turn it is where several take turns.
    pub(super) fn next_turn(&self) -> usize {
        // Relaxed: each call gets a number of its own, whatever the order.
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

/// What the connections of one worker have in common.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) shared: Arc<Shared>,
    pub(super) page: Arc<Page>,
}

impl Crew {
    /// One more worker's.
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        let page = shared.books.open_page();
        Arc::new(Self { shared, page })
    }

    pub(super) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot<SocketAddr>> {
        self.config().balancer.snapshot()
    }

    /// Tells who waits in line that a place at a backend may be free.
    pub(super) fn freed(&self) {
        if let Some(queue) = &self.shared.queue {
            queue.freed();
        }
    }

    /// Carries connections until told to drain, then closes the listener and waits for those that
    /// run, up to the deadline.
    pub(super) async fn run(
        self: Arc<Self>,
        listener: Listener,
        handle: Handle,
    ) -> io::Result<Drained> {
        let mut phase = handle.phase.subscribe();
        let door = Door::new(listener)?;
        let mut connections = JoinSet::new();
        self.accept_until_told(door, &mut phase, &mut connections).await;
        Ok(drain(phase, connections).await)
    }

    async fn accept_until_told(
        self: &Arc<Self>,
        door: Door,
        phase: &mut watch::Receiver<Phase>,
        connections: &mut JoinSet<()>,
    ) {
        let mut backoff = Backoff::default();
        let mut resting = None;
        let mut told = phase.clone();
        loop {
            tokio::select! {
                biased;
                _ = phase.wait_for(Phase::is_draining) => return,
                // Whoever has ended has given descriptors back.
                Some(_) = connections.join_next() => resting = None,
                () = sleep_until(resting.unwrap_or_else(Instant::now)), if resting.is_some() => {
                    resting = None;
                }
                accepted = door.accept(), if resting.is_none() => match accepted {
                    Ok(accepted) => {
                        backoff.succeed();
                        let slot = tokio::select! {
                            biased;
                            slot = self.admit() => slot,
                            _ = told.wait_for(Phase::is_draining) => return,
                        };
                        let (stream, client, local) = accepted;
                        spawn(self, Arrival { stream, client, local, slot }, connections);
                    }
                    Err(error) => {
                        add(&self.page.tally.failed_accepts, 1);
                        if !is_of_one_client(&error) {
                            resting = Some(Instant::now() + self.rest(&mut backoff, &error));
                        }
                    }
                },
            }
        }
    }

    /// Waits until one more connection may be carried. Its client waits as it would in the kernel's
    /// queue, which goes on filling meanwhile.
    async fn admit(&self) -> Slot {
        while let Some(wait) =
            self.shared.rate.as_ref().and_then(|rate| lock(rate).take(now()).err())
        {
            tokio::time::sleep(wait).await;
        }
        if let Some(slot) = self.shared.slots.try_take() {
            return slot;
        }
        add(&self.page.tally.filled, 1);
        self.shared.slots.take().await
    }

    fn rest(&self, backoff: &mut Backoff, error: &io::Error) -> Duration {
        if backoff.is_calm() {
            let service = &*self.config().name;
            warn!(service, %error, "cannot accept; trying again until it works");
        }
        backoff.fail()
    }
}

/// Waits for connections until the deadline, and cuts those that are left.
async fn drain(mut phase: watch::Receiver<Phase>, mut connections: JoinSet<()>) -> Drained {
    let mut drained = Drained::default();
    loop {
        let deadline = phase.borrow_and_update().deadline();
        tokio::select! {
            biased;
            joined = connections.join_next() => match joined {
                Some(joined) => drained.count(joined.is_ok()),
                None => return drained,
            },
            Ok(()) = phase.changed() => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
        }
    }
    connections.abort_all();
    // One that ended at the last moment has not been cut: ask them all.
    while let Some(joined) = connections.join_next().await {
        drained.count(joined.is_ok());
    }
    drained
}

/// Tells whether a failed accept concerns one client, who has left already, and no other.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}
