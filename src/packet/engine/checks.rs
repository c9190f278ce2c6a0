//! The marks by which health checks reach servers at the virtual addresses.

use std::collections::BTreeMap;

use netlink_packet_route::AddressFamily;

use super::virtual_service::PacketVirtualService;
use super::worker::PacketWorker;
use crate::packet::error::PacketError;

/// Each family, and whether it is IPv6.
const FAMILIES: [(AddressFamily, bool); 2] =
    [(AddressFamily::Inet, false), (AddressFamily::Inet6, true)];

impl PacketWorker {
    /// Has the packets of checks led to servers, and tells the checks the marks of these, of which the number of a server
    /// makes one. Returns whether all of it was possible.
    pub(super) fn follow_checks(&mut self) -> bool {
        // A successor has the rules and the program.
        if self.is_superseded() {
            return true;
        }
        let (mut is_well, mut is_any) = (true, false);
        let first = self.settings.check_marks.get();
        for (family, is_ipv6) in FAMILIES {
            if !self.services.values().any(|service| has_checks_of(service, is_ipv6)) {
                self.check_program.remove_route(&mut self.netlink, first, family);
                continue;
            }
            is_any = true;
            let result = self.route_checks(family);
            let is_routed = self.check(result).is_some();
            is_well &= is_routed;
            for service in self.services.values().filter(|it| has_checks_of(it, is_ipv6)) {
                let Some(marks) = &service.request.check_marks else { continue };
                let mark = |(backend, index): (&_, &u32)| {
                    let slot = self.servers.get(*index)?;
                    let is_reached = is_routed && slot.raw.is_direct();
                    is_reached.then(|| (Clone::clone(backend), first + *index))
                };
                let known = service.servers.iter().filter_map(mark).collect::<BTreeMap<_, _>>();
                marks.replace(Some(known));
            }
        }
        if !is_any {
            self.check_program.detach();
        }
        is_well
    }

    fn route_checks(&mut self, family: AddressFamily) -> Result<(), PacketError> {
        self.check_program.attach(&mut self.program)?;
        let first = self.settings.check_marks.get();
        self.check_program.route(&mut self.netlink, first, family)
    }
}

/// Returns whether a service of a family has checks at its virtual address.
fn has_checks_of(service: &PacketVirtualService, is_ipv6: bool) -> bool {
    service.request.check_marks.is_some()
        && service.drain.is_none()
        && service.key.address().is_ipv6() == is_ipv6
}
