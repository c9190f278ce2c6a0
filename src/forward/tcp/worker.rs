//! One worker: takes connections from one listener and sees them to their end.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::warn;

use super::books::{Books, Page};
use super::config::Config;
use super::connection::spawn;
use super::listener::{Accepted, Door, Listener};
use crate::Balancer;
use crate::backend::Snapshot;
use crate::forward::backoff::Backoff;
use crate::forward::clock::now;
use crate::forward::counters::add;
use crate::forward::handle::Phase;
use crate::forward::limits::{AcceptRate, PerClient, Slot, Slots};
use crate::forward::queue::Queue;
use crate::forward::{Drained, Handle};
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// How often to look for backends that are down.
const LOOK: Duration = Duration::from_millis(100);

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
        Arc::new(Self {
            slots: Slots::new(config.max_connections),
            per_client: config.max_per_client.map(|limit| {
                let [ipv4, ipv6] = config.client_prefixes;
                PerClient::new(limit).ipv4_prefix(ipv4).ipv6_prefix(ipv6).build()
            }),
            rate: config.accept_rate.map(|rate| Mutex::new(AcceptRate::new(rate))),
            queue: config.queue.map(|line| handle.books.open_queue(line.capacity)),
            turns: AtomicUsize::new(0),
            config,
            books: Arc::clone(&handle.books),
            address: handle.address,
        })
    }

    /// A place at a backend may be free: whoever waits for one is to look.
    pub(super) fn freed(&self) {
        if let Some(queue) = &self.queue {
            queue.freed();
        }
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

    /// Carries connections until told to drain, then closes the listener and waits for those that
    /// run, up to the deadline.
    pub(super) async fn run(
        self: Arc<Self>,
        listener: Listener,
        handle: Handle,
    ) -> io::Result<Drained> {
        let mut phase = handle.phase.subscribe();
        let door = Door::new(listener)?;
        let carrying = async {
            let mut connections = JoinSet::new();
            self.accept_until_told(door, &mut phase, &mut connections).await;
            drain(phase, connections).await
        };
        tokio::select! {
            biased;
            drained = carrying => Ok(drained),
            never = self.cut_on_down(), if self.config().cut_on_down => match never {},
        }
    }

    /// Ends what backends that are down have; again and again, since a connection may have been on
    /// its way to one when it was said last.
    async fn cut_on_down(&self) -> Infallible {
        let mut beat = interval(LOOK);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let snapshots: Vec<_> = self.config().balancers().map(Balancer::snapshot).collect();
            self.page.cut_down(&snapshots);
        }
    }

    async fn accept_until_told(
        self: &Arc<Self>,
        door: Door,
        phase: &mut watch::Receiver<Phase>,
        connections: &mut JoinSet<()>,
    ) {
        let mut backoff = Backoff::default();
        let mut resting = None;
        let mut told = pin!(is_told(phase));
        loop {
            tokio::select! {
                biased;
                () = &mut told => return,
                // Whoever has ended has given descriptors back.
                Some(_) = connections.join_next() => resting = None,
                () = until(resting), if resting.is_some() => resting = None,
                accepted = door.accept(), if resting.is_none() => match accepted {
                    Ok(accepted) => {
                        backoff.succeed();
                        tokio::select! {
                            biased;
                            slot = self.admit() => spawn(self, accepted, slot, connections),
                            // Accepted is accepted: it is served if a place comes free in time.
                            () = &mut told => {
                                connections.spawn(Arc::clone(self).serve_late(accepted));
                                return;
                            }
                        }
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

    async fn serve_late(self: Arc<Self>, accepted: Accepted) {
        let mut connection = JoinSet::new();
        spawn(&self, accepted, self.shared.slots.take().await, &mut connection);
        connection.join_next().await;
    }

    fn rest(&self, backoff: &mut Backoff, error: &io::Error) -> Duration {
        if backoff.is_calm() {
            let service = &*self.config().name;
            warn!(service, %error, "cannot accept; trying again until it works");
        }
        backoff.fail()
    }
}

async fn until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        sleep_until(moment).await;
    }
}

/// Waits for the word to drain.
async fn is_told(phase: &mut watch::Receiver<Phase>) {
    // Whoever could give it is gone, or has given it.
    let _ = phase.wait_for(Phase::is_draining).await;
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
