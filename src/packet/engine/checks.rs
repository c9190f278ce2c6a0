//! The marks by which health checks reach servers at the virtual addresses.

use std::collections::BTreeMap;

use netlink_packet_route::AddressFamily;

use super::worker::PacketWorker;
use crate::packet::error::PacketError;

impl PacketWorker {
    /// Tells the checks of all services the marks of their servers, of which the number of a server makes one.
    pub(super) fn follow_checks(&mut self) {
        let result = self.lead_checks();
        let is_led = self.check(result).is_some();
        let first = self.settings.check_marks.get();
        for service in self.services.values() {
            let Some(marks) = &service.request.check_marks else { continue };
            let mark = |(backend, index): (&_, &u32)| {
                let is_direct = self.servers.get(*index).is_some_and(|slot| slot.raw.is_direct());
                (is_led && is_direct).then(|| (Clone::clone(backend), first + *index))
            };
            let known = service.servers.iter().filter_map(mark).collect::<BTreeMap<_, _>>();
            marks.replace(service.drain.is_none().then_some(known));
        }
    }

    /// Has packets with marks led to servers while a service has checks.
    fn lead_checks(&mut self) -> Result<(), PacketError> {
        let checked = self
            .services
            .values()
            .filter(|service| service.request.check_marks.is_some() && service.drain.is_none());
        let mut families: Vec<_> = checked
            .map(|service| match service.key.address().is_ipv6() {
                true => AddressFamily::Inet6,
                false => AddressFamily::Inet,
            })
            .collect();
        families.dedup();
        let first = self.settings.check_marks.get();
        if families.is_empty() {
            self.check_program.end(&mut self.netlink, first);
            return Ok(());
        }
        self.check_program.begin(&mut self.program, &mut self.netlink, first, &families)
    }
}
