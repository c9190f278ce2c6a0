//! Which backend a flow gets.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tracing::debug;

use super::{Dialled, Flows};
use crate::balancer::PickError;
use crate::forward::udp::counters::{Shed, add};
use crate::forward::udp::socket;
use crate::forward::udp::table::FlowId;
use crate::{Flow, Lease, Outcome};

impl Flows {
    /// Picks backends until one of them can be sent to.
    pub(super) fn dial(&mut self, flow: &mut Flow, now: Instant) -> Result<Dialled, Shed> {
        for _ in 0..self.settings.attempts {
            let mut lease = self.pick(flow, now)?;
            lease.set_active(false);
            match socket::open(self.settings.target(&lease)) {
                Ok(socket) => {
                    let serial = lease.backend().account().serial();
                    return Ok(Dialled { socket, lease, serial });
                }
                Err(error) => self.give_up(lease, &error, flow)?,
            }
        }
        Err(Shed::Unreachable)
    }

    /// Notes that a backend could not be sent to. An error if that was this machine's fault.
    pub(super) fn give_up(
        &mut self,
        lease: Lease<SocketAddr>,
        error: &io::Error,
        flow: &mut Flow,
    ) -> Result<(), Shed> {
        if socket::is_local(error) {
            return Err(Shed::NoResources);
        }
        debug!(backend = %lease.id(), %error, "backend unreachable");
        add(&self.tally.server_errors, 1);
        let serial = lease.backend().account().serial();
        add(&self.tally.backend(serial, lease.id()).errors, 1);
        flow.exclude(lease.backend());
        lease.complete(Outcome::ConnectError);
        Ok(())
    }

    pub(super) fn pick(&mut self, flow: &Flow, now: Instant) -> Result<Lease<SocketAddr>, Shed> {
        let picked = match (&self.settings.persistence, flow.source()) {
            (Some(persistence), Some(client)) => {
                persistence.pick(client, flow.clone(), &mut self.rng, now)
            }
            _ => self.picks.pick(flow),
        };
        picked.map_err(|why| match why {
            // Where a backend was tried, what became of it is the reason, not that none was left.
            PickError::Refused if flow.is_retry() => Shed::Unreachable,
            why => why.into(),
        })
    }

    /// Says that a backend refused a datagram whose lease has ended already.
    pub(super) fn report(&self, serial: u64) {
        let snapshot = self.picks.snapshot();
        let position = snapshot.members().position(serial);
        if let Some(backend) = position.and_then(|at| snapshot.backends().get(at))
            && let Some(lease) = self.settings.picks().pick_id(backend.id())
        {
            lease.complete(Outcome::ConnectError);
        }
    }

    /// Never choose the backend of this flow: it has refused.
    pub(in crate::forward::udp) fn exclude(&self, id: FlowId, flow: &mut Flow) {
        let Some(upstream) = self.table.get(id) else { return };
        let snapshot = self.picks.snapshot();
        let position = snapshot.members().position(upstream.serial);
        if let Some(backend) = position.and_then(|at| snapshot.backends().get(at)) {
            flow.exclude(backend);
        }
    }
}
