//! What each backend was given, and the sum of what all workers did.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::backend::{Backend, Snapshot, State};
use crate::forward::counters::{Tally, add, read};
use crate::forward::live::Live;
use crate::forward::queue::Queue;
use crate::forward::{BackendCounters, Connection, Counters, Durations, QueueCounters};
use crate::histogram::Histogram;
use crate::sync::{AtomicU64, Mutex, lock};

/// All that one forwarder counts.
#[derive(Debug, Default)]
pub(in crate::forward) struct Books {
    pages: Mutex<Vec<Arc<Page>>>,
    queue: OnceLock<Arc<Queue>>,
}

/// What one worker counts.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) tally: Tally,
    /// From accept to end.
    pub(super) duration: Histogram,
    pub(super) live: Live,
    backends: Mutex<HashMap<u64, Arc<BackendTally>>>,
}

/// What one worker counts of one backend.
#[derive(Debug)]
pub(super) struct BackendTally {
    backend: Arc<Backend<SocketAddr>>,
    pub(super) connections: AtomicU64,
    pub(super) ended: AtomicU64,
    pub(super) failed_connects: AtomicU64,
    pub(super) broke: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) connect_time: Histogram,
    pub(super) duration: Histogram,
    /// Wakes the connections that are to end because it is down.
    pub(super) down: Arc<Notify>,
}

impl Books {
    /// Opens the page of one more worker.
    pub(super) fn open_page(&self) -> Arc<Page> {
        let page = Arc::new(Page::default());
        lock(&self.pages).push(Arc::clone(&page));
        page
    }

    /// Opens the line for a place at a backend.
    pub(super) fn open_queue(&self, capacity: usize) -> Arc<Queue> {
        Arc::clone(self.queue.get_or_init(|| Arc::new(Queue::new(capacity))))
    }

    pub(in crate::forward) fn queue(&self) -> Option<QueueCounters> {
        self.queue.get().map(|queue| queue.counters())
    }

    pub(in crate::forward) fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        lock(&self.pages).iter().for_each(|page| page.tally.add_to(&mut sum));
        sum
    }

    pub(in crate::forward) fn durations(&self) -> Durations {
        let mut sum = Durations::default();
        lock(&self.pages).iter().for_each(|page| sum.merge(&page.duration.snapshot()));
        sum
    }

    pub(in crate::forward) fn connections(
        &self,
        listener: Option<SocketAddr>,
        most: usize,
    ) -> Vec<Connection> {
        // Whoever begins to carry waits for none of this.
        let pages = lock(&self.pages).clone();
        let mut connections = Vec::new();
        pages.iter().for_each(|page| page.live.read(listener, most, &mut connections));
        connections
    }

    pub(in crate::forward) fn accepted(&self) -> Vec<u64> {
        lock(&self.pages).iter().map(|page| read(&page.tally.accepted)).collect()
    }

    pub(in crate::forward) fn backends(&self) -> Vec<BackendCounters> {
        let mut sums: HashMap<u64, BackendCounters> = HashMap::new();
        for page in lock(&self.pages).iter() {
            for (serial, tally) in lock(&page.backends).iter() {
                let sum = sums.entry(*serial).or_insert_with(|| {
                    BackendCounters::new(tally.backend.id().clone(), *tally.backend.target())
                });
                tally.add_to(sum);
            }
        }
        let mut sums: Vec<BackendCounters> = sums.into_values().collect();
        sums.sort_by(|a, b| a.id.cmp(&b.id));
        sums
    }
}

impl Page {
    /// The tally of a backend; those of backends that have gone are forgotten once they are idle.
    pub(super) fn backend(
        &self,
        backend: &Arc<Backend<SocketAddr>>,
        snapshot: impl FnOnce() -> Arc<Snapshot<SocketAddr>>,
    ) -> Arc<BackendTally> {
        let serial = backend.account().serial();
        let mut backends = lock(&self.backends);
        if let Some(tally) = backends.get(&serial) {
            return Arc::clone(tally);
        }
        let members = snapshot();
        let members = members.members();
        backends.retain(|serial, tally| members.position(*serial).is_some() || tally.active() > 0);
        Arc::clone(backends.entry(serial).or_insert_with(|| BackendTally::new(backend)))
    }

    /// Says so to the connections of backends that are down.
    pub(super) fn cut_down(&self, snapshots: &[Arc<Snapshot<SocketAddr>>]) {
        for tally in lock(&self.backends).values().filter(|tally| tally.active() > 0) {
            if snapshots.iter().any(|snapshot| tally.is_down(snapshot)) {
                tally.down.notify_waiters();
            }
        }
    }
}

impl BackendTally {
    fn is_down(&self, snapshot: &Snapshot<SocketAddr>) -> bool {
        let members = snapshot.members();
        let position = members.position(self.backend.account().serial());
        let state = position.map(|position| members[position].state());
        matches!(state, Some(State::Down | State::Disabled))
    }

    fn new(backend: &Arc<Backend<SocketAddr>>) -> Arc<Self> {
        Arc::new(Self {
            backend: Arc::clone(backend),
            connections: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            failed_connects: AtomicU64::new(0),
            broke: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            connect_time: Histogram::default(),
            duration: Histogram::default(),
            down: Arc::default(),
        })
    }

    fn active(&self) -> u64 {
        // An end is counted after its beginning: read first, it is never more.
        let ended = read(&self.ended);
        read(&self.connections).saturating_sub(ended)
    }

    fn add_to(&self, sum: &mut BackendCounters) {
        sum.active += self.active();
        sum.connections += read(&self.connections);
        sum.failed_connects += read(&self.failed_connects);
        sum.broke += read(&self.broke);
        sum.bytes_in += read(&self.bytes_in);
        sum.bytes_out += read(&self.bytes_out);
        sum.connect_time.merge(&self.connect_time.snapshot());
        sum.duration.merge(&self.duration.snapshot());
    }

    /// Counts a connection that ended.
    pub(super) fn end(&self, broke: bool) {
        if broke {
            add(&self.broke, 1);
        }
        add(&self.ended, 1);
    }
}
