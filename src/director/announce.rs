//! The director's announcements: it tells the announcer which addresses have healthy services, passes an operator's mode
//! on, and publishes what the announcer reports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::config::AnnounceConfig;
use super::error::DirectorError;
use super::event_log::EventLog;
use super::events::{AnnounceModeEvent, ChangeOrigin, DirectorEvent};
use super::registry::ServiceRegistry;
use super::supervisor::TaskSupervisor;
use super::time::tokio_now;
use crate::announce::{AnnounceEvents, AnnounceMode, AnnounceStatus, Announcer, AnnouncerConfig};
use crate::sync::{Mutex, lock};

/// The name of the announcer's thread among the tasks.
const ANNOUNCE_TASK: &str = "announcements";
/// How often the health of the services is read.
const READ_INTERVAL: Duration = Duration::from_millis(100);
/// How often the announcer is told of health that has not changed: of an address that a reload has removed and added it
/// knows nothing any more.
const UNCHANGED_TICKS: u32 = 10;
/// How long a check may have no result before its service counts as one without quorum.
const MAX_VERDICT_WAIT: Duration = Duration::from_secs(30);

/// The announcements that run, if any. A clone is another handle on the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct AnnounceSlot(Arc<Mutex<Option<RunningAnnouncer>>>);

#[derive(Clone, Debug)]
struct RunningAnnouncer {
    announcer: Arc<Announcer>,
    config: AnnouncerConfig,
    mode: AnnounceMode,
}

impl AnnounceSlot {
    /// Returns the status, if there are announcements; it waits for their thread, for a second at most.
    pub(super) fn status(&self) -> Option<AnnounceStatus> {
        let RunningAnnouncer { announcer, config, mode } = self.running()?;
        Some(announcer.status().unwrap_or_else(|| AnnounceStatus::without_answer(mode, &config)))
    }

    /// Sets an operator's mode, and returns when the routes are changed.
    pub(super) fn set_mode(
        &self,
        mode: AnnounceMode,
        origin: ChangeOrigin,
        log: &EventLog,
    ) -> Result<(), DirectorError> {
        let announcer = {
            let mut slot = lock(&self.0);
            let running = slot.as_mut().ok_or(DirectorError::NoAnnouncements)?;
            running.mode = mode;
            Arc::clone(&running.announcer)
        };
        announcer.set_mode(mode)?;
        let event = AnnounceModeEvent { at: SystemTime::now(), mode, origin };
        log.publish(DirectorEvent::AnnounceMode(event));
        Ok(())
    }

    /// Makes the announcer's thread panic.
    #[cfg(test)]
    pub(super) fn panic_thread(&self) {
        self.running().expect("announcements").announcer.panic_thread();
    }

    fn running(&self) -> Option<RunningAnnouncer> {
        lock(&self.0).clone()
    }

    /// Starts the announcer again if its thread has panicked; its interface is gone then, and the routes with it.
    fn restart_if_ended(&self, last_error: &mut String) -> Option<AnnounceEvents> {
        let running = self.running().filter(|running| running.announcer.has_ended())?;
        let announcer = match Announcer::start(running.config.clone()) {
            Ok(announcer) => Arc::new(announcer),
            Err(error) => {
                let error = error.to_string();
                if *last_error != error {
                    tracing::error!("[announce]: {error}; the director tries again");
                    *last_error = error;
                }
                return None;
            }
        };
        let events = announcer.events();
        if let Err(error) = announcer.set_mode(running.mode) {
            tracing::error!("[announce]: the mode {} may not be set: {error}", running.mode);
        }
        let mut slot = lock(&self.0);
        // Unless it was stopped meanwhile.
        let current = slot.as_mut().filter(|it| Arc::ptr_eq(&it.announcer, &running.announcer))?;
        current.announcer = announcer;
        Some(events)
    }
}

/// Announcements that run. Dropped, they end at once.
#[derive(Debug)]
pub(super) struct AnnounceDriver {
    slot: AnnounceSlot,
    /// A predecessor has the same routes, and goes on with them if this director fails to start.
    shares_routes: bool,
    withdraw_delay: Duration,
    _following: AbortOnDropHandle<()>,
}

/// An announcer that announces nothing yet. Dropped, it ends, and leaves the routes of a predecessor.
#[derive(Debug)]
pub(super) struct PreparedAnnouncer(Option<RunningAnnouncer>);

impl PreparedAnnouncer {
    /// Starts an announcer without health.
    pub(super) fn start(config: &AnnounceConfig, drain: Duration) -> Result<Self, DirectorError> {
        let config = config.announcer(drain);
        let announcer = Arc::new(Announcer::start(config.clone())?);
        let mode = AnnounceMode::default();
        Ok(Self(Some(RunningAnnouncer { announcer, config, mode })))
    }
}

impl Drop for PreparedAnnouncer {
    fn drop(&mut self) {
        // Unless a driver has it.
        if let Some(running) = &self.0 {
            running.announcer.leave();
        }
    }
}

impl AnnounceDriver {
    /// Makes a prepared announcer follow the health of the services. With a predecessor the routes are that one's until
    /// [`take_over`](Self::take_over).
    pub(super) fn start(
        mut prepared: PreparedAnnouncer,
        withdraw_delay: Duration,
        has_predecessor: bool,
        slot: &AnnounceSlot,
        (registry, supervisor): (&ServiceRegistry, &TaskSupervisor),
    ) -> Self {
        supervisor.register(ANNOUNCE_TASK);
        let running = prepared.0.take();
        if let Some(running) = &running {
            // The predecessor decides until this director serves in its place.
            running.announcer.pause(has_predecessor);
        }
        *lock(&slot.0) = running;
        let (followed, registry) = (slot.clone(), registry.clone());
        let counted = supervisor.clone();
        let following = supervisor.spawn("announced health", move || {
            let (slot, registry, supervisor) =
                (followed.clone(), registry.clone(), counted.clone());
            HealthFollower::new(slot, registry, supervisor).run()
        });
        let slot = slot.clone();
        Self { slot, shares_routes: has_predecessor, withdraw_delay, _following: following }
    }

    /// Changes to another configuration; addresses that stay keep their routes.
    pub(super) fn reconfigure(
        &mut self,
        config: &AnnounceConfig,
        drain: Duration,
    ) -> Result<(), DirectorError> {
        self.withdraw_delay = config.withdraw_delay();
        let config = config.announcer(drain);
        let Some(running) = self.slot.running() else { return Ok(()) };
        running.announcer.reconfigure(config.clone())?;
        // The health of new addresses is reported after the announcer knows them.
        if let Some(running) = lock(&self.slot.0).as_mut() {
            running.config = config;
        }
        Ok(())
    }

    /// Removes what a predecessor announced that had other addresses: this director serves in its place.
    pub(super) fn take_over(&mut self) {
        self.shares_routes = false;
        if let Some(running) = self.slot.running() {
            running.announcer.take_over();
        }
    }

    /// Leaves the announcements as they are while a successor starts, or continues to follow health.
    pub(super) fn pause(&self, is_paused: bool) {
        if let Some(running) = self.slot.running() {
            running.announcer.pause(is_paused);
        }
    }

    /// Leaves the announcements to a successor.
    pub(super) async fn leave(self) {
        self.end(Announcer::leave).await;
    }

    /// Withdraws all addresses, which serve on, and waits until routers have turned to other directors, or until
    /// `cancelled` is ready; returns whether it was. Without an announcement there is no wait.
    pub(super) async fn withdraw(&self, cancelled: impl Future<Output = ()>) -> bool {
        let Some(running) = self.slot.running().filter(|_| !self.shares_routes) else {
            return false;
        };
        let announcer = running.announcer;
        let withdrawn = spawn_blocking(move || {
            // Without an answer it is not known whether there is an announcement.
            let was_announced = announcer.status().is_none_or(|status| {
                status.addresses.iter().any(|address| address.metric.is_some())
            });
            if let Err(error) = announcer.set_mode(AnnounceMode::Withdraw) {
                tracing::error!("[announce]: the addresses may not be withdrawn: {error}");
            }
            was_announced
        });
        let delay = self.withdraw_delay;
        if !withdrawn.await.unwrap_or(true) || delay.is_zero() {
            return false;
        }
        tracing::info!("[announce]: the addresses are withdrawn; serving on for {delay:?}");
        tokio::select! {
            () = tokio::time::sleep(delay) => false,
            () = cancelled => true,
        }
    }

    /// Removes all routes, but those of a predecessor that goes on.
    pub(super) async fn stop(self) {
        let shares_routes = self.shares_routes;
        self.end(move |announcer| match shares_routes {
            true => announcer.leave(),
            false => announcer.stop(),
        })
        .await;
    }

    /// Withdraws all addresses, for which the kernel accepts packets for some time, so that open connections may end.
    pub(super) async fn retire(self, drain: Duration) {
        let Some(RunningAnnouncer { announcer, .. }) = lock(&self.slot.0).take() else { return };
        let retired = Arc::clone(&announcer);
        let withdrawn = spawn_blocking(move || retired.set_mode(AnnounceMode::Withdraw));
        if !matches!(withdrawn.await, Ok(Ok(()))) {
            // Dropped, it removes all.
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(drain).await;
            // Another one may announce the same addresses by now. The interface ends with the last.
            let _ = spawn_blocking(move || announcer.leave()).await;
        });
    }

    async fn end(self, end: impl FnOnce(&Announcer) + Send + 'static) {
        let running = lock(&self.slot.0).take();
        if let Some(running) = running {
            // If that panics, the interface ends with the announcer.
            let _ = spawn_blocking(move || end(&running.announcer)).await;
        }
    }
}

impl Drop for AnnounceDriver {
    fn drop(&mut self) {
        let running = lock(&self.slot.0).take();
        if let Some(running) = running.filter(|_| self.shares_routes) {
            running.announcer.leave();
        }
    }
}

/// Reads the health of the services of each address, and tells the announcer of changes.
struct HealthFollower {
    slot: AnnounceSlot,
    registry: ServiceRegistry,
    supervisor: TaskSupervisor,
    /// What the announcer knows.
    reported: BTreeMap<IpAddr, bool>,
    /// The addresses whose health has been known.
    known: BTreeSet<IpAddr>,
    /// Since when the health of an address is not known.
    waits_since: BTreeMap<IpAddr, Instant>,
}

impl HealthFollower {
    fn new(slot: AnnounceSlot, registry: ServiceRegistry, supervisor: TaskSupervisor) -> Self {
        let (reported, known, waits_since) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { slot, registry, supervisor, reported, known, waits_since }
    }

    /// Follows until the announcements end.
    async fn run(mut self) {
        let Some(running) = self.slot.running() else { return };
        let mut events = running.announcer.events();
        drop(running);
        let log = self.registry.events().clone();
        let mut tick = tokio::time::interval(READ_INTERVAL);
        let mut ticks = 0_u32;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => log.publish(DirectorEvent::Announce(event)),
                    Some(Err(missed)) => tracing::warn!("[announce]: {missed}"),
                    None => match self.restart_announcer().await {
                        Some(restarted) => events = restarted,
                        None => return,
                    },
                },
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(UNCHANGED_TICKS) {
                        self.reported.clear();
                    }
                    self.report();
                }
            }
        }
    }

    /// Starts an announcer again that has ended by itself; `None` if it was stopped.
    async fn restart_announcer(&mut self) -> Option<AnnounceEvents> {
        self.slot.running()?;
        let mut last_error = String::new();
        self.supervisor.record_panic(ANNOUNCE_TASK, "its thread has ended");
        loop {
            self.slot.running()?;
            // A thread that ends each time must not use up a core.
            tokio::time::sleep(super::supervisor::RESTART_DELAY).await;
            if let Some(events) = self.slot.restart_if_ended(&mut last_error) {
                self.reported.clear();
                return Some(events);
            }
        }
    }

    /// Tells the announcer what has changed.
    fn report(&mut self) {
        let Some(running) = self.slot.running() else { return };
        let now = tokio_now();
        let is_configured = |address: &IpAddr| running.config.addresses().any(|it| it == *address);
        self.known.retain(is_configured);
        self.waits_since.retain(|address, _| is_configured(address));
        for address in running.config.addresses() {
            let health = self.registry.address_health(address, self.known.contains(&address));
            let is_healthy = match health {
                Some(is_healthy) => {
                    self.waits_since.remove(&address);
                    is_healthy
                }
                None => {
                    let since = *self.waits_since.entry(address).or_insert(now);
                    if now.saturating_duration_since(since) < MAX_VERDICT_WAIT {
                        continue;
                    }
                    false
                }
            };
            self.known.insert(address);
            if self.reported.insert(address, is_healthy) != Some(is_healthy) {
                running.announcer.set_health(address, is_healthy);
            }
        }
    }
}

impl ServiceRegistry {
    /// Returns whether all services that serve clients of an address have their quorum. `None` while one has none and a
    /// check of it has had no result; before the health `is_known`, also where servers count as up until their checks
    /// have one.
    fn address_health(&self, address: IpAddr, is_known: bool) -> Option<bool> {
        let services = self.services();
        let (listening, others): (Vec<_>, Vec<_>) =
            services.iter().partition(|service| service.listens_on(address));
        // While a reload replaces the services.
        listening.first()?;
        // Those without a listener, to which others lead by server names.
        let led_to: BTreeSet<_> = listening.iter().flat_map(|it| it.led_services()).collect();
        let led_to = others.into_iter().filter(|service| led_to.contains(&service.name));
        let mut is_healthy = true;
        for service in listening.iter().copied().chain(led_to) {
            let has_quorum = service.has_healthy_quorum();
            // All results are looked at only where they count: there may be thousands.
            let is_certain = has_quorum && is_known;
            if !is_certain && !service.has_first_verdicts() {
                return None;
            }
            is_healthy &= has_quorum;
        }
        Some(is_healthy)
    }
}

#[cfg(test)]
mod tests;
