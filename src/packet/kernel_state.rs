//! What the kernel has of a packet engine, whether a process runs it or not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use super::error::PacketError;
use super::layout::{
    LAYOUT_VERSION, MAX_SERVERS, PROTOCOL_TCP, RawServer, RawServiceKey, SERVICE_UNOWNED,
};
use super::link_name::{parse_link_name, pinned_names};
use super::maps::PacketMaps;
use super::program::{self, LINK_PREFIX};
use super::statistics::PacketStatistics;
use super::xdp_program::pinned_links;
use crate::engine::{EngineProtocol, ForwardingMethod};
use crate::rtnetlink::RtnetlinkSocket;

/// What the kernel has of a [`PacketEngine`](super::PacketEngine): for a look from outside of its process.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct PacketKernelState {
    /// The devices that the program is attached to by links; unknown before Linux 6.6.
    pub devices: Vec<String>,
    /// Those of them at whose drivers frames are carried ([`PacketSettings::xdp_devices`](super::PacketSettings::xdp_devices)).
    pub xdp_devices: Vec<String>,
    /// The services that get new flows.
    pub services: Vec<PacketServiceState>,
    /// The flows that are remembered.
    pub flows: u64,
    /// What the program has counted.
    pub statistics: PacketStatistics,
}

/// A service as the kernel has it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PacketServiceState {
    /// The protocol.
    pub protocol: EngineProtocol,
    /// The virtual address.
    pub address: SocketAddr,
    /// Whether a process has claimed it. If none has, a table decides new flows.
    pub is_claimed: bool,
    /// The servers, those too that have left and have flows.
    pub servers: Vec<PacketServerState>,
}

/// A server of a service as the kernel has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PacketServerState {
    /// The server's address.
    pub address: SocketAddr,
    /// How packets reach it.
    pub method: ForwardingMethod,
    /// Whether the table chooses it: it is up, and packets reach it.
    pub is_available: bool,
    /// The flows that it has.
    pub flows: u64,
    /// Bytes sent to it.
    pub bytes_in: u64,
    /// Bytes received from it; unknown where it answers clients by itself.
    pub bytes_out: Option<u64>,
}

impl PacketKernelState {
    /// Reads the state of the engine that has a [folder](super::PacketSettings::pin_folder); `None` if there is
    /// none. Takes a microsecond for each flow.
    ///
    /// # Errors
    /// [`PacketError`] if the maps cannot be read.
    pub fn read(pin_folder: &Path) -> Result<Option<Self>, PacketError> {
        let folder = pin_folder.join(format!("v{LAYOUT_VERSION}"));
        if !folder.is_dir() {
            return Ok(None);
        }
        let names = pinned_names(&folder).into_iter();
        let devices = names.filter_map(|name| Some(parse_link_name(LINK_PREFIX, &name)?.1));
        let mut devices: Vec<_> = devices.collect();
        devices.sort();
        let xdp_links = pinned_links(&folder).into_iter();
        let mut xdp_devices: Vec<_> = xdp_links.map(|(_, link)| link.device).collect();
        xdp_devices.sort();
        let maps = PacketMaps::from_pins(&folder)?;
        let mut flows_of = BTreeMap::<u32, u64>::new();
        for entry in maps.flows() {
            let flow = entry?;
            if !flow.is_to_client() {
                *flows_of.entry(flow.server).or_default() += 1;
            }
        }
        let mut servers = BTreeMap::<u32, Vec<PacketServerState>>::new();
        for index in 0..MAX_SERVERS {
            let server = maps.server(index)?;
            if server == RawServer::default() {
                continue;
            }
            let counters = maps.server_counters(index)?;
            servers.entry(server.service).or_default().push(PacketServerState {
                address: server.address(),
                method: server.forwarding_method(),
                is_available: server.is_available != 0 && server.ifindex != 0,
                flows: flows_of.get(&index).copied().unwrap_or_default(),
                bytes_in: counters.bytes_in,
                bytes_out: (!server.is_direct()).then_some(counters.bytes_out),
            });
        }
        let services = maps.services()?.into_iter().filter(|(key, _)| key.protocol != 0);
        let mut services: Vec<_> = services
            .map(|(key, service)| PacketServiceState {
                protocol: protocol(key),
                address: key.address(),
                is_claimed: service.flags & SERVICE_UNOWNED == 0,
                servers: servers.remove(&service.id).unwrap_or_default(),
            })
            .collect();
        services.sort_by_key(|service| service.address);
        let flows = flows_of.values().sum();
        let statistics = PacketStatistics::read(&maps)?;
        Ok(Some(Self { devices, xdp_devices, services, flows, statistics }))
    }
}

fn protocol(key: RawServiceKey) -> EngineProtocol {
    match key.protocol {
        PROTOCOL_TCP => EngineProtocol::Tcp,
        _ => EngineProtocol::Udp,
    }
}

/// Removes the program of an engine from all devices of this network namespace, and its maps, by their
/// [folder](super::PacketSettings::pin_folder). Flows end: their next packets reach the stack of this machine.
///
/// For what a process has left that was killed, or has handed its services over. A process that runs does not
/// notice, and carries nothing any more.
///
/// # Errors
/// [`PacketError`] if the folder cannot be removed, or devices not be listed.
pub fn detach(pin_folder: &Path) -> Result<(), PacketError> {
    let list = || RtnetlinkSocket::open()?.devices();
    let devices = list().map_err(|source| PacketError::Netlink { source })?;
    program::detach(pin_folder, devices.iter().map(|device| device.name.as_str()))
}
