//! How the model changes frames. Checksums follow from one rule: the sum over all that a checksum covers is
//! after a change what it was before, so that a valid one stays valid and a wrong one wrong.

use std::net::{IpAddr, SocketAddr};

use super::frames::{
    ETHERNET_LEN, ICMP_CHECKSUM, IPV4_CHECKSUM, IPV4_LEN, IPV6_LEN, TCP_CHECKSUM, UDP_CHECKSUM,
};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP};

/// What an ICMP error has after it was translated. It goes to the source of what it quotes.
#[derive(Clone, Debug)]
pub(super) struct TranslatedError {
    pub(super) source: IpAddr,
    pub(super) quoted_source: SocketAddr,
    pub(super) quoted_destination: SocketAddr,
}

/// The modulus of sums of ones' complement: 0 and 0xffff are the same.
const MODULUS: u64 = 0xffff;

fn sum(octets: &[u8]) -> u64 {
    let word = |word: &[u8]| u64::from(word[0]) << 8 | word.get(1).copied().map_or(0, u64::from);
    octets.chunks(2).map(word).sum::<u64>() % MODULUS
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0x00]
}

/// The addresses of a header of IP, as they are in it.
fn addresses_at(is_ipv4: bool) -> std::ops::Range<usize> {
    if is_ipv4 { 12..20 } else { 8..40 }
}

/// Changes a frame, and its checksum so that a sum stays.
fn keep_sum(
    frame: &mut [u8],
    checksum: usize,
    covered: impl Fn(&[u8]) -> u64,
    change: impl FnOnce(&mut [u8]),
) {
    let before = covered(frame);
    change(frame);
    let difference = before + MODULUS - covered(frame) % MODULUS;
    let old = u64::from(u16::from_be_bytes([frame[checksum], frame[checksum + 1]]));
    let new = match (old + difference) % MODULUS {
        // For UDP, 0 is no checksum.
        0 => 0xffff,
        new => new as u16,
    };
    frame[checksum..checksum + 2].copy_from_slice(&new.to_be_bytes());
}

fn write_addresses(ip: &mut [u8], is_ipv4: bool, source: IpAddr, destination: IpAddr) {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let both = [octets(source), octets(destination)].concat();
    ip[addresses_at(is_ipv4)].copy_from_slice(&both);
}

fn write_ports(ports: &mut [u8], source: u16, destination: u16) {
    ports[..2].copy_from_slice(&source.to_be_bytes());
    ports[2..4].copy_from_slice(&destination.to_be_bytes());
}

/// Writes the addresses and a hop limit that is one less. Returns the offset of a checksum, if there is one.
pub(super) fn rewrite_ip(frame: &mut [u8], source: IpAddr, destination: IpAddr) -> Option<usize> {
    let is_ipv4 = is_ipv4(frame);
    let change = |frame: &mut [u8]| {
        let ip = &mut frame[ETHERNET_LEN..];
        ip[if is_ipv4 { 8 } else { 7 }] -= 1;
        write_addresses(ip, is_ipv4, source, destination);
    };
    if !is_ipv4 {
        change(frame);
        return None;
    }
    let checksum = ETHERNET_LEN + IPV4_CHECKSUM;
    let covered = |frame: &[u8]| sum(&frame[ETHERNET_LEN..ETHERNET_LEN + IPV4_LEN]);
    keep_sum(frame, checksum, covered, change);
    Some(checksum)
}

/// Rewrites a segment of TCP or UDP. Returns the offsets of checksums of which 0 and 0xffff are the same.
pub(super) fn rewrite_segment(
    frame: &mut [u8],
    transport: usize,
    (source, destination, protocol): &(SocketAddr, SocketAddr, u8),
) -> Vec<usize> {
    let checksum = transport + if *protocol == PROTOCOL_TCP { TCP_CHECKSUM } else { UDP_CHECKSUM };
    let addresses = addresses_at(is_ipv4(frame));
    // What of the pseudo header does not change is left out.
    let covered =
        |frame: &[u8]| sum(&frame[ETHERNET_LEN..][addresses.clone()]) + sum(&frame[transport..]);
    let is_absent = *protocol == PROTOCOL_UDP && frame[checksum..checksum + 2] == [0, 0];
    let mut header_checksum = None;
    keep_sum(frame, checksum, covered, |frame| {
        header_checksum = rewrite_ip(frame, source.ip(), destination.ip());
        write_ports(&mut frame[transport..], source.port(), destination.port());
    });
    if is_absent {
        frame[checksum..checksum + 2].fill(0);
    }
    let transport_checksum = (*protocol == PROTOCOL_TCP).then_some(checksum);
    header_checksum.into_iter().chain(transport_checksum).collect()
}

/// Rewrites an ICMP error and what it quotes. The checksums of what it quotes behind the header of IP are left:
/// the other end has no need of them, and the payload that they cover is not quoted whole. Returns the offsets
/// of checksums of which 0 and 0xffff are the same.
pub(super) fn rewrite_error(
    frame: &mut [u8],
    transport: usize,
    error: &TranslatedError,
) -> Vec<usize> {
    let is_ipv4 = is_ipv4(frame);
    let addresses = addresses_at(is_ipv4);
    let covered = |frame: &[u8]| {
        let pseudo_header =
            if is_ipv4 { 0 } else { sum(&frame[ETHERNET_LEN..][addresses.clone()]) };
        pseudo_header + sum(&frame[transport..])
    };
    let quoted = transport + 8;
    let quoted_transport = quoted + if is_ipv4 { IPV4_LEN } else { IPV6_LEN };
    let (from, to) = (error.quoted_source, error.quoted_destination);
    let mut checksums = vec![transport + ICMP_CHECKSUM];
    keep_sum(frame, transport + ICMP_CHECKSUM, covered, |frame| {
        checksums.extend(rewrite_ip(frame, error.source, from.ip()));
        let write = |frame: &mut [u8]| {
            write_addresses(&mut frame[quoted..], is_ipv4, from.ip(), to.ip());
        };
        if is_ipv4 {
            let covered = |frame: &[u8]| sum(&frame[quoted..quoted_transport]);
            keep_sum(frame, quoted + IPV4_CHECKSUM, covered, write);
            checksums.push(quoted + IPV4_CHECKSUM);
        } else {
            write(frame);
        }
        write_ports(&mut frame[quoted_transport..], from.port(), to.port());
    });
    checksums
}
