//! Which virtual addresses this machine has, and which another one: they move in an election.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::flow::PacketFlow;
use super::worker::PacketWorker;
use crate::packet::error::PacketError;
use crate::packet::netlink::RouteToServer;
use crate::rtnetlink::RtnetlinkSocket;

/// The machine that had an address before has told of all its flows by then.
const TAKEOVER_TIME: Duration = Duration::from_secs(1);

impl PacketWorker {
    /// Returns whether this machine does not have an address.
    pub(super) fn is_elsewhere(&mut self, address: IpAddr) -> bool {
        has_address(&mut self.netlink, address) == Some(false)
    }

    /// Has the program decide for addresses that this machine has, and for no others.
    pub(super) fn follow_addresses(&mut self, now: Instant) -> Result<(), PacketError> {
        if self.is_superseded() {
            return Ok(());
        }
        let mut known = BTreeMap::<IpAddr, Option<bool>>::new();
        let (mut gained, mut lost, mut result) = (BTreeSet::new(), BTreeSet::new(), Ok(()));
        for service in self.services.values_mut() {
            let (netlink, address) = (&mut self.netlink, service.key.address().ip());
            let is_here = *known.entry(address).or_insert_with(|| has_address(netlink, address));
            // Nothing is known if the kernel does not answer.
            if is_here.is_none_or(|is_here| is_here != service.is_elsewhere) {
                continue;
            }
            service.is_elsewhere = !service.is_elsewhere;
            let name = &service.request.service;
            if service.is_elsewhere {
                lost.insert(service.id);
                tracing::info!(
                    "service {name}: engine packet: this machine no longer has the address {address}: it \
                     drops new flows"
                );
            } else {
                gained.insert(service.id);
                tracing::info!(
                    "service {name}: engine packet: this machine has the address {address} now"
                );
            }
            service.gained_at = (!service.is_elsewhere).then_some(now);
            // The others are followed all the same.
            result = result.and(service.publish_place(&mut self.maps));
        }
        if !gained.is_empty() {
            self.flows.take_over(&gained);
            result = result.and(self.cut_of_servers_down(&gained));
        }
        if !lost.is_empty() {
            // The young ones too, before their packets come to the other machine.
            result = result.and(self.tell_last_flows(&lost));
            result = result.and(self.drop_drained_elsewhere());
        }
        result
    }

    /// Ends the flows of servers that went down while another machine had the address.
    fn cut_of_servers_down(&mut self, gained: &BTreeSet<u32>) -> Result<(), PacketError> {
        let services = self.services.values().filter(|service| gained.contains(&service.id));
        let down: Vec<_> = services.flat_map(|it| it.cut_servers(&self.servers)).collect();
        let is_cut = |record: &PacketFlow| down.contains(&record.server);
        if down.is_empty() {
            return Ok(());
        }
        let (maps, servers) = (&mut self.maps, &mut self.servers);
        self.flows.cut(is_cut, self.clock.now(), maps, servers).map(drop)
    }

    /// Forgets the flows of services that end and whose address another machine has: those end there.
    pub(super) fn drop_drained_elsewhere(&mut self) -> Result<(), PacketError> {
        let services = self.services.values();
        let drained = services.filter(|service| service.drain.is_some() && service.is_elsewhere);
        let drained: BTreeSet<_> = drained.map(|service| service.id).collect();
        if drained.is_empty() {
            return Ok(());
        }
        let of_drained = self.flows.iter().filter(|(_, record)| drained.contains(&record.service));
        let of_drained: Vec<_> = of_drained.map(|(tuple, _)| *tuple).collect();
        self.flows.drop_elsewhere(&of_drained, &mut self.maps, &mut self.servers)
    }

    /// Returns to what is usual where this machine has an address for some time.
    pub(super) fn end_takeovers(&mut self, now: Instant) -> Result<(), PacketError> {
        let mut result = Ok(());
        for service in self.services.values_mut() {
            if service.gained_at.is_some_and(|at| now - at >= TAKEOVER_TIME) {
                service.gained_at = None;
                result = result.and(service.publish_place(&mut self.maps));
            }
        }
        result
    }
}

/// Returns whether packets to an address are for this machine; `None` if the kernel does not say.
fn has_address(netlink: &mut RtnetlinkSocket, address: IpAddr) -> Option<bool> {
    match netlink.route(address) {
        Ok(route) => Some(matches!(route, RouteToServer::Local)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        // There is no route to it.
        Err(_) => Some(false),
    }
}
