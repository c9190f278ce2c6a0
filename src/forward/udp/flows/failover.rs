//! Moves of flows from a backend that refuses datagrams or went out of service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::{ConnectedServer, FlowKey, Upstream, WorkerFlows};
use crate::backend::{BackendState, Snapshot};
use crate::forward::counters::add_relaxed;
use crate::forward::udp::counters::{FlowEndReason, ShedReason};
use crate::forward::udp::flow_table::FlowId;
use crate::{Flow, Lease, Outcome};

/// The maximum number of flows moved in one round of the worker, so that moves do not delay
/// traffic.
const MAX_MOVES_PER_ROUND: usize = 64;

impl WorkerFlows {
    /// Moves a flow to another backend after an error of its backend; `false` if the flow ended.
    pub(in crate::forward::udp) fn fail_over(
        &mut self,
        id: FlowId,
        error: &io::Error,
        now: Instant,
    ) -> bool {
        add_relaxed(&self.metrics.server_errors, 1);
        let Some(key) = self.table.key(id).copied() else { return false };
        let new_flow = self.scheduler_flow(key.client, key.local, now);
        let Some(upstream) = self.table.get_mut(id) else { return false };
        add_relaxed(&upstream.metrics.errors, 1);
        let mut flow = match upstream.retry_flow.take() {
            Some(flow) => flow.time(now),
            None => new_flow,
        };
        let Some(lease) = upstream.lease.take() else {
            self.report_refusal(key.backend_serial);
            self.end_flow(id, FlowEndReason::Unreachable);
            return false;
        };
        debug!(
            "service {}: backend {} refused a datagram of client {}: {error}",
            self.context.settings.name,
            lease.id(),
            key.client
        );
        flow.exclude(lease.backend());
        lease.complete(Outcome::ConnectError);
        upstream.refusals += 1;
        let connected = match upstream.refusals >= self.context.settings.options.attempts {
            true => self.connect_sorry_server(),
            false => self.connect_any_server(&mut flow, now),
        };
        self.assign_server(id, connected, flow).is_ok()
    }

    /// Assigns another server to a flow, or ends the flow if none could be connected to.
    fn assign_server(
        &mut self,
        id: FlowId,
        connected: Result<ConnectedServer, ShedReason>,
        flow: Flow,
    ) -> Result<(), ShedReason> {
        let connected = match connected {
            Ok(connected) => connected,
            Err(shed_reason) => {
                let end_reason = match flow.view().is_retry() {
                    true => FlowEndReason::Unreachable,
                    false => FlowEndReason::NoBackend,
                };
                self.end_flow(id, end_reason);
                return Err(shed_reason);
            }
        };
        let backend_serial = connected.backend_serial();
        let ConnectedServer { socket, lease } = connected;
        let metrics = self.server_metrics(lease.as_ref());
        let Some(FlowKey { client, .. }) = self.table.key(id).copied() else {
            return Err(ShedReason::Damaged);
        };
        let Some(upstream) = self.table.get_mut(id) else { return Err(ShedReason::Damaged) };
        debug!(
            "service {}: the flow of client {client} moves from server {} to {}",
            self.context.settings.name, upstream.metrics.id, metrics.id
        );
        self.metrics.live.set_backend(upstream.live_entry, lease.as_ref().map(Lease::backend));
        upstream.socket = socket;
        upstream.lease = lease;
        upstream.backend_serial = backend_serial;
        upstream.metrics = metrics;
        upstream.stale = false;
        upstream.coalescing = false;
        upstream.retry_flow = flow.view().is_retry().then(|| Box::new(flow));
        add_relaxed(&upstream.metrics.started, 1);
        add_relaxed(&self.metrics.moved, 1);
        if self.register_socket(id).is_err() {
            self.end_flow(id, FlowEndReason::NoBackend);
            return Err(ShedReason::NoResources);
        }
        Ok(())
    }

    /// Updates the snapshot of the set, and marks the flows of backends that went out of service.
    pub(in crate::forward::udp) fn refresh_snapshot(&mut self) {
        self.picker.refresh();
        let snapshot = Arc::clone(self.picker.snapshot());
        if snapshot.generation() == self.generation {
            return;
        }
        self.generation = snapshot.generation();
        self.metrics
            .forget_backends(|serial| snapshot.members().position_of_serial(serial).is_some());
        if self.context.settings.options.one_packet {
            return;
        }
        let is_stale = |upstream: &Upstream| !keeps_flows(&snapshot, upstream.backend_serial);
        let stale_flows: Vec<FlowId> = self
            .table
            .iter()
            .filter(|(_, upstream)| is_stale(upstream))
            .map(|(id, _)| id)
            .collect();
        for id in &stale_flows {
            if let Some(upstream) = self.table.get_mut(*id) {
                upstream.stale = true;
            }
        }
        self.stale_flows = stale_flows;
    }

    /// Moves some of the marked flows; `false` if none are left.
    pub(in crate::forward::udp) fn move_stale_flows(&mut self, now: Instant) -> bool {
        for _ in 0..MAX_MOVES_PER_ROUND {
            let Some(id) = self.stale_flows.pop() else { return false };
            if self.table.get(id).is_some_and(|upstream| upstream.stale) {
                self.move_stale_flow(id, now);
            }
        }
        !self.stale_flows.is_empty()
    }

    pub(super) fn move_stale_flow(&mut self, id: FlowId, now: Instant) {
        let Some(key) = self.table.key(id).copied() else { return };
        let mut flow = self.scheduler_flow(key.client, key.local, now);
        // Ends the old lease first: a limit may leave its slot as the only free one.
        if let Some(upstream) = self.table.get_mut(id) {
            upstream.lease = None;
        }
        let connected = self.connect_any_server(&mut flow, now);
        let _ = self.assign_server(id, connected, flow);
    }
}

/// Returns whether a backend keeps its existing flows.
fn keeps_flows(snapshot: &Snapshot<SocketAddr>, serial: u64) -> bool {
    let position = snapshot.members().position_of_serial(serial);
    position.is_some_and(|position| {
        let state = snapshot.members()[position].state();
        !state.is_unhealthy() && state != BackendState::Disabled
    })
}
