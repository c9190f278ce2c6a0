//! How the model answers packets by ICMP errors.

use std::net::IpAddr;

use super::frames::{
    ETHERNET_LEN, IPV4_LEN, IPV6_LEN, TCP_CHECKSUM, UDP_CHECKSUM, checksum, icmp_error,
    transport_of, with_hop_limit, with_ip_octets,
};
use super::model::{FrameVerdict, ModelOutput, ProgramModel};
use super::model_state::ModelFlow;
use super::parsed::PacketKey;
use crate::packet::layout::{PROTOCOL_TCP, server_method};

/// The octets that an error quotes after the header of IP.
const QUOTED_LEN: usize = 20;

/// Returns whether an address is that of one machine.
fn is_unicast(address: IpAddr) -> bool {
    let is_of_none = match address {
        IpAddr::V4(address) => address.octets()[0] == 0 || address.octets()[0] >= 224,
        IpAddr::V6(address) => address.is_unspecified(),
    };
    !address.is_multicast() && !is_of_none && (address.is_ipv6() || !address.is_loopback())
}

/// Returns the packet of a frame as an error quotes it: the sum of what follows the header of IP is 0, also if a
/// checksum is put there later.
fn quoted(frame: &[u8], protocol: u8) -> Vec<u8> {
    let ip_len = if frame[12] == 0x08 { IPV4_LEN } else { IPV6_LEN };
    let mut packet = frame[ETHERNET_LEN..].to_vec();
    packet.resize(ip_len + QUOTED_LEN, 0);
    if transport_of(frame) == ETHERNET_LEN + ip_len && !is_fragment_of_ipv6(frame) {
        let at = if protocol == PROTOCOL_TCP { TCP_CHECKSUM } else { UDP_CHECKSUM };
        packet[ip_len + at..][..2].fill(0xff);
    }
    packet[ip_len + QUOTED_LEN - 2..].fill(0);
    let sum = checksum(&packet[ip_len..]);
    packet[ip_len + QUOTED_LEN - 2..].copy_from_slice(&sum);
    packet
}

fn is_fragment_of_ipv6(frame: &[u8]) -> bool {
    frame[12] != 0x08 && frame[ETHERNET_LEN + 6] == 44
}

impl ProgramModel {
    /// Returns the MTU that a packet to a server is longer than, without what its tunnel adds.
    pub(super) fn exceeded_mtu(&self, flow: &ModelFlow, packet_end: usize) -> Option<usize> {
        let server = self.servers.get(&flow.server).filter(|_| !flow.is_to_client())?;
        let ip_len = if server.address.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
        let overhead = match server.method {
            server_method::IPIP => ip_len,
            server_method::GUE => ip_len + 12,
            _ => 0,
        };
        // The route may have changed since the flow was made.
        let mtu = if server.has_route { server.mtu } else { flow.mtu };
        let mtu = mtu? - overhead;
        (packet_end - ETHERNET_LEN > mtu).then_some(mtu)
    }

    /// Drops a packet that is longer than an MTU, or has passed too many routers, and answers it if it may be.
    pub(super) fn answer(
        &mut self,
        (key, has_ports): (PacketKey, bool),
        mtu: Option<usize>,
        output: &mut ModelOutput,
    ) -> FrameVerdict {
        match mtu {
            Some(_) => self.statistics.too_long += 1,
            None => self.statistics.hop_limit += 1,
        }
        let (source, destination) = (key.0.ip(), key.1.ip());
        if !has_ports || !is_unicast(source) || !self.director.answers {
            return FrameVerdict::Drop;
        }
        let quoted = quoted(&output.frame, key.2);
        let kind = match (source.is_ipv4(), mtu) {
            (true, Some(_)) => [3, 4],
            (true, None) => [11, 0],
            (false, Some(_)) => [2, 0],
            (false, None) => [3, 0],
        };
        let mtu = mtu.unwrap_or(0) as u32;
        let message = icmp_error(destination, source, kind, mtu, &quoted);
        let answer = if source.is_ipv4() {
            let answer = with_ip_octets(&message, 1, &[0xc0]);
            with_ip_octets(&answer, 4, &[0, 0, 0x40, 0])
        } else {
            message
        };
        output.frame = [&output.frame[..12], &with_hop_limit(&answer, 64)[12..]].concat();
        FrameVerdict::Redirect
    }
}
