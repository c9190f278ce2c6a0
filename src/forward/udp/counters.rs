//! Counters of a UDP forwarder: exact, without double counting.

use std::fmt;

use crate::BackendId;
use crate::balancer::PickError;
use crate::forward::reasons::reason_counters;

/// A number of datagrams, and of the payload bytes in them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct UdpTraffic {
    /// The number of datagrams.
    pub datagrams: u64,
    /// The number of payload bytes, without any headers.
    pub bytes: u64,
}

/// The counters of a UDP forwarder, summed over all workers.
///
/// Each datagram and each flow is counted exactly once:
/// `from_clients = to_servers + shed.sum()`, `from_servers = to_clients + undelivered.sum()`
/// (both in datagrams) and `flows_started = flows_active + flows_ended.sum()`. Under traffic, a
/// snapshot may miss datagrams that are being processed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct UdpCounters {
    /// Datagrams received from clients.
    pub from_clients: UdpTraffic,
    /// Datagrams of clients sent to a backend, each counted once.
    pub to_servers: UdpTraffic,
    /// Datagrams received from backends.
    pub from_servers: UdpTraffic,
    /// Datagrams of backends sent to their clients.
    pub to_clients: UdpTraffic,
    /// Flows started. With one-packet scheduling: pairs of client and backend.
    pub flows_started: u64,
    /// Current flows.
    pub flows_active: u64,
    /// Ended flows, by reason.
    pub flows_ended: FlowEndCounters,
    /// Moves of a flow to another backend, because its backend refused a datagram or went out of
    /// service.
    pub flows_moved: u64,
    /// Flows that went to the [sorry server](crate::forward::Route::sorry_server).
    pub sorry_flows: u64,
    /// Datagrams sent again, to another backend, after a backend had refused them.
    pub resent: u64,
    /// Dropped datagrams of clients, by reason.
    pub shed: ShedCounters,
    /// Dropped datagrams of backends, by reason.
    pub undelivered: UndeliveredCounters,
    /// Errors on sockets to backends, mostly ICMP "port unreachable".
    pub server_errors: u64,
    /// Failed receive calls on the listening sockets.
    pub failed_receives: u64,
}

reason_counters! {
    /// The reason why a flow ends.
    enum FlowEndReason;

    /// The number of ended flows, by reason.
    pub struct FlowEndCounters;

    /// The idle timeout passed without a datagram in either direction.
    Idle: idle, "idle";
    /// The total timeout passed.
    TotalTime: total_time, "total_time";
    /// All expected replies arrived.
    Replied: replied, "replied";
    /// All servers that were tried were unreachable.
    Unreachable: unreachable, "unreachable";
    /// The backend went out of service and no other server was available.
    NoBackend: no_backend, "no_server";
    /// The flow was evicted for a new flow.
    Evicted: evicted, "evicted";
    /// The forwarder ended the flow: at the deadline of a drain, or because its future was dropped.
    Cut: cut, "cut";
}

reason_counters! {
    /// The reason why a datagram of a client is dropped.
    enum ShedReason;

    /// The number of dropped datagrams of clients, by reason.
    ///
    /// # Examples
    /// ```
    /// use lvs::forward::ShedCounters;
    ///
    /// let counters = ShedCounters::default();
    /// assert!(counters.by_reason().any(|entry| entry == ("max_flows", 0)));
    /// ```
    pub struct ShedCounters;

    /// The flow table was full, and all of its flows had been answered.
    MaxFlows: max_flows, "max_flows";
    /// The client had its maximum number of flows.
    ClientLimit: client_limit, "client_limit";
    /// No backend was available: the set was empty, quiesced, down or below its quorum.
    NoBackend: no_backend, "no_server";
    /// Every backend was at its connection limit.
    Saturated: saturated, "saturated";
    /// The scheduler picked no backend.
    Scheduler: scheduler, "scheduler";
    /// All servers that were tried were unreachable.
    Unreachable: unreachable, "unreachable";
    /// This machine had no free port, descriptor or memory for a new flow.
    NoResources: no_resources, "no_resources";
    /// The datagram would have started a flow during a drain.
    Draining: draining, "draining";
    /// The send buffer of the socket to the backend was full: this machine sends slower than it
    /// receives.
    SendBuffer: send_buffer, "send_buffer";
    /// The system refused to send the datagram: too long for the backend's address family, or
    /// forbidden.
    Rejected: rejected, "rejected";
    /// The datagram was truncated on receipt, or its flow was evicted in the same batch.
    Damaged: damaged, "damaged";
}

reason_counters! {
    /// The reason why a datagram of a backend is dropped.
    enum UndeliveredReason;

    /// The number of dropped datagrams of backends, by reason.
    pub struct UndeliveredCounters;

    /// The send buffer of the listening socket was full.
    SendBuffer: send_buffer, "send_buffer";
    /// The system refused to send the datagram: no route, forbidden, or too long.
    Rejected: rejected, "rejected";
    /// The datagram was truncated on receipt.
    Damaged: damaged, "damaged";
}

/// The counters of one backend, summed over all workers.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct UdpBackendCounters {
    /// The id of the backend.
    pub id: BackendId,
    /// Flows started on the backend or moved to it.
    pub flows_started: u64,
    /// Datagrams sent to the backend, including refused datagrams.
    pub to_server: UdpTraffic,
    /// Datagrams received from the backend.
    pub from_server: UdpTraffic,
    /// Errors on sockets to the backend.
    pub errors: u64,
}

impl From<PickError> for ShedReason {
    fn from(error: PickError) -> Self {
        match error {
            PickError::NoBackends
            | PickError::AllQuiesced
            | PickError::AllDown
            | PickError::NoQuorum => Self::NoBackend,
            PickError::AllAtLimit => Self::Saturated,
            PickError::SchedulerRefused => Self::Scheduler,
            PickError::AllTried => Self::Unreachable,
        }
    }
}

impl ShedReason {
    /// Tells whether no backend was available: the sorry server serves then.
    pub(super) fn is_backend_unavailable(self) -> bool {
        matches!(self, Self::NoBackend | Self::Saturated | Self::Scheduler | Self::Unreachable)
    }
}

impl fmt::Display for FlowEndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "the idle timeout expired",
            Self::TotalTime => "the total timeout expired",
            Self::Replied => "all expected replies arrived",
            Self::Unreachable => "all backends that were tried are unreachable",
            Self::NoBackend => "its backend went out of service, and no other is available",
            Self::Evicted => "it was evicted for a new flow",
            Self::Cut => "the forwarder stops",
        })
    }
}
