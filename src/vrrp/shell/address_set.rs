//! What a master has: addresses and routes, on the interface or on a macvlan with the virtual MAC.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::netlink::{NetworkInterface, RtnetlinkSocket};
use super::{VirtualAddress, VirtualRoute, VirtualRouterConfig, VrrpStartError};

/// What the system would not do, and what it said.
pub(super) type AddressSetError = (String, io::Error);

/// Where the addresses of one virtual router are, while it is master.
#[derive(Debug)]
pub(super) struct VirtualAddressSet {
    addresses: Vec<VirtualAddress>,
    routes: Vec<VirtualRoute>,
    parent_index: u32,
    device: AddressDevice,
    /// How long an address stays without being renewed.
    lifetime: Duration,
    /// When to renew them; while this router has them.
    renew_at: Option<Instant>,
    /// The owner's addresses are its own.
    is_owner: bool,
}

/// The interface that they are on.
#[derive(Debug)]
struct AddressDevice {
    name: String,
    index: u32,
    mac: [u8; 6],
    /// Made for them, with what `arp_ignore` was below.
    saved_arp_ignore: Option<(PathBuf, String)>,
}

impl VirtualAddressSet {
    /// Looks that nobody has them, and takes away what a predecessor left that died.
    pub(super) fn open(
        asked: &VirtualRouterConfig,
        base: NetworkInterface,
        netlink: &mut RtnetlinkSocket,
    ) -> Result<Self, VrrpStartError> {
        let election = &asked.election;
        let is_owner = election.priority == 255;
        let lifetime = address_lifetime(election.interval);
        let held = netlink.addresses().map_err(VrrpStartError::wrap_io("look at the addresses"))?;
        for held in held.iter().filter(|_| !is_owner) {
            let ip = held.address.ip();
            if asked.addresses.iter().any(|address| address.ip() == ip) {
                if held.lifetime.is_none_or(|left| left > lifetime) {
                    return Err(VrrpStartError::AddressInUse {
                        address: ip,
                        interface: held.index,
                    });
                }
                let removed = netlink.remove_address(held.address, held.index);
                removed.map_err(VrrpStartError::wrap_io("change addresses"))?;
            }
        }
        let device = if asked.virtual_mac {
            AddressDevice::create_macvlan(asked, &base, netlink)?
        } else {
            let mac = base.mac.as_slice().try_into().unwrap_or_default();
            AddressDevice {
                name: asked.interface.clone(),
                index: base.index,
                mac,
                saved_arp_ignore: None,
            }
        };
        // Better known now than when it is elected: may this process change them?
        for address in asked.addresses.iter().filter(|_| !is_owner) {
            let removed = netlink.remove_address(*address, device.index);
            removed.map_err(VrrpStartError::wrap_io("change addresses"))?;
        }
        Ok(Self {
            addresses: asked.addresses.clone(),
            routes: asked.routes.clone(),
            parent_index: base.index,
            device,
            lifetime,
            renew_at: None,
            is_owner,
        })
    }

    /// The number of the interface below.
    pub(super) fn parent_index(&self) -> u32 {
        self.parent_index
    }

    pub(super) fn device_name(&self) -> &str {
        &self.device.name
    }

    pub(super) fn device_index(&self) -> u32 {
        self.device.index
    }

    pub(super) fn device_mac(&self) -> [u8; 6] {
        self.device.mac
    }

    /// By which interface advertisements are sent: those from the virtual MAC teach switches where it
    /// is (RFC 9568, section 7.3). Over IPv6 that is left to neighbour advertisements, as the macvlan
    /// has no link-local address of its own to send from.
    pub(super) fn advert_interface<'a>(&'a self, asked: &'a VirtualRouterConfig) -> &'a str {
        if asked.election.source.is_ipv6() { &asked.interface } else { &self.device.name }
    }

    /// When the addresses must be renewed.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        self.renew_at
    }

    /// Takes them. What was taken before one failed is given back when the router gives up.
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

    /// Lets them be there for another while, if it is time.
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
            let put = netlink.replace_address(*address, self.device.index, Some(self.lifetime));
            result = result.and(put.map_err(|error| (format!("have address {address}"), error)));
        }
        for route in &self.routes {
            let put = netlink.replace_route(route, self.device.index, Some(self.lifetime));
            result = result.and(put.map_err(|error| (format!("have route {route}"), error)));
        }
        result
    }

    /// Gives them up, all that can be.
    pub(super) fn release(&mut self, netlink: &mut RtnetlinkSocket) -> Vec<AddressSetError> {
        let mut failures = Vec::new();
        if self.is_owner {
            return failures;
        }
        self.renew_at = None;
        for route in &self.routes {
            let removed = netlink.remove_route(route, self.device.index);
            failures.extend(removed.err().map(|error| (format!("give up route {route}"), error)));
        }
        for address in &self.addresses {
            let removed = netlink.remove_address(*address, self.device.index);
            let failure = removed.err().map(|error| (format!("give up {address}"), error));
            failures.extend(failure);
        }
        failures
    }

    /// Takes away what was made for it.
    pub(super) fn close(&mut self, netlink: &mut RtnetlinkSocket) {
        if let Some((sysctl, was)) = self.device.saved_arp_ignore.take() {
            let _ = netlink.remove_link(self.device.index);
            let _ = fs::write(sysctl, was);
        }
    }
}

impl AddressDevice {
    fn create_macvlan(
        asked: &VirtualRouterConfig,
        base: &NetworkInterface,
        netlink: &mut RtnetlinkSocket,
    ) -> Result<Self, VrrpStartError> {
        let (id, source) = (asked.election.vrid, asked.election.source);
        let family = if source.is_ipv6() { 2 } else { 1 };
        let mac = [0x00, 0x00, 0x5e, 0x00, family, id];
        // As keepalived names them.
        let name = format!("vrrp{}.{id}", if source.is_ipv6() { "6" } else { "" });
        let interface = || asked.interface.clone();
        netlink.add_macvlan(&name, base.index, mac).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                VrrpStartError::wrap_io("set up a virtual MAC")(source)
            }
            _ => VrrpStartError::Macvlan { interface: interface(), source },
        })?;
        let link = super::instance::ethernet_interface(&name, netlink)?;
        let set = |family: &str, of: &str, key: &str, value: &str| {
            let path = format!("/proc/sys/net/{family}/conf/{of}/{key}");
            fs::write(path, value).map_err(VrrpStartError::wrap_io("set up a virtual MAC"))
        };
        // Nothing is to be sent from the virtual MAC but what a master sends.
        if source.is_ipv6() {
            set("ipv6", &name, "addr_gen_mode", "1")?;
        } else {
            // Where the kernel has no IPv6, there is nothing to switch off.
            let _ = set("ipv6", &name, "disable_ipv6", "1");
            // The way back to a client goes by the interface below.
            set("ipv4", &name, "rp_filter", "0")?;
        }
        netlink
            .set_link_up(link.index, true)
            .map_err(VrrpStartError::wrap_io("set up a virtual MAC"))?;
        // What the macvlan has, the interface below must not answer for.
        let sysctl = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{}/arp_ignore", interface()));
        let was = fs::read_to_string(&sysctl).unwrap_or_else(|_| "0".to_owned());
        set("ipv4", &interface(), "arp_ignore", "1")?;
        Ok(Self { name, index: link.index, mac, saved_arp_ignore: Some((sysctl, was)) })
    }
}

/// As long as the others wait for a master, and no shorter: the kernel counts in seconds.
fn address_lifetime(interval: Duration) -> Duration {
    Duration::from_secs((3 * interval).as_millis().div_ceil(1000) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lives_for_three_intervals_in_whole_seconds() {
        for (interval, lifetime_s) in [(10, 1), (100, 1), (333, 1), (334, 2), (1000, 3)] {
            assert_eq!(address_lifetime(Duration::from_millis(interval)).as_secs(), lifetime_s);
        }
    }
}
