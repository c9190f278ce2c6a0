//! What the clones of a balancer share: whom they choose from, their rules, and who waits.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::WithoutKey;
use crate::backend::{Commit, Reader, SetError, Snapshot, State};
use crate::balancer::{Balancer, Lease, PickError};
use crate::scheduler::Flow;
use crate::sync::{AtomicUsize, Ordering};

/// The copies of what is shared, one for each thread that may run at a time: each request holds one,
/// and counting those who hold a single one would have all threads write to one cache line.
pub(super) struct Copies<S>(Arc<[Arc<Shared<S>>]>);

impl<S> Copies<S> {
    /// The one of this thread.
    #[inline]
    pub(super) fn local(&self) -> &Arc<Shared<S>> {
        thread_local! {
            static NUMBER: usize = {
                static THREADS: AtomicUsize = AtomicUsize::new(0);
                THREADS.fetch_add(1, Ordering::Relaxed)
            };
        }
        &self.0[NUMBER.with(|number| *number) % self.0.len()]
    }

    /// The same with other rules.
    pub(super) fn with(&self, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = self.local().rules;
        change(&mut rules);
        self.each(|shared| Shared { rules, ..shared.duplicate() })
    }

    /// The same with something more that lives as long.
    pub(super) fn attach(&self, guard: impl Send + Sync + 'static) -> Self {
        let attached =
            Arc::new(Attached { _guard: Box::new(guard), _before: self.local().attached.clone() });
        self.each(|shared| Shared { attached: Some(Arc::clone(&attached)), ..shared.duplicate() })
    }

    fn each(&self, change: impl Fn(&Shared<S>) -> Shared<S>) -> Self {
        Self(self.0.iter().map(|it| Arc::new(change(it))).collect())
    }
}

impl<S> Clone for Copies<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Alone on its cache lines (two, which are fetched together), with the count of its holders.
#[repr(align(128))]
pub(super) struct Shared<S> {
    pub(super) balancer: Balancer<S>,
    pub(super) rules: Rules,
    /// Where its leases are counted.
    lane: u8,
    line: Arc<Line>,
    attached: Option<Arc<Attached>>,
}

/// What lives as long as a balancer.
struct Attached {
    _guard: Box<dyn Send + Sync>,
    _before: Option<Arc<Attached>>,
}

/// At most so many; otherwise four for each core, since threads come and go and nobody says where they run.
const COPIES: usize = 64;

/// How requests are treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// How many instances are asked.
    pub(super) candidates: usize,
    /// How long a request waits.
    pub(super) wait: Duration,
    pub(super) without_key: WithoutKey,
    /// Is the clock read for each request? `None`: if the scheduler wants it.
    pub(super) measure: Option<bool>,
}

impl<S: Send + Sync + 'static> Copies<S> {
    pub(super) fn new(balancer: Balancer<S>) -> Self {
        let rules = Rules {
            candidates: 3,
            wait: Duration::from_secs(1),
            without_key: WithoutKey::default(),
            measure: None,
        };
        let Ok(line) = balancer.set().subscribe(|_| Ok::<_, SetError>(Arc::new(Line::default())))
        else {
            unreachable!("nothing above fails");
        };
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let copy = |_| {
            let lane = balancer.snapshot().next_lane();
            Arc::new(Shared {
                balancer: balancer.clone(),
                rules,
                lane,
                line: Arc::clone(&line),
                attached: None,
            })
        };
        Self((0..COPIES.min(4 * threads)).map(copy).collect())
    }
}

impl<S> Shared<S> {
    fn duplicate(&self) -> Self {
        let Self { balancer, rules, lane, line, attached } = self;
        let (balancer, line) = (balancer.clone(), Arc::clone(line));
        Self { balancer, rules: *rules, lane: *lane, line, attached: attached.clone() }
    }

    #[inline]
    pub(super) fn pick(&self, flow: &Flow) -> Result<Lease<S>, PickError> {
        self.balancer.pick_on(self.lane, flow)
    }

    #[inline]
    pub(super) fn measures(&self) -> bool {
        self.rules.measure.unwrap_or_else(|| self.balancer.reads_time())
    }

    /// May a backend that was picked a while ago still be given work, and is it what it was?
    pub(super) fn is_eligible(&self, lease: &Lease<S>) -> bool {
        let snapshot = self.balancer.snapshot();
        let position = snapshot.members().position(lease.backend().account().serial());
        position.is_some_and(|it| {
            let same = Arc::ptr_eq(&snapshot.backends()[it], lease.backend());
            same && snapshot.members()[it].state() == State::Eligible
        })
    }

    /// A request has given back what it held: whoever waits may look.
    #[inline]
    pub(super) fn freed(&self) {
        // Relaxed: who begins to wait just now may be missed, and looks again by itself.
        if self.line.waiting.load(Ordering::Relaxed) != 0 {
            self.line.notify.notify_one();
        }
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("balancer", &self.balancer)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// Those who wait for a backend.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: AtomicUsize,
    notify: Arc<Notify>,
}

impl Line {
    /// Counts one more for as long as the answer lives.
    pub(super) fn enter(self: &Arc<Self>) -> InLine {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        InLine(Arc::clone(self))
    }
}

/// Whoever the set tells of a change tells those who wait.
impl<S> Reader<S> for Line {
    fn prepare(&self, _: &Arc<Snapshot<S>>) -> Result<Commit<'_>, SetError> {
        Ok(Box::new(|| self.notify.notify_waiters()))
    }
}

/// A place among those who wait.
#[derive(Debug)]
pub(super) struct InLine(Arc<Line>);

impl InLine {
    pub(super) fn notify(&self) -> Arc<Notify> {
        Arc::clone(&self.0.notify)
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
