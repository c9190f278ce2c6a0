//! The interface of the announcements, and the routes of one address after the other.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;

use super::AnnounceStartError;
use super::netlink::HostRoute;
use crate::rtnetlink::RtnetlinkSocket;
use crate::sys::tuntap::open_shared_tun;

/// The interface of the routes that are announced.
pub const ANNOUNCE_INTERFACE: &str = "lvs-announce";

/// A failed change of a route or of the interface.
#[derive(Debug)]
pub(super) struct RouteError {
    pub(super) operation: String,
    pub(super) source: io::Error,
}

/// The interface, and a socket to change routes by.
#[derive(Debug)]
pub(super) struct AnnounceRoutes {
    netlink: RtnetlinkSocket,
    /// The interface ends when the last process closes it.
    _device: File,
    index: u32,
}

impl AnnounceRoutes {
    /// Makes the interface, or joins that of another process, in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, AnnounceStartError> {
        let netlink = RtnetlinkSocket::open();
        let mut netlink = netlink.map_err(AnnounceStartError::wrap_io("open a netlink socket"))?;
        // Lists are long where a routing daemon has all routes of the Internet.
        netlink.filter_lists();
        let opened = open_device(&mut netlink).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AnnounceStartError::NoTun,
            _ => AnnounceStartError::wrap_io("make the interface lvs-announce")(error),
        });
        let (device, index) = opened?;
        Ok(Self { netlink, _device: device, index })
    }

    /// Refuses an address that an interface has: a routing daemon may announce it by itself, or prefer it to the route.
    pub(super) fn refuse_interface_addresses(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<(), AnnounceStartError> {
        let present = self.netlink.interface_addresses();
        let present = present.map_err(AnnounceStartError::wrap_io("list the addresses"))?;
        match present.into_iter().find(|(address, _)| addresses.contains(address)) {
            Some((address, interface)) => {
                Err(AnnounceStartError::AddressOfInterface { address, interface })
            }
            None => Ok(()),
        }
    }

    /// Returns what is announced by the interface, with whatever protocol number.
    pub(super) fn announced(&mut self) -> Result<Vec<HostRoute>, RouteError> {
        let routes = self.netlink.announcements(self.index);
        let operation = || "list the routes".to_owned();
        routes.map_err(|source| RouteError { operation: operation(), source })
    }

    /// Makes the interface again if somebody removed it, and returns whether somebody did. Then there are no
    /// routes by it any more. An interface that somebody set down is set up.
    pub(super) fn restore_interface(&mut self) -> Result<bool, RouteError> {
        let mut restore = || {
            let found = self.netlink.find_interface(ANNOUNCE_INTERFACE)?;
            if let Some(interface) = found.filter(|interface| interface.index == self.index) {
                return match interface.is_up {
                    true => Ok(false),
                    false => self.netlink.set_interface_up(self.index).map(|()| false),
                };
            }
            (self._device, self.index) = open_device(&mut self.netlink)?;
            Ok(true)
        };
        let operation = || format!("restore the interface {ANNOUNCE_INTERFACE}");
        restore().map_err(|source| RouteError { operation: operation(), source })
    }

    /// Adds a route if it is not there, renews its lifetime, and returns whether it was not there.
    pub(super) fn ensure(&mut self, route: HostRoute) -> Result<bool, RouteError> {
        let ensured = self.netlink.ensure_route(route, self.index);
        ensured.map_err(|source| RouteError { operation: format!("add {route}"), source })
    }

    /// Removes a route, if it is there.
    pub(super) fn remove(&mut self, route: HostRoute) -> Result<(), RouteError> {
        let removed = self.netlink.delete_route(route, self.index);
        removed.map_err(|source| RouteError { operation: format!("remove {route}"), source })
    }
}

/// Makes the interface or joins it, sets it up, and returns its file and its number.
fn open_device(netlink: &mut RtnetlinkSocket) -> io::Result<(File, u32)> {
    let device = open_shared_tun(c"lvs-announce")?;
    // The stack sends nothing of its own to it.
    for (setting, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")] {
        let path = format!("/proc/sys/net/ipv6/conf/{ANNOUNCE_INTERFACE}/{setting}");
        // Without IPv6 there is no such setting.
        let _ = fs::write(path, value);
    }
    let interface = netlink.find_interface(ANNOUNCE_INTERFACE)?;
    let index = interface.ok_or(io::ErrorKind::NotConnected)?.index;
    netlink.set_interface_up(index)?;
    Ok((device, index))
}
