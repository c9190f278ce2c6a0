//! The hold that a program keeps on a running UDP forwarder.

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

/// Watches a [`UdpForwarder`](super::UdpForwarder) and ends it.
///
/// A cheap clone. Dropping every handle ends nothing.
#[derive(Clone, Debug)]
pub struct UdpHandle {
    pub(super) address: SocketAddr,
    pub(super) control: Arc<UdpControl>,
}

impl UdpHandle {
    /// Begins no more flows, and gives those that live this much time to end by themselves.
    ///
    /// Returns at once; [`run`](super::UdpForwarder::run) returns when all are gone. A flow ends by
    /// itself when it has been idle, so less time than the idle timeout cuts some. Datagrams of
    /// unknown clients are dropped meanwhile and counted. The last call counts: a second one with
    /// [`Duration::ZERO`] cuts what is left. May come before `run`.
    pub fn shutdown(&self, within: Duration) {
        self.control.start_drain(now().checked_add(within), false);
    }

    /// The sockets once more, for a successor: a second forwarder in this process
    /// ([`from_sockets`](super::UdpForwarder::from_sockets)), or another process
    /// ([`handover`](crate::forward::handover)). None before it runs and after a shutdown.
    ///
    /// Let the successor run, then [hand over](Self::hand_over): what waits in the kernel is received
    /// by either, and no datagram is lost.
    ///
    /// # Errors
    /// What the system says where it gives no more descriptors.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        lock(&self.control.listeners)
            .iter()
            .map(|socket| socket.as_fd().try_clone_to_owned())
            .collect()
    }

    /// Receives nothing more from clients, whom a successor serves, and gives replies that are under
    /// way this much time. A flow begins anew with its client's next datagram, at the successor:
    /// rules that hash, and persistence, bring it to the same backend.
    ///
    /// Otherwise as [`shutdown`](Self::shutdown), which may follow.
    pub fn hand_over(&self, within: Duration) {
        self.control.start_drain(now().checked_add(within), true);
    }

    /// The address the forwarder listens on, with the real port where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What the forwarder has done so far.
    #[must_use]
    pub fn counters(&self) -> UdpCounters {
        let mut sum = UdpCounters::default();
        for tally in self.control.worker_metrics().iter() {
            tally.read_into(&mut sum);
        }
        sum
    }

    /// The flows that live at this moment, up to `most` of them and in no order that means anything;
    /// under one-packet scheduling the ways back that are open.
    ///
    /// Workers wait only for a few of them to be copied; so those that begin or end meanwhile may be
    /// there or not.
    #[must_use]
    pub fn flows(&self, most: usize) -> Vec<ConnectionInfo> {
        // Whoever begins to serve waits for none of this.
        let tallies = self.control.worker_metrics().clone();
        let mut flows = Vec::new();
        tallies
            .iter()
            .for_each(|tally| tally.live.collect_into(Some(self.address), most, &mut flows));
        flows
    }

    /// What each backend got and gave, by name.
    ///
    /// Backends that have left the set are listed until their last flow has ended.
    #[must_use]
    pub fn backends(&self) -> Vec<UdpBackendCounters> {
        let mut sums = Vec::new();
        for tally in self.control.worker_metrics().iter() {
            tally.read_backends_into(&mut sums);
        }
        sums.sort_by(|a, b| a.id.cmp(&b.id));
        sums
    }
}

/// What handles, the running future and the workers share.
#[derive(Default)]
pub(super) struct UdpControl {
    /// The sockets once more while they are served: whoever takes them over needs them open.
    pub(super) listeners: Mutex<Vec<UdpSocket>>,
    state: Mutex<UdpControlState>,
    worker_metrics: Mutex<Vec<Arc<UdpWorkerMetrics>>>,
}

#[derive(Default)]
struct UdpControlState {
    phase: UdpPhase,
    /// What wakes the workers.
    wakeup_fds: Vec<Arc<OwnedFd>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum UdpPhase {
    #[default]
    Serving,
    /// `until` is `None` where the wait is too long to have an end.
    Draining {
        until: Option<Instant>,
        /// Another receives what clients send.
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
        // What has been handed over does not come back.
        let was = matches!(state.phase, UdpPhase::Draining { handed_over: true, .. });
        state.phase = UdpPhase::Draining { until, handed_over: hand_over || was };
        for bell in &state.wakeup_fds {
            wake_worker(bell);
        }
    }

    /// Enters a worker: what wakes it, and what it counts.
    pub(super) fn register_worker(&self, bell: Arc<OwnedFd>, tally: Arc<UdpWorkerMetrics>) {
        lock(&self.worker_metrics).push(tally);
        let mut state = lock(&self.state);
        if matches!(state.phase, UdpPhase::Draining { .. }) {
            wake_worker(&bell);
        }
        state.wakeup_fds.push(bell);
    }

    fn worker_metrics(&self) -> impl std::ops::Deref<Target = Vec<Arc<UdpWorkerMetrics>>> {
        lock(&self.worker_metrics)
    }
}

fn wake_worker(bell: &OwnedFd) {
    // A bell that cannot be rung has been rung 2^64 times and not been heard yet.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

impl fmt::Debug for UdpControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("phase", &self.phase()).finish_non_exhaustive()
    }
}
