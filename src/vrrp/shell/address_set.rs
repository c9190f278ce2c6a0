//! The addresses and routes that a master holds, on the interface or on a macvlan with the virtual MAC.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::netlink::{NetworkInterface, ethernet_interface};
use super::{MacAddress, VirtualAddress, VirtualRoute, VirtualRouterConfig, VrrpStartError};
use crate::rtnetlink::RtnetlinkSocket;
use crate::vrrp::config::OWNER_PRIORITY;

/// A failed change of an address or route.
#[derive(Debug)]
pub(super) struct AddressSetError {
    pub(super) operation: String,
    pub(super) source: io::Error,
}

/// The addresses and routes of one virtual router.
#[derive(Debug)]
pub(super) struct VirtualAddressSet {
    addresses: Vec<VirtualAddress>,
    routes: Vec<VirtualRoute>,
    parent_index: u32,
    device: AddressDevice,
    /// How long the kernel keeps an address that is not renewed.
    lifetime: Duration,
    /// When the addresses are renewed; `None` unless this router holds them.
    renew_at: Option<Instant>,
    /// The owner's addresses are never added or removed.
    is_owner: bool,
}

/// The interface that the addresses are on.
#[derive(Debug)]
struct AddressDevice {
    name: String,
    index: u32,
    mac: MacAddress,
    /// `arp_ignore` of the interface below; `Some` if the device is a macvlan.
    saved_arp_ignore: Option<SavedSysctl>,
}

/// The value that a sysctl had before it was changed.
#[derive(Debug)]
struct SavedSysctl {
    path: PathBuf,
    value: String,
}

impl VirtualAddressSet {
    /// Checks that the machine has none of the addresses permanently, removes those that a crashed
    /// predecessor left, and creates the macvlan if one is configured.
    pub(super) fn open(
        config: &VirtualRouterConfig,
        parent: NetworkInterface,
        netlink: &mut RtnetlinkSocket,
    ) -> Result<Self, VrrpStartError> {
        let election = &config.election;
        let is_owner = election.priority == OWNER_PRIORITY;
        let lifetime = address_lifetime(election.interval);
        let present = netlink.addresses().map_err(VrrpStartError::wrap_io("list the addresses"))?;
        for present in present.iter().filter(|_| !is_owner) {
            let ip = present.address.ip();
            if config.held_addresses().any(|address| address.ip() == ip) {
                if present.lifetime.is_none_or(|left| left > lifetime) {
                    return Err(VrrpStartError::AddressInUse {
                        address: ip,
                        interface: present.index,
                    });
                }
                let removed = netlink.remove_address(present.address, present.index);
                removed.map_err(VrrpStartError::wrap_io("change addresses"))?;
            }
        }
        let device = if config.virtual_mac {
            AddressDevice::create_macvlan(config, &parent, netlink)?
        } else {
            let mac = parent.mac.as_slice().try_into().unwrap_or_default();
            AddressDevice {
                name: config.interface.clone(),
                index: parent.index,
                mac: MacAddress(mac),
                saved_arp_ignore: None,
            }
        };
        // A missing capability is reported at the start, not at the first election.
        for address in config.held_addresses().filter(|_| !is_owner) {
            let removed = netlink.remove_address(address, device.index);
            removed.map_err(VrrpStartError::wrap_io("change addresses"))?;
        }
        Ok(Self {
            addresses: config.held_addresses().collect(),
            routes: config.routes.clone(),
            parent_index: parent.index,
            device,
            lifetime,
            renew_at: None,
            is_owner,
        })
    }

    /// Checks that the machine has none of the addresses that another configuration adds.
    pub(super) fn check_additions(
        &self,
        config: &VirtualRouterConfig,
        netlink: &mut RtnetlinkSocket,
    ) -> Result<(), VrrpStartError> {
        let present = netlink.addresses().map_err(VrrpStartError::wrap_io("list the addresses"))?;
        let ours = |ip| self.addresses.iter().any(|address| address.ip() == ip);
        let added = config.held_addresses().map(|address| address.ip()).filter(|ip| !ours(*ip));
        for ip in added.filter(|_| !self.is_owner) {
            if let Some(present) = present.iter().find(|present| present.address.ip() == ip) {
                return Err(VrrpStartError::AddressInUse { address: ip, interface: present.index });
            }
        }
        Ok(())
    }

    /// Changes to the addresses, routes and interval of another configuration. A router that holds
    /// addresses removes those that are gone, and adds the new ones.
    pub(super) fn reconfigure(
        &mut self,
        config: &VirtualRouterConfig,
        netlink: &mut RtnetlinkSocket,
        now: Instant,
    ) -> Vec<AddressSetError> {
        let addresses: Vec<_> = config.held_addresses().collect();
        let old_addresses = std::mem::replace(&mut self.addresses, addresses);
        let old_routes = std::mem::replace(&mut self.routes, config.routes.clone());
        self.lifetime = address_lifetime(config.election.interval);
        if self.is_owner || self.renew_at.is_none() {
            return Vec::new();
        }
        let mut failures: Vec<_> = self.install(netlink, now).err().into_iter().collect();
        for route in old_routes.iter().filter(|route| !self.routes.contains(route)) {
            let removed = netlink.remove_route(route, self.device.index);
            failures.extend(removed.err().map(|source| AddressSetError {
                operation: format!("remove route {route}"),
                source,
            }));
        }
        for address in old_addresses.iter().filter(|address| !self.addresses.contains(address)) {
            let removed = netlink.remove_address(*address, self.device.index);
            failures.extend(removed.err().map(|source| AddressSetError {
                operation: format!("remove address {address}"),
                source,
            }));
        }
        failures
    }

    /// Returns the index of the configured interface, which is the macvlan's parent.
    pub(super) fn parent_index(&self) -> u32 {
        self.parent_index
    }

    pub(super) fn device_name(&self) -> &str {
        &self.device.name
    }

    pub(super) fn device_index(&self) -> u32 {
        self.device.index
    }

    pub(super) fn device_mac(&self) -> MacAddress {
        self.device.mac
    }

    /// Returns the interface that advertisements are sent by. Advertisements from the virtual MAC
    /// teach switches its port (RFC 9568, section 7.3). Over IPv6, neighbour advertisements do so,
    /// because the macvlan has no link-local address of its own to send from.
    pub(super) fn advert_interface<'a>(&'a self, config: &'a VirtualRouterConfig) -> &'a str {
        if config.election.source.is_ipv6() { &config.interface } else { &self.device.name }
    }

    /// Tells whether this router has added its addresses.
    pub(super) fn is_held(&self) -> bool {
        self.renew_at.is_some()
    }

    /// Returns when the addresses must be renewed.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        self.renew_at
    }

    /// Adds all addresses and routes. After an error the others are added all the same; release
    /// removes them.
    pub(super) fn acquire(
        &mut self,
        netlink: &mut RtnetlinkSocket,
        now: Instant,
    ) -> Result<(), AddressSetError> {
        if self.is_owner {
            return Ok(());
        }
        self.install(netlink, now)
    }

    /// Renews the lifetime of all addresses and routes, if it is due.
    pub(super) fn renew(
        &mut self,
        netlink: &mut RtnetlinkSocket,
        now: Instant,
    ) -> Result<(), AddressSetError> {
        match self.renew_at {
            Some(due) if due <= now => self.install(netlink, now),
            _ => Ok(()),
        }
    }

    fn install(
        &mut self,
        netlink: &mut RtnetlinkSocket,
        now: Instant,
    ) -> Result<(), AddressSetError> {
        self.renew_at = Some(now + self.lifetime / 3);
        let mut result = Ok(());
        for address in &self.addresses {
            let added = netlink.replace_address(*address, self.device.index, Some(self.lifetime));
            result = result.and(added.map_err(|source| AddressSetError {
                operation: format!("add address {address}"),
                source,
            }));
        }
        for route in &self.routes {
            let added = netlink.replace_route(route, self.device.index, Some(self.lifetime));
            result = result.and(added.map_err(|source| AddressSetError {
                operation: format!("add route {route}"),
                source,
            }));
        }
        result
    }

    /// Removes all addresses and routes, and returns the failures.
    pub(super) fn release(&mut self, netlink: &mut RtnetlinkSocket) -> Vec<AddressSetError> {
        let mut failures = Vec::new();
        if self.is_owner {
            return failures;
        }
        self.renew_at = None;
        for route in &self.routes {
            let removed = netlink.remove_route(route, self.device.index);
            failures.extend(removed.err().map(|source| AddressSetError {
                operation: format!("remove route {route}"),
                source,
            }));
        }
        for address in &self.addresses {
            let removed = netlink.remove_address(*address, self.device.index);
            failures.extend(removed.err().map(|source| AddressSetError {
                operation: format!("remove address {address}"),
                source,
            }));
        }
        failures
    }

    /// Removes the macvlan, if there is one, and restores `arp_ignore`.
    pub(super) fn close(&mut self, netlink: &mut RtnetlinkSocket) {
        if let Some(sysctl) = self.device.saved_arp_ignore.take() {
            let _ = netlink.remove_link(self.device.index);
            let _ = fs::write(sysctl.path, sysctl.value);
        }
    }
}

impl AddressDevice {
    fn create_macvlan(
        config: &VirtualRouterConfig,
        parent: &NetworkInterface,
        netlink: &mut RtnetlinkSocket,
    ) -> Result<Self, VrrpStartError> {
        let (vrid, source) = (config.election.vrid, config.election.source);
        let family = if source.is_ipv6() { 2 } else { 1 };
        let mac = MacAddress([0x00, 0x00, 0x5e, 0x00, family, vrid]);
        // The name is the one that keepalived uses.
        let name = format!("vrrp{}.{vrid}", if source.is_ipv6() { "6" } else { "" });
        let interface = || config.interface.clone();
        netlink.add_macvlan(&name, parent.index, mac).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                VrrpStartError::wrap_io("set up a virtual MAC")(source)
            }
            _ => VrrpStartError::Macvlan { interface: interface(), source },
        })?;
        let link = ethernet_interface(&name, netlink)?;
        let set = |family: &str, interface: &str, key: &str, value: &str| {
            let path = format!("/proc/sys/net/{family}/conf/{interface}/{key}");
            fs::write(path, value).map_err(VrrpStartError::wrap_io("set up a virtual MAC"))
        };
        // The kernel must not send packets of its own from the virtual MAC.
        if source.is_ipv6() || config.held_addresses().any(|address| address.ip().is_ipv6()) {
            set("ipv6", &name, "addr_gen_mode", "1")?;
        }
        if !source.is_ipv6() {
            // Fails on a kernel without IPv6, where there is nothing to disable.
            if config.held_addresses().all(|address| address.ip().is_ipv4()) {
                let _ = set("ipv6", &name, "disable_ipv6", "1");
            }
            // Packets to clients leave by the parent interface.
            set("ipv4", &name, "rp_filter", "0")?;
        }
        netlink
            .set_link_up(link.index, true)
            .map_err(VrrpStartError::wrap_io("set up a virtual MAC"))?;
        // The parent interface must not answer ARP for the macvlan's addresses.
        let path = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{}/arp_ignore", interface()));
        let value = fs::read_to_string(&path).unwrap_or_else(|_| "0".to_owned());
        set("ipv4", &interface(), "arp_ignore", "1")?;
        let saved_arp_ignore = Some(SavedSysctl { path, value });
        Ok(Self { name, index: link.index, mac, saved_arp_ignore })
    }
}

/// Returns the lifetime of an address: three intervals, as long as backups wait for a master, rounded
/// up to the kernel's whole seconds.
fn address_lifetime(interval: Duration) -> Duration {
    Duration::from_secs((3 * interval).as_millis().div_ceil(1000) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifetime_of_an_address_is_three_intervals_in_whole_seconds() {
        for (interval, lifetime_s) in [(10, 1), (100, 1), (333, 1), (334, 2), (1000, 3)] {
            assert_eq!(address_lifetime(Duration::from_millis(interval)).as_secs(), lifetime_s);
        }
    }
}
