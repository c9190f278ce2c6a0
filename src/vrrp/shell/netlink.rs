//! What the election reads and changes: interfaces, addresses and routes.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rustix::io::Errno;

use super::{MacAddress, VirtualAddress, VirtualRoute, VrrpStartError};
use crate::rtnetlink::{RtnetlinkSocket, address_family, ignore_errnos, is_errno};

/// A network interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NetworkInterface {
    pub(super) index: u32,
    pub(super) mac: Vec<u8>,
    /// The interface is up and has a carrier.
    pub(super) is_up: bool,
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct InterfaceAddress {
    pub(super) address: VirtualAddress,
    pub(super) index: u32,
    /// The remaining lifetime; `None` for a permanent address.
    pub(super) lifetime: Option<Duration>,
}

impl RtnetlinkSocket {
    /// Returns the interface of this name.
    pub(super) fn interface(&mut self, name: &str) -> io::Result<Option<NetworkInterface>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.request(RouteNetlinkMessage::GetLink(message), 0) {
            Err(error) if is_errno(&error, Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(replies) => Ok(replies.into_iter().find_map(|reply| match reply {
                RouteNetlinkMessage::NewLink(message) => Some(parse_link(&message)),
                _ => None,
            })),
        }
    }

    /// Returns all addresses of this machine.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<InterfaceAddress>> {
        let message = AddressMessage::default();
        let replies = self.request(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)?;
        Ok(replies
            .iter()
            .filter_map(|reply| match reply {
                RouteNetlinkMessage::NewAddress(message) => parse_address(message),
                _ => None,
            })
            .collect())
    }

    /// Returns the index of the interface by which packets to an address leave.
    #[cfg(feature = "director")]
    pub(super) fn route_interface(&mut self, destination: IpAddr) -> io::Result<u32> {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(destination);
        message.header.destination_prefix_length = if destination.is_ipv6() { 128 } else { 32 };
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        let replies = self.request(RouteNetlinkMessage::GetRoute(message), 0)?;
        let attributes = replies.into_iter().flat_map(|reply| match reply {
            RouteNetlinkMessage::NewRoute(message) => message.attributes,
            _ => Vec::new(),
        });
        let mut indexes = attributes.filter_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(index),
            _ => None,
        });
        indexes.next().ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    /// Returns the name of an interface.
    #[cfg(feature = "director")]
    pub(super) fn interface_name(&mut self, index: u32) -> io::Result<String> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let replies = self.request(RouteNetlinkMessage::GetLink(message), 0)?;
        let attributes = replies.into_iter().flat_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(message) => message.attributes,
            _ => Vec::new(),
        });
        let mut names = attributes.filter_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        names.next().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Adds an address to an interface, or renews it. The kernel removes the address after its
    /// lifetime, in whole seconds.
    pub(super) fn replace_address(
        &mut self,
        address: VirtualAddress,
        index: u32,
        lifetime: Option<Duration>,
    ) -> io::Result<()> {
        let mut message = address_message(address, index);
        // Without duplicate address detection: the election has decided who has the address.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        let mut cache = CacheInfo::default();
        let seconds = lifetime.map_or(u32::MAX, |lifetime| lifetime.as_secs() as u32);
        cache.ifa_valid = seconds;
        // Over IPv6 the kernel must not choose the address as source of this machine's packets.
        cache.ifa_preferred = if address.ip().is_ipv6() { 0 } else { seconds };
        message.attributes.push(AddressAttribute::CacheInfo(cache));
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.change(RouteNetlinkMessage::NewAddress(message), flags)
    }

    /// Removes an address, if it is there.
    pub(super) fn remove_address(&mut self, address: VirtualAddress, index: u32) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(address, index));
        ignore_errnos(self.change(message, 0), &[Errno::ADDRNOTAVAIL, Errno::NODEV])
    }

    /// Adds a route, or renews it.
    pub(super) fn replace_route(
        &mut self,
        route: &VirtualRoute,
        index: u32,
        lifetime: Option<Duration>,
    ) -> io::Result<()> {
        let mut message = route_message(route, index);
        if let Some(lifetime) = lifetime.filter(|_| route.destination.ip().is_ipv6()) {
            message.attributes.push(RouteAttribute::Expires(lifetime.as_secs() as u32));
        }
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.change(RouteNetlinkMessage::NewRoute(message), flags)
    }

    /// Removes a route, if it is there.
    pub(super) fn remove_route(&mut self, route: &VirtualRoute, index: u32) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelRoute(route_message(route, index));
        ignore_errnos(self.change(message, 0), &[Errno::SRCH, Errno::NODEV])
    }

    /// Creates a macvlan on an interface, with this hardware address. An existing interface of that
    /// name is used as it is.
    pub(super) fn add_macvlan(
        &mut self,
        name: &str,
        parent_index: u32,
        mac: MacAddress,
    ) -> io::Result<()> {
        let mut message = LinkMessage::default();
        let mode = InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]);
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(parent_index),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVlan), LinkInfo::Data(mode)]),
        ];
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        ignore_errnos(self.change(RouteNetlinkMessage::NewLink(message), flags), &[Errno::EXIST])
    }

    /// Sets an interface up or down.
    pub(super) fn set_link_up(&mut self, index: u32, is_up: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if is_up { LinkFlags::Up } else { LinkFlags::empty() };
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes an interface, if it is there.
    pub(super) fn remove_link(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        ignore_errnos(self.change(RouteNetlinkMessage::DelLink(message), 0), &[Errno::NODEV])
    }
}

/// Returns the interface of this name, which must be an Ethernet interface.
pub(super) fn ethernet_interface(
    name: &str,
    netlink: &mut RtnetlinkSocket,
) -> Result<NetworkInterface, VrrpStartError> {
    let link = netlink.interface(name).map_err(VrrpStartError::wrap_io("look up the interface"))?;
    let link = link.ok_or_else(|| VrrpStartError::UnknownInterface(name.to_owned()))?;
    if link.mac.len() != 6 {
        return Err(VrrpStartError::NotEthernet(name.to_owned()));
    }
    Ok(link)
}

/// Returns the address of an interface that a virtual router sends from by default.
pub(super) fn default_source(
    interface: &str,
    is_v6: bool,
    netlink: &mut RtnetlinkSocket,
) -> Result<IpAddr, VrrpStartError> {
    let link = ethernet_interface(interface, netlink)?;
    let present = netlink.addresses().map_err(VrrpStartError::wrap_io("list the addresses"))?;
    let is_suitable = |address: IpAddr| match address {
        IpAddr::V4(_) => !is_v6,
        IpAddr::V6(address) => is_v6 && address.is_unicast_link_local(),
    };
    let candidates = || {
        let on_interface = present.iter().filter(|present| present.index == link.index);
        on_interface.filter(|present| is_suitable(present.address.ip()))
    };
    // An address with a lifetime may be a virtual address of a predecessor: only as a last resort.
    let permanent = candidates().find(|present| present.lifetime.is_none());
    let found = permanent.or_else(|| candidates().next());
    found.map(|present| present.address.ip()).ok_or_else(|| VrrpStartError::NoSource {
        interface: interface.to_owned(),
        family: if is_v6 { "link-local IPv6" } else { "IPv4" },
    })
}

fn parse_link(message: &LinkMessage) -> NetworkInterface {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(mac) => Some(mac.clone()),
        _ => None,
    });
    let flags = message.header.flags;
    let is_up = flags.contains(LinkFlags::Up | LinkFlags::Running);
    NetworkInterface { index: message.header.index, mac: mac.unwrap_or_default(), is_up }
}

fn parse_address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let (mut local, mut prefix, mut lifetime) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => prefix = Some(*ip),
            AddressAttribute::CacheInfo(cache) if cache.ifa_valid != u32::MAX => {
                lifetime = Some(Duration::from_secs(cache.ifa_valid.into()));
            }
            _ => {}
        }
    }
    let address = VirtualAddress::with_prefix_len(local.or(prefix)?, message.header.prefix_len)?;
    Some(InterfaceAddress { address, index: message.header.index, lifetime })
}

fn address_message(address: VirtualAddress, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = address_family(address.ip());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(address.ip()), AddressAttribute::Address(address.ip())];
    message
}

fn route_message(route: &VirtualRoute, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(route.destination.ip());
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    let is_on_link = route.via.is_none() && !route.destination.ip().is_ipv6();
    message.header.scope = if is_on_link { RouteScope::Link } else { RouteScope::Universe };
    let attributes = &mut message.attributes;
    if route.destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.ip().into()));
    }
    attributes.push(RouteAttribute::Oif(index));
    let address = |ip: IpAddr| RouteAddress::from(ip);
    attributes.extend(route.via.map(|ip| RouteAttribute::Gateway(address(ip))));
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(address(ip))));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}
