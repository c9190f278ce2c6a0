//! What the engine follows in the network namespace: devices, the other ends of pairs, and routes.

use std::collections::BTreeMap;

use super::worker::PacketWorker;
use crate::packet::error::PacketError;
use crate::packet::layout::{MAX_PEERS, RawAddress, RawPeer, server_method};
use crate::packet::netlink::{NetworkDevice, NetworkNeighbour, RouteToServer};
use crate::packet::tunnel_source::TunnelSource;
use crate::rtnetlink::RtnetlinkSocket;

impl PacketWorker {
    /// Attaches the program to devices that have appeared.
    pub(super) fn follow_devices(&mut self) -> Result<(), PacketError> {
        let present = self.netlink.devices().map_err(|source| PacketError::Netlink { source })?;
        self.program.retain_devices(|index, name| {
            present.iter().any(|device| device.index == index && device.name == name)
        });
        let tap = self.tap.device.index;
        let at_xdp = self.follow_xdp_devices(&present);
        let mut failure = at_xdp.and(self.follow_peers(&present));
        let chosen = &self.settings.devices;
        for device in present {
            let is_chosen = chosen.is_empty() || chosen.contains(&device.name);
            if device.index == tap || (device.is_ethernet && is_chosen) {
                // The others are attached all the same.
                failure = failure.and(self.program.attach(device.index, &device.name));
            }
        }
        failure
    }

    /// Has packets by one end of a pair of devices given to the other end, past the queues between, if all neighbours
    /// have its hardware address. Else the kernel finds the neighbour of each packet.
    fn follow_peers(&mut self, present: &[NetworkDevice]) -> Result<(), PacketError> {
        let mut found = BTreeMap::new();
        if self.settings.redirect_peer && present.iter().any(|it| it.peer_elsewhere.is_some()) {
            let neighbours = self.netlink.neighbours();
            let neighbours = neighbours.map_err(|source| PacketError::Netlink { source })?;
            // Frames at XDP need neighbours that the kernel knows.
            let has_xdp = |device: &&NetworkDevice| self.program.has_xdp(device.index);
            for device in present.iter().filter(|device| !has_xdp(device)) {
                if let Some(peer) = peer_of(device, &neighbours, &mut self.netlink)
                    && found.len() < MAX_PEERS
                {
                    found.insert(device.index, peer);
                }
            }
        }
        let known = self.maps.peers()?;
        for device in known.keys().filter(|device| !found.contains_key(device)) {
            self.maps.remove_peer(*device)?;
        }
        for (device, peer) in found {
            if known.get(&device) != Some(&peer) {
                self.maps.set_peer(device, &peer)?;
            }
        }
        Ok(())
    }

    /// Reads the route to each server, or to those alone that have none yet.
    pub(super) fn follow_routes(&mut self, only_new: bool) -> Result<(), PacketError> {
        let mut known = BTreeMap::new();
        for (index, address) in self.servers.addresses(only_new) {
            let netlink = &mut self.netlink;
            let route = *known.entry(address).or_insert_with(|| netlink.route(address).ok());
            let Some(slot) = self.servers.get_mut(index) else { continue };
            let mut sources = self.settings.tunnel_sources.iter();
            let tunnel_source = sources.find(|it| it.network().is_ipv4() == address.is_ipv4());
            let way = way_to(route, slot.raw.method, tunnel_source);
            let was_reported = std::mem::replace(&mut slot.is_reported, way.is_err());
            if let Err(reason) = way
                && !was_reported
            {
                tracing::warn!("engine packet: server {address} gets no flows: {reason}");
            }
            let way = way.unwrap_or_default();
            self.servers.update(&mut self.maps, index, |raw| {
                raw.ifindex = way.ifindex;
                raw.source = way.source;
                raw.source_spread = way.source_spread;
            })?;
        }
        Ok(())
    }
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, Default)]
struct WayToServer {
    ifindex: u32,
    /// Of a tunnel.
    source: RawAddress,
    source_spread: u32,
}

/// Returns the way to a server, or why packets do not reach it.
fn way_to(
    route: Option<RouteToServer>,
    method: u8,
    tunnel_source: Option<&TunnelSource>,
) -> Result<WayToServer, &'static str> {
    match (route, method) {
        (Some(RouteToServer::Device { is_by_router: true, .. }), server_method::DIRECT) => {
            Err("its method is dr, and it is not on a network of this machine")
        }
        (
            Some(RouteToServer::Device { index, source, .. }),
            server_method::IPIP | server_method::GUE,
        ) => {
            let source = tunnel_source.map(TunnelSource::network).or(source);
            let no_source = "its method is tunnel, and the route to it has no source address";
            Ok(WayToServer {
                ifindex: index,
                source: source.ok_or(no_source)?.into(),
                source_spread: tunnel_source.map_or(0, TunnelSource::spread).to_be(),
            })
        }
        (Some(RouteToServer::Device { index, .. }), _) => {
            Ok(WayToServer { ifindex: index, ..WayToServer::default() })
        }
        (Some(RouteToServer::Local), _) => {
            Err("it is this machine, to which no packets are carried")
        }
        (None, _) => Err("there is no route to it"),
    }
}

/// Returns the addresses of frames to the peer of a device; `None` without one in another network namespace, if that is
/// not known to be the only neighbour, or if it may not be looked at.
fn peer_of(
    device: &NetworkDevice,
    neighbours: &[NetworkNeighbour],
    netlink: &mut RtnetlinkSocket,
) -> Option<RawPeer> {
    let place = device.peer_elsewhere?;
    let mut macs = neighbours.iter().filter(|it| it.device == device.index).map(|it| &it.mac);
    let first = macs.next()?;
    let destination = netlink.peer_mac(place).ok().flatten()?;
    if *first != destination || !macs.all(|mac| *mac == destination) {
        return None;
    }
    let source = device.mac.as_slice();
    Some(RawPeer { destination: destination.try_into().ok()?, source: source.try_into().ok()? })
}
