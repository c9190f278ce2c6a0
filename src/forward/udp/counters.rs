//! Counters of a UDP forwarder: exact, without double counting.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::BackendId;
use crate::balancer::PickError;
use crate::forward::connection_table::ConnectionTable;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// A number of datagrams, and of the payload bytes in them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
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
/// `from_clients = to_servers + shed.total()`, `from_servers = to_clients + undelivered.total()`
/// (both in datagrams) and `flows_started = flows_active + flows_ended.total()`. Under traffic, a
/// snapshot may miss datagrams that are being processed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
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

/// The number of ended flows, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct FlowEndCounters {
    /// The idle timeout passed without a datagram in either direction.
    pub idle: u64,
    /// The total timeout passed.
    pub total_time: u64,
    /// All expected replies arrived.
    pub replied: u64,
    /// All backends that were tried were unreachable.
    pub unreachable: u64,
    /// The backend went out of service and no other backend was available.
    pub no_backend: u64,
    /// The flow was evicted for a new flow.
    pub evicted: u64,
    /// The forwarder ended the flow: at the deadline of a drain, or because its future was dropped.
    pub cut: u64,
}

impl FlowEndCounters {
    /// Returns the sum over all reasons.
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

/// The number of dropped datagrams of clients, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ShedCounters {
    /// The flow table was full, and all of its flows had been answered.
    pub max_flows: u64,
    /// The client had its maximum number of flows.
    pub max_flows_per_client: u64,
    /// No backend was available: the set was empty, quiesced, down or below its quorum.
    pub no_backend: u64,
    /// Every backend was at its connection limit.
    pub saturated: u64,
    /// The scheduler picked no backend.
    pub scheduler: u64,
    /// All backends that were tried were unreachable.
    pub unreachable: u64,
    /// This machine had no free port, descriptor or memory for a new flow.
    pub no_resources: u64,
    /// The datagram would have started a flow during a drain.
    pub draining: u64,
    /// The send buffer of the socket to the backend was full: this machine sends slower than it
    /// receives.
    pub send_buffer: u64,
    /// The system refused to send the datagram: too long for the backend's address family, or
    /// forbidden.
    pub rejected: u64,
    /// The datagram was truncated on receipt, or its flow was evicted in the same batch.
    pub damaged: u64,
}

/// The number of dropped datagrams of backends, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct UndeliveredCounters {
    /// The send buffer of the listening socket was full.
    pub send_buffer: u64,
    /// The system refused to send the datagram: no route, forbidden, or too long.
    pub rejected: u64,
    /// The datagram was truncated on receipt.
    pub damaged: u64,
}

impl UndeliveredCounters {
    /// Returns the sum over all reasons.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.send_buffer + self.rejected + self.damaged
    }
}

/// The counters of one backend, summed over all workers.
#[derive(Clone, Debug, Eq, PartialEq)]
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

/// Makes the enum of reasons for a drop, its list, and the counter and the name of each reason, so that
/// a reason cannot lack one of them.
macro_rules! shed_reasons {
    ($($reason:ident: $field:ident, $name:literal;)*) => {
        /// The reason why a datagram of a client is dropped.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum ShedReason {
            $($reason,)*
        }

        impl ShedReason {
            /// Every reason, in the order of the variants.
            const ALL: [Self; [$(stringify!($reason)),*].len()] = [$(Self::$reason),*];

            fn counter_of(self, counters: &mut ShedCounters) -> &mut u64 {
                match self {
                    $(Self::$reason => &mut counters.$field,)*
                }
            }
        }

        impl ShedCounters {
            /// Returns the sum over all reasons.
            #[must_use]
            pub const fn total(&self) -> u64 {
                let Self { $($field),* } = *self;
                0 $(+ $field)*
            }

            /// Returns each reason's name, as in the director's metrics, and its counter.
            ///
            /// # Examples
            /// ```
            /// use lvs::forward::ShedCounters;
            ///
            /// let counters = ShedCounters::default();
            /// assert!(counters.by_reason().any(|entry| entry == ("max_flows", 0)));
            /// ```
            pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$(($name, self.$field)),*].into_iter()
            }
        }
    };
}

shed_reasons! {
    MaxFlows: max_flows, "max_flows";
    MaxFlowsPerClient: max_flows_per_client, "client_limit";
    NoBackend: no_backend, "no_server";
    Saturated: saturated, "saturated";
    Scheduler: scheduler, "scheduler";
    Unreachable: unreachable, "unreachable";
    NoResources: no_resources, "no_resources";
    Draining: draining, "draining";
    SendBuffer: send_buffer, "send_buffer";
    Rejected: rejected, "rejected";
    Damaged: damaged, "damaged";
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

/// The reason why a datagram of a backend is dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum UndeliveredReason {
    SendBuffer,
    Rejected,
    Damaged,
}

/// The reason why a flow ends.
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

/// The atomic counters behind [`UdpTraffic`].
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

    fn add_to(&self, total: &mut UdpTraffic) {
        total.datagrams += load_relaxed(&self.datagrams);
        total.bytes += load_relaxed(&self.bytes);
    }
}

/// The counters of one worker. Only this worker writes them, and the alignment keeps them off the
/// cache lines of other workers.
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
    shed: [AtomicU64; ShedReason::ALL.len()],
    undelivered: [AtomicU64; 3],
    pub(super) live: ConnectionTable,
    backends: Mutex<HashMap<u64, Arc<AtomicUdpBackendCounters>>>,
}

/// The atomic counters behind [`UdpBackendCounters`].
#[derive(Debug)]
pub(super) struct AtomicUdpBackendCounters {
    pub(super) id: BackendId,
    pub(super) started: AtomicU64,
    pub(super) to_server: AtomicUdpTraffic,
    pub(super) from_server: AtomicUdpTraffic,
    pub(super) errors: AtomicU64,
}

impl UdpWorkerMetrics {
    pub(super) fn count_shed(&self, reason: ShedReason, datagrams: u64) {
        add_relaxed(&self.shed[reason as usize], datagrams);
    }

    pub(super) fn count_undelivered(&self, reason: UndeliveredReason, datagrams: u64) {
        add_relaxed(&self.undelivered[reason as usize], datagrams);
    }

    pub(super) fn count_flow_end(&self, reason: FlowEndReason) {
        // Release: see `add_to`.
        self.ended[reason as usize].fetch_add(1, Ordering::Release);
    }

    /// Returns the counters of a backend; creates them at the first call.
    pub(super) fn backend_counters(
        &self,
        serial: u64,
        id: &BackendId,
    ) -> Arc<AtomicUdpBackendCounters> {
        let mut backends = lock(&self.backends);
        let new = || {
            Arc::new(AtomicUdpBackendCounters {
                id: id.clone(),
                started: AtomicU64::default(),
                to_server: AtomicUdpTraffic::default(),
                from_server: AtomicUdpTraffic::default(),
                errors: AtomicU64::default(),
            })
        };
        Arc::clone(backends.entry(serial).or_insert_with(new))
    }

    /// Removes the counters of backends that are neither in the set nor used by a flow.
    pub(super) fn forget_backends(&self, is_in_set: impl Fn(u64) -> bool) {
        lock(&self.backends)
            .retain(|serial, counters| is_in_set(*serial) || Arc::strong_count(counters) > 1);
    }

    /// Adds the counters of this worker to a total.
    pub(super) fn add_to(&self, total: &mut UdpCounters) {
        // Acquire pairs with the Release in `count_flow_end`: `started`, read after `ended`,
        // includes the start of every ended flow, so that `flows_active` is never negative.
        let ended = self.ended.each_ref().map(|count| count.load(Ordering::Acquire));
        let started = load_relaxed(&self.started);
        total.flows_started += started;
        total.flows_active += started.saturating_sub(ended.iter().sum());
        let [idle, total_time, replied, unreachable, no_backend, evicted, cut] = ended;
        let ends = &mut total.flows_ended;
        ends.idle += idle;
        ends.total_time += total_time;
        ends.replied += replied;
        ends.unreachable += unreachable;
        ends.no_backend += no_backend;
        ends.evicted += evicted;
        ends.cut += cut;

        for reason in ShedReason::ALL {
            *reason.counter_of(&mut total.shed) += load_relaxed(&self.shed[reason as usize]);
        }

        let undelivered =
            |reason: UndeliveredReason| load_relaxed(&self.undelivered[reason as usize]);
        total.undelivered.send_buffer += undelivered(UndeliveredReason::SendBuffer);
        total.undelivered.rejected += undelivered(UndeliveredReason::Rejected);
        total.undelivered.damaged += undelivered(UndeliveredReason::Damaged);

        self.from_clients.add_to(&mut total.from_clients);
        self.to_servers.add_to(&mut total.to_servers);
        self.from_servers.add_to(&mut total.from_servers);
        self.to_clients.add_to(&mut total.to_clients);
        total.flows_moved += load_relaxed(&self.moved);
        total.resent += load_relaxed(&self.resent);
        total.server_errors += load_relaxed(&self.server_errors);
        total.failed_receives += load_relaxed(&self.failed_receives);
    }

    /// Adds the counters of this worker for each backend to a list of totals.
    pub(super) fn add_backends_to(&self, totals: &mut Vec<UdpBackendCounters>) {
        for counters in lock(&self.backends).values() {
            let position = totals.iter().position(|total| total.id == counters.id);
            let position = position.unwrap_or_else(|| {
                totals.push(UdpBackendCounters {
                    id: counters.id.clone(),
                    flows_started: 0,
                    to_server: UdpTraffic::default(),
                    from_server: UdpTraffic::default(),
                    errors: 0,
                });
                totals.len() - 1
            });
            let total = &mut totals[position];
            total.flows_started += load_relaxed(&counters.started);
            total.errors += load_relaxed(&counters.errors);
            counters.to_server.add_to(&mut total.to_server);
            counters.from_server.add_to(&mut total.from_server);
        }
    }
}

/// Adds to a counter without ordering other memory accesses.
pub(super) fn add_relaxed(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn load_relaxed(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
