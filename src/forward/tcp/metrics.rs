//! The live counters of a TCP forwarder: by worker thread, and by backend.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::backend::{Backend, BackendState, Snapshot};
use crate::forward::connection_table::ConnectionTable;
use crate::forward::counters::{AtomicTcpCounters, add_relaxed, load_relaxed};
use crate::forward::queue::ConnectionQueue;
use crate::forward::{
    ConnectionInfo, DurationHistogram, QueueCounters, TcpBackendCounters, TcpCounters,
};
use crate::histogram::AtomicHistogram;
use crate::sync::{AtomicU64, Mutex, lock};

/// The live counters of a forwarder.
#[derive(Debug, Default)]
pub(in crate::forward) struct TcpMetrics {
    workers: Mutex<Vec<Arc<TcpWorkerMetrics>>>,
    queue: OnceLock<Arc<ConnectionQueue>>,
}

/// The live counters of a worker thread.
#[derive(Debug, Default)]
pub(super) struct TcpWorkerMetrics {
    pub(super) counters: AtomicTcpCounters,
    /// The durations of ended connections, from accept to end.
    pub(super) duration: AtomicHistogram,
    pub(super) connections: ConnectionTable,
    backends: Mutex<HashMap<u64, Arc<AtomicTcpBackendCounters>>>,
}

/// The live counters of a worker thread for a backend.
#[derive(Debug)]
pub(super) struct AtomicTcpBackendCounters {
    backend: Arc<Backend<SocketAddr>>,
    pub(super) connections: AtomicU64,
    pub(super) ended: AtomicU64,
    pub(super) failed_connects: AtomicU64,
    pub(super) aborted: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) connect_time: AtomicHistogram,
    pub(super) duration: AtomicHistogram,
    /// Wakes the connections of the backend when they are to end because it is down.
    pub(super) down_notify: Arc<Notify>,
}

impl TcpMetrics {
    /// Adds the counters of a worker thread.
    pub(super) fn add_worker(&self) -> Arc<TcpWorkerMetrics> {
        let worker = Arc::new(TcpWorkerMetrics::default());
        lock(&self.workers).push(Arc::clone(&worker));
        worker
    }

    /// Makes the queue for backends at their limits; a second call returns the same queue.
    pub(super) fn init_queue(&self, capacity: usize) -> Arc<ConnectionQueue> {
        Arc::clone(self.queue.get_or_init(|| Arc::new(ConnectionQueue::new(capacity))))
    }

    pub(in crate::forward) fn queue(&self) -> Option<QueueCounters> {
        self.queue.get().map(|queue| queue.counters())
    }

    pub(in crate::forward) fn counters(&self) -> TcpCounters {
        let mut sum = TcpCounters::default();
        lock(&self.workers).iter().for_each(|worker| worker.counters.add_to(&mut sum));
        sum
    }

    pub(in crate::forward) fn durations(&self) -> DurationHistogram {
        let mut sum = DurationHistogram::default();
        lock(&self.workers).iter().for_each(|worker| sum.merge(&worker.duration.snapshot()));
        sum
    }

    pub(in crate::forward) fn connections(
        &self,
        listener: Option<SocketAddr>,
        limit: usize,
    ) -> Vec<ConnectionInfo> {
        // Cloned, so that a worker thread that starts does not wait for the copy.
        let workers = lock(&self.workers).clone();
        let mut connections = Vec::new();
        workers
            .iter()
            .for_each(|worker| worker.connections.collect_into(listener, limit, &mut connections));
        connections
    }

    pub(in crate::forward) fn accepted_by_worker(&self) -> Vec<u64> {
        lock(&self.workers).iter().map(|worker| load_relaxed(&worker.counters.accepted)).collect()
    }

    pub(in crate::forward) fn backends(&self) -> Vec<TcpBackendCounters> {
        let mut sums: HashMap<u64, TcpBackendCounters> = HashMap::new();
        for worker in lock(&self.workers).iter() {
            for (serial, counters) in lock(&worker.backends).iter() {
                let sum = sums.entry(*serial).or_insert_with(|| {
                    TcpBackendCounters::new(
                        counters.backend.id().clone(),
                        *counters.backend.target(),
                    )
                });
                counters.add_to(sum);
            }
        }
        let mut sums: Vec<TcpBackendCounters> = sums.into_values().collect();
        sums.sort_by(|a, b| a.id.cmp(&b.id));
        sums
    }
}

impl TcpWorkerMetrics {
    /// Returns the counters of a backend, and makes them at the first call. This also drops the
    /// counters of backends that were removed from the set and have no connections.
    pub(super) fn backend_counters(
        &self,
        backend: &Arc<Backend<SocketAddr>>,
        snapshot: impl FnOnce() -> Arc<Snapshot<SocketAddr>>,
    ) -> Arc<AtomicTcpBackendCounters> {
        let serial = backend.account().serial();
        let mut backends = lock(&self.backends);
        if let Some(counters) = backends.get(&serial) {
            return Arc::clone(counters);
        }
        let members = snapshot();
        let members = members.members();
        backends.retain(|serial, counters| {
            members.position_of_serial(*serial).is_some() || counters.active() > 0
        });
        Arc::clone(backends.entry(serial).or_insert_with(|| AtomicTcpBackendCounters::new(backend)))
    }

    /// Wakes the connections of backends that are down, so that they end.
    pub(super) fn notify_down_backends(&self, snapshots: &[Arc<Snapshot<SocketAddr>>]) {
        for counters in lock(&self.backends).values().filter(|counters| counters.active() > 0) {
            if snapshots.iter().any(|snapshot| counters.is_down(snapshot)) {
                counters.down_notify.notify_waiters();
            }
        }
    }
}

impl AtomicTcpBackendCounters {
    fn is_down(&self, snapshot: &Snapshot<SocketAddr>) -> bool {
        let members = snapshot.members();
        let position = members.position_of_serial(self.backend.account().serial());
        let state = position.map(|position| members[position].state());
        matches!(state, Some(BackendState::Down | BackendState::Disabled))
    }

    fn new(backend: &Arc<Backend<SocketAddr>>) -> Arc<Self> {
        Arc::new(Self {
            backend: Arc::clone(backend),
            connections: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            failed_connects: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            connect_time: AtomicHistogram::default(),
            duration: AtomicHistogram::default(),
            down_notify: Arc::default(),
        })
    }

    fn active(&self) -> u64 {
        // Ends are read first: each is counted after its start, so `ended` never exceeds the starts.
        let ended = load_relaxed(&self.ended);
        load_relaxed(&self.connections).saturating_sub(ended)
    }

    fn add_to(&self, sum: &mut TcpBackendCounters) {
        sum.active += self.active();
        sum.connections += load_relaxed(&self.connections);
        sum.failed_connects += load_relaxed(&self.failed_connects);
        sum.aborted += load_relaxed(&self.aborted);
        sum.bytes_in += load_relaxed(&self.bytes_in);
        sum.bytes_out += load_relaxed(&self.bytes_out);
        sum.connect_time.merge(&self.connect_time.snapshot());
        sum.duration.merge(&self.duration.snapshot());
    }

    /// Counts a connection that ended; `is_aborted` if the backend broke it.
    pub(super) fn count_end(&self, is_aborted: bool) {
        if is_aborted {
            add_relaxed(&self.aborted, 1);
        }
        add_relaxed(&self.ended, 1);
    }
}
