//! Picking a backend for a flow, and connecting a socket to it.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tracing::debug;

use super::{ConnectedBackend, WorkerFlows};
use crate::balancer::PickError;
use crate::forward::udp::counters::{ShedReason, add_relaxed};
use crate::forward::udp::flow_table::FlowId;
use crate::forward::udp::socket;
use crate::{Flow, Lease, Outcome};

impl WorkerFlows {
    /// Picks a backend and connects a socket to it; tries other backends if that fails.
    pub(super) fn connect_backend(
        &mut self,
        flow: &mut Flow,
        now: Instant,
    ) -> Result<ConnectedBackend, ShedReason> {
        for _ in 0..self.context.settings.options.attempts {
            let mut lease = self.pick_backend(flow, now)?;
            lease.set_active(false);
            match socket::open_connected(self.context.backend_address(&lease)) {
                Ok(socket) => {
                    let backend_serial = lease.backend().account().serial();
                    return Ok(ConnectedBackend { socket, lease, backend_serial });
                }
                Err(error) => self.record_connect_failure(lease, &error, flow)?,
            }
        }
        Err(ShedReason::Unreachable)
    }

    /// Records that no socket could be connected to a backend, and excludes the backend from
    /// `flow`.
    ///
    /// # Errors
    /// [`ShedReason::NoResources`] if the error is a shortage of this machine.
    pub(super) fn record_connect_failure(
        &mut self,
        lease: Lease<SocketAddr>,
        error: &io::Error,
        flow: &mut Flow,
    ) -> Result<(), ShedReason> {
        if socket::is_local_error(error) {
            return Err(ShedReason::NoResources);
        }
        debug!(backend = %lease.id(), %error, "cannot connect a UDP socket to the backend");
        add_relaxed(&self.metrics.server_errors, 1);
        let serial = lease.backend().account().serial();
        add_relaxed(&self.metrics.backend_counters(serial, lease.id()).errors, 1);
        flow.exclude(lease.backend());
        lease.complete(Outcome::ConnectError);
        Ok(())
    }

    /// Picks a backend by persistence, if set, or by the balancer.
    pub(super) fn pick_backend(
        &mut self,
        flow: &Flow,
        now: Instant,
    ) -> Result<Lease<SocketAddr>, ShedReason> {
        let picked = match (&self.context.settings.persistence, flow.view().source()) {
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
            && let Some(lease) = self.context.settings.active_balancer().lease_by_id(backend.id())
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
