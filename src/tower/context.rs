//! State that the clones of a balancer share: the scheduler's balancer, the settings, the waiters.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use ::tower::BoxError;

use super::error::InstanceError;
use super::key::MissingKeyPolicy;
use super::wait::{BackendWait, BackendWaiters};
use crate::backend::{BackendId, BackendState, SetError};
use crate::balancer::{Balancer, Lease, PickError};
use crate::scheduler::Flow;
use crate::sync::{AtomicUsize, Ordering};

/// The maximum number of [context copies](PerThreadContexts). Below it there are four for each
/// processor, since threads come and go and are not bound to processors.
const MAX_CONTEXT_COPIES: usize = 64;

/// The shortest timeout of an attempt: any but 0, which would fail every request that waits.
pub(super) const MIN_TIMEOUT: Duration = Duration::from_nanos(1);

/// Copies of a [`BalanceContext`], spread over the threads.
///
/// Each request holds a reference to a context; with a single context all threads would write its
/// reference count, which is one cache line.
pub(super) struct PerThreadContexts<S>(Arc<[Arc<BalanceContext<S>>]>);

impl<S> PerThreadContexts<S> {
    /// Returns the context of this thread.
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

    /// Returns contexts with a changed configuration.
    pub(super) fn reconfigured(&self, change: impl FnOnce(&mut BalanceConfig)) -> Self {
        let mut config = self.local().config;
        change(&mut config);
        self.map_contexts(|context| BalanceContext { config, ..context.duplicate() })
    }

    /// Returns contexts that keep `guard` alive as well.
    pub(super) fn attach(&self, guard: impl Send + Sync + 'static) -> Self {
        let attached = Arc::new(AttachedGuard {
            _guard: Box::new(guard),
            _previous: self.local().attached.clone(),
        });
        self.map_contexts(|context| BalanceContext {
            attached: Some(Arc::clone(&attached)),
            ..context.duplicate()
        })
    }

    fn map_contexts(&self, change: impl Fn(&BalanceContext<S>) -> BalanceContext<S>) -> Self {
        Self(self.0.iter().map(|context| Arc::new(change(context))).collect())
    }
}

impl<S: Send + Sync + 'static> PerThreadContexts<S> {
    pub(super) fn new(balancer: Balancer<S>) -> Self {
        let config = BalanceConfig {
            candidates: 3,
            wait_timeout: Duration::from_secs(1),
            timeout: None,
            name_errors: false,
            missing_key: MissingKeyPolicy::default(),
            measure_latency: None,
        };
        let Ok(waiters) = balancer
            .backend_set()
            .add_reader(|_| Ok::<_, SetError>(Arc::new(BackendWaiters::default())))
        else {
            unreachable!("creating the waiters does not fail");
        };
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let context = |_| {
            let lane = balancer.snapshot().assign_lane();
            Arc::new(BalanceContext {
                balancer: balancer.clone(),
                config,
                lane,
                waiters: Arc::clone(&waiters),
                attached: None,
            })
        };
        Self((0..MAX_CONTEXT_COPIES.min(4 * threads)).map(context).collect())
    }
}

impl<S> Clone for PerThreadContexts<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What a request needs of its balancer.
///
/// Aligned to two cache lines, which processors fetch together, so that the reference counts of two
/// contexts never share a line.
#[repr(align(128))]
pub(super) struct BalanceContext<S> {
    pub(super) balancer: Balancer<S>,
    pub(super) config: BalanceConfig,
    /// The lane on which leases of this context are counted.
    lane: u8,
    waiters: Arc<BackendWaiters>,
    attached: Option<Arc<AttachedGuard>>,
}

/// A value that lives as long as a balancer, linked to the one attached before.
struct AttachedGuard {
    _guard: Box<dyn Send + Sync>,
    _previous: Option<Arc<AttachedGuard>>,
}

/// The settings of a balancer.
#[derive(Clone, Copy, Debug)]
pub(super) struct BalanceConfig {
    /// How many instances a request asks at a time.
    pub(super) candidates: usize,
    /// How long a request waits for an instance.
    pub(super) wait_timeout: Duration,
    /// How long an instance may take to answer an attempt; `None` is for ever.
    pub(super) timeout: Option<Duration>,
    /// Whether the errors of instances are wrapped with the name of their backend.
    pub(super) name_errors: bool,
    pub(super) missing_key: MissingKeyPolicy,
    /// Whether the clock is read for each request; `None` leaves it to the scheduler.
    pub(super) measure_latency: Option<bool>,
}

impl<S> BalanceContext<S> {
    fn duplicate(&self) -> Self {
        Self {
            balancer: self.balancer.clone(),
            config: self.config,
            lane: self.lane,
            waiters: Arc::clone(&self.waiters),
            attached: self.attached.clone(),
        }
    }

    #[inline]
    pub(super) fn pick(&self, flow: &Flow) -> Result<Lease<S>, PickError> {
        self.balancer.pick_on_lane(self.lane, flow)
    }

    #[inline]
    pub(super) fn measures_latency(&self) -> bool {
        self.config.measure_latency.unwrap_or_else(|| self.balancer.reads_time())
    }

    /// Returns whether a leased backend is still a member, eligible, and has the same target.
    pub(super) fn is_eligible(&self, lease: &Lease<S>) -> bool {
        let snapshot = self.balancer.snapshot();
        let position = snapshot.members().position_of_serial(lease.backend().account().serial());
        position.is_some_and(|position| {
            let is_same = Arc::ptr_eq(&snapshot.backends()[position], lease.backend());
            is_same && snapshot.members()[position].state() == BackendState::Eligible
        })
    }

    /// Returns the error of a backend's instance as the caller receives it.
    #[cold]
    pub(super) fn name_error(&self, backend: &BackendId, source: BoxError) -> BoxError {
        match self.config.name_errors {
            true => InstanceError { backend: backend.clone(), source }.into(),
            false => source,
        }
    }

    /// Notifies one waiting request that another has returned its lease.
    #[inline]
    pub(super) fn notify_waiter(&self) {
        self.waiters.notify_one();
    }

    /// Starts to wait for a backend, for the configured time at most.
    pub(super) fn start_wait(&self) -> Box<BackendWait> {
        BackendWait::start(&self.waiters, self.config.wait_timeout)
    }
}

impl<S> fmt::Debug for BalanceContext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceContext")
            .field("balancer", &self.balancer)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
