//! The handle by which a program watches a running TCP forwarder and shuts it down.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::metrics::TcpMetrics;
use crate::forward::connection_table::ConnectionInfo;
use crate::forward::control::ForwarderControl;
use crate::forward::counters::{TcpBackendCounters, TcpCounters};
use crate::forward::queue::QueueCounters;
use crate::histogram::DurationHistogram;

/// Watches a [`Forwarder`](crate::forward::Forwarder) and shuts it down.
///
/// A clone is cheap. Dropping all handles does not end the forwarder.
#[derive(Clone, Debug)]
pub struct TcpHandle {
    pub(super) address: Option<SocketAddr>,
    pub(super) control: Arc<ForwarderControl>,
    pub(super) metrics: Arc<TcpMetrics>,
}

impl TcpHandle {
    /// Stops accepting, and gives open connections this much time to end by themselves.
    ///
    /// Returns at once; [`run`](crate::forward::Forwarder::run) returns when all connections have
    /// ended. The last call decides: a second call with [`Duration::ZERO`] cuts the connections that
    /// are still open. May be called before `run`.
    pub fn shutdown(&self, within: Duration) {
        self.control.start_drain(within, false);
    }

    /// Returns the address that the forwarder listens on, with the real port where port 0 was
    /// requested; `None` for a Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Returns duplicates of the listening sockets, for a successor: a second forwarder in this
    /// process ([`from_listeners`](crate::forward::Forwarder::from_listeners)), or another process
    /// ([`handover`](crate::forward::handover)). Empty before `run` and after a shutdown.
    ///
    /// Start the successor, then [shut this forwarder down](Self::shutdown): connections in the
    /// kernel's queue are accepted by either, and no client is refused. While a returned socket is
    /// open and not accepted from, the kernel queues clients that nobody serves: drop it.
    ///
    /// # Errors
    /// The error of the system if there are no descriptors left.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.control.duplicate_sockets()
    }

    /// Returns the counters of the forwarder, summed over its worker threads.
    #[must_use]
    pub fn counters(&self) -> TcpCounters {
        self.metrics.counters()
    }

    /// Returns the counters of each backend that took a connection or failed to, sorted by
    /// identifier. Backends that were removed from the set are dropped some time after their last
    /// connection.
    #[must_use]
    pub fn backends(&self) -> Vec<TcpBackendCounters> {
        self.metrics.backends()
    }

    /// Returns the counters of the [queue](crate::forward::Route::queue) for backends at their
    /// limits; `None` without a queue, or before `run`.
    #[must_use]
    pub fn queue(&self) -> Option<QueueCounters> {
        self.metrics.queue()
    }

    /// Returns up to `limit` of the connections that a backend or the sorry server has now, in no
    /// particular order.
    ///
    /// A worker thread waits only while a few of its connections are copied; so connections that
    /// begin or end meanwhile may be in the list or not.
    #[must_use]
    pub fn connections(&self, limit: usize) -> Vec<ConnectionInfo> {
        self.metrics.connections(self.address, limit)
    }

    /// Returns a histogram of how long ended connections lasted, from accept to end.
    #[must_use]
    pub fn durations(&self) -> DurationHistogram {
        self.metrics.durations()
    }

    /// Returns the number of connections that each worker thread has accepted.
    #[must_use]
    pub fn accepted_by_worker(&self) -> Vec<u64> {
        self.metrics.accepted_by_worker()
    }

    /// Returns how often a worker has panicked and started again.
    #[must_use]
    pub fn worker_restarts(&self) -> u64 {
        self.control.worker_restarts()
    }
}
