//! What the clones of a balancer share: whom they choose from, their rules, and who waits.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::MissingKeyPolicy;
use crate::backend::{BackendState, SetError, Snapshot, SnapshotCommit, SnapshotReader};
use crate::balancer::{Balancer, Lease, PickError};
use crate::scheduler::Flow;
use crate::sync::{AtomicUsize, Ordering};

/// The copies of what is shared, one for each thread that may run at a time: each request holds one,
/// and counting those who hold a single one would have all threads write to one cache line.
pub(super) struct PerThreadContexts<S>(Arc<[Arc<BalanceContext<S>>]>);

impl<S> PerThreadContexts<S> {
    /// The one of this thread.
    #[inline]
    pub(super) fn local(&self) -> &Arc<BalanceContext<S>> {
        thread_local! {
            static NUMBER: usize = {
                static THREADS: AtomicUsize = AtomicUsize::new(0);
                THREADS.fetch_add(1, Ordering::Relaxed)
            };
        }
        &self.0[NUMBER.with(|number| *number) % self.0.len()]
    }

    /// The same with other rules.
    pub(super) fn reconfigured(&self, change: impl FnOnce(&mut BalanceConfig)) -> Self {
        let mut rules = self.local().config;
        change(&mut rules);
        self.map_contexts(|shared| BalanceContext { config: rules, ..shared.duplicate() })
    }

    /// The same with something more that lives as long.
    pub(super) fn attach(&self, guard: impl Send + Sync + 'static) -> Self {
        let attached = Arc::new(AttachedGuard {
            _guard: Box::new(guard),
            _previous: self.local().attached.clone(),
        });
        self.map_contexts(|shared| BalanceContext {
            attached: Some(Arc::clone(&attached)),
            ..shared.duplicate()
        })
    }

    fn map_contexts(&self, change: impl Fn(&BalanceContext<S>) -> BalanceContext<S>) -> Self {
        Self(self.0.iter().map(|it| Arc::new(change(it))).collect())
    }
}

impl<S> Clone for PerThreadContexts<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Alone on its cache lines (two, which are fetched together), with the count of its holders.
#[repr(align(128))]
pub(super) struct BalanceContext<S> {
    pub(super) balancer: Balancer<S>,
    pub(super) config: BalanceConfig,
    /// Where its leases are counted.
    lane: u8,
    waiters: Arc<BackendWaiters>,
    attached: Option<Arc<AttachedGuard>>,
}

/// What lives as long as a balancer.
struct AttachedGuard {
    _guard: Box<dyn Send + Sync>,
    _previous: Option<Arc<AttachedGuard>>,
}

/// At most so many; otherwise four for each core, since threads come and go and nobody says where they run.
const MAX_CONTEXT_COPIES: usize = 64;

/// How requests are treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct BalanceConfig {
    /// How many instances are asked.
    pub(super) candidates: usize,
    /// How long a request waits.
    pub(super) wait_timeout: Duration,
    pub(super) missing_key: MissingKeyPolicy,
    /// Is the clock read for each request? `None`: if the scheduler wants it.
    pub(super) measure_latency: Option<bool>,
}

impl<S: Send + Sync + 'static> PerThreadContexts<S> {
    pub(super) fn new(balancer: Balancer<S>) -> Self {
        let rules = BalanceConfig {
            candidates: 3,
            wait_timeout: Duration::from_secs(1),
            missing_key: MissingKeyPolicy::default(),
            measure_latency: None,
        };
        let Ok(line) = balancer
            .backend_set()
            .subscribe(|_| Ok::<_, SetError>(Arc::new(BackendWaiters::default())))
        else {
            unreachable!("nothing above fails");
        };
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let copy = |_| {
            let lane = balancer.snapshot().assign_lane();
            Arc::new(BalanceContext {
                balancer: balancer.clone(),
                config: rules,
                lane,
                waiters: Arc::clone(&line),
                attached: None,
            })
        };
        Self((0..MAX_CONTEXT_COPIES.min(4 * threads)).map(copy).collect())
    }
}

impl<S> BalanceContext<S> {
    fn duplicate(&self) -> Self {
        let Self { balancer, config: rules, lane, waiters: line, attached } = self;
        let (balancer, line) = (balancer.clone(), Arc::clone(line));
        Self { balancer, config: *rules, lane: *lane, waiters: line, attached: attached.clone() }
    }

    #[inline]
    pub(super) fn pick(&self, flow: &Flow) -> Result<Lease<S>, PickError> {
        self.balancer.pick_on_lane(self.lane, flow)
    }

    #[inline]
    pub(super) fn measures_latency(&self) -> bool {
        self.config.measure_latency.unwrap_or_else(|| self.balancer.reads_time())
    }

    /// May a backend that was picked a while ago still be given work, and is it what it was?
    pub(super) fn is_eligible(&self, lease: &Lease<S>) -> bool {
        let snapshot = self.balancer.snapshot();
        let position = snapshot.members().position_of_serial(lease.backend().account().serial());
        position.is_some_and(|it| {
            let same = Arc::ptr_eq(&snapshot.backends()[it], lease.backend());
            same && snapshot.members()[it].state() == BackendState::Eligible
        })
    }

    /// A request has given back what it held: whoever waits may look.
    #[inline]
    pub(super) fn notify_waiter(&self) {
        // Relaxed: who begins to wait just now may be missed, and looks again by itself.
        if self.waiters.count.load(Ordering::Relaxed) != 0 {
            self.waiters.notify.notify_one();
        }
    }

    pub(super) fn waiters(&self) -> &Arc<BackendWaiters> {
        &self.waiters
    }
}

impl<S> fmt::Debug for BalanceContext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("balancer", &self.balancer)
            .field("rules", &self.config)
            .finish_non_exhaustive()
    }
}

/// Those who wait for a backend.
#[derive(Debug, Default)]
pub(super) struct BackendWaiters {
    count: AtomicUsize,
    notify: Arc<Notify>,
}

impl BackendWaiters {
    /// Counts one more for as long as the answer lives.
    pub(super) fn register(self: &Arc<Self>) -> BackendWaiterGuard {
        self.count.fetch_add(1, Ordering::Relaxed);
        BackendWaiterGuard(Arc::clone(self))
    }
}

/// Whoever the set tells of a change tells those who wait.
impl<S> SnapshotReader<S> for BackendWaiters {
    fn prepare(&self, _: &Arc<Snapshot<S>>) -> Result<SnapshotCommit<'_>, SetError> {
        Ok(Box::new(|| self.notify.notify_waiters()))
    }
}

/// A place among those who wait.
#[derive(Debug)]
pub(super) struct BackendWaiterGuard(Arc<BackendWaiters>);

impl BackendWaiterGuard {
    pub(super) fn notify(&self) -> Arc<Notify> {
        Arc::clone(&self.0.notify)
    }
}

impl Drop for BackendWaiterGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}
