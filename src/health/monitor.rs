//! The monitor: the clock and the task that run its core.

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::check_counters::CheckCounters;
use super::events::{HealthEventSender, HealthEvents};
use super::monitor_core::MonitorCore;
use super::plan::{HealthPlan, HealthPlanError};
use super::running_checks::{CompletedCheck, RunningChecks};
use super::saved::SavedHealth;
use super::set_observer::ObservedBackendSet;
use super::watched_service::WatchedServiceId;
use crate::backend::{BackendSet, SetError};
use crate::runtime::{RuntimeError, require_io, require_time};

/// Watches sets: runs their checks and their outlier ejection, and writes the results into the sets.
///
/// It is a cheap handle, and one is enough for a process: services that hold the same address and are
/// watched with clones of one [`TimedCheck`](super::TimedCheck) share a probe. [`run`](Self::run) does
/// the work.
///
/// # Cost
/// A TCP check takes some 30 µs of one core, most of it in the kernel; `cargo bench --bench health`
/// prints the figures of your machine. Memory is some 600 bytes per probe, and a task per check in
/// flight.
///
/// # Examples
/// ```no_run
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::BackendSet;
/// use lvs::health::{HealthPlan, Monitor, TcpCheck, TimedCheck};
///
/// # async fn example(set: BackendSet<SocketAddr>) -> Result<(), Box<dyn std::error::Error>> {
/// let monitor = Monitor::new();
/// let tcp = TimedCheck::new(TcpCheck::new()).interval(Duration::from_secs(1));
/// monitor.watch(&set, HealthPlan::new("web").check(tcp))?;
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

/// What a [`RuntimeError`] calls a monitor.
const PART: &str = "a health monitor";

/// The default limit on checks in flight. Each has a descriptor, and a process often has 1024.
pub(crate) const DEFAULT_MAX_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(512).unwrap();

impl Default for Monitor {
    fn default() -> Self {
        Self::new()
    }
}

impl Monitor {
    /// Creates a monitor that watches no set.
    #[must_use]
    pub fn new() -> Self {
        Self::with_sender(HealthEventSender::new(None))
    }

    /// Creates a monitor that calls a function with each event, in order and without loss. The function
    /// runs within the publication of the set, and must not change a set.
    #[cfg(feature = "director")]
    pub(crate) fn with_event_observer(
        observe: impl Fn(&super::HealthEvent) + Send + Sync + 'static,
    ) -> Self {
        Self::with_sender(HealthEventSender::new(Some(Arc::new(observe))))
    }

    fn with_sender(events: HealthEventSender) -> Self {
        let shared = MonitorShared {
            core: Mutex::new(MonitorCore::new(DEFAULT_MAX_IN_FLIGHT, fastrand::u64(..))),
            events,
            wakeup: Arc::new(Notify::new()),
            running: AtomicBool::new(false),
            shut_down: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sets how many checks may be in flight at a time, each with a descriptor. Further checks wait,
    /// and [count](MonitorCounters::late_checks) as late. Default: 512.
    ///
    /// Checks that are in flight above a lowered limit are not cancelled.
    pub fn set_max_in_flight(&self, checks: NonZeroUsize) {
        self.lock_core().set_max_in_flight(checks);
        self.shared.wakeup.notify_one();
    }

    /// Watches a set, and follows changes of its members.
    ///
    /// The checks set health and [agent overrides](crate::backend::AgentOverride), never the admin
    /// state or the weight that the operator sets. Members are checked at the address of their
    /// [`Spec`](crate::Spec); a member without an address (or without a port, if the check has none
    /// either) is not checked and keeps its health, which an
    /// [event](super::HealthEventKind::NotChecked) reports. Quiesced, draining and disabled members are checked too, so that their
    /// health is known when they return to service. Until the first result a member has the health of
    /// [`TimedCheck::init`](super::TimedCheck::init), from the moment that this returns.
    ///
    /// The set stays watched until [`WatchHandle::stop`], even if the returned handle is dropped.
    ///
    /// # Errors
    /// [`HealthPlanError`] names the first setting that is out of range, or the first backend of a set
    /// of which a check can check none. An empty set can be watched.
    pub fn watch<T: Send + Sync + 'static>(
        &self,
        set: &BackendSet<T>,
        plan: HealthPlan,
    ) -> Result<WatchHandle, HealthPlanError> {
        self.watch_again(set, plan, None)
    }

    /// Watches a set that was watched before, with what the earlier watch has
    /// [found out](WatchHandle::export).
    pub(crate) fn watch_again<T: Send + Sync + 'static>(
        &self,
        set: &BackendSet<T>,
        plan: HealthPlan,
        known: Option<&SavedHealth>,
    ) -> Result<WatchHandle, HealthPlanError> {
        plan.validate()?;
        plan.validate_addresses(set)?;
        let wakeup = Arc::clone(&self.shared.wakeup);
        let wake_monitor = move || wakeup.notify_one();
        let events = self.shared.events.clone();
        let watched = ObservedBackendSet::new(set, plan, events, wake_monitor);
        let now = Instant::now().into_std();
        let service_id = self.lock_core().insert(Arc::new(watched), known, now);
        self.shared.wakeup.notify_one();
        Ok(WatchHandle { monitor: self.clone(), service_id })
    }

    /// Returns a reader of the events of all watched sets from now on. See [`Events`](crate::events::Events).
    #[must_use]
    pub fn events(&self) -> HealthEvents {
        self.shared.events.subscribe()
    }

    /// Runs the checks until [`shutdown`](Self::shutdown). Dropping the future stops at once and
    /// cancels the checks in flight; the monitor can be run again.
    ///
    /// Returns at once if the monitor runs already.
    ///
    /// # Errors
    /// [`RuntimeError`] if the tokio runtime was built without I/O or without time. No check has run
    /// then, and every set keeps its health.
    pub fn run(&self) -> impl Future<Output = Result<(), RuntimeError>> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            if let Err(error) = require_time(PART).and_then(|()| require_io(PART)) {
                error!("{error}");
                return Err(error);
            }
            if shared.running.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
            let _guard = MonitorRunGuard(&shared);
            let mut checks = RunningChecks::default();
            while !shared.shut_down.load(Ordering::Acquire) {
                let next = shared.start_due_checks(&mut checks);
                tokio::select! {
                    // Results come before the clock: a result that has arrived is in time.
                    biased;
                    () = shared.wakeup.notified() => {}
                    first = checks.next() => shared.apply_results(first, &mut checks),
                    () = sleep_until_or_forever(next) => {}
                }
            }
            Ok(())
        }
    }

    /// Ends [`run`](Self::run). The sets keep their last health.
    pub fn shutdown(&self) {
        self.shared.shut_down.store(true, Ordering::Release);
        self.shared.wakeup.notify_one();
    }

    /// Returns the counters of the checks and of their punctuality.
    #[must_use]
    pub fn counters(&self) -> MonitorCounters {
        let core = self.lock_core();
        let stats = core.stats();
        MonitorCounters {
            probes: core.probe_count(),
            in_flight: core.in_flight(),
            checks_started: stats.started,
            backend_failures: core.failure_counts().backend,
            local_failures: core.failure_counts().local,
            late_checks: stats.late,
            max_lateness: stats.max_lateness,
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

/// A handle to a watched set.
#[derive(Clone, Debug)]
pub struct WatchHandle {
    monitor: Monitor,
    service_id: WatchedServiceId,
}

impl WatchHandle {
    /// Returns the knowledge about the set, for [`restore`](Self::restore) after a restart.
    #[must_use]
    pub fn export(&self) -> SavedHealth {
        self.monitor.lock_core().export(self.service_id, Instant::now().into_std())
    }

    /// Restores what an earlier process [exported](Self::export), for backends of the same names. Call
    /// it right after [`Monitor::watch`]: results of checks since then take precedence, unless the saved
    /// one is newer by more than a second ([`SavedHealth::aged_by`]).
    ///
    /// A restored backend that was down stays down until its check has passed
    /// [`rise`](super::TimedCheck::rise) times; a backend without knowledge has its
    /// [initial health](super::InitialHealth).
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if a scheduler cannot use the result.
    pub fn restore(&self, saved: &SavedHealth) -> Result<(), SetError> {
        self.monitor.lock_core().restore(self.service_id, saved, Instant::now().into_std())
    }

    /// Returns how many results each check of each backend had, and how many were failures; those of
    /// several checks of one name are added up. Sorted by backend and check.
    ///
    /// A check that services share counts for each of them. The counters start anew when the set is
    /// watched anew, and when the address of a backend changes.
    #[must_use]
    pub fn check_counters(&self) -> Vec<CheckCounters> {
        self.monitor.lock_core().check_counters(self.service_id)
    }

    /// Ends the watch. The set keeps its last health.
    pub fn stop(&self) {
        self.monitor.lock_core().remove(self.service_id);
    }
}

/// The counters of a [`Monitor`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct MonitorCounters {
    /// Probes: pairs of address and check, each counted once, even if several services share it.
    pub probes: usize,
    /// Checks in flight.
    pub in_flight: usize,
    /// Checks started.
    pub checks_started: u64,
    /// Checks that failed because of the backend.
    pub backend_failures: u64,
    /// Checks that failed because this machine lacked something; see
    /// [`CheckFailureKind::Local`](super::CheckFailureKind::Local).
    pub local_failures: u64,
    /// Checks that started late by more than a tenth of their interval.
    pub late_checks: u64,
    /// The largest delay of a start.
    pub max_lateness: Duration,
}

impl MonitorShared {
    fn lock_core(&self) -> MutexGuard<'_, MonitorCore> {
        // The core is consistent between any two of its steps, even after a panic.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the checks that are due, and returns when to call this again.
    fn start_due_checks(&self, checks: &mut RunningChecks) -> Option<Instant> {
        let mut core = self.lock_core();
        core.poll(Instant::now().into_std()).into_iter().for_each(|job| checks.spawn(job));
        core.poll_timeout().map(Instant::from_std)
    }

    /// Applies a result and all others that have arrived, so that they are published together.
    fn apply_results(&self, first: CompletedCheck, checks: &mut RunningChecks) {
        let now = Instant::now().into_std();
        let mut core = self.lock_core();
        let mut next = Some(first);
        while let Some((id, result)) = next {
            core.handle_result(id, result, now);
            next = checks.try_next();
        }
    }
}

async fn sleep_until_or_forever(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Marks the end of a run when it is dropped, also if the run was cancelled.
struct MonitorRunGuard<'a>(&'a MonitorShared);

impl Drop for MonitorRunGuard<'_> {
    fn drop(&mut self) {
        self.0.lock_core().reschedule_in_flight();
        self.0.running.store(false, Ordering::Release);
    }
}
