//! The handle to a running UDP forwarder, and the state that it shares with the workers.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::{UdpBackendCounters, UdpCounters, UdpWorkerMetrics};
use crate::forward::ConnectionInfo;
use crate::forward::clock::now;
use crate::sync::{Mutex, lock};

/// A handle to observe a [`UdpForwarder`](super::UdpForwarder) and to shut it down.
///
/// Cloning is cheap. Dropping all handles does not stop the forwarder.
#[derive(Clone, Debug)]
pub struct UdpHandle {
    pub(super) address: SocketAddr,
    pub(super) control: Arc<UdpControl>,
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
        self.control.start_drain(now().checked_add(within), false);
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
        lock(&self.control.listeners)
            .iter()
            .map(|socket| socket.as_fd().try_clone_to_owned())
            .collect()
    }

    /// Stops receiving from clients, which a successor serves, and forwards outstanding replies for
    /// this time. The client's next datagram starts a new flow at the successor; hashing schedulers
    /// and persistence pick the same backend again.
    ///
    /// Otherwise like [`shutdown`](Self::shutdown), which may follow.
    pub fn hand_over(&self, within: Duration) {
        self.control.start_drain(now().checked_add(within), true);
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
        for metrics in self.control.worker_metrics().iter() {
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
        let worker_metrics = self.control.worker_metrics().clone();
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
        for metrics in self.control.worker_metrics().iter() {
            metrics.add_backends_to(&mut totals);
        }
        totals.sort_by(|a, b| a.id.cmp(&b.id));
        totals
    }
}

/// The state shared by handles, the future of `run` and the workers.
#[derive(Default)]
pub(super) struct UdpControl {
    /// Duplicates of the listening sockets while they are served, for a successor.
    pub(super) listeners: Mutex<Vec<UdpSocket>>,
    state: Mutex<UdpControlState>,
    worker_metrics: Mutex<Vec<Arc<UdpWorkerMetrics>>>,
}

#[derive(Default)]
struct UdpControlState {
    phase: UdpPhase,
    /// One eventfd for each worker.
    wakeup_fds: Vec<Arc<OwnedFd>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum UdpPhase {
    #[default]
    Serving,
    Draining {
        /// The deadline; `None` if it exceeds the range of the clock.
        until: Option<Instant>,
        /// A successor receives the datagrams of clients.
        handed_over: bool,
    },
}

impl UdpControl {
    pub(super) fn phase(&self) -> UdpPhase {
        lock(&self.state).phase
    }

    pub(super) fn start_drain(&self, until: Option<Instant>, hand_over: bool) {
        lock(&self.listeners).clear();
        let mut state = lock(&self.state);
        // A handover is final, also if a shutdown follows.
        let was_handed_over = matches!(state.phase, UdpPhase::Draining { handed_over: true, .. });
        state.phase = UdpPhase::Draining { until, handed_over: hand_over || was_handed_over };
        for wakeup_fd in &state.wakeup_fds {
            wake_worker(wakeup_fd);
        }
    }

    /// Adds the eventfd and the metrics of a worker.
    pub(super) fn register_worker(&self, wakeup_fd: Arc<OwnedFd>, metrics: Arc<UdpWorkerMetrics>) {
        lock(&self.worker_metrics).push(metrics);
        let mut state = lock(&self.state);
        if matches!(state.phase, UdpPhase::Draining { .. }) {
            wake_worker(&wakeup_fd);
        }
        state.wakeup_fds.push(wakeup_fd);
    }

    fn worker_metrics(&self) -> impl std::ops::Deref<Target = Vec<Arc<UdpWorkerMetrics>>> {
        lock(&self.worker_metrics)
    }
}

fn wake_worker(wakeup_fd: &OwnedFd) {
    // Fails only if the eventfd's counter is at its maximum: then the worker wakes up anyway.
    let _ = rustix::io::write(wakeup_fd, &1u64.to_ne_bytes());
}

impl fmt::Debug for UdpControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpControl").field("phase", &self.phase()).finish_non_exhaustive()
    }
}
