//! What the engine asks the kernel about devices and routes.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::RuleMessage;

use crate::rtnetlink::{RtnetlinkSocket, address_family};

/// A device of the network namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NetworkDevice {
    pub(super) index: u32,
    pub(super) name: String,
    /// Frames of it have a header of Ethernet.
    pub(super) is_ethernet: bool,
    pub(super) mac: Vec<u8>,
    /// What its kernel module says that it is, such as `veth`; none for network cards.
    pub(super) kind: Option<InfoKind>,
    /// The device that it is on or, of a pair, the other end, which may be in another namespace.
    pub(super) lower: Option<u32>,
    /// Where the other end is of a pair, if it is in another network namespace.
    pub(super) peer_elsewhere: Option<PeerPlace>,
    /// It is a port of a bridge, or of another device.
    is_port: bool,
}

/// Where a device is that is in another network namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PeerPlace {
    index: u32,
    /// The number that this namespace has for the other one.
    namespace: i32,
}

/// A machine that the kernel knows the hardware address of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NetworkNeighbour {
    pub(super) device: u32,
    pub(super) mac: Vec<u8>,
}

/// The way to an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RouteToServer {
    /// By a device.
    Device {
        /// Its number.
        index: u32,
        /// Whether the next hop is a router, and not the address itself.
        is_by_router: bool,
        /// The address of this machine that packets of its own have.
        source: Option<IpAddr>,
    },
    /// The address is this machine's own.
    Local,
}

impl RtnetlinkSocket {
    /// Returns the devices that are up.
    pub(super) fn devices(&mut self) -> io::Result<Vec<NetworkDevice>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let replies = self.request(request, NLM_F_DUMP)?;
        let devices = replies.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(link) if link.header.flags.contains(LinkFlags::Up) => {
                Some(device(link))
            }
            _ => None,
        });
        Ok(devices.collect())
    }

    /// Returns the neighbours of all devices whose hardware addresses are known.
    pub(super) fn neighbours(&mut self) -> io::Result<Vec<NetworkNeighbour>> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let replies = self.request(request, NLM_F_DUMP)?;
        let neighbours = replies.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewNeighbour(neighbour) => known_neighbour(neighbour),
            _ => None,
        });
        Ok(neighbours.collect())
    }

    /// Returns the routing rules of both families.
    pub(super) fn rules(&mut self) -> io::Result<Vec<RuleMessage>> {
        let request = RouteNetlinkMessage::GetRule(RuleMessage::default());
        let replies = self.request(request, NLM_F_DUMP)?;
        let rules = replies.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewRule(rule) => Some(rule),
            _ => None,
        });
        Ok(rules.collect())
    }

    /// Returns how packets to an address leave this machine.
    pub(super) fn route(&mut self, destination: IpAddr) -> io::Result<RouteToServer> {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(destination);
        message.header.destination_prefix_length = if destination.is_ipv6() { 128 } else { 32 };
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        let replies = self.request(RouteNetlinkMessage::GetRoute(message), 0)?;
        for reply in replies {
            let RouteNetlinkMessage::NewRoute(route) = reply else { continue };
            if route.header.kind == RouteType::Local {
                return Ok(RouteToServer::Local);
            }
            let mut devices = route.attributes.iter().filter_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            let is_by_router = route.attributes.iter().any(|attribute| {
                matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_))
            });
            let mut sources = route.attributes.iter().filter_map(|attribute| match attribute {
                RouteAttribute::PrefSource(RouteAddress::Inet(it)) => Some(IpAddr::V4(*it)),
                RouteAttribute::PrefSource(RouteAddress::Inet6(it)) => Some(IpAddr::V6(*it)),
                _ => None,
            });
            if let (RouteType::Unicast, Some(index)) = (route.header.kind, devices.next()) {
                let source = sources.next();
                return Ok(RouteToServer::Device { index, is_by_router, source });
            }
        }
        Err(io::ErrorKind::NetworkUnreachable.into())
    }

    /// Returns the device of a name, whether it is up or not.
    pub(super) fn device(&mut self, name: &str) -> io::Result<NetworkDevice> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let replies = self.request(RouteNetlinkMessage::GetLink(message), 0)?;
        let mut devices = replies.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(link) => Some(device(link)),
            _ => None,
        });
        devices.next().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Returns the hardware address of a device in another network namespace, to which packets for it alone come;
    /// `None` for a port of a bridge, where packets for others come, too.
    pub(super) fn peer_mac(&mut self, place: PeerPlace) -> io::Result<Option<Vec<u8>>> {
        let mut message = LinkMessage::default();
        message.header.index = place.index;
        message.attributes.push(LinkAttribute::IfNetnsId(place.namespace));
        let replies = self.request(RouteNetlinkMessage::GetLink(message), 0)?;
        let devices = replies.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(link) => Some(device(link)),
            _ => None,
        });
        Ok(devices.filter(|device| !device.is_port).map(|device| device.mac).next())
    }

    /// Sets a device up, without a protocol that finds hardware addresses.
    pub(super) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up | LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }
}

fn device(link: LinkMessage) -> NetworkDevice {
    let (mut name, mut mac) = (String::new(), Vec::new());
    let (mut kind, mut is_port) = (None, false);
    let (mut peer, mut peer_namespace) = (None, None);
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(it) => name = it,
            LinkAttribute::Address(it) => mac = it,
            LinkAttribute::Link(index) => peer = Some(index),
            LinkAttribute::LinkNetNsId(namespace) => peer_namespace = Some(namespace),
            LinkAttribute::Controller(_) => is_port = true,
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    let is_pair = matches!(kind, Some(InfoKind::Veth | InfoKind::Netkit));
    let place = peer.zip(peer_namespace).filter(|_| is_pair);
    let peer_elsewhere = place.map(|(index, namespace)| PeerPlace { index, namespace });
    let index = link.header.index;
    NetworkDevice { index, name, is_ethernet, mac, kind, lower: peer, peer_elsewhere, is_port }
}

/// Returns a neighbour whose hardware address packets can be sent to.
fn known_neighbour(neighbour: NeighbourMessage) -> Option<NetworkNeighbour> {
    let is_known = matches!(
        neighbour.header.state,
        NeighbourState::Permanent
            | NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
    );
    let mut macs = neighbour.attributes.into_iter().filter_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => Some(mac),
        _ => None,
    });
    let mac = macs.next().filter(|_| is_known)?;
    Some(NetworkNeighbour { device: neighbour.header.ifindex, mac })
}
