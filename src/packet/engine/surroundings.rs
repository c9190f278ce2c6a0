//! What the engine follows in the network namespace: devices and routes.

use std::collections::BTreeMap;

use super::worker::PacketWorker;
use crate::packet::error::PacketError;
use crate::packet::netlink::RouteToServer;

impl PacketWorker {
    /// Attaches the program to devices that have appeared.
    pub(super) fn follow_devices(&mut self) -> Result<(), PacketError> {
        let present = self.netlink.devices().map_err(|source| PacketError::Netlink { source })?;
        self.program.retain_devices(|index, name| {
            present.iter().any(|device| device.index == index && device.name == name)
        });
        let chosen = &self.settings.devices;
        let tap = self.tap.device.index;
        let mut failure = Ok(());
        for device in present {
            let is_chosen = chosen.is_empty() || chosen.contains(&device.name);
            if device.index == tap || (device.is_ethernet && is_chosen) {
                // The others are attached all the same.
                failure = failure.and(self.program.attach(device.index, &device.name));
            }
        }
        failure
    }

    /// Reads the route to each server, or to those alone that have none yet.
    pub(super) fn follow_routes(&mut self, only_new: bool) -> Result<(), PacketError> {
        let mut known = BTreeMap::new();
        for (index, address) in self.servers.addresses(only_new) {
            let netlink = &mut self.netlink;
            let route = *known.entry(address).or_insert_with(|| match netlink.route(address) {
                Ok(RouteToServer::Device(device)) => device,
                // The program does not carry packets to this machine's own addresses.
                Ok(RouteToServer::Local) | Err(_) => 0,
            });
            if self.servers.get(index).is_some_and(|slot| slot.raw.ifindex != route) {
                if route == 0 {
                    tracing::warn!("engine packet: there is no route to {address}");
                }
                self.servers.update(&mut self.maps, index, |raw| raw.ifindex = route)?;
            }
        }
        Ok(())
    }
}
