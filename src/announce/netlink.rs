//! What announcements change in the kernel: routes of one address, and their interface.

use std::fmt;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rustix::io::Errno;

use crate::rtnetlink::{RtnetlinkSocket, address_family, ignore_errnos, is_errno};

/// The number of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;
/// The kernel's table of addresses of this machine (`RT_TABLE_LOCAL`).
const LOCAL_TABLE: u8 = 255;
/// How long the kernel keeps the IPv6 route of table `local` that is not renewed.
const LOCAL_LIFETIME_S: u32 = 10;

/// A route to one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct HostRoute {
    pub(super) address: IpAddr,
    pub(super) kind: HostRouteKind,
    /// The protocol number.
    pub(super) protocol: u8,
}

/// What a route to one address is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HostRouteKind {
    /// The kernel accepts packets to the address.
    Local,
    /// A routing daemon announces the address.
    Announcement {
        /// The metric.
        metric: u32,
    },
}

/// An interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct InterfaceState {
    pub(super) index: u32,
    pub(super) is_up: bool,
}

impl RtnetlinkSocket {
    /// Returns the interface of this name.
    pub(super) fn find_interface(&mut self, name: &str) -> io::Result<Option<InterfaceState>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let replies = match self.request(RouteNetlinkMessage::GetLink(message), 0) {
            Err(error) if is_errno(&error, Errno::NODEV) => return Ok(None),
            replies => replies?,
        };
        Ok(replies.into_iter().find_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(link) => Some(InterfaceState {
                index: link.header.index,
                is_up: link.header.flags.contains(LinkFlags::Up),
            }),
            _ => None,
        }))
    }

    /// Sets an interface up.
    pub(super) fn set_interface_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Returns the addresses of all interfaces, each with the index of its interface.
    pub(super) fn interface_addresses(&mut self) -> io::Result<Vec<(IpAddr, u32)>> {
        let message = AddressMessage::default();
        let replies = self.request(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)?;
        let mut found = Vec::new();
        for reply in replies {
            let RouteNetlinkMessage::NewAddress(message) = reply else { continue };
            let addresses = message.attributes.iter().filter_map(|attribute| match attribute {
                // IPv6 has the second alone, which of an IPv4 address is the other end of a point-to-point link.
                AddressAttribute::Local(ip) => Some(*ip),
                AddressAttribute::Address(ip) if ip.is_ipv6() => Some(*ip),
                _ => None,
            });
            found.extend(addresses.map(|ip| (ip, message.header.index)));
        }
        Ok(found)
    }

    /// Adds a route if it is not there, else renews its lifetime, and returns whether it was not there.
    pub(super) fn ensure_route(&mut self, route: HostRoute, index: u32) -> io::Result<bool> {
        let message = route.message(index);
        // Without `NLM_F_EXCL`, which would take a route of somebody else with the same metric for this one.
        match self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE) {
            Ok(()) => Ok(true),
            Err(error) if is_errno(&error, Errno::EXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a route, if it is there.
    pub(super) fn delete_route(&mut self, route: HostRoute, index: u32) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelRoute(route.message(index));
        ignore_errnos(self.change(message, 0), &[Errno::SRCH, Errno::NODEV])
    }

    /// Returns the announcements by an interface, with whatever protocol number.
    pub(super) fn announcements(&mut self, index: u32) -> io::Result<Vec<HostRoute>> {
        let routes = self.main_routes(index)?;
        Ok(routes.iter().filter_map(|route| parse_announcement(route, index)).collect())
    }

    /// Returns the routes of table `main` by an interface; where the kernel does not select, all routes.
    pub(super) fn main_routes(&mut self, index: u32) -> io::Result<Vec<RouteMessage>> {
        let mut found = Vec::new();
        for family in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
            let mut message = RouteMessage::default();
            message.header.address_family = address_family(family);
            message.header.table = RouteHeader::RT_TABLE_MAIN;
            message.attributes.push(RouteAttribute::Oif(index));
            let replies = match self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP) {
                // There is no such family, or no such table yet.
                Err(error) if is_errno(&error, Errno::NOENT) => continue,
                replies => replies?,
            };
            found.extend(replies.into_iter().filter_map(|reply| match reply {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            }));
        }
        Ok(found)
    }
}

impl HostRoute {
    fn message(self, index: u32) -> RouteMessage {
        let is_ipv6 = self.address.is_ipv6();
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(self.address);
        message.header.destination_prefix_length = if is_ipv6 { 128 } else { 32 };
        message.header.protocol = RouteProtocol::from(self.protocol);
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(self.address.into()));
        match self.kind {
            HostRouteKind::Local => {
                message.header.table = LOCAL_TABLE;
                message.header.kind = RouteType::Local;
                message.header.scope =
                    if is_ipv6 { RouteScope::Universe } else { RouteScope::Host };
                // IPv6 sends packets of this machine to itself by the interface of the route.
                attributes.push(RouteAttribute::Oif(if is_ipv6 { LOOPBACK } else { index }));
                if is_ipv6 {
                    attributes.push(RouteAttribute::Expires(LOCAL_LIFETIME_S));
                }
            }
            HostRouteKind::Announcement { metric } => {
                message.header.table = RouteHeader::RT_TABLE_MAIN;
                message.header.kind = RouteType::Unicast;
                message.header.scope =
                    if is_ipv6 { RouteScope::Universe } else { RouteScope::Link };
                attributes.push(RouteAttribute::Oif(index));
                attributes.push(RouteAttribute::Priority(metric));
            }
        }
        message
    }
}

impl fmt::Display for HostRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            HostRouteKind::Local => write!(f, "the local route to {}", self.address),
            HostRouteKind::Announcement { metric } => {
                write!(f, "the route to {} of metric {metric}", self.address)
            }
        }
    }
}

/// Returns what a route announces; `None` of a route that is no announcement.
fn parse_announcement(route: &RouteMessage, index: u32) -> Option<HostRoute> {
    let (mut address, mut metric, mut interface) = (None, 0, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(it)) => address = Some(IpAddr::V4(*it)),
            RouteAttribute::Destination(RouteAddress::Inet6(it)) => address = Some(IpAddr::V6(*it)),
            RouteAttribute::Priority(it) => metric = *it,
            RouteAttribute::Oif(it) => interface = Some(*it),
            _ => {}
        }
    }
    let is_ours = interface == Some(index)
        && route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.header.kind == RouteType::Unicast;
    let address: IpAddr = address.filter(|_| is_ours)?;
    let is_host =
        route.header.destination_prefix_length == if address.is_ipv6() { 128 } else { 32 };
    if !is_host {
        return None;
    }
    let protocol = u8::from(route.header.protocol);
    Some(HostRoute { address, kind: HostRouteKind::Announcement { metric }, protocol })
}
