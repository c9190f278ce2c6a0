//! The thread that holds the routes: a loop over commands, delays, and a look at the routes each second.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::address_routes::{AddressRoutes, LastFailure};
use super::netlink::{HostRoute, HostRouteKind};
use super::routes::AnnounceRoutes;
use super::{
    AnnounceEvent, AnnounceEventKind, AnnounceMode, AnnounceStartError, AnnounceStatus,
    Announcement, AnnouncerConfig,
};
use crate::events::EventSender;

/// How often the routes are looked at, which somebody else may have removed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A command to the thread.
#[derive(Debug)]
pub(super) enum AnnounceCommand {
    /// Set whether the services at an address can serve.
    SetHealth { address: IpAddr, is_healthy: bool },
    /// Set an operator's mode.
    SetMode { mode: AnnounceMode, reply: SyncSender<()> },
    /// Change to another configuration.
    Reconfigure { config: AnnouncerConfig, reply: SyncSender<Result<(), AnnounceStartError>> },
    /// Send the status.
    Status(SyncSender<AnnounceStatus>),
    /// Leave the announcements as they are, or continue.
    #[cfg(feature = "director")]
    Pause(bool),
    /// Decide in place of a predecessor.
    #[cfg(feature = "director")]
    TakeOver,
    /// End, and leave the routes.
    #[cfg(feature = "director")]
    Leave,
    /// Panic, to test what follows.
    #[cfg(all(test, feature = "director"))]
    Panic,
    /// Remove the routes, and end.
    Stop,
}

/// The data of the thread.
#[derive(Debug)]
pub(super) struct AnnounceThread {
    config: AnnouncerConfig,
    mode: AnnounceMode,
    addresses: BTreeMap<IpAddr, AddressRoutes>,
    /// Addresses that were removed, until their local routes are.
    removed: BTreeMap<IpAddr, (AddressRoutes, Instant)>,
    routes: AnnounceRoutes,
    is_paused: bool,
    /// The operation that fails at present and concerns all addresses.
    failure: LastFailure,
    check_at: Instant,
    commands: Receiver<AnnounceCommand>,
    /// The only strong reference: the readers' streams end with the thread.
    events: Arc<EventSender<AnnounceEvent>>,
}

impl AnnounceThread {
    pub(super) fn new(
        config: AnnouncerConfig,
        routes: AnnounceRoutes,
        found: &[HostRoute],
        commands: Receiver<AnnounceCommand>,
        events: Arc<EventSender<AnnounceEvent>>,
    ) -> Self {
        let now = now();
        let addresses = config.addresses.iter().map(|address| {
            let metrics = metrics_of(found, *address, config.route_protocol);
            (*address, AddressRoutes::new(*address, Announcement::new(&config), metrics, now))
        });
        Self {
            addresses: addresses.collect(),
            removed: BTreeMap::new(),
            config,
            mode: AnnounceMode::default(),
            routes,
            is_paused: false,
            failure: LastFailure::default(),
            check_at: now,
            commands,
            events,
        }
    }

    /// Runs until [`AnnounceCommand::Stop`], or until the sender of commands is dropped.
    pub(super) fn run(mut self) {
        loop {
            self.update(now());
            let wait = self.next_deadline().saturating_duration_since(now());
            match self.commands.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                #[cfg(feature = "director")]
                Ok(AnnounceCommand::Leave) => return,
                Ok(AnnounceCommand::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(command) => self.run_command(command, now()),
            }
        }
        let removed = self.removed.values_mut().map(|(address, _)| address);
        for address in self.addresses.values_mut().chain(removed) {
            // If that fails, the interface ends, and the routes with it.
            let _ = address.remove_all(&mut self.routes, self.config.route_protocol);
        }
    }

    fn next_deadline(&self) -> Instant {
        let recoveries = self.addresses.values().filter_map(|it| it.announcement.poll_timeout());
        let removals = self.removed.values().map(|(_, at)| *at);
        recoveries.chain(removals).fold(self.check_at, Instant::min)
    }

    fn run_command(&mut self, command: AnnounceCommand, now: Instant) {
        match command {
            AnnounceCommand::SetHealth { address, is_healthy } => {
                if let Some(address) = self.addresses.get_mut(&address) {
                    address.announcement.set_health(now, is_healthy);
                }
            }
            AnnounceCommand::SetMode { mode, reply } => {
                self.mode = mode;
                for address in self.addresses.values_mut() {
                    address.announcement.set_mode(mode);
                }
                self.update(now);
                let _ = reply.try_send(());
            }
            AnnounceCommand::Reconfigure { config, reply } => {
                let result = self.reconfigure(config, now);
                self.update(now);
                let _ = reply.try_send(result);
            }
            AnnounceCommand::Status(reply) => drop(reply.try_send(self.status(now))),
            #[cfg(feature = "director")]
            AnnounceCommand::Pause(is_paused) => {
                self.is_paused = is_paused;
                // A successor that failed may have removed some.
                self.check_at = now;
            }
            #[cfg(feature = "director")]
            AnnounceCommand::TakeOver => self.take_over(now),
            #[cfg(all(test, feature = "director"))]
            AnnounceCommand::Panic => panic!("a fault of the thread"),
            // Ends the loop that calls this.
            #[cfg(feature = "director")]
            AnnounceCommand::Leave => {}
            AnnounceCommand::Stop => {}
        }
    }

    fn reconfigure(
        &mut self,
        config: AnnouncerConfig,
        now: Instant,
    ) -> Result<(), AnnounceStartError> {
        self.routes.refuse_interface_addresses(&config.addresses)?;
        let protocol = std::mem::replace(&mut self.config, config).route_protocol;
        if protocol != self.config.route_protocol {
            // Those with the old number would be somebody else's.
            let removed = self.removed.values_mut().map(|(address, _)| address);
            for address in self.addresses.values_mut().chain(removed) {
                let failure = address.remove_all(&mut self.routes, protocol).err();
                address.report(failure, &self.events);
            }
        }
        let removal_time = self.removal_time(now);
        let config = &self.config;
        let is_gone = |address: &IpAddr| !config.addresses.contains(address);
        let gone: Vec<_> = self.addresses.keys().copied().filter(is_gone).collect();
        for address in gone {
            let Some(mut routes) = self.addresses.remove(&address) else { continue };
            routes.announcement.set_mode(AnnounceMode::Withdraw);
            self.removed.insert(address, (routes, removal_time));
        }
        for address in &config.addresses {
            let added = || {
                let mut announcement = Announcement::new(config);
                announcement.set_mode(self.mode);
                AddressRoutes::new(*address, announcement, BTreeSet::new(), now)
            };
            // The services at an address that comes back may be others.
            let back = self.removed.remove(address).map(|(mut routes, _)| {
                routes.announcement = Announcement::new(config);
                routes.announcement.set_mode(self.mode);
                routes
            });
            let entry = self.addresses.entry(*address);
            let routes = entry.or_insert_with(|| back.unwrap_or_else(added));
            routes.announcement.reconfigure(config);
        }
        Ok(())
    }

    /// Makes the routes what they are to be. Each second it looks whether they are there.
    fn update(&mut self, now: Instant) {
        let is_check = now >= self.check_at;
        if is_check {
            self.check_at = now + CHECK_INTERVAL;
            self.check_interface();
        }
        let removed = self.removed.values_mut().map(|(address, _)| address);
        for address in self.addresses.values_mut().chain(removed) {
            address.announcement.handle_timeout(now);
            let (routes, config, events) = (&mut self.routes, &self.config, &self.events);
            if !self.is_paused {
                address.publish_change(events, now);
            }
            let result = address.update(routes, config, is_check, self.is_paused, events);
            address.report(result.err(), events);
        }
        let protocol = self.config.route_protocol;
        self.removed.retain(|_, (address, at)| {
            let (is_due, mut has_failed) = (*at <= now, false);
            if is_due {
                let failure = address.remove_all(&mut self.routes, protocol).err();
                // Tried again with the next check.
                *at = self.check_at;
                has_failed = failure.is_some();
                address.report(failure, &self.events);
            }
            !is_due || has_failed
        });
    }

    /// Makes the interface again if somebody removed it.
    fn check_interface(&mut self) {
        let result = self.routes.restore_interface();
        if let Ok(true) = result {
            let removed = self.removed.values_mut().map(|(address, _)| address);
            self.addresses.values_mut().chain(removed).for_each(AddressRoutes::forget_routes);
            self.events.send(AnnounceEvent::new(None, AnnounceEventKind::InterfaceRestored));
        }
        self.failure.report(None, result.err(), &self.events);
    }

    /// Withdraws what a predecessor has announced of other addresses, or with another protocol number, and continues.
    #[cfg(feature = "director")]
    fn take_over(&mut self, now: Instant) {
        let protocol = self.config.route_protocol;
        let mut withdraw = || {
            let found = self.routes.announced()?;
            for route in &found {
                let is_known = self.addresses.contains_key(&route.address);
                if route.protocol != protocol && is_known {
                    self.routes.remove(*route)?;
                    self.routes.remove(HostRoute { kind: HostRouteKind::Local, ..*route })?;
                    // The check that follows adds those with the own number.
                    if let Some(routes) = self.addresses.get_mut(&route.address) {
                        routes.forget_routes();
                    }
                } else if route.protocol == protocol && !is_known {
                    // Its connections may end.
                    let mut announcement = Announcement::new(&self.config);
                    announcement.set_mode(AnnounceMode::Withdraw);
                    let metrics = metrics_of(&found, route.address, protocol);
                    let routes = AddressRoutes::new(route.address, announcement, metrics, now);
                    self.removed.insert(route.address, (routes, self.removal_time(now)));
                }
            }
            Ok(())
        };
        let failure = withdraw().err();
        self.failure.report(None, failure, &self.events);
        (self.is_paused, self.check_at) = (false, now);
    }

    /// Returns when the local route of an address ends that is removed now.
    fn removal_time(&self, now: Instant) -> Instant {
        // The delay is at most a day.
        now + self.config.removal_delay
    }

    fn status(&self, now: Instant) -> AnnounceStatus {
        let mut addresses: Vec<_> = self.addresses.values().map(|it| it.status(now)).collect();
        for address in &mut addresses {
            address.failure = address.failure.take().or_else(|| self.failure.0.clone());
        }
        AnnounceStatus { mode: self.mode, addresses }
    }
}

/// Returns the metrics with which an address is announced.
fn metrics_of(routes: &[HostRoute], address: IpAddr, protocol: u8) -> BTreeSet<u32> {
    let of_address =
        routes.iter().filter(|route| route.address == address && route.protocol == protocol);
    let metrics = of_address.filter_map(|route| match route.kind {
        HostRouteKind::Announcement { metric } => Some(metric),
        HostRouteKind::Local => None,
    });
    metrics.collect()
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this thread reads the clock for announcements")]
    Instant::now()
}
