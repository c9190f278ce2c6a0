//! The handle to a UDP forwarder.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::counters::{UdpBackendCounters, UdpCounters};
use super::earlier_flows::EarlierFlows;
use super::metrics::UdpWorkerMetrics;
use crate::forward::ConnectionInfo;
use crate::forward::control::ForwarderControl;
use crate::sync::{Mutex, lock};

/// A handle to observe a [`UdpForwarder`](super::UdpForwarder) and to shut it down.
///
/// Cloning is cheap. Dropping all handles does not stop the forwarder.
#[derive(Clone, Debug)]
pub struct UdpHandle {
    pub(super) address: SocketAddr,
    pub(super) control: Arc<ForwarderControl>,
    /// The counters of the workers.
    pub(super) metrics: Arc<Mutex<Vec<Arc<UdpWorkerMetrics>>>>,
    /// The flows that this forwarder was to keep, of clients that have not sent since.
    pub(super) earlier_flows: Arc<EarlierFlows>,
}

impl UdpHandle {
    /// Starts a drain: no new flows start, and existing flows are cut after this time.
    ///
    /// Returns at once; [`run`](super::UdpForwarder::run) returns when all flows have ended. A flow
    /// ends by its idle timeout, so a time shorter than the idle timeout cuts flows. Datagrams
    /// without a flow are dropped and counted during the drain. The last call determines the
    /// deadline: a second call with [`Duration::ZERO`] cuts the remaining flows. May be called
    /// before
    /// `run`.
    pub fn shutdown(&self, within: Duration) {
        self.control.start_drain(within, false);
    }

    /// Duplicates the listening sockets for a successor: a second forwarder in this process
    /// ([`from_sockets`](super::UdpForwarder::from_sockets)), or another process
    /// ([`handover`](crate::forward::handover)). Empty before `run` and after a shutdown.
    ///
    /// Start the successor, then call [`hand_over`](Self::hand_over): either forwarder receives the
    /// datagrams queued in the kernel, and none is lost.
    ///
    /// # Errors
    /// The system's error if no descriptors are free.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.control.duplicate_sockets()
    }

    /// Stops receiving from clients, which a successor serves, and forwards outstanding replies for
    /// this time. The client's next datagram starts a new flow at the successor: at the same backend if
    /// the successor [keeps the flows](super::UdpForwarder::keep_flows_of) of this one.
    ///
    /// Otherwise like [`shutdown`](Self::shutdown), which may follow.
    pub fn hand_over(&self, within: Duration) {
        self.control.start_drain(within, true);
    }

    /// Returns the address of the listening socket, with the actual port if port 0 was requested.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the counters of the forwarder, summed over all workers.
    #[must_use]
    pub fn counters(&self) -> UdpCounters {
        let mut total = UdpCounters::default();
        for metrics in lock(&self.metrics).iter() {
            metrics.add_to(&mut total);
        }
        total
    }

    /// Returns up to `max` current flows in arbitrary order; with one-packet scheduling the open
    /// pairs of client and backend.
    ///
    /// The list is copied in parts, so that workers wait only briefly; flows that start or end
    /// meanwhile may be missing or included.
    #[must_use]
    pub fn flows(&self, max: usize) -> Vec<ConnectionInfo> {
        // Cloned, so that the lock is not held while flows are copied.
        let worker_metrics = lock(&self.metrics).clone();
        let mut flows = Vec::new();
        for metrics in &worker_metrics {
            metrics.live.collect_into(Some(self.address), max, &mut flows);
        }
        flows
    }

    /// Returns the counters of each backend, sorted by id.
    ///
    /// Backends removed from the set are listed until their last flow has ended.
    #[must_use]
    pub fn backends(&self) -> Vec<UdpBackendCounters> {
        let mut totals = Vec::new();
        for metrics in lock(&self.metrics).iter() {
            metrics.add_backends_to(&mut totals);
        }
        totals.sort_by(|a, b| a.id.cmp(&b.id));
        totals
    }

    /// Returns how often a worker has panicked and started again.
    #[must_use]
    pub fn worker_restarts(&self) -> u64 {
        self.control.worker_restarts()
    }
}
