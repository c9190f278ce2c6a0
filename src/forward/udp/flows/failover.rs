//! How flows leave a backend that refuses or went out of service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::{Upstream, WorkerFlows};
use crate::backend::{BackendState, Snapshot};
use crate::forward::udp::counters::{FlowEndReason, ShedReason, add_relaxed};
use crate::forward::udp::table::FlowId;
use crate::{Flow, Outcome};

/// How many flows are moved off a dead backend before traffic has its turn again.
const MAX_MOVES_PER_ROUND: usize = 64;

impl WorkerFlows {
    /// The backend of a flow cannot be reached: moves the flow to another one. `false` if it ended.
    pub(in crate::forward::udp) fn fail_over(
        &mut self,
        id: FlowId,
        error: &io::Error,
        now: Instant,
    ) -> bool {
        add_relaxed(&self.metrics.server_errors, 1);
        let Some(key) = self.table.key(id).copied() else { return false };
        let blank = self.scheduler_flow((key.client, key.local), now);
        let Some(upstream) = self.table.get_mut(id) else { return false };
        add_relaxed(&upstream.metrics.errors, 1);
        let mut flow = match upstream.retry_flow.take() {
            Some(flow) => flow.time(now),
            None => blank,
        };
        let Some(lease) = upstream.lease.take() else {
            self.report_refusal(key.backend_serial);
            self.end_flow(id, FlowEndReason::Unreachable);
            return false;
        };
        debug!(client = %key.client, backend = %lease.id(), %error, "backend refuses a flow");
        flow.exclude(lease.backend());
        lease.complete(Outcome::ConnectError);
        upstream.refusals += 1;
        if upstream.refusals >= self.settings.attempts {
            self.end_flow(id, FlowEndReason::Unreachable);
            return false;
        }
        self.assign_new_backend(id, flow, now).is_ok()
    }

    /// Gives a flow that has lost its backend another one, or ends it.
    fn assign_new_backend(
        &mut self,
        id: FlowId,
        mut flow: Flow,
        now: Instant,
    ) -> Result<(), ShedReason> {
        let dialled = match self.connect_backend(&mut flow, now) {
            Ok(dialled) => dialled,
            Err(why) => {
                let unreachable = flow.view().is_retry();
                self.end_flow(
                    id,
                    if unreachable { FlowEndReason::Unreachable } else { FlowEndReason::NoBackend },
                );
                return Err(why);
            }
        };
        let tally = self.metrics.backend_counters(dialled.backend_serial, dialled.lease.id());
        let Some(upstream) = self.table.get_mut(id) else { return Err(ShedReason::Damaged) };
        debug!(backend = %dialled.lease.id(), "flow moves");
        self.metrics.live.set_backend(upstream.live_entry, dialled.lease.backend());
        upstream.socket = dialled.socket;
        upstream.lease = Some(dialled.lease);
        upstream.backend_serial = dialled.backend_serial;
        upstream.metrics = tally;
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

    /// Looks whether the set has changed, and marks the flows of backends that went out of service.
    pub(in crate::forward::udp) fn refresh_snapshot(&mut self) {
        self.picker.refresh();
        let snapshot = Arc::clone(self.picker.snapshot());
        if snapshot.generation() == self.generation {
            return;
        }
        self.generation = snapshot.generation();
        self.metrics
            .forget_backends(|serial| snapshot.members().position_of_serial(serial).is_some());
        if self.settings.one_packet {
            return;
        }
        let gone = |upstream: &Upstream| !keeps_flows(&snapshot, upstream.backend_serial);
        let stale: Vec<FlowId> =
            self.table.iter().filter(|(_, it)| gone(it)).map(|(id, _)| id).collect();
        for id in &stale {
            if let Some(upstream) = self.table.get_mut(*id) {
                upstream.stale = true;
            }
        }
        self.stale_flows = stale;
    }

    /// Moves some of the marked flows; `false` when none are left.
    pub(in crate::forward::udp) fn move_stale_flows(&mut self, now: Instant) -> bool {
        for _ in 0..MAX_MOVES_PER_ROUND {
            let Some(id) = self.stale_flows.pop() else { return false };
            if self.table.get(id).is_some_and(|it| it.stale) {
                self.move_stale_flow(id, now);
            }
        }
        !self.stale_flows.is_empty()
    }

    pub(super) fn move_stale_flow(&mut self, id: FlowId, now: Instant) {
        let Some(key) = self.table.key(id).copied() else { return };
        let flow = self.scheduler_flow((key.client, key.local), now);
        // The old lease first: its place may be the only free one.
        if let Some(upstream) = self.table.get_mut(id) {
            upstream.lease = None;
        }
        let _ = self.assign_new_backend(id, flow, now);
    }
}

/// Tells whether a backend keeps the flows it has.
fn keeps_flows(snapshot: &Snapshot<SocketAddr>, serial: u64) -> bool {
    let position = snapshot.members().position_of_serial(serial);
    position.is_some_and(|position| {
        let state = snapshot.members()[position].state();
        !state.is_unhealthy() && state != BackendState::Disabled
    })
}
