//! How the model puts packets into others, for servers by tunnels.

use std::net::{IpAddr, SocketAddr};

use super::frames::{ETHERNET_LEN, frame, with_hop_limit, with_ip_octets};
use super::model::{ModelOutput, ProgramModel};
use super::model_state::ModelServer;
use super::parsed::{PacketKey, packet_end};
use crate::packet::layout::{PROTOCOL_UDP, server_method};

/// The port of UDP that servers get packets by GUE at.
pub(super) const GUE_PORT: u16 = 6080;

const PROTOCOL_IPIP: u8 = 4;
const PROTOCOL_IPV6: u8 = 41;

/// Returns the address of the director that packets to a server have as their source.
pub(super) fn outer_source(server: SocketAddr) -> IpAddr {
    let text = if server.is_ipv4() { "10.2.0.1" } else { "fd02::1" };
    text.parse().expect("an address")
}

/// Returns the source of a flow's packets to a server.
fn spread_source(server: &ModelServer, hash: u64) -> IpAddr {
    let bits = u32::from_be_bytes((hash as u32).to_le_bytes()) & server.source_spread;
    match outer_source(server.address) {
        IpAddr::V4(source) => IpAddr::V4((u32::from(source) | bits).into()),
        IpAddr::V6(source) => IpAddr::V6((u128::from(source) | u128::from(bits)).into()),
    }
}

/// The number of a flow, by which its packets are spread.
fn flow_hash((source, destination, _): PacketKey) -> u64 {
    let fold = |address: IpAddr| match address {
        IpAddr::V4(address) => u32::from(address),
        IpAddr::V6(address) => {
            let number = u128::from(address);
            (0..4).fold(0, |folded, word| folded ^ (number >> (32 * word)) as u32)
        }
    };
    let [source_port, destination_port] =
        [source, destination].map(|end| u64::from(end.port().swap_bytes()));
    let addresses = u64::from(fold(source.ip()) ^ fold(destination.ip()));
    let mut hash = addresses << 32 | destination_port << 16 | source_port;
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// Returns a frame whose packet is in another one, to a server, with the length of what is before it.
fn encapsulate(sent: &[u8], server: &ModelServer, key: PacketKey) -> (Vec<u8>, usize) {
    let (frame_of_packet, behind) = sent.split_at(packet_end(sent));
    let packet = &frame_of_packet[ETHERNET_LEN..];
    let is_ipv6 = packet[0] >> 4 == 6;
    let class = if is_ipv6 { packet[0] << 4 | packet[1] >> 4 } else { packet[1] };
    let inner = if is_ipv6 { PROTOCOL_IPV6 } else { PROTOCOL_IPIP };
    let hash = flow_hash(key);
    let (protocol, header) = if server.method == server_method::GUE {
        let port = 0xc000 | (hash & 0x3fff) as u16;
        let len = (12 + packet.len()) as u16;
        let ports = [port.to_be_bytes(), GUE_PORT.to_be_bytes()].concat();
        let gue = [&ports[..], &len.to_be_bytes(), &[0, 0, 0, inner, 0, 0]].concat();
        (PROTOCOL_UDP, gue)
    } else {
        (inner, Vec::new())
    };
    let payload = [&header[..], packet].concat();
    let outer = frame(spread_source(server, hash), server.address.ip(), protocol, &payload);
    let outer = if server.address.is_ipv4() {
        // No identification, and it is not to be fragmented.
        let outer = with_ip_octets(&outer, 1, &[class]);
        with_ip_octets(&outer, 4, &[0, 0, 0x40, 0])
    } else {
        let first = 6 << 28 | u32::from(class) << 20 | (hash & 0xf_ffff) as u32;
        with_ip_octets(&outer, 0, &first.to_be_bytes())
    };
    let outer = with_hop_limit(&outer, 64);
    let len = outer.len() - frame_of_packet.len();
    ([&sent[..12], &outer[12..], behind].concat(), len)
}

impl ProgramModel {
    /// Puts a packet into another one if the server has a tunnel.
    pub(super) fn encapsulate(&self, server: u32, key: PacketKey, output: &mut ModelOutput) {
        let server = &self.servers[&server];
        if [server_method::IPIP, server_method::GUE].contains(&server.method) {
            let (frame, len) = encapsulate(&output.frame, server, key);
            output.frame = frame;
            output.checksums.iter_mut().for_each(|at| *at += len);
        }
    }
}
