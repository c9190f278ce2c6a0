//! The shell: sockets, the clock, and a task that runs the engine.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::check::{Failure, FailureKind, Report};
use super::engine::{Engine, Job, ServiceId};
use super::events::{Events, Sender};
use super::plan::{Plan, PlanError};
use super::saved::Saved;
use super::service::Watched;
use super::timetable::ProbeId;
use crate::backend::{BackendSet, SetError};

/// Watches sets: runs their checks, and keeps their health true to what is up.
///
/// A cheap handle. One is enough for a process: services that hold the same address and are watched
/// with clones of one [`Checks`](super::Checks) share a probe. [`run`](Self::run) does the work.
///
/// # Cost
/// A TCP check is some 30 µs of one core, most of it the kernel's; `cargo bench --bench health`
/// prints the figures of your machine. Memory is some 600 bytes a probe, and a task while it asks.
///
/// # Examples
/// ```no_run
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::BackendSet;
/// use lvs::health::{Checks, Monitor, Plan, TcpCheck};
///
/// # async fn example(set: BackendSet<SocketAddr>) -> Result<(), Box<dyn std::error::Error>> {
/// let monitor = Monitor::new();
/// let tcp = Checks::new(TcpCheck::new()).interval(Duration::from_secs(1));
/// monitor.watch(&set, Plan::new("web").check(tcp))?;
/// tokio::spawn(monitor.run());
///
/// let mut events = monitor.events();
/// while let Some(event) = events.next().await {
///     println!("{}", event?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Monitor {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Mutex<Engine>,
    events: Sender,
    bell: Arc<Notify>,
    running: AtomicBool,
    ended: AtomicBool,
}

/// The most checks at a time unless told otherwise: each has a descriptor, of which a process often
/// has 1024.
const MOST_IN_FLIGHT: usize = 512;

impl Default for Monitor {
    fn default() -> Self {
        Self::new()
    }
}

impl Monitor {
    /// A monitor that watches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            engine: Mutex::new(Engine::new(MOST_IN_FLIGHT, fastrand::u64(..))),
            events: Sender::new(),
            bell: Arc::new(Notify::new()),
            running: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The most checks that are under way at a time, each with a descriptor; others wait, and
    /// [count](MonitorCounters::late) as late. At least 1. Default: 512.
    #[must_use]
    pub fn max_in_flight(self, checks: usize) -> Self {
        self.engine().set_most_in_flight(checks);
        self.inner.bell.notify_one();
        self
    }

    /// Watches a set: its members come and go with it.
    ///
    /// The checks set health and [advice](crate::backend::Advice); what the operator wants stays the
    /// operator's. Members are asked at the address of their [`Spec`](crate::Spec); those without
    /// one (or without a port, where the check has none either) are not asked. One that is quiesced,
    /// drained or disabled is asked all the same, so that its health is known when it comes back.
    ///
    /// A set stays watched until [`Watch::stop`], whatever becomes of the handle that is returned.
    ///
    /// # Errors
    /// [`PlanError`] names the setting that cannot be.
    pub fn watch<T: Send + Sync + 'static>(
        &self,
        set: &BackendSet<T>,
        plan: Plan,
    ) -> Result<Watch, PlanError> {
        plan.validate()?;
        let bell = Arc::clone(&self.inner.bell);
        let watched = Watched::new(set, plan, self.inner.events.clone(), move || bell.notify_one());
        let id = self.engine().insert(Arc::new(watched));
        self.inner.bell.notify_one();
        Ok(Watch { monitor: self.clone(), id })
    }

    /// What happens from now on, in all sets that are watched.
    #[must_use]
    pub fn events(&self) -> Events {
        self.inner.events.subscribe()
    }

    /// Checks until [`shutdown`](Self::shutdown). Dropping the future stops at once; checks that
    /// are under way are given up, and it may be run again.
    ///
    /// While one run goes on another returns at once.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let inner = Arc::clone(&self.inner);
        async move {
            if inner.running.swap(true, Ordering::AcqRel) {
                return;
            }
            let _running = Running(&inner);
            let mut jobs = Jobs::default();
            while !inner.ended.load(Ordering::Acquire) {
                let next = inner.turn(&mut jobs);
                tokio::select! {
                    // Ahead of the clock: an answer that is there has come in time.
                    biased;
                    () = inner.bell.notified() => {}
                    first = jobs.next() => inner.take(first, &mut jobs),
                    () = until(next) => {}
                }
            }
        }
    }

    /// Ends [`run`](Self::run). What was last known stays.
    pub fn shutdown(&self) {
        self.inner.ended.store(true, Ordering::Release);
        self.inner.bell.notify_one();
    }

    /// What the monitor has done, and how well it keeps its beat.
    #[must_use]
    pub fn counters(&self) -> MonitorCounters {
        let engine = self.engine();
        let lateness = engine.lateness();
        MonitorCounters {
            probes: engine.probes(),
            in_flight: engine.in_flight(),
            checks: lateness.begun,
            failed: engine.failures().remote,
            local: engine.failures().local,
            late: lateness.late,
            worst_lateness: lateness.worst,
        }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.inner.engine()
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("counters", &self.counters()).finish()
    }
}

/// A set that is watched.
#[derive(Clone, Debug)]
pub struct Watch {
    monitor: Monitor,
    id: ServiceId,
}

impl Watch {
    /// What is known of the set, to be taken up after a restart.
    #[must_use]
    pub fn export(&self) -> Saved {
        self.monitor.engine().export(self.id, Instant::now().into_std())
    }

    /// Takes up what an earlier process [knew](Self::export) of backends of the same names. Best
    /// right after [`Monitor::watch`]: what checks have said since goes before it.
    ///
    /// A backend that was down stays down until its check has passed as often as it must, where one
    /// of which nothing is known would be taken in by its first answer.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if a scheduler cannot use the result.
    pub fn restore(&self, saved: &Saved) -> Result<(), SetError> {
        self.monitor.engine().restore(self.id, saved, Instant::now().into_std())
    }

    /// Ends the watch: the set keeps the health that was last known.
    pub fn stop(&self) {
        self.monitor.engine().remove(self.id);
    }
}

/// What a [`Monitor`] has done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct MonitorCounters {
    /// Probes: addresses times checks, each counted once however many services share it.
    pub probes: usize,
    /// Checks under way.
    pub in_flight: usize,
    /// Checks begun.
    pub checks: u64,
    /// Those that failed by the backend's fault.
    pub failed: u64,
    /// Those that failed because this machine lacked something; see
    /// [`FailureKind::Local`].
    pub local: u64,
    /// Those that began more than a tenth of their interval late.
    pub late: u64,
    /// The longest that one was late.
    pub worst_lateness: Duration,
}

/// An answer, and to which probe.
type Answered = (ProbeId, Result<Report, Failure>);

/// The checks under way.
#[derive(Default)]
struct Jobs {
    tasks: JoinSet<Answered>,
    /// Whose they are: for those that panic.
    probes: HashMap<task::Id, ProbeId>,
}

impl Jobs {
    fn begin(&mut self, job: Job) {
        let id = job.id;
        let task = self.tasks.spawn(ask(job));
        self.probes.insert(task.id(), id);
    }

    /// The next answer; waits for ever if nothing is asked.
    async fn next(&mut self) -> Answered {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(done) => {
                    if let Some(answered) = self.take(done) {
                        return answered;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Another answer that is there.
    fn try_next(&mut self) -> Option<Answered> {
        while let Some(done) = self.tasks.try_join_next_with_id() {
            if let Some(answered) = self.take(done) {
                return Some(answered);
            }
        }
        None
    }

    fn take(&mut self, done: Result<(task::Id, Answered), JoinError>) -> Option<Answered> {
        match done {
            Ok((task, answered)) => {
                self.probes.remove(&task);
                Some(answered)
            }
            Err(error) => {
                let probe = self.probes.remove(&error.id())?;
                Some((probe, Err(Failure::new(FailureKind::Protocol, "the check panicked"))))
            }
        }
    }
}

impl Inner {
    fn engine(&self) -> MutexGuard<'_, Engine> {
        // An engine is whole between any two of its steps.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins what is due, and says when to look again.
    fn turn(&self, jobs: &mut Jobs) -> Option<Instant> {
        let mut engine = self.engine();
        engine.poll(Instant::now().into_std()).into_iter().for_each(|job| jobs.begin(job));
        engine.poll_timeout().map(Instant::from_std)
    }

    /// Takes an answer, and all others that are there: what they change is published as one.
    fn take(&self, first: Answered, jobs: &mut Jobs) {
        let now = Instant::now().into_std();
        let mut engine = self.engine();
        let mut next = Some(first);
        while let Some((id, answer)) = next {
            engine.finish(id, answer, now);
            next = jobs.try_next();
        }
    }
}

/// Makes a check, within its time.
async fn ask(job: Job) -> Answered {
    let Job { id, key, probe } = job;
    let limit = key.timing.timeout;
    let answer = timeout(limit, key.check.run(&probe)).await.unwrap_or_else(|_| {
        let reason = format!("timed out after {limit:?} {}", probe.waits_for());
        Err(Failure::new(FailureKind::Timeout, reason))
    });
    (id, answer)
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}

/// Says, however it ends, that the run has ended.
struct Running<'a>(&'a Inner);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.engine().give_up();
        self.0.running.store(false, Ordering::Release);
    }
}
