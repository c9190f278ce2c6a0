//! What the model reads of a frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::frames::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, PROTOCOL_ICMP, PROTOCOL_ICMPV6};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP};

/// Source, destination and protocol of a packet.
pub(super) type PacketKey = (SocketAddr, SocketAddr, u8);

/// The reason for which a packet is left to the stack although its destination may be virtual.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LeftToStack {
    Fragment,
    Options,
    Malformed,
}

/// What is said of a fragment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FragmentPart {
    /// What the fragments of a packet have in common.
    pub(super) id: u32,
    /// Whether it is not the first, which has the ports.
    pub(super) is_later: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ParsedFrame {
    /// Nothing that the engine knows.
    Other,
    Left {
        destination: IpAddr,
        reason: LeftToStack,
    },
    /// TCP or UDP.
    Segment {
        /// Without ports for a later fragment.
        key: PacketKey,
        transport: usize,
        hop_limit: u8,
        tcp_flags: u8,
        fragment: Option<FragmentPart>,
    },
    /// An ICMP error that quotes a packet of TCP or UDP.
    IcmpError {
        source: IpAddr,
        destination: IpAddr,
        transport: usize,
        hop_limit: u8,
        quoted: PacketKey,
    },
}

fn number(octets: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([octets[at], octets[at + 1]]))
}

/// Returns the place behind the packet of a frame, as its header says.
pub(super) fn packet_end(frame: &[u8]) -> usize {
    let len = match number(frame, 12) {
        0x0800 => number(frame, ETHERNET_LEN + 2),
        _ if number(frame, ETHERNET_LEN + 4) == 0 => 0,
        _ => IPV6_LEN + number(frame, ETHERNET_LEN + 4),
    };
    // Joined from many packets, one may be longer than the field can say.
    if len == 0 { frame.len() } else { ETHERNET_LEN + len }
}

fn ipv4_address(octets: &[u8], at: usize) -> IpAddr {
    Ipv4Addr::from(<[u8; 4]>::try_from(&octets[at..at + 4]).expect("four octets")).into()
}

fn ipv6_address(octets: &[u8], at: usize) -> Ipv6Addr {
    Ipv6Addr::from(<[u8; 16]>::try_from(&octets[at..at + 16]).expect("16 octets"))
}

/// The header of IP, and what is behind it.
struct IpPacket<'a> {
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    /// The protocol of the payload, with the payload, or the reason for which it is not known.
    payload: Result<IpPayload<'a>, LeftToStack>,
}

/// The protocol of a payload, with the payload, and what of the packet it is.
type IpPayload<'a> = (u8, &'a [u8], Option<FragmentPart>);

fn read_ipv4(ip: &[u8]) -> Option<IpPacket<'_>> {
    if ip.len() < IPV4_LEN {
        return None;
    }
    let (version, header_len) = (ip[0] >> 4, ip[0] & 15);
    // Joined from many packets, one may be longer than the field can say.
    let len = if number(ip, 2) == 0 { ip.len() } else { number(ip, 2) };
    let [more_fragments, reserved, offset] = [0x2000, 0x8000, 0x1fff].map(|it| number(ip, 6) & it);
    let payload = if version != 4 || header_len < 5 {
        Err(LeftToStack::Malformed)
    } else if header_len > 5 {
        Err(LeftToStack::Options)
    } else if !(IPV4_LEN..=ip.len()).contains(&len) {
        Err(LeftToStack::Malformed)
    } else if reserved > 0 {
        Err(LeftToStack::Fragment)
    } else {
        let id = u32::from(u16::from_ne_bytes([ip[4], ip[5]]));
        let fragment = FragmentPart { id, is_later: offset > 0 };
        let is_fragment = more_fragments + offset > 0;
        Ok((ip[9], &ip[IPV4_LEN..len], is_fragment.then_some(fragment)))
    };
    let (source, destination) = (ipv4_address(ip, 12), ipv4_address(ip, 16));
    Some(IpPacket { source, destination, hop_limit: ip[8], payload })
}

fn read_ipv6(ip: &[u8]) -> Option<IpPacket<'_>> {
    if ip.len() < IPV6_LEN {
        return None;
    }
    let (source, destination) = (ipv6_address(ip, 8), ipv6_address(ip, 24));
    // No packet on a wire has addresses that stand for those of IPv4.
    if source.to_ipv4_mapped().is_some() || destination.to_ipv4_mapped().is_some() {
        return None;
    }
    let len = if number(ip, 4) == 0 { ip.len() - IPV6_LEN } else { number(ip, 4) };
    let payload = match ip[IPV6_LEN..].get(..len) {
        Some(payload) if ip[0] >> 4 == 6 => skip_extensions(ip[6], payload),
        _ => Err(LeftToStack::Malformed),
    };
    Some(IpPacket {
        source: source.into(),
        destination: destination.into(),
        hop_limit: ip[7],
        payload,
    })
}

/// Skips up to four headers of options, and that of a fragment behind them.
fn skip_extensions(mut next: u8, mut rest: &[u8]) -> Result<IpPayload<'_>, LeftToStack> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION_OPTIONS: u8 = 60;
    for skipped in 0.. {
        match next {
            FRAGMENT => {
                let (header, payload) = rest.split_at_checked(8).ok_or(LeftToStack::Malformed)?;
                let (more, offset) = (header[3] & 1, number(header, 2) & 0xfff8);
                let id = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
                let fragment = FragmentPart { id, is_later: offset > 0 };
                let is_fragment = more > 0 || offset > 0;
                return Ok((header[0], payload, is_fragment.then_some(fragment)));
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS if skipped == 4 => {
                return Err(LeftToStack::Options);
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS if rest.len() < 8 => {
                return Err(LeftToStack::Malformed);
            }
            ROUTING => return Err(LeftToStack::Options),
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                let len = 8 + 8 * usize::from(rest[1]);
                next = rest[0];
                rest = rest.get(len..).ok_or(LeftToStack::Malformed)?;
            }
            _ => break,
        }
    }
    Ok((next, rest, None))
}

/// Reads the packet that an ICMP error quotes: as it was sent, of TCP or UDP, and not another fragment than
/// the first.
fn read_quoted(is_ipv4: bool, quoted: &[u8]) -> Option<PacketKey> {
    let (source, destination, protocol, ports) = if is_ipv4 {
        if quoted.len() < IPV4_LEN || quoted[0] != 0x45 || number(quoted, 6) & 0x1fff != 0 {
            return None;
        }
        let ports = &quoted[IPV4_LEN..];
        (ipv4_address(quoted, 12), ipv4_address(quoted, 16), quoted[9], ports)
    } else {
        if quoted.len() < IPV6_LEN || quoted[0] >> 4 != 6 {
            return None;
        }
        let (source, destination) = (ipv6_address(quoted, 8), ipv6_address(quoted, 24));
        if source.to_ipv4_mapped().is_some() || destination.to_ipv4_mapped().is_some() {
            return None;
        }
        (source.into(), destination.into(), quoted[6], &quoted[IPV6_LEN..])
    };
    let is_flow = matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP) && ports.len() >= 4;
    is_flow.then(|| {
        let port = |at| number(ports, at) as u16;
        let (source, destination) =
            (SocketAddr::new(source, port(0)), SocketAddr::new(destination, port(2)));
        (source, destination, protocol)
    })
}

impl ParsedFrame {
    pub(super) fn parse(frame: &[u8]) -> Self {
        // The loopback device has the address zero; all else is for other machines, or for all.
        if frame[..6] != [0; 6] {
            return Self::Other;
        }
        let ip = &frame[ETHERNET_LEN..];
        let (is_ipv4, packet) = match number(frame, 12) {
            0x0800 => (true, read_ipv4(ip)),
            0x86dd => (false, read_ipv6(ip)),
            _ => return Self::Other,
        };
        let Some(packet) = packet else { return Self::Other };
        let (source, destination, hop_limit) =
            (packet.source, packet.destination, packet.hop_limit);
        let left = |reason| Self::Left { destination, reason };
        let (protocol, payload, fragment) = match packet.payload {
            Ok(payload) => payload,
            Err(reason) => return left(reason),
        };
        let transport = payload.as_ptr() as usize - frame.as_ptr() as usize;
        let segment_of = |ports: [usize; 2], tcp_flags| {
            let source = SocketAddr::new(source, ports[0] as u16);
            let key = (source, SocketAddr::new(destination, ports[1] as u16), protocol);
            Self::Segment { key, transport, hop_limit, tcp_flags, fragment }
        };
        match fragment {
            Some(_) if !matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP) => {
                return left(LeftToStack::Fragment);
            }
            Some(FragmentPart { is_later: true, .. }) => return segment_of([0, 0], 0),
            _ => {}
        }
        let segment = |tcp_flags| segment_of([number(payload, 0), number(payload, 2)], tcp_flags);
        match protocol {
            PROTOCOL_TCP if payload.len() < 20 => left(LeftToStack::Malformed),
            PROTOCOL_TCP => {
                let header_len = usize::from(payload[12] >> 4) * 4;
                if !(20..=payload.len()).contains(&header_len) {
                    return left(LeftToStack::Malformed);
                }
                segment(payload[13])
            }
            PROTOCOL_UDP if payload.len() < 8 => left(LeftToStack::Malformed),
            PROTOCOL_UDP => segment(0),
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 if is_ipv4 != (protocol == PROTOCOL_ICMP) => {
                Self::Other
            }
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 if payload.len() < 8 => left(LeftToStack::Malformed),
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
                // Unreachable, source quench, time exceeded, parameter problem; of ICMPv6 too big as well.
                let errors: &[u8] = if is_ipv4 { &[3, 4, 11, 12] } else { &[1, 2, 3, 4] };
                match read_quoted(is_ipv4, &payload[8..]) {
                    Some(quoted) if errors.contains(&payload[0]) => {
                        Self::IcmpError { source, destination, transport, hop_limit, quoted }
                    }
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }
}
