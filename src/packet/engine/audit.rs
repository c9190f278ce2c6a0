//! What the thread does every second.

use std::collections::BTreeMap;
use std::time::Instant;

use super::worker::{PacketWorker, PublishedState};
use crate::packet::statistics::PacketStatistics;
use crate::sync::lock;

impl PacketWorker {
    /// Publishes counters, and looks for what has changed in the network namespace.
    pub(super) fn audit(&mut self, now: Instant, is_claim_time_over: bool) {
        let result = self.audit_succession(now);
        if self.check(result).unwrap_or_default() && is_claim_time_over {
            let left = self.unowned.iter().filter(|(_, service)| !service.is_handed_over);
            for key in left.map(|(key, _)| *key).collect::<Vec<_>>() {
                self.unowned.remove(&key);
                let result = self.maps.remove_service(&key);
                self.check(result);
                self.forget_address(key);
            }
        }
        self.forget_routes_to_clients();
        let result = self.follow_devices().and_then(|()| self.follow_routes(false));
        // An address that a route to this machine makes its own is not told of.
        let result = result.and(self.follow_addresses(now));
        let is_well = self.check(result).is_some() & self.follow_checks();
        let unowned = &self.unowned;
        let is_unowned = |service| unowned.values().any(|left| left.id == service);
        let reclaimed = self.servers.reclaim(&mut self.maps, is_unowned);
        for (service, decided, raw) in self.check(reclaimed).unwrap_or_default() {
            let service = self.services.values_mut().find(|it| it.id == service);
            if let Some(service) = service {
                service.retired.connections += decided + raw.connections;
                service.retired.bytes_in += raw.bytes_in;
                service.retired.bytes_out += raw.bytes_out;
            }
        }
        let forgotten = self.flows.read_forgotten();
        if forgotten > 0 {
            let result = PacketStatistics::count_forgotten(&mut self.maps, forgotten);
            self.check(result);
        }
        let statistics = PacketStatistics::read(&self.maps);
        if let Some(statistics) = self.check(statistics) {
            let result = self.recover_lost_events(&statistics);
            self.check(result);
            let devices = self.program.devices().map(str::to_owned).collect();
            let xdp_devices = self.program.xdp_devices().values().cloned().collect();
            *lock(&self.published) = PublishedState { statistics, devices, xdp_devices };
        }
        // Also those that a service has no more: they may have flows.
        let mut servers = BTreeMap::<u32, Vec<_>>::new();
        for (index, slot) in self.servers.iter() {
            servers.entry(slot.raw.service).or_default().push((index, slot));
        }
        let results = self.services.values().map(|service| {
            let servers = servers.get(&service.id).map(Vec::as_slice).unwrap_or_default();
            service.publish_counters(&self.maps, servers)
        });
        let result = results.collect::<Result<Vec<_>, _>>();
        if self.check(result).is_some() && is_well {
            self.said.clear();
        }
        if let Some((count, error)) = self.refusals.read() {
            tracing::warn!("engine packet: {count} new flows were refused; the last: {error}");
        }
    }
}
