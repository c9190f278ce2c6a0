//! How flows leave a backend that refuses or went out of service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::{Flows, Upstream};
use crate::backend::{Snapshot, State};
use crate::forward::udp::counters::{End, Shed, add};
use crate::forward::udp::table::FlowId;
use crate::{Flow, Outcome};

/// How many flows are moved off a dead backend before traffic has its turn again.
const MOVES_AT_ONCE: usize = 64;

impl Flows {
    /// The backend of a flow cannot be reached: moves the flow to another one. `false` if it ended.
    pub(in crate::forward::udp) fn fail(
        &mut self,
        id: FlowId,
        error: &io::Error,
        now: Instant,
    ) -> bool {
        add(&self.tally.server_errors, 1);
        let Some(key) = self.table.key(id).copied() else { return false };
        let blank = self.flow((key.client, key.local), now);
        let Some(upstream) = self.table.get_mut(id) else { return false };
        add(&upstream.tally.errors, 1);
        let mut flow = match upstream.tried.take() {
            Some(flow) => flow.at(now),
            None => blank,
        };
        let Some(lease) = upstream.lease.take() else {
            self.report(key.serial);
            self.end(id, End::Unreachable);
            return false;
        };
        debug!(client = %key.client, backend = %lease.id(), %error, "backend refuses a flow");
        flow.exclude(lease.backend());
        lease.complete(Outcome::ConnectError);
        upstream.refusals += 1;
        if upstream.refusals >= self.settings.attempts {
            self.end(id, End::Unreachable);
            return false;
        }
        self.settle(id, flow, now).is_ok()
    }

    /// Gives a flow that has lost its backend another one, or ends it.
    fn settle(&mut self, id: FlowId, mut flow: Flow, now: Instant) -> Result<(), Shed> {
        let dialled = match self.dial(&mut flow, now) {
            Ok(dialled) => dialled,
            Err(why) => {
                let unreachable = flow.is_retry();
                self.end(id, if unreachable { End::Unreachable } else { End::NoBackend });
                return Err(why);
            }
        };
        let tally = self.tally.backend(dialled.serial, dialled.lease.id());
        let Some(upstream) = self.table.get_mut(id) else { return Err(Shed::Damaged) };
        debug!(backend = %dialled.lease.id(), "flow moves");
        self.tally.live.turn(upstream.listed, dialled.lease.backend());
        upstream.socket = dialled.socket;
        upstream.lease = Some(dialled.lease);
        upstream.serial = dialled.serial;
        upstream.tally = tally;
        upstream.stale = false;
        upstream.coalescing = false;
        upstream.tried = flow.is_retry().then(|| Box::new(flow));
        add(&upstream.tally.started, 1);
        add(&self.tally.moved, 1);
        if self.watch(id).is_err() {
            self.end(id, End::NoBackend);
            return Err(Shed::NoResources);
        }
        Ok(())
    }

    /// Looks whether the set has changed, and marks the flows of backends that went out of service.
    pub(in crate::forward::udp) fn refresh(&mut self) {
        self.picks.refresh();
        let snapshot = Arc::clone(self.picks.snapshot());
        if snapshot.generation() == self.generation {
            return;
        }
        self.generation = snapshot.generation();
        self.tally.forget_backends(|serial| snapshot.members().position(serial).is_some());
        if self.settings.one_packet {
            return;
        }
        let gone = |upstream: &Upstream| !serves(&snapshot, upstream.serial);
        let stale: Vec<FlowId> =
            self.table.iter().filter(|(_, it)| gone(it)).map(|(id, _)| id).collect();
        for id in &stale {
            if let Some(upstream) = self.table.get_mut(*id) {
                upstream.stale = true;
            }
        }
        self.stale = stale;
    }

    /// Moves some of the marked flows; `false` when none are left.
    pub(in crate::forward::udp) fn move_stale(&mut self, now: Instant) -> bool {
        for _ in 0..MOVES_AT_ONCE {
            let Some(id) = self.stale.pop() else { return false };
            if self.table.get(id).is_some_and(|it| it.stale) {
                self.leave_stale(id, now);
            }
        }
        !self.stale.is_empty()
    }

    pub(super) fn leave_stale(&mut self, id: FlowId, now: Instant) {
        let Some(key) = self.table.key(id).copied() else { return };
        let flow = self.flow((key.client, key.local), now);
        // The old lease first: its place may be the only free one.
        if let Some(upstream) = self.table.get_mut(id) {
            upstream.lease = None;
        }
        let _ = self.settle(id, flow, now);
    }
}

/// Tells whether a backend keeps the flows it has.
fn serves(snapshot: &Snapshot<SocketAddr>, serial: u64) -> bool {
    let position = snapshot.members().position(serial);
    position.is_some_and(|position| {
        let state = snapshot.members()[position].state();
        !state.is_unhealthy() && state != State::Disabled
    })
}
