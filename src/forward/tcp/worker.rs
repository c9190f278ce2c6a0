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

use super::config::ForwarderConfig;
use super::connection::spawn_connection;
use super::listener::{AcceptedClient, AsyncListener, Listener};
use super::metrics::{TcpMetrics, TcpWorkerMetrics};
use crate::Balancer;
use crate::backend::Snapshot;
use crate::forward::accept_backoff::AcceptBackoff;
use crate::forward::clock::now;
use crate::forward::counters::add_relaxed;
use crate::forward::handle::TcpForwarderPhase;
use crate::forward::limits::{
    AcceptTokenBucket, ClientLimits, ConnectionPermit, ConnectionPermits,
};
use crate::forward::queue::ConnectionQueue;
use crate::forward::{DrainReport, TcpHandle};
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// How often to look for backends that are down.
const DOWN_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What the workers of a forwarder share.
#[derive(Debug)]
pub(super) struct ForwarderContext {
    pub(super) config: ForwarderConfig,
    pub(super) metrics: Arc<TcpMetrics>,
    /// The one that clients use, unless they may use several.
    pub(super) listen_address: Option<SocketAddr>,
    connection_permits: ConnectionPermits,
    pub(super) client_limits: Option<Arc<ClientLimits>>,
    accept_rate: Option<Mutex<AcceptTokenBucket>>,
    pub(super) queue: Option<Arc<ConnectionQueue>>,
    next_source: AtomicUsize,
}

impl ForwarderContext {
    pub(super) fn new(config: ForwarderConfig, handle: &TcpHandle) -> Arc<Self> {
        Arc::new(Self {
            connection_permits: ConnectionPermits::new(config.max_connections),
            client_limits: config.max_connections_per_client.map(|limit| {
                let [ipv4, ipv6] = config.client_prefixes;
                ClientLimits::builder(limit).ipv4_prefix(ipv4).ipv6_prefix(ipv6).build()
            }),
            accept_rate: config.accept_rate.map(|rate| Mutex::new(AcceptTokenBucket::new(rate))),
            queue: config.queue.map(|line| handle.metrics.init_queue(line.capacity)),
            next_source: AtomicUsize::new(0),
            config,
            metrics: Arc::clone(&handle.metrics),
            listen_address: handle.address,
        })
    }

    /// A place at a backend may be free: whoever waits for one is to look.
    pub(super) fn notify_freed(&self) {
        if let Some(queue) = &self.queue {
            queue.notify_freed();
        }
    }

    /// Whose turn it is where several take turns.
    pub(super) fn next_source_index(&self) -> usize {
        // Relaxed: each call gets a number of its own, whatever the order.
        self.next_source.fetch_add(1, Ordering::Relaxed)
    }
}

/// What the connections of one worker have in common.
#[derive(Debug)]
pub(super) struct WorkerContext {
    pub(super) forwarder: Arc<ForwarderContext>,
    pub(super) metrics: Arc<TcpWorkerMetrics>,
}

impl WorkerContext {
    /// One more worker's.
    pub(super) fn new(shared: Arc<ForwarderContext>) -> Arc<Self> {
        let page = shared.metrics.add_worker();
        Arc::new(Self { forwarder: shared, metrics: page })
    }

    pub(super) fn config(&self) -> &ForwarderConfig {
        &self.forwarder.config
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot<SocketAddr>> {
        self.config().balancer.snapshot()
    }

    /// Carries connections until told to drain, then closes the listener and waits for those that
    /// run, up to the deadline.
    pub(super) async fn run(
        self: Arc<Self>,
        listener: Listener,
        handle: TcpHandle,
    ) -> io::Result<DrainReport> {
        let mut phase = handle.phase.subscribe();
        let door = AsyncListener::new(listener)?;
        let carrying = async {
            let mut connections = JoinSet::new();
            self.accept_until_drain(door, &mut phase, &mut connections).await;
            drain_connections(phase, connections).await
        };
        tokio::select! {
            biased;
            drained = carrying => Ok(drained),
            never = self.watch_down_backends(), if self.config().cut_on_down => match never {},
        }
    }

    /// Ends what backends that are down have; again and again, since a connection may have been on
    /// its way to one when it was said last.
    async fn watch_down_backends(&self) -> Infallible {
        let mut beat = interval(DOWN_CHECK_INTERVAL);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let snapshots: Vec<_> = self.config().balancers().map(Balancer::snapshot).collect();
            self.metrics.notify_down_backends(&snapshots);
        }
    }

    async fn accept_until_drain(
        self: &Arc<Self>,
        door: AsyncListener,
        phase: &mut watch::Receiver<TcpForwarderPhase>,
        connections: &mut JoinSet<()>,
    ) {
        let mut backoff = AcceptBackoff::default();
        let mut resting = None;
        let mut told = pin!(wait_for_drain(phase));
        loop {
            tokio::select! {
                biased;
                () = &mut told => return,
                // Whoever has ended has given descriptors back.
                Some(_) = connections.join_next() => resting = None,
                () = sleep_until_if_set(resting), if resting.is_some() => resting = None,
                accepted = door.accept(), if resting.is_none() => match accepted {
                    Ok(accepted) => {
                        backoff.reset();
                        tokio::select! {
                            biased;
                            slot = self.acquire_connection_permit() => spawn_connection(self, accepted, slot, connections),
                            // Accepted is accepted: it is served if a place comes free in time.
                            () = &mut told => {
                                connections.spawn(Arc::clone(self).serve_after_drain(accepted));
                                return;
                            }
                        }
                    }
                    Err(error) => {
                        add_relaxed(&self.metrics.counters.failed_accepts, 1);
                        if !is_client_error(&error) {
                            resting = Some(Instant::now() + self.accept_delay(&mut backoff, &error));
                        }
                    }
                },
            }
        }
    }

    /// Waits until one more connection may be carried. Its client waits as it would in the kernel's
    /// queue, which goes on filling meanwhile.
    async fn acquire_connection_permit(&self) -> ConnectionPermit {
        while let Some(wait) =
            self.forwarder.accept_rate.as_ref().and_then(|rate| lock(rate).try_admit(now()).err())
        {
            tokio::time::sleep(wait).await;
        }
        if let Some(slot) = self.forwarder.connection_permits.try_acquire() {
            return slot;
        }
        add_relaxed(&self.metrics.counters.connection_limit_waits, 1);
        self.forwarder.connection_permits.acquire().await
    }

    async fn serve_after_drain(self: Arc<Self>, accepted: AcceptedClient) {
        let mut connection = JoinSet::new();
        spawn_connection(
            &self,
            accepted,
            self.forwarder.connection_permits.acquire().await,
            &mut connection,
        );
        connection.join_next().await;
    }

    fn accept_delay(&self, backoff: &mut AcceptBackoff, error: &io::Error) -> Duration {
        if backoff.is_reset() {
            let service = &*self.config().name;
            warn!(service, %error, "cannot accept; trying again until it works");
        }
        backoff.next_delay()
    }
}

async fn sleep_until_if_set(moment: Option<Instant>) {
    if let Some(moment) = moment {
        sleep_until(moment).await;
    }
}

/// Waits for the word to drain.
async fn wait_for_drain(phase: &mut watch::Receiver<TcpForwarderPhase>) {
    // Whoever could give it is gone, or has given it.
    let _ = phase.wait_for(TcpForwarderPhase::is_draining).await;
}

/// Waits for connections until the deadline, and cuts those that are left.
async fn drain_connections(
    mut phase: watch::Receiver<TcpForwarderPhase>,
    mut connections: JoinSet<()>,
) -> DrainReport {
    let mut drained = DrainReport::default();
    loop {
        let deadline = phase.borrow_and_update().deadline();
        tokio::select! {
            biased;
            joined = connections.join_next() => match joined {
                Some(joined) => drained.count_ended(joined.is_ok()),
                None => return drained,
            },
            Ok(()) = phase.changed() => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
        }
    }
    connections.abort_all();
    // One that ended at the last moment has not been cut: ask them all.
    while let Some(joined) = connections.join_next().await {
        drained.count_ended(joined.is_ok());
    }
    drained
}

/// Tells whether a failed accept concerns one client, who has left already, and no other.
fn is_client_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}
