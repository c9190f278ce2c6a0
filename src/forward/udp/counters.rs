//! What a UDP forwarder has done, counted exactly.

use std::collections::HashMap;
use std::sync::Arc;

use crate::BackendId;
use crate::balancer::PickError;
use crate::forward::connection_table::ConnectionTable;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Datagrams, and the bytes in them without any header.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct UdpTraffic {
    /// How many datagrams.
    pub datagrams: u64,
    /// How many bytes of payload.
    pub bytes: u64,
}

/// What one UDP forwarder has done so far, all workers together.
///
/// Every datagram and every flow is in exactly one place:
/// `from_clients = to_servers + shed.total()`, `from_servers = to_clients + undelivered.total()`
/// (both in datagrams) and `flows_started = flows_active + flows_ended.total()`. While traffic runs
/// a reading may miss what is being worked on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct UdpCounters {
    /// Datagrams received from clients.
    pub from_clients: UdpTraffic,
    /// Datagrams of clients that were handed to a backend, each counted once.
    pub to_servers: UdpTraffic,
    /// Datagrams received from backends.
    pub from_servers: UdpTraffic,
    /// Datagrams of backends that were handed to their clients.
    pub to_clients: UdpTraffic,
    /// Flows begun. Under one-packet scheduling: ways back opened.
    pub flows_started: u64,
    /// Flows that live now.
    pub flows_active: u64,
    /// Flows that ended, and why.
    pub flows_ended: FlowEndCounters,
    /// Moves of a living flow to another backend, because its own refused or went out of service.
    pub flows_moved: u64,
    /// Datagrams handed to a second backend after the first one had refused.
    pub resent: u64,
    /// Datagrams of clients that were dropped, and why.
    pub shed: ShedCounters,
    /// Datagrams of backends that were dropped, and why.
    pub undelivered: UndeliveredCounters,
    /// Errors that backends' sockets reported: mostly ICMP, "port unreachable".
    pub server_errors: u64,
    /// Reads from the listening sockets that failed.
    pub failed_receives: u64,
}

/// Why flows ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct FlowEndCounters {
    /// Nothing went either way for the idle timeout.
    pub idle: u64,
    /// The total timeout was over.
    pub total_time: u64,
    /// All the replies that were asked for came.
    pub replied: u64,
    /// The backend was unreachable, and so were those tried after it.
    pub unreachable: u64,
    /// The backend went out of service and nobody took over.
    pub no_backend: u64,
    /// Gave way to a new flow.
    pub evicted: u64,
    /// Ended by the forwarder: at the deadline of a drain, or because it was dropped.
    pub cut: u64,
}

impl FlowEndCounters {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.idle
            + self.total_time
            + self.replied
            + self.unreachable
            + self.no_backend
            + self.evicted
            + self.cut
    }
}

/// Datagrams of clients that no backend was given, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ShedCounters {
    /// The table of flows was full of answered ones.
    pub max_flows: u64,
    /// The client had all the flows it may have.
    pub max_flows_per_client: u64,
    /// Nobody could be chosen: the set is empty, quiesced or down.
    pub no_backend: u64,
    /// Every backend was at its connection limit.
    pub saturated: u64,
    /// The scheduler's rule gave the flow to nobody.
    pub scheduler: u64,
    /// Every backend tried was unreachable.
    pub unreachable: u64,
    /// This machine had no port, descriptor or memory for a new flow.
    pub no_resources: u64,
    /// A new flow, while the forwarder was draining.
    pub draining: u64,
    /// The backend's socket took no more: this machine sends slower than it receives.
    pub send_buffer: u64,
    /// The system would not send it: too long for the backend's address family, or forbidden.
    pub rejected: u64,
    /// It was cut on its way in, or its flow gave way in the same moment.
    pub damaged: u64,
}

impl ShedCounters {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.max_flows
            + self.max_flows_per_client
            + self.no_backend
            + self.saturated
            + self.scheduler
            + self.unreachable
            + self.no_resources
            + self.draining
            + self.send_buffer
            + self.rejected
            + self.damaged
    }
}

/// Datagrams of backends that no client was given, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct UndeliveredCounters {
    /// The listening socket took no more.
    pub send_buffer: u64,
    /// The system would not send it: no route, forbidden, or too long.
    pub rejected: u64,
    /// It was cut on its way in.
    pub damaged: u64,
}

impl UndeliveredCounters {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.send_buffer + self.rejected + self.damaged
    }
}

/// What one backend got and gave, all workers together.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct UdpBackendCounters {
    /// Whose they are.
    pub id: BackendId,
    /// Flows that began on it or were moved to it.
    pub flows_started: u64,
    /// Datagrams handed to it, those included that it refused.
    pub to_server: UdpTraffic,
    /// Datagrams received from it.
    pub from_server: UdpTraffic,
    /// Errors that sockets to it reported.
    pub errors: u64,
}

/// Why a datagram of a client was dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ShedReason {
    MaxFlows,
    MaxFlowsPerClient,
    NoBackend,
    Saturated,
    Scheduler,
    Unreachable,
    NoResources,
    Draining,
    SendBuffer,
    Rejected,
    Damaged,
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

/// Why a datagram of a backend was dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum UndeliveredReason {
    SendBuffer,
    Rejected,
    Damaged,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FlowEndReason {
    Idle,
    TotalTime,
    Replied,
    Unreachable,
    NoBackend,
    Evicted,
    Cut,
}

/// A pair of live counters behind a [`UdpTraffic`].
#[derive(Debug, Default)]
pub(super) struct AtomicUdpTraffic {
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

impl AtomicUdpTraffic {
    pub(super) fn add(&self, datagrams: u64, bytes: u64) {
        add_relaxed(&self.datagrams, datagrams);
        add_relaxed(&self.bytes, bytes);
    }

    fn read_into(&self, sum: &mut UdpTraffic) {
        sum.datagrams += load_relaxed(&self.datagrams);
        sum.bytes += load_relaxed(&self.bytes);
    }
}

/// The live counters of one worker: written by it alone, so that no other waits for the memory.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct UdpWorkerMetrics {
    pub(super) from_clients: AtomicUdpTraffic,
    pub(super) to_servers: AtomicUdpTraffic,
    pub(super) from_servers: AtomicUdpTraffic,
    pub(super) to_clients: AtomicUdpTraffic,
    pub(super) started: AtomicU64,
    pub(super) moved: AtomicU64,
    pub(super) resent: AtomicU64,
    pub(super) server_errors: AtomicU64,
    pub(super) failed_receives: AtomicU64,
    ended: [AtomicU64; 7],
    shed: [AtomicU64; 11],
    undelivered: [AtomicU64; 3],
    pub(super) live: ConnectionTable,
    backends: Mutex<HashMap<u64, Arc<AtomicUdpBackendCounters>>>,
}

/// The live counters behind a [`UdpBackendCounters`].
#[derive(Debug)]
pub(super) struct AtomicUdpBackendCounters {
    id: BackendId,
    pub(super) started: AtomicU64,
    pub(super) to_server: AtomicUdpTraffic,
    pub(super) from_server: AtomicUdpTraffic,
    pub(super) errors: AtomicU64,
}

impl UdpWorkerMetrics {
    pub(super) fn count_shed(&self, why: ShedReason, datagrams: u64) {
        add_relaxed(&self.shed[why as usize], datagrams);
    }

    pub(super) fn count_undelivered(&self, why: UndeliveredReason, datagrams: u64) {
        add_relaxed(&self.undelivered[why as usize], datagrams);
    }

    pub(super) fn count_flow_end(&self, end: FlowEndReason) {
        // Release: see `read_into`.
        self.ended[end as usize].fetch_add(1, Ordering::Release);
    }

    /// The counters of a backend, made when first asked for.
    pub(super) fn backend_counters(
        &self,
        serial: u64,
        id: &BackendId,
    ) -> Arc<AtomicUdpBackendCounters> {
        let mut backends = lock(&self.backends);
        let made = || {
            Arc::new(AtomicUdpBackendCounters {
                id: id.clone(),
                started: AtomicU64::default(),
                to_server: AtomicUdpTraffic::default(),
                from_server: AtomicUdpTraffic::default(),
                errors: AtomicU64::default(),
            })
        };
        Arc::clone(backends.entry(serial).or_insert_with(made))
    }

    /// Forgets backends that are neither in the set nor in use.
    pub(super) fn forget_backends(&self, stays: impl Fn(u64) -> bool) {
        lock(&self.backends).retain(|serial, it| stays(*serial) || Arc::strong_count(it) > 1);
    }

    /// Adds what this worker has counted to a sum.
    pub(super) fn read_into(&self, sum: &mut UdpCounters) {
        // Acquire, with the Release in `end`: whoever sees an end sees its beginning, if it looks
        // for it later; so `flows_active` is never below zero.
        let ended = self.ended.each_ref().map(|end| end.load(Ordering::Acquire));
        let started = load_relaxed(&self.started);
        sum.flows_started += started;
        sum.flows_active += started.saturating_sub(ended.iter().sum());
        let [idle, total_time, replied, unreachable, no_backend, evicted, cut] = ended;
        let ends = &mut sum.flows_ended;
        ends.idle += idle;
        ends.total_time += total_time;
        ends.replied += replied;
        ends.unreachable += unreachable;
        ends.no_backend += no_backend;
        ends.evicted += evicted;
        ends.cut += cut;

        let shed = |why: ShedReason| load_relaxed(&self.shed[why as usize]);
        let sheds = &mut sum.shed;
        sheds.max_flows += shed(ShedReason::MaxFlows);
        sheds.max_flows_per_client += shed(ShedReason::MaxFlowsPerClient);
        sheds.no_backend += shed(ShedReason::NoBackend);
        sheds.saturated += shed(ShedReason::Saturated);
        sheds.scheduler += shed(ShedReason::Scheduler);
        sheds.unreachable += shed(ShedReason::Unreachable);
        sheds.no_resources += shed(ShedReason::NoResources);
        sheds.draining += shed(ShedReason::Draining);
        sheds.send_buffer += shed(ShedReason::SendBuffer);
        sheds.rejected += shed(ShedReason::Rejected);
        sheds.damaged += shed(ShedReason::Damaged);

        let lost = |why: UndeliveredReason| load_relaxed(&self.undelivered[why as usize]);
        sum.undelivered.send_buffer += lost(UndeliveredReason::SendBuffer);
        sum.undelivered.rejected += lost(UndeliveredReason::Rejected);
        sum.undelivered.damaged += lost(UndeliveredReason::Damaged);

        self.from_clients.read_into(&mut sum.from_clients);
        self.to_servers.read_into(&mut sum.to_servers);
        self.from_servers.read_into(&mut sum.from_servers);
        self.to_clients.read_into(&mut sum.to_clients);
        sum.flows_moved += load_relaxed(&self.moved);
        sum.resent += load_relaxed(&self.resent);
        sum.server_errors += load_relaxed(&self.server_errors);
        sum.failed_receives += load_relaxed(&self.failed_receives);
    }

    /// Adds what this worker has counted of each backend to a list of sums.
    pub(super) fn read_backends_into(&self, sums: &mut Vec<UdpBackendCounters>) {
        for tally in lock(&self.backends).values() {
            let known = sums.iter().position(|sum| sum.id == tally.id);
            let at = known.unwrap_or_else(|| {
                sums.push(UdpBackendCounters {
                    id: tally.id.clone(),
                    flows_started: 0,
                    to_server: UdpTraffic::default(),
                    from_server: UdpTraffic::default(),
                    errors: 0,
                });
                sums.len() - 1
            });
            let sum = &mut sums[at];
            sum.flows_started += load_relaxed(&tally.started);
            sum.errors += load_relaxed(&tally.errors);
            tally.to_server.read_into(&mut sum.to_server);
            tally.from_server.read_into(&mut sum.from_server);
        }
    }
}

/// Adds to a counter that orders nothing.
pub(super) fn add_relaxed(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn load_relaxed(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
