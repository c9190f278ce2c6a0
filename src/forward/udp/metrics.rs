//! The live counters of the workers of a UDP forwarder.

use std::collections::HashMap;
use std::sync::Arc;

use super::counters::{
    FlowEndReason, ShedReason, UdpBackendCounters, UdpCounters, UdpTraffic, UndeliveredReason,
};
use crate::BackendId;
use crate::forward::connection_table::ConnectionTable;
use crate::forward::counters::{add_relaxed, load_relaxed};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

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
    pub(super) sorry_flows: AtomicU64,
    ended: [AtomicU64; FlowEndReason::ALL.len()],
    shed: [AtomicU64; ShedReason::ALL.len()],
    undelivered: [AtomicU64; UndeliveredReason::ALL.len()],
    pub(super) live: ConnectionTable,
    backends: Mutex<HashMap<u64, Arc<AtomicUdpBackendCounters>>>,
    /// Of the sorry server; not listed among the backends.
    pub(super) sorry_server: Arc<AtomicUdpBackendCounters>,
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

impl AtomicUdpBackendCounters {
    fn new(id: BackendId) -> Self {
        Self {
            id,
            started: AtomicU64::default(),
            to_server: AtomicUdpTraffic::default(),
            from_server: AtomicUdpTraffic::default(),
            errors: AtomicU64::default(),
        }
    }
}

impl Default for AtomicUdpBackendCounters {
    /// Returns the counters of a sorry server.
    fn default() -> Self {
        Self::new("sorry_server".into())
    }
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
        let new = || Arc::new(AtomicUdpBackendCounters::new(id.clone()));
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
        total.flows_ended.add(|reason| ended[reason as usize]);
        total.shed.add(|reason| load_relaxed(&self.shed[reason as usize]));
        total.undelivered.add(|reason| load_relaxed(&self.undelivered[reason as usize]));
        self.from_clients.add_to(&mut total.from_clients);
        self.to_servers.add_to(&mut total.to_servers);
        self.from_servers.add_to(&mut total.from_servers);
        self.to_clients.add_to(&mut total.to_clients);
        total.flows_moved += load_relaxed(&self.moved);
        total.sorry_flows += load_relaxed(&self.sorry_flows);
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
