//! Which virtual addresses this machine has, and which another one: they move in an election.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::worker::PacketWorker;
use crate::packet::error::PacketError;
use crate::packet::netlink::{RouteSocket, RouteToServer};

/// The machine that had an address before has told of all its flows by then.
const TAKEOVER_TIME: Duration = Duration::from_secs(1);

impl PacketWorker {
    /// Returns whether this machine does not have an address.
    pub(super) fn is_elsewhere(&mut self, address: IpAddr) -> bool {
        is_elsewhere(&mut self.netlink, address)
    }

    /// Has the program decide for addresses that this machine has, and for no others. `only_elsewhere` looks at those
    /// alone that it did not have.
    pub(super) fn follow_addresses(
        &mut self,
        only_elsewhere: bool,
        now: Instant,
    ) -> Result<(), PacketError> {
        if self.is_superseded() {
            return Ok(());
        }
        let mut known = BTreeMap::<IpAddr, bool>::new();
        let (mut gained, mut has_lost, mut failure) = (Vec::new(), false, Ok(()));
        for service in self.services.values_mut() {
            if only_elsewhere && !service.is_elsewhere {
                continue;
            }
            let (netlink, address) = (&mut self.netlink, service.key.address().ip());
            let is_elsewhere =
                *known.entry(address).or_insert_with(|| is_elsewhere(netlink, address));
            if is_elsewhere != service.is_elsewhere {
                let (name, place) =
                    (&service.request.service, if is_elsewhere { "not here" } else { "here" });
                tracing::info!("service {name}: engine packet: the address {address} is {place}");
                if is_elsewhere {
                    has_lost = true;
                } else {
                    gained.push(service.id);
                }
                service.is_elsewhere = is_elsewhere;
                service.gained_at = (!is_elsewhere).then_some(now);
                // The others are followed all the same.
                failure = failure.and(service.publish_place(&mut self.maps));
            }
        }
        for service in gained {
            self.flows.take_over(service);
        }
        if has_lost {
            // The young ones too, before their packets come to the other machine.
            failure = failure.and(self.tell_last_flows());
        }
        failure
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

fn is_elsewhere(netlink: &mut RouteSocket, address: IpAddr) -> bool {
    !matches!(netlink.route(address), Ok(RouteToServer::Local))
}
