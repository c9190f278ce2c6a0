//! The routes of one address, and what is counted of it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::netlink::{HostRoute, HostRouteKind};
use super::routes::{AnnounceRoutes, RouteError};
use super::{
    AnnounceEvent, AnnounceEventKind, AnnouncedAddressStatus, Announcement, AnnouncementState,
    AnnouncerConfig,
};
use crate::events::EventSender;

/// One address with its routes.
#[derive(Debug)]
pub(super) struct AddressRoutes {
    address: IpAddr,
    pub(super) announcement: Announcement,
    /// The state that the last event told.
    state: AnnouncementState,
    since: Instant,
    /// The metrics of its routes of table `main`.
    metrics: BTreeSet<u32>,
    has_local_route: bool,
    changes: u64,
    restored: u64,
    failure: LastFailure,
}

impl AddressRoutes {
    /// `metrics` are those of a predecessor.
    pub(super) fn new(
        address: IpAddr,
        announcement: Announcement,
        metrics: BTreeSet<u32>,
        now: Instant,
    ) -> Self {
        Self {
            address,
            announcement,
            state: AnnouncementState::Pending,
            since: now,
            metrics,
            has_local_route: false,
            changes: 0,
            restored: 0,
            failure: LastFailure::default(),
        }
    }

    /// Publishes a change of the state.
    pub(super) fn publish_change(&mut self, events: &EventSender<AnnounceEvent>, now: Instant) {
        let (to, reason) = (self.announcement.state(), self.announcement.reason());
        let from = std::mem::replace(&mut self.state, to);
        if from != to {
            self.since = now;
            self.changes += 1;
            let kind = AnnounceEventKind::StateChanged { from, to, reason };
            events.send(AnnounceEvent::new(Some(self.address), kind));
        }
    }

    /// Makes the routes what they are to be; with `is_check` it adds those again that somebody else removed. Paused,
    /// only the local route is held.
    pub(super) fn update(
        &mut self,
        routes: &mut AnnounceRoutes,
        config: &AnnouncerConfig,
        is_check: bool,
        is_paused: bool,
        events: &EventSender<AnnounceEvent>,
    ) -> Result<(), RouteError> {
        let mut is_restored = false;
        let mut failure = None;
        if is_check || !self.has_local_route {
            match routes.ensure(self.local_route(config.route_protocol)) {
                Ok(was_missing) => {
                    is_restored |= was_missing && self.has_local_route;
                    self.has_local_route = true;
                }
                Err(error) => {
                    self.has_local_route = false;
                    failure = Some(error);
                }
            }
        }
        if !is_paused && self.state != AnnouncementState::Pending {
            let wanted = match self.state {
                // What comes here would not be accepted.
                _ if !self.has_local_route => None,
                AnnouncementState::Pending | AnnouncementState::Withdrawn => None,
                AnnouncementState::Announced => Some(config.metric),
                AnnouncementState::Draining => Some(config.drain_metric),
                AnnouncementState::LastResort => Some(config.last_resort_metric),
            };
            is_restored |= self.announce(wanted, routes, config.route_protocol, is_check)?;
        }
        if is_restored {
            self.restored += 1;
            let kind = AnnounceEventKind::RouteRestored;
            events.send(AnnounceEvent::new(Some(self.address), kind));
        }
        failure.map_or(Ok(()), Err)
    }

    /// Announces the address with this metric, or not at all, and returns whether somebody else had removed the route.
    fn announce(
        &mut self,
        wanted: Option<u32>,
        routes: &mut AnnounceRoutes,
        protocol: u8,
        is_check: bool,
    ) -> Result<bool, RouteError> {
        let mut is_restored = false;
        // Before the others are removed: the address is announced at each moment.
        if let Some(metric) = wanted {
            let is_known = self.metrics.contains(&metric);
            if is_check || !is_known {
                let was_missing = routes.ensure(self.announcement_route(metric, protocol))?;
                is_restored = was_missing && is_known;
                self.metrics.insert(metric);
            }
        }
        let others: Vec<_> =
            self.metrics.iter().copied().filter(|it| Some(*it) != wanted).collect();
        for metric in others {
            routes.remove(self.announcement_route(metric, protocol))?;
            self.metrics.remove(&metric);
        }
        Ok(is_restored)
    }

    /// Removes all routes.
    pub(super) fn remove_all(
        &mut self,
        routes: &mut AnnounceRoutes,
        protocol: u8,
    ) -> Result<(), RouteError> {
        let announced = self.announce(None, routes, protocol, false);
        self.has_local_route = false;
        announced.and(routes.remove(self.local_route(protocol)))
    }

    /// Takes note that the interface is gone, and the routes by it.
    pub(super) fn forget_routes(&mut self) {
        self.metrics.clear();
        self.has_local_route = false;
    }

    /// Publishes a failure, or the end of one.
    pub(super) fn report(
        &mut self,
        failure: Option<RouteError>,
        events: &EventSender<AnnounceEvent>,
    ) {
        self.failure.report(Some(self.address), failure, events);
    }

    pub(super) fn status(&self, now: Instant) -> AnnouncedAddressStatus {
        let recovers_at = self.announcement.poll_timeout();
        AnnouncedAddressStatus {
            address: self.address,
            state: self.state,
            reason: self.announcement.reason(),
            since: now.saturating_duration_since(self.since),
            metric: self.metrics.first().copied(),
            recovers_in: recovers_at.map(|at| at.saturating_duration_since(now)),
            changes: self.changes,
            restored: self.restored,
            failure: self.failure.0.clone(),
        }
    }

    fn local_route(&self, protocol: u8) -> HostRoute {
        HostRoute { address: self.address, kind: HostRouteKind::Local, protocol }
    }

    fn announcement_route(&self, metric: u32, protocol: u8) -> HostRoute {
        let kind = HostRouteKind::Announcement { metric };
        HostRoute { address: self.address, kind, protocol }
    }
}

/// The operation that fails at present.
#[derive(Debug, Default)]
pub(super) struct LastFailure(pub(super) Option<String>);

impl LastFailure {
    /// Publishes a failure unless it was the last one, and keeps it until there is none.
    pub(super) fn report(
        &mut self,
        address: Option<IpAddr>,
        failure: Option<RouteError>,
        events: &EventSender<AnnounceEvent>,
    ) {
        let Some(RouteError { operation, source }) = failure else {
            self.0 = None;
            return;
        };
        let error = source.to_string();
        let text = format!("cannot {operation}: {error}");
        if self.0.as_ref() != Some(&text) {
            let kind = AnnounceEventKind::OperationFailed { operation, error };
            events.send(AnnounceEvent::new(address, kind));
            self.0 = Some(text);
        }
    }
}
