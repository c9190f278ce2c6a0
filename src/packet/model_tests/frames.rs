//! Frames that are valid, and what can be wrong with them.

use std::net::{IpAddr, SocketAddr};

use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP};

pub(super) const ETHERNET_LEN: usize = 14;
pub(super) const IPV4_LEN: usize = 20;
pub(super) const IPV6_LEN: usize = 40;
pub(super) const PROTOCOL_ICMP: u8 = 1;
pub(super) const PROTOCOL_ICMPV6: u8 = 58;

pub(super) const FIN: u8 = 1;
pub(in crate::packet) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;

/// Offsets of checksums in their headers.
pub(super) const IPV4_CHECKSUM: usize = 10;
pub(super) const TCP_CHECKSUM: usize = 16;
pub(super) const UDP_CHECKSUM: usize = 6;
pub(super) const ICMP_CHECKSUM: usize = 2;

/// Returns the checksum of RFC 1071 of octets whose own checksum is zero.
pub(super) fn checksum(octets: &[u8]) -> [u8; 2] {
    let words = octets.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Returns the pseudo header of a transport protocol.
pub(super) fn pseudo_header(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    len: usize,
) -> Vec<u8> {
    let mut header = [octets(source), octets(destination)].concat();
    header.extend((len as u32).to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    header
}

/// Returns a frame with a packet of IP.
pub(super) fn frame(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    // The addresses of the loopback device, on which programs are tested.
    let mut frame = vec![0; 12];
    let mut header;
    if source.is_ipv4() {
        frame.extend([0x08, 0x00]);
        header = vec![0x45, 0];
        header.extend(((IPV4_LEN + payload.len()) as u16).to_be_bytes());
        header.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
        header.extend([octets(source), octets(destination)].concat());
        let sum = checksum(&header);
        header[IPV4_CHECKSUM..][..2].copy_from_slice(&sum);
    } else {
        frame.extend([0x86, 0xdd]);
        header = vec![0x60, 0, 0, 0];
        header.extend((payload.len() as u16).to_be_bytes());
        header.extend([protocol, 64]);
        header.extend([octets(source), octets(destination)].concat());
    }
    frame.extend(header);
    frame.extend(payload);
    frame
}

/// Returns a frame with a segment whose checksum, at an offset in it, is filled in.
fn with_checksum(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    mut segment: Vec<u8>,
    at: usize,
) -> Vec<u8> {
    let mut summed = pseudo_header(source, destination, protocol, segment.len());
    if protocol == PROTOCOL_ICMP {
        summed.clear();
    }
    summed.extend(&segment);
    let mut sum = checksum(&summed);
    if protocol == PROTOCOL_UDP && sum == [0, 0] {
        sum = [0xff, 0xff];
    }
    segment[at..at + 2].copy_from_slice(&sum);
    frame(source, destination, protocol, &segment)
}

pub(in crate::packet) fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
    // Of an odd length.
    tcp_with_payload(source, destination, flags, b"hello")
}

pub(super) fn tcp_with_payload(
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut segment = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    segment.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(payload);
    with_checksum(source.ip(), destination.ip(), PROTOCOL_TCP, segment, TCP_CHECKSUM)
}

pub(super) fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut segment = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    segment.extend(((8 + payload.len()) as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    with_checksum(source.ip(), destination.ip(), PROTOCOL_UDP, segment, UDP_CHECKSUM)
}

/// Returns a datagram whose sender has not computed a checksum.
pub(super) fn udp_without_checksum(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut frame = udp(source, destination, b"hello");
    let at = transport_of(&frame) + UDP_CHECKSUM;
    frame[at..at + 2].fill(0);
    frame
}

/// Returns an ICMP message of a type that quotes a packet of IP.
pub(super) fn icmp(source: IpAddr, destination: IpAddr, kind: u8, quoted: &[u8]) -> Vec<u8> {
    icmp_error(source, destination, [kind, 0], 0, quoted)
}

/// Returns an ICMP error of a type and a code, with an MTU.
pub(super) fn icmp_error(
    source: IpAddr,
    destination: IpAddr,
    kind: [u8; 2],
    mtu: u32,
    quoted: &[u8],
) -> Vec<u8> {
    let protocol = if source.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
    let message = [&kind[..], &[0, 0], &mtu.to_be_bytes(), quoted].concat();
    with_checksum(source, destination, protocol, message, ICMP_CHECKSUM)
}

/// Returns what an ICMP error quotes of a frame's packet: its header, and eight octets after it.
pub(super) fn quote(frame: &[u8]) -> &[u8] {
    &frame[ETHERNET_LEN..transport_of(frame) + 8]
}

/// Puts extension headers, each by its number and its length in units of 8 octets, before the transport header.
pub(super) fn with_extensions(frame: &[u8], extensions: &[(u8, usize)]) -> Vec<u8> {
    let (mut chain, mut next) = (Vec::new(), frame[ETHERNET_LEN + 6]);
    for (number, units) in extensions.iter().rev() {
        let mut header = vec![0; units * 8];
        (header[0], header[1]) = (next, (units - 1) as u8);
        next = *number;
        chain.splice(0..0, header);
    }
    let mut frame = frame.to_vec();
    let len = frame.len() - ETHERNET_LEN - IPV6_LEN + chain.len();
    frame[ETHERNET_LEN + 4..][..2].copy_from_slice(&(len as u16).to_be_bytes());
    frame[ETHERNET_LEN + 6] = next;
    frame.splice(ETHERNET_LEN + IPV6_LEN..ETHERNET_LEN + IPV6_LEN, chain);
    frame
}

/// Returns the fragments of a frame's packet, each with so many octets of its payload but for the last. A packet
/// of IPv6 must have no extension headers.
pub(super) fn fragments(frame: &[u8], id: u16, len: usize) -> Vec<Vec<u8>> {
    let is_ipv4 = frame[12] == 0x08;
    let payload_at = ETHERNET_LEN + if is_ipv4 { IPV4_LEN } else { IPV6_LEN };
    let (headers, payload) = frame.split_at(payload_at);
    let count = payload.len().div_ceil(len);
    let part = |(n, part): (usize, &[u8])| {
        let (offset, is_last) = (n * len / 8, n + 1 == count);
        let mut frame = [headers, part].concat();
        if is_ipv4 {
            let word = offset as u16 | if is_last { 0 } else { 0x2000 };
            let total = (frame.len() - ETHERNET_LEN) as u16;
            let frame = with_ip_octets(&frame, 2, &total.to_be_bytes());
            let frame = with_ip_octets(&frame, 4, &id.to_be_bytes());
            return with_ip_octets(&frame, 6, &word.to_be_bytes());
        }
        let len = (frame.len() - payload_at) as u16;
        frame[ETHERNET_LEN + 4..][..2].copy_from_slice(&len.to_be_bytes());
        frame = with_extensions(&frame, &[(44, 1)]);
        let word = (offset << 3) as u16 | u16::from(!is_last);
        frame[payload_at + 2..][..2].copy_from_slice(&word.to_be_bytes());
        frame[payload_at + 4..][..2].copy_from_slice(&id.to_be_bytes());
        frame
    };
    payload.chunks(len).enumerate().map(part).collect()
}

/// Returns the whole of which these are the fragments, in their order.
pub(super) fn joined(fragments: &[Vec<u8>]) -> Vec<u8> {
    let is_ipv4 = fragments[0][12] == 0x08;
    let payload_at = ETHERNET_LEN + if is_ipv4 { IPV4_LEN } else { IPV6_LEN + 8 };
    let mut whole =
        fragments[0][..ETHERNET_LEN + if is_ipv4 { IPV4_LEN } else { IPV6_LEN }].to_vec();
    whole.extend(fragments.iter().flat_map(|fragment| &fragment[payload_at..]));
    let len = (whole.len() - ETHERNET_LEN) as u16;
    if is_ipv4 {
        let whole = with_ip_octets(&whole, 2, &len.to_be_bytes());
        return with_ip_octets(&whole, 6, &[0, 0]);
    }
    whole[ETHERNET_LEN + 6] = fragments[0][ETHERNET_LEN + IPV6_LEN];
    with_ip_octets(&whole, 4, &(len - IPV6_LEN as u16).to_be_bytes())
}

/// Changes octets of the header of IP. The checksum of IPv4 stays valid.
pub(super) fn with_ip_octets(frame: &[u8], at: usize, octets: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[ETHERNET_LEN + at..][..octets.len()].copy_from_slice(octets);
    if frame[12] == 0x08 {
        frame[ETHERNET_LEN + IPV4_CHECKSUM..][..2].fill(0);
        let sum = checksum(&frame[ETHERNET_LEN..ETHERNET_LEN + IPV4_LEN]);
        frame[ETHERNET_LEN + IPV4_CHECKSUM..][..2].copy_from_slice(&sum);
    }
    frame
}

pub(super) fn with_hop_limit(frame: &[u8], hop_limit: u8) -> Vec<u8> {
    with_ip_octets(frame, if frame[12] == 0x08 { 8 } else { 7 }, &[hop_limit])
}

/// Returns the protocol of a valid frame, and the offset of its header.
fn transport_header(frame: &[u8]) -> (u8, usize) {
    if frame[12] == 0x08 {
        return (frame[ETHERNET_LEN + 9], ETHERNET_LEN + IPV4_LEN);
    }
    let (mut next, mut at) = (frame[ETHERNET_LEN + 6], ETHERNET_LEN + IPV6_LEN);
    while matches!(next, 0 | 43 | 60) {
        next = frame[at];
        at += (usize::from(frame[at + 1]) + 1) * 8;
    }
    (next, at)
}

/// Returns the offset of the transport header of a valid frame.
pub(super) fn transport_of(frame: &[u8]) -> usize {
    transport_header(frame).1
}

/// Asserts that all checksums of a frame are valid: of IPv4, of the transport header, and of a quoted header.
pub(super) fn assert_valid(frame: &[u8]) {
    // The checksum over octets that have a valid one in them.
    let is_valid = |octets: &[u8]| matches!(checksum(octets), [0, 0] | [0xff, 0xff]);
    let (protocol, at) = transport_header(frame);
    let (is_ipv4, ip) = (frame[12] == 0x08, &frame[ETHERNET_LEN..]);
    let segment = &frame[at..];
    let addresses = if is_ipv4 { ip[12..20].to_vec() } else { ip[8..40].to_vec() };
    let mut summed = [addresses, (segment.len() as u32).to_be_bytes().to_vec()].concat();
    summed.extend([0, 0, 0, protocol]);
    if protocol == PROTOCOL_ICMP {
        summed.clear();
        assert!(is_valid(&segment[8..8 + IPV4_LEN]), "the quoted header: {segment:02x?}");
    }
    assert!(!is_ipv4 || is_valid(&ip[..IPV4_LEN]), "the header of IPv4: {ip:02x?}");
    summed.extend(segment);
    let is_absent = protocol == PROTOCOL_UDP && segment[UDP_CHECKSUM..][..2] == [0, 0];
    assert!(is_absent || is_valid(&summed), "the transport checksum: {segment:02x?}");
}
