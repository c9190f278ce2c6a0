//! What the shell asks of the kernel by rtnetlink: links, addresses, routes.
//!
//! Each call is a request and its answer, which the kernel gives at once; nothing here waits for
//! anybody else.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use super::{VirtualAddress, VirtualRoute};

/// Longer than any datagram of an answer: kernels fill up to 32 KiB.
const MAX_DATAGRAM_LEN: usize = 32 * 1024;
/// Groups of notifications: links, and addresses of both families.
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// A network interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NetworkInterface {
    pub(super) index: u32,
    pub(super) mac: Vec<u8>,
    /// Switched on, and with a carrier.
    pub(super) is_up: bool,
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct InterfaceAddress {
    pub(super) address: VirtualAddress,
    pub(super) index: u32,
    /// How much longer, unless for ever.
    pub(super) lifetime: Option<Duration>,
}

/// Asks the kernel.
pub(super) struct RtnetlinkSocket {
    socket: Socket,
    sequence: u32,
}

impl std::fmt::Debug for RtnetlinkSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

impl RtnetlinkSocket {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The answer is there when the request has been sent; should it not be, that is an error.
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// An interface by its name.
    pub(super) fn interface(&mut self, name: &str) -> io::Result<Option<NetworkInterface>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.request(RouteNetlinkMessage::GetLink(message), 0) {
            Err(error) if is_errno(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(parse_link(&message)),
                _ => None,
            })),
        }
    }

    /// All addresses of this machine.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<InterfaceAddress>> {
        let message = AddressMessage::default();
        let answers = self.request(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => parse_address(message),
                _ => None,
            })
            .collect())
    }

    /// Puts an address on an interface, or renews it there: it goes by itself after its lifetime,
    /// which counts in seconds.
    pub(super) fn replace_address(
        &mut self,
        address: VirtualAddress,
        index: u32,
        lifetime: Option<Duration>,
    ) -> io::Result<()> {
        let mut message = address_message(address, index);
        // Nobody asks the link first whether the address is taken: the election has decided.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        let mut cache = CacheInfo::default();
        let seconds = lifetime.map_or(u32::MAX, |lifetime| lifetime.as_secs() as u32);
        cache.ifa_valid = seconds;
        // Over IPv6 it must not be chosen for what this machine sends of its own accord.
        cache.ifa_preferred = if address.ip().is_ipv6() { 0 } else { seconds };
        message.attributes.push(AddressAttribute::CacheInfo(cache));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewAddress(message), flags).map(drop)
    }

    /// Takes an address away, if it is there.
    pub(super) fn remove_address(&mut self, address: VirtualAddress, index: u32) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(address, index));
        ignore_errnos(self.request(message, NLM_F_ACK), &[Errno::EADDRNOTAVAIL, Errno::ENODEV])
    }

    /// Puts a route in place, or renews it.
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
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewRoute(message), flags).map(drop)
    }

    /// Takes a route away, if it is there.
    pub(super) fn remove_route(&mut self, route: &VirtualRoute, index: u32) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelRoute(route_message(route, index));
        ignore_errnos(self.request(message, NLM_F_ACK), &[Errno::ESRCH, Errno::ENODEV])
    }

    /// Makes a macvlan upon an interface, with this hardware address; one of that name that is there
    /// already is taken for it.
    pub(super) fn add_macvlan(&mut self, name: &str, below: u32, mac: [u8; 6]) -> io::Result<()> {
        let mut message = LinkMessage::default();
        let mode = InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]);
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(below),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVlan), LinkInfo::Data(mode)]),
        ];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        ignore_errnos(self.request(RouteNetlinkMessage::NewLink(message), flags), &[Errno::EEXIST])
    }

    /// Switches an interface on or off.
    pub(super) fn set_link_up(&mut self, index: u32, on: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if on { LinkFlags::Up } else { LinkFlags::empty() };
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Takes an interface away, if it is there.
    pub(super) fn remove_link(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        ignore_errnos(
            self.request(RouteNetlinkMessage::DelLink(message), NLM_F_ACK),
            &[Errno::ENODEV],
        )
    }

    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.receive_replies(flags & (NLM_F_ACK | NLM_F_DUMP) == 0)
    }

    /// All parts of an answer, up to its end: an acknowledgement, or the only part if it is alone.
    fn receive_replies(&mut self, is_alone: bool) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut answers = Vec::new();
        loop {
            let mut buffer = Vec::with_capacity(MAX_DATAGRAM_LEN);
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                // The next part begins at a multiple of four.
                let length = (message.header.length as usize).max(16).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    _ => {}
                }
            }
            if is_alone && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }
}

/// Readable when links or addresses have changed.
pub(super) struct RtnetlinkMonitor {
    socket: Socket,
}

impl std::fmt::Debug for RtnetlinkMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl RtnetlinkMonitor {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Has anything changed since? What it was is to be asked: notifications may have been lost.
    pub(super) fn has_changed(&mut self) -> bool {
        let mut changed = false;
        // Bounded: what comes meanwhile is for the next turn.
        for _ in 0..64 {
            let mut buffer = Vec::with_capacity(MAX_DATAGRAM_LEN);
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Some were lost, or whatever it was.
                Err(_) => changed = true,
            }
        }
        changed
    }
}

impl AsFd for RtnetlinkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // The crate below gives no borrowed descriptor.
        crate::sys::fd::borrow_fd(&self.socket)
    }
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
    let (mut local, mut other, mut lifetime) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            AddressAttribute::CacheInfo(cache) if cache.ifa_valid != u32::MAX => {
                lifetime = Some(Duration::from_secs(cache.ifa_valid.into()));
            }
            _ => {}
        }
    }
    let address = VirtualAddress::with_prefix(local.or(other)?, message.header.prefix_len)?;
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

const fn address_family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn is_errno(error: &io::Error, code: Errno) -> bool {
    error.raw_os_error() == Some(code as i32)
}

/// Puts up with these.
fn ignore_errnos<T>(result: io::Result<T>, codes: &[Errno]) -> io::Result<()> {
    match result {
        Err(error) if codes.iter().any(|code| is_errno(&error, *code)) => Ok(()),
        result => result.map(drop),
    }
}
