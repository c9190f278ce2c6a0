//! The hold that a program keeps on a running forwarder.

use std::io;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::tcp::{Listener, TcpMetrics};
use super::{ConnectionInfo, DurationHistogram, QueueCounters, TcpBackendCounters, TcpCounters};
use crate::sync::{Mutex, lock};

/// Watches a [`Forwarder`](super::Forwarder) and ends it.
///
/// A cheap clone. Dropping every handle ends nothing.
#[derive(Clone, Debug)]
pub struct TcpHandle {
    pub(super) address: Option<SocketAddr>,
    pub(super) phase: Arc<watch::Sender<TcpForwarderPhase>>,
    pub(super) metrics: Arc<TcpMetrics>,
    /// The listeners once more while they are served: whoever takes one over needs it open.
    pub(super) open_listeners: Arc<Mutex<Vec<Listener>>>,
}

/// What became of the connections that were running when a forwarder was told to end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Those that ended by themselves, in whatever way.
    pub finished: u64,
    /// Those that were cut at the deadline.
    pub cut: u64,
}

impl DrainReport {
    pub(super) fn count_ended(&mut self, by_itself: bool) {
        match by_itself {
            true => self.finished += 1,
            false => self.cut += 1,
        }
    }
}

impl AddAssign for DrainReport {
    fn add_assign(&mut self, other: Self) {
        self.finished += other.finished;
        self.cut += other.cut;
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum TcpForwarderPhase {
    Serving,
    /// `until` is `None` where the wait is too long to have an end.
    Draining {
        until: Option<Instant>,
    },
}

impl TcpHandle {
    /// Stops accepting, and gives running connections this much time to end by themselves.
    ///
    /// Returns at once; [`run`](super::Forwarder::run) returns when all are gone. The last call
    /// counts: a second one with [`Duration::ZERO`] cuts what is left. May come before `run`.
    pub fn shutdown(&self, within: Duration) {
        let until = Instant::now().checked_add(within);
        self.close_listeners();
        self.phase.send_replace(TcpForwarderPhase::Draining { until });
    }

    /// A socket that somebody still holds would go on queueing clients whom nobody accepts.
    pub(super) fn close_listeners(&self) {
        lock(&self.open_listeners).clear();
    }

    /// The address the forwarder listens on, with the real port where 0 was asked for; `None` for a
    /// Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The listening sockets once more, for a successor: a second forwarder in this process
    /// ([`from_listeners`](super::Forwarder::from_listeners)), or another process
    /// ([`handover`](super::handover)). None before it runs and after a shutdown.
    ///
    /// Let the successor run, then [shut this one down](Self::shutdown): what is in the kernel's
    /// queue is accepted by either, and no client is refused. A listener that is taken and not
    /// served goes on queueing clients whom nobody accepts: drop it.
    ///
    /// # Errors
    /// What the system says where it gives no more descriptors.
    pub fn listeners(&self) -> io::Result<Vec<OwnedFd>> {
        lock(&self.open_listeners)
            .iter()
            .map(|listener| listener.as_fd().try_clone_to_owned())
            .collect()
    }

    /// What the forwarder has done so far.
    #[must_use]
    pub fn counters(&self) -> TcpCounters {
        self.metrics.counters()
    }

    /// The same for each backend that took a connection or failed to, in the order of their names.
    /// Backends that were removed from the set are forgotten some time after their last connection.
    #[must_use]
    pub fn backends(&self) -> Vec<TcpBackendCounters> {
        self.metrics.backends()
    }

    /// What the [line](super::Forwarder::queue) for a place at a backend has seen; `None` where there
    /// is none, or before it runs.
    #[must_use]
    pub fn queue(&self) -> Option<QueueCounters> {
        self.metrics.queue()
    }

    /// Who is carried at this moment, up to `most` of them and in no order that means anything: one
    /// for each connection that a backend or the sorry server has.
    ///
    /// Workers wait only for a few of them to be copied; so those that begin or end meanwhile may be
    /// there or not.
    #[must_use]
    pub fn connections(&self, most: usize) -> Vec<ConnectionInfo> {
        self.metrics.connections(self.address, most)
    }

    /// How long the connections that have ended lasted, from accept to end.
    #[must_use]
    pub fn durations(&self) -> DurationHistogram {
        self.metrics.durations()
    }

    /// How many connections each worker was given.
    #[must_use]
    pub fn accepted_by_worker(&self) -> Vec<u64> {
        self.metrics.accepted_by_worker()
    }
}

impl TcpForwarderPhase {
    pub(super) fn is_draining(&self) -> bool {
        matches!(self, Self::Draining { .. })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Serving => None,
            Self::Draining { until } => *until,
        }
    }
}
