//! The frames that the engine gets to decide: which flow they are of, and from which device they came.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::layout::{PROTOCOL_TCP, PROTOCOL_UDP, RawTuple};

const ETHERNET_LEN: usize = 14;
const TCP_SYN: u8 = 2;
const TCP_ACK: u8 = 16;
const TCP_RST: u8 = 4;
/// An extension header of IPv6.
const FRAGMENT: u8 = 44;
/// As the program has it.
const MAX_EXTENSION_HEADERS: usize = 4;

/// What the program tells of a frame to decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct UpcallFrame {
    /// The device at which the frame came in; the program writes it in place of the source.
    pub(super) ifindex: u32,
    /// `None` for a fragment that is not the first of its packet. The program knows its ports.
    pub(super) tuple: Option<RawTuple>,
}

impl UpcallFrame {
    /// Reads a frame. Returns `None` for one that is neither the first packet of a flow nor a fragment of it: the
    /// program sends none.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let ethernet = frame.get(..ETHERNET_LEN)?;
        let ifindex = u32::from_ne_bytes(ethernet[6..10].try_into().ok()?);
        let packet = &frame[ETHERNET_LEN..];
        let parsed = match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
            0x0800 => parse_ipv4(packet)?,
            0x86dd => parse_ipv6(packet)?,
            _ => return None,
        };
        let ParsedPacket { source, destination, protocol, transport, is_later_fragment } = parsed;
        if is_later_fragment {
            return Some(Self { ifindex, tuple: None });
        }
        match protocol {
            PROTOCOL_UDP => {}
            PROTOCOL_TCP => {
                let flags = *transport.get(13)? & (TCP_SYN | TCP_ACK | TCP_RST);
                if flags != TCP_SYN {
                    return None;
                }
            }
            _ => return None,
        }
        let port = |at: usize| {
            let octets = transport.get(at..at + 2)?;
            Some(u16::from_be_bytes([octets[0], octets[1]]))
        };
        let (source, destination) =
            (SocketAddr::new(source, port(0)?), SocketAddr::new(destination, port(2)?));
        let tuple = RawTuple::new(source, destination, protocol);
        Some(Self { ifindex, tuple: Some(tuple) })
    }

    /// Gives the frame the address of the device that it is written to, so that the stack takes it if the
    /// program does not.
    pub(super) fn address_to(frame: &mut [u8], mac: &[u8]) {
        if let (Some(destination), 6) = (frame.get_mut(..6), mac.len()) {
            destination.copy_from_slice(mac);
        }
    }
}

struct ParsedPacket<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    transport: &'a [u8],
    is_later_fragment: bool,
}

fn parse_ipv4(packet: &[u8]) -> Option<ParsedPacket<'_>> {
    let header = packet.get(..20)?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = header[at..at + 4].try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    (header[0] == 0x45).then_some(())?;
    Some(ParsedPacket {
        source: address(12)?,
        destination: address(16)?,
        protocol: header[9],
        transport: &packet[20..],
        is_later_fragment: u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0,
    })
}

fn parse_ipv6(packet: &[u8]) -> Option<ParsedPacket<'_>> {
    let header = packet.get(..40)?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = header[at..at + 16].try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    let (mut next, mut rest) = (header[6], &packet[40..]);
    for _ in 0..MAX_EXTENSION_HEADERS {
        // Hop-by-hop and destination options.
        if !matches!(next, 0 | 60) {
            break;
        }
        next = *rest.first()?;
        let len = (usize::from(*rest.get(1)?) + 1) * 8;
        rest = rest.get(len..)?;
    }
    let mut is_later_fragment = false;
    if next == FRAGMENT {
        let fragment = rest.get(..8)?;
        next = fragment[0];
        is_later_fragment = u16::from_be_bytes([fragment[2], fragment[3]]) & 0xfff8 != 0;
        rest = &rest[8..];
    }
    let (source, destination) = (address(8)?, address(24)?);
    Some(ParsedPacket { source, destination, protocol: next, transport: rest, is_later_fragment })
}
