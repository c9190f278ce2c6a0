//! Picking a backend for a flow, and connecting a socket to it.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tracing::debug;

use super::{ConnectedServer, FlowKey, WorkerFlows};
use crate::balancer::PickError;
use crate::forward::counters::add_relaxed;
use crate::forward::errno::{is_forbidden_error, is_local_error};
use crate::forward::udp::counters::ShedReason;
use crate::forward::udp::flow_table::FlowId;
use crate::forward::udp::socket;
use crate::{Flow, Lease, Outcome};

impl WorkerFlows {
    /// Picks a backend and connects a socket to it; tries other backends if that fails, and the sorry
    /// server if no backend is left.
    pub(super) fn connect_any_server(
        &mut self,
        flow: &mut Flow,
        now: Instant,
    ) -> Result<ConnectedServer, ShedReason> {
        for _ in 0..self.context.settings.options.attempts {
            let lease = self.pick_server(flow, now)?;
            if let Some(connected) = self.connect_server(lease, flow)? {
                return Ok(connected);
            }
        }
        self.connect_sorry_server()
    }

    /// Connects a socket to the backend at which the client has a flow of an earlier forwarder; `None`
    /// if there is none, or the backend is not eligible.
    pub(super) fn connect_earlier_server(
        &mut self,
        key: FlowKey,
        flow: &mut Flow,
        now: Instant,
    ) -> Result<Option<ConnectedServer>, ShedReason> {
        let (route, address) = (&self.context.settings.route, self.context.address);
        let local = key.local.map_or(address, |ip| SocketAddr::new(ip, address.port()));
        let earlier = self.context.earlier_flows.take_backend(key.client, local, now);
        let Some(backend) = earlier.filter(|_| route.persistence().is_none()) else {
            return Ok(None);
        };
        let Some(mut lease) = route.balancer().lease_by_id(&backend) else { return Ok(None) };
        lease.set_active(false);
        self.connect_server(Some(lease), flow)
    }

    /// Connects a socket to a leased backend, or without a lease to the sorry server; `None` if the
    /// backend could not be connected to.
    pub(super) fn connect_server(
        &mut self,
        lease: Option<Lease<SocketAddr>>,
        flow: &mut Flow,
    ) -> Result<Option<ConnectedServer>, ShedReason> {
        let Some(lease) = lease else { return self.connect_sorry_server().map(Some) };
        match socket::open_connected(self.context.server_address(*lease.target())) {
            Ok(socket) => Ok(Some(ConnectedServer { socket, lease: Some(lease) })),
            Err(error) => self.record_connect_failure(lease, &error, flow).map(|()| None),
        }
    }

    /// Connects a socket to the sorry server.
    ///
    /// # Errors
    /// [`ShedReason::Unreachable`] also without a sorry server.
    pub(super) fn connect_sorry_server(&mut self) -> Result<ConnectedServer, ShedReason> {
        let sorry_server = self.context.settings.route.sorry_server;
        let address = self.context.server_address(sorry_server.ok_or(ShedReason::Unreachable)?);
        let socket = socket::open_connected(address).map_err(|error| {
            if is_local_error(&error) || is_forbidden_error(&error) {
                return ShedReason::NoResources;
            }
            let name = &self.context.settings.name;
            debug!("service {name}: cannot connect a socket to sorry server {address}: {error}");
            ShedReason::Unreachable
        })?;
        add_relaxed(&self.metrics.sorry_flows, 1);
        Ok(ConnectedServer { socket, lease: None })
    }

    /// Records that no socket could be connected to a backend, and excludes the backend from
    /// `flow`.
    ///
    /// # Errors
    /// [`ShedReason::NoResources`] if the error is a shortage of this machine.
    fn record_connect_failure(
        &mut self,
        lease: Lease<SocketAddr>,
        error: &io::Error,
        flow: &mut Flow,
    ) -> Result<(), ShedReason> {
        if is_local_error(error) || is_forbidden_error(error) {
            return Err(ShedReason::NoResources);
        }
        debug!(
            "service {}: cannot connect a socket to backend {}: {error}",
            self.context.settings.name,
            lease.id()
        );
        add_relaxed(&self.metrics.server_errors, 1);
        let serial = lease.backend().account().serial();
        add_relaxed(&self.metrics.backend_counters(serial, lease.id()).errors, 1);
        flow.exclude(lease.backend());
        lease.complete(Outcome::ConnectError);
        Ok(())
    }

    /// Picks a backend by persistence, if set, or by the balancer; `None` if the sorry server serves,
    /// since no backend can.
    pub(super) fn pick_server(
        &mut self,
        flow: &Flow,
        now: Instant,
    ) -> Result<Option<Lease<SocketAddr>>, ShedReason> {
        match self.pick_backend(flow, now) {
            Ok(mut lease) => {
                lease.set_active(false);
                Ok(Some(lease))
            }
            Err(reason) => {
                let has_sorry_server = self.context.settings.route.sorry_server.is_some();
                let is_sorry = has_sorry_server && reason.is_backend_unavailable();
                if is_sorry { Ok(None) } else { Err(reason) }
            }
        }
    }

    fn pick_backend(&mut self, flow: &Flow, now: Instant) -> Result<Lease<SocketAddr>, ShedReason> {
        let picked = match (self.context.settings.route.persistence(), flow.view().source()) {
            (Some(persistence), Some(_)) => persistence.pick_with_rng(flow, &mut self.rng, now),
            _ => self.picker.pick(flow),
        };
        picked.map_err(|error| match error {
            // After a failed attempt the reason is that backend, not that the scheduler found no
            // other.
            PickError::SchedulerRefused if flow.view().is_retry() => ShedReason::Unreachable,
            error => error.into(),
        })
    }

    /// Reports that a backend refused a datagram whose lease has ended already.
    pub(super) fn report_refusal(&self, serial: u64) {
        let snapshot = self.picker.snapshot();
        let position = snapshot.members().position_of_serial(serial);
        if let Some(backend) = position.and_then(|at| snapshot.backends().get(at))
            && let Some(lease) = self.context.settings.route.balancer().lease_by_id(backend.id())
        {
            lease.complete(Outcome::ConnectError);
        }
    }

    /// Excludes the backend of a flow, which has refused a datagram, from further picks.
    pub(in crate::forward::udp) fn exclude_backend(&self, id: FlowId, flow: &mut Flow) {
        let Some(upstream) = self.table.get(id) else { return };
        let snapshot = self.picker.snapshot();
        let position = snapshot.members().position_of_serial(upstream.backend_serial);
        if let Some(backend) = position.and_then(|at| snapshot.backends().get(at)) {
            flow.exclude(backend);
        }
    }
}
