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

use super::check::{CheckFailure, CheckFailureKind, CheckReport};
use super::events::{HealthEventSender, HealthEvents};
use super::monitor_core::{CheckJob, MonitorCore, WatchedServiceId};
use super::plan::{HealthPlan, HealthPlanError};
use super::saved::SavedHealth;
use super::timetable::ProbeId;
use super::watched_set::ObservedBackendSet;
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
/// use lvs::health::{Checks, Monitor, HealthPlan, TcpCheck};
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
    shared: Arc<MonitorShared>,
}

struct MonitorShared {
    core: Mutex<MonitorCore>,
    events: HealthEventSender,
    wakeup: Arc<Notify>,
    running: AtomicBool,
    shut_down: AtomicBool,
}

/// The most checks at a time unless told otherwise: each has a descriptor, of which a process often
/// has 1024.
const DEFAULT_MAX_IN_FLIGHT: usize = 512;

impl Default for Monitor {
    fn default() -> Self {
        Self::new()
    }
}

impl Monitor {
    /// A monitor that watches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let inner = MonitorShared {
            core: Mutex::new(MonitorCore::new(DEFAULT_MAX_IN_FLIGHT, fastrand::u64(..))),
            events: HealthEventSender::new(),
            wakeup: Arc::new(Notify::new()),
            running: AtomicBool::new(false),
            shut_down: AtomicBool::new(false),
        };
        Self { shared: Arc::new(inner) }
    }

    /// The most checks that are under way at a time, each with a descriptor; others wait, and
    /// [count](MonitorCounters::late) as late. At least 1. Default: 512.
    #[must_use]
    pub fn max_in_flight(self, checks: usize) -> Self {
        self.lock_core().set_max_in_flight(checks);
        self.shared.wakeup.notify_one();
        self
    }

    /// Watches a set: its members come and go with it.
    ///
    /// The checks set health and [advice](crate::backend::Advice); what the operator wants stays the
    /// operator's. Members are asked at the address of their [`Spec`](crate::Spec); those without
    /// one (or without a port, where the check has none either) are not asked. One that is quiesced,
    /// drained or disabled is asked all the same, so that its health is known when it comes back.
    ///
    /// A set stays watched until [`WatchHandle::stop`], whatever becomes of the handle that is returned.
    ///
    /// # Errors
    /// [`HealthPlanError`] names the setting that cannot be.
    pub fn watch<T: Send + Sync + 'static>(
        &self,
        set: &BackendSet<T>,
        plan: HealthPlan,
    ) -> Result<WatchHandle, HealthPlanError> {
        plan.validate()?;
        let bell = Arc::clone(&self.shared.wakeup);
        let watched = ObservedBackendSet::new(set, plan, self.shared.events.clone(), move || {
            bell.notify_one()
        });
        let id = self.lock_core().insert(Arc::new(watched));
        self.shared.wakeup.notify_one();
        Ok(WatchHandle { monitor: self.clone(), service_id: id })
    }

    /// What happens from now on, in all sets that are watched.
    #[must_use]
    pub fn events(&self) -> HealthEvents {
        self.shared.events.subscribe()
    }

    /// Checks until [`shutdown`](Self::shutdown). Dropping the future stops at once; checks that
    /// are under way are given up, and it may be run again.
    ///
    /// While one run goes on another returns at once.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let inner = Arc::clone(&self.shared);
        async move {
            if inner.running.swap(true, Ordering::AcqRel) {
                return;
            }
            let _running = MonitorRunGuard(&inner);
            let mut jobs = RunningChecks::default();
            while !inner.shut_down.load(Ordering::Acquire) {
                let next = inner.start_due_checks(&mut jobs);
                tokio::select! {
                    // Ahead of the clock: an answer that is there has come in time.
                    biased;
                    () = inner.wakeup.notified() => {}
                    first = jobs.next() => inner.apply_results(first, &mut jobs),
                    () = sleep_until_or_forever(next) => {}
                }
            }
        }
    }

    /// Ends [`run`](Self::run). What was last known stays.
    pub fn shutdown(&self) {
        self.shared.shut_down.store(true, Ordering::Release);
        self.shared.wakeup.notify_one();
    }

    /// What the monitor has done, and how well it keeps its beat.
    #[must_use]
    pub fn counters(&self) -> MonitorCounters {
        let engine = self.lock_core();
        let lateness = engine.stats();
        MonitorCounters {
            probes: engine.probe_count(),
            in_flight: engine.in_flight(),
            checks_started: lateness.started,
            backend_failures: engine.failure_counts().backend,
            local_failures: engine.failure_counts().local,
            late_checks: lateness.late,
            max_lateness: lateness.max_lateness,
        }
    }

    fn lock_core(&self) -> MutexGuard<'_, MonitorCore> {
        self.shared.lock_core()
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("counters", &self.counters()).finish()
    }
}

/// A set that is watched.
#[derive(Clone, Debug)]
pub struct WatchHandle {
    monitor: Monitor,
    service_id: WatchedServiceId,
}

impl WatchHandle {
    /// What is known of the set, to be taken up after a restart.
    #[must_use]
    pub fn export(&self) -> SavedHealth {
        self.monitor.lock_core().export(self.service_id, Instant::now().into_std())
    }

    /// Takes up what an earlier process [knew](Self::export) of backends of the same names. Best
    /// right after [`Monitor::watch`]: what checks have said since goes before it.
    ///
    /// A backend that was down stays down until its check has passed as often as it must, where one
    /// of which nothing is known would be taken in by its first answer.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if a scheduler cannot use the result.
    pub fn restore(&self, saved: &SavedHealth) -> Result<(), SetError> {
        self.monitor.lock_core().restore(self.service_id, saved, Instant::now().into_std())
    }

    /// Ends the watch: the set keeps the health that was last known.
    pub fn stop(&self) {
        self.monitor.lock_core().remove(self.service_id);
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
    pub checks_started: u64,
    /// Those that failed by the backend's fault.
    pub backend_failures: u64,
    /// Those that failed because this machine lacked something; see
    /// [`CheckFailureKind::Local`].
    pub local_failures: u64,
    /// Those that began more than a tenth of their interval late.
    pub late_checks: u64,
    /// The longest that one was late.
    pub max_lateness: Duration,
}

/// An answer, and to which probe.
type CompletedCheck = (ProbeId, Result<CheckReport, CheckFailure>);

/// The checks under way.
#[derive(Default)]
struct RunningChecks {
    tasks: JoinSet<CompletedCheck>,
    /// Whose they are: for those that panic.
    probe_by_task: HashMap<task::Id, ProbeId>,
}

impl RunningChecks {
    fn spawn(&mut self, job: CheckJob) {
        let id = job.probe_id;
        let task = self.tasks.spawn(run_check(job));
        self.probe_by_task.insert(task.id(), id);
    }

    /// The next answer; waits for ever if nothing is asked.
    async fn next(&mut self) -> CompletedCheck {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(done) => {
                    if let Some(answered) = self.finish_task(done) {
                        return answered;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Another answer that is there.
    fn try_next(&mut self) -> Option<CompletedCheck> {
        while let Some(done) = self.tasks.try_join_next_with_id() {
            if let Some(answered) = self.finish_task(done) {
                return Some(answered);
            }
        }
        None
    }

    fn finish_task(
        &mut self,
        done: Result<(task::Id, CompletedCheck), JoinError>,
    ) -> Option<CompletedCheck> {
        match done {
            Ok((task, answered)) => {
                self.probe_by_task.remove(&task);
                Some(answered)
            }
            Err(error) => {
                let probe = self.probe_by_task.remove(&error.id())?;
                Some((
                    probe,
                    Err(CheckFailure::new(CheckFailureKind::Protocol, "the check panicked")),
                ))
            }
        }
    }
}

impl MonitorShared {
    fn lock_core(&self) -> MutexGuard<'_, MonitorCore> {
        // An engine is whole between any two of its steps.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins what is due, and says when to look again.
    fn start_due_checks(&self, jobs: &mut RunningChecks) -> Option<Instant> {
        let mut engine = self.lock_core();
        engine.poll(Instant::now().into_std()).into_iter().for_each(|job| jobs.spawn(job));
        engine.poll_timeout().map(Instant::from_std)
    }

    /// Takes an answer, and all others that are there: what they change is published as one.
    fn apply_results(&self, first: CompletedCheck, jobs: &mut RunningChecks) {
        let now = Instant::now().into_std();
        let mut engine = self.lock_core();
        let mut next = Some(first);
        while let Some((id, answer)) = next {
            engine.handle_result(id, answer, now);
            next = jobs.try_next();
        }
    }
}

/// Makes a check, within its time.
async fn run_check(job: CheckJob) -> CompletedCheck {
    let CheckJob { probe_id: id, key, context: probe } = job;
    let limit = key.timing.timeout;
    let answer = timeout(limit, key.check.run(&probe)).await.unwrap_or_else(|_| {
        let reason = format!("timed out after {limit:?} {}", probe.stage());
        Err(CheckFailure::new(CheckFailureKind::Timeout, reason))
    });
    (id, answer)
}

async fn sleep_until_or_forever(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}

/// Says, however it ends, that the run has ended.
struct MonitorRunGuard<'a>(&'a MonitorShared);

impl Drop for MonitorRunGuard<'_> {
    fn drop(&mut self) {
        self.0.lock_core().reschedule_in_flight();
        self.0.running.store(false, Ordering::Release);
    }
}
