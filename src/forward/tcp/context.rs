//! What the worker threads of a forwarder share, and what the connections of a worker thread share.

use std::net::SocketAddr;
use std::sync::Arc;

use super::config::ForwarderConfig;
use super::metrics::{TcpMetrics, TcpWorkerMetrics};
use crate::backend::Snapshot;
use crate::forward::clock::now;
use crate::forward::counters::add_relaxed;
use crate::forward::limits::{
    AcceptTokenBucket, ClientLimits, ConnectionPermit, ConnectionPermits,
};
use crate::forward::queue::ConnectionQueue;
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// What the worker threads of a forwarder share.
#[derive(Debug)]
pub(super) struct ForwarderContext {
    pub(super) config: ForwarderConfig,
    pub(super) metrics: Arc<TcpMetrics>,
    /// The address of the listener, unless it is a Unix socket.
    pub(super) listen_address: Option<SocketAddr>,
    connection_permits: ConnectionPermits,
    pub(super) client_limits: Option<Arc<ClientLimits>>,
    accept_rate: Option<Mutex<AcceptTokenBucket>>,
    pub(super) queue: Option<Arc<ConnectionQueue>>,
    next_source: AtomicUsize,
}

impl ForwarderContext {
    pub(super) fn new(
        config: ForwarderConfig,
        metrics: Arc<TcpMetrics>,
        listen_address: Option<SocketAddr>,
    ) -> Arc<Self> {
        Arc::new(Self {
            connection_permits: ConnectionPermits::new(config.options.max_connections),
            client_limits: config.options.max_connections_per_client.map(|limit| {
                ClientLimits::builder(limit).prefixes(config.options.client_prefixes).build()
            }),
            accept_rate: config.accept_rate.map(|rate| Mutex::new(AcceptTokenBucket::new(rate))),
            queue: config.route.queue.map(|limits| metrics.init_queue(limits.capacity)),
            next_source: AtomicUsize::new(0),
            config,
            metrics,
            listen_address,
        })
    }

    /// Wakes the head of the queue, because a backend may be below its limit again.
    pub(super) fn notify_freed(&self) {
        if let Some(queue) = &self.queue {
            queue.notify_freed();
        }
    }

    /// Returns the next number for the round robin over source addresses.
    pub(super) fn next_source_index(&self) -> usize {
        // Relaxed: each call gets a number of its own, whatever the order.
        self.next_source.fetch_add(1, Ordering::Relaxed)
    }
}

/// What the connections of a worker thread share.
#[derive(Debug)]
pub(super) struct WorkerContext {
    pub(super) forwarder: Arc<ForwarderContext>,
    pub(super) metrics: Arc<TcpWorkerMetrics>,
}

impl WorkerContext {
    /// Adds a worker thread to the metrics of its forwarder.
    pub(super) fn new(forwarder: Arc<ForwarderContext>) -> Arc<Self> {
        let metrics = forwarder.metrics.add_worker();
        Arc::new(Self { forwarder, metrics })
    }

    pub(super) fn config(&self) -> &ForwarderConfig {
        &self.forwarder.config
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot<SocketAddr>> {
        self.config().route.balancer().snapshot()
    }

    /// Waits until the accept rate and the connection limit admit a connection that was accepted.
    /// The kernel's queue goes on filling meanwhile.
    pub(super) async fn admit_connection(&self) -> ConnectionPermit {
        while let Some(wait) =
            self.forwarder.accept_rate.as_ref().and_then(|rate| lock(rate).try_admit(now()).err())
        {
            tokio::time::sleep(wait).await;
        }
        if let Some(permit) = self.forwarder.connection_permits.try_acquire() {
            return permit;
        }
        add_relaxed(&self.metrics.counters.connection_limit_waits, 1);
        self.wait_for_permit().await
    }

    /// Waits until the connection limit admits a connection.
    pub(super) async fn wait_for_permit(&self) -> ConnectionPermit {
        self.forwarder.connection_permits.acquire().await
    }
}
