//! The counters of a TCP forwarder.

use std::net::SocketAddr;

use super::reasons::reason_counters;
use crate::backend::BackendId;
use crate::balancer::PickError;
use crate::histogram::DurationHistogram;
use crate::sync::{AtomicU64, Ordering};

/// The counters of a forwarder since it was made.
///
/// Every accepted connection is counted in exactly one of the others: `accepted = active + finished +
/// client_aborted + backend_aborted + timed_out.sum() + backend_down + cut + refused.sum()`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TcpCounters {
    /// Connections accepted from the listener.
    pub accepted: u64,
    /// Connections that are open now, those that wait for a backend included.
    pub active: u64,
    /// Connections that both sides closed in order.
    pub finished: u64,
    /// Connections that broke on the client's side.
    pub client_aborted: u64,
    /// Connections that broke on the backend's side.
    pub backend_aborted: u64,
    /// Connections that a timeout ended.
    pub timed_out: TimeoutCounters,
    /// Connections [cut](super::Forwarder::cut_on_down) because their backend was down.
    pub backend_down: u64,
    /// Connections ended by the forwarder: at the deadline of a drain, or because
    /// [`run`](super::Forwarder::run) was dropped.
    pub cut: u64,
    /// Connections that were refused, by reason.
    pub refused: RefusalCounters,
    /// Connections that were forwarded to the [sorry server](super::Route::sorry_server).
    pub sorry_connections: u64,
    /// Attempts to connect to a backend that failed, whether or not a later attempt succeeded.
    pub failed_connects: u64,
    /// Accepts that failed: no descriptors or memory were left, or a client left the accept queue.
    pub failed_accepts: u64,
    /// Accepted connections that had to wait because
    /// [`max_connections`](super::Forwarder::max_connections) were open.
    pub connection_limit_waits: u64,
    /// Bytes sent to backends.
    pub bytes_to_backends: u64,
    /// Bytes sent to clients.
    pub bytes_to_clients: u64,
}

impl TcpCounters {
    /// Returns how the connections that were forwarded, or cut before, have ended, by name: `finished`,
    /// `client_aborted`, `backend_aborted`, the timeouts `idle`, `half_closed` and `total_time`,
    /// `backend_down` and `cut`. Those that were refused are in `refused`.
    pub fn ended_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("finished", self.finished),
            ("client_aborted", self.client_aborted),
            ("backend_aborted", self.backend_aborted),
            ("idle", self.timed_out.idle),
            ("half_closed", self.timed_out.half_closed),
            ("total_time", self.timed_out.total),
            ("backend_down", self.backend_down),
            ("cut", self.cut),
        ]
        .into_iter()
    }
}

/// Connections that a timeout ended, by timeout.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TimeoutCounters {
    /// [`idle_timeout`](super::Forwarder::idle_timeout): neither side sent anything.
    pub idle: u64,
    /// [`half_closed_timeout`](super::Forwarder::half_closed_timeout): one side had closed.
    pub half_closed: u64,
    /// [`total_timeout`](super::Forwarder::total_timeout).
    pub total: u64,
}

impl TimeoutCounters {
    /// Returns the sum of all reasons.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.idle + self.half_closed + self.total
    }
}

reason_counters! {
    /// The reason why a connection was refused.
    enum RefusalReason;

    /// Connections that were reset without being forwarded, by reason.
    ///
    /// # Examples
    /// ```
    /// use lvs::forward::RefusalCounters;
    ///
    /// let counters = RefusalCounters::default();
    /// assert!(counters.by_reason().any(|entry| entry == ("client_limit", 0)));
    /// ```
    pub struct RefusalCounters;

    /// No backend was eligible: the set is empty, or all backends are quiesced or down.
    NoBackend: no_backend, "no_server";
    /// Every backend was at its connection limit, and there is no queue or it was full.
    Saturated: saturated, "saturated";
    /// Every backend was at its connection limit until the queue's deadline.
    QueueTimeout: queue_timeout, "queue_timeout";
    /// The scheduler refused the connection.
    Scheduler: scheduler, "scheduler";
    /// The last backend tried could not be connected to.
    ConnectError: connect_error, "connect_error";
    /// The attempt to connect to the last backend tried timed out.
    ConnectTimeout: connect_timeout, "connect_timeout";
    /// This machine had no port, descriptor, memory or permission for the last attempt to connect.
    NoResources: no_resources, "no_resources";
    /// The client was at its [limit](super::Forwarder::max_connections_per_client).
    ClientLimit: client_limit, "client_limit";
    /// The PROXY header or ClientHello was invalid.
    BadPreamble: bad_preamble, "bad_preamble";
    /// The PROXY header or ClientHello did not arrive in time.
    PreambleTimeout: preamble_timeout, "preamble_timeout";
    /// The server name that the client sent is not in the table of services.
    NoService: no_service, "no_service";
    /// The client left before a backend was found.
    ClientLeft: client_left, "client_left";
}

/// The counters of a forwarder for a backend.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TcpBackendCounters {
    /// The identifier of the backend.
    pub id: BackendId,
    /// The address of the backend.
    pub address: SocketAddr,
    /// Connections forwarded to the backend.
    pub connections: u64,
    /// Connections of the backend that are open now.
    pub active: u64,
    /// Attempts to connect to the backend that failed.
    pub failed_connects: u64,
    /// Connections that broke on the backend's side.
    pub aborted: u64,
    /// Bytes sent to the backend.
    pub bytes_in: u64,
    /// Bytes of the backend that were sent to clients.
    pub bytes_out: u64,
    /// How long successful attempts to connect took.
    pub connect_time: DurationHistogram,
    /// How long ended connections lasted, from accept to end.
    pub duration: DurationHistogram,
}

impl TcpBackendCounters {
    pub(super) fn new(id: BackendId, address: SocketAddr) -> Self {
        Self {
            id,
            address,
            connections: 0,
            active: 0,
            failed_connects: 0,
            aborted: 0,
            bytes_in: 0,
            bytes_out: 0,
            connect_time: DurationHistogram::default(),
            duration: DurationHistogram::default(),
        }
    }
}

impl From<PickError> for RefusalReason {
    fn from(error: PickError) -> Self {
        match error {
            PickError::NoBackends
            | PickError::AllQuiesced
            | PickError::AllDown
            | PickError::NoQuorum => Self::NoBackend,
            PickError::AllAtLimit => Self::Saturated,
            PickError::SchedulerRefused => Self::Scheduler,
            PickError::AllTried => Self::ConnectError,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ConnectionEnd {
    Finished,
    ClientAborted,
    BackendAborted,
    IdleTimeout,
    HalfClosedTimeout,
    TotalTimeout,
    BackendDown,
    Cut,
    Refused(RefusalReason),
}

impl ConnectionEnd {
    const COUNT: usize = 8 + RefusalReason::ALL.len();

    const fn index(self) -> usize {
        match self {
            Self::Finished => 0,
            Self::ClientAborted => 1,
            Self::BackendAborted => 2,
            Self::IdleTimeout => 3,
            Self::HalfClosedTimeout => 4,
            Self::TotalTimeout => 5,
            Self::BackendDown => 6,
            Self::Cut => 7,
            Self::Refused(refusal) => 8 + refusal as usize,
        }
    }
}

/// The live counters of a worker thread, written by that thread alone, so that threads do not contend
/// for the cache line.
#[derive(Debug, Default)]
pub(super) struct AtomicTcpCounters {
    pub(super) accepted: AtomicU64,
    ends: [AtomicU64; ConnectionEnd::COUNT],
    pub(super) sorry_connections: AtomicU64,
    pub(super) failed_connects: AtomicU64,
    pub(super) failed_accepts: AtomicU64,
    pub(super) connection_limit_waits: AtomicU64,
    pub(super) bytes_to_backends: AtomicU64,
    pub(super) bytes_to_clients: AtomicU64,
}

impl AtomicTcpCounters {
    /// Counts the end of a connection that was counted as accepted.
    pub(super) fn count_end(&self, end: ConnectionEnd) {
        // Release: see `add_to`.
        self.ends[end.index()].fetch_add(1, Ordering::Release);
    }

    /// Adds the counters of this worker thread to a sum.
    pub(super) fn add_to(&self, sum: &mut TcpCounters) {
        // Acquire, with the Release in `count_end`: a thread that reads an end also reads its accept, if
        // it reads that later; so `active` is never below zero.
        let ends = self.ends.each_ref().map(|end| end.load(Ordering::Acquire));
        let accepted = load_relaxed(&self.accepted);
        let ended = |end: ConnectionEnd| ends[end.index()];
        sum.accepted += accepted;
        sum.active += accepted.saturating_sub(ends.iter().sum());
        sum.finished += ended(ConnectionEnd::Finished);
        sum.client_aborted += ended(ConnectionEnd::ClientAborted);
        sum.backend_aborted += ended(ConnectionEnd::BackendAborted);
        sum.timed_out.idle += ended(ConnectionEnd::IdleTimeout);
        sum.timed_out.half_closed += ended(ConnectionEnd::HalfClosedTimeout);
        sum.timed_out.total += ended(ConnectionEnd::TotalTimeout);
        sum.backend_down += ended(ConnectionEnd::BackendDown);
        sum.cut += ended(ConnectionEnd::Cut);
        sum.refused.add(|reason| ended(ConnectionEnd::Refused(reason)));
        sum.sorry_connections += load_relaxed(&self.sorry_connections);
        sum.failed_connects += load_relaxed(&self.failed_connects);
        sum.failed_accepts += load_relaxed(&self.failed_accepts);
        sum.connection_limit_waits += load_relaxed(&self.connection_limit_waits);
        sum.bytes_to_backends += load_relaxed(&self.bytes_to_backends);
        sum.bytes_to_clients += load_relaxed(&self.bytes_to_clients);
    }
}

/// Adds to a counter without ordering other memory accesses.
#[inline]
pub(super) fn add_relaxed(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

pub(super) fn load_relaxed(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_counted_in_exactly_one_counter() {
        let ends = [
            ConnectionEnd::Finished,
            ConnectionEnd::ClientAborted,
            ConnectionEnd::BackendAborted,
            ConnectionEnd::IdleTimeout,
            ConnectionEnd::HalfClosedTimeout,
            ConnectionEnd::TotalTimeout,
            ConnectionEnd::BackendDown,
            ConnectionEnd::Cut,
        ];
        let ends: Vec<ConnectionEnd> =
            ends.into_iter().chain(RefusalReason::ALL.map(ConnectionEnd::Refused)).collect();
        assert_eq!(ends.len(), ConnectionEnd::COUNT);
        let workers = [AtomicTcpCounters::default(), AtomicTcpCounters::default()];
        for worker in &workers {
            for end in &ends {
                add_relaxed(&worker.accepted, 1);
                worker.count_end(*end);
            }
            add_relaxed(&worker.accepted, 1);
        }
        let mut sum = TcpCounters::default();
        workers.iter().for_each(|worker| worker.add_to(&mut sum));
        assert_eq!((sum.accepted, sum.active), (2 * ends.len() as u64 + 2, 2));
        assert_eq!((sum.finished, sum.client_aborted, sum.backend_aborted), (2, 2, 2));
        assert_eq!((sum.backend_down, sum.cut), (2, 2));
        assert_eq!(sum.timed_out, TimeoutCounters { idle: 2, half_closed: 2, total: 2 });
        assert_eq!(sum.refused.sum(), 2 * RefusalReason::ALL.len() as u64);
        assert_eq!((sum.refused.no_backend, sum.refused.client_left), (2, 2));
    }
}
