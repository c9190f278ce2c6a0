//! The frames that the engine gets to decide: which flow they are of, and from which device they came.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::layout::{PROTOCOL_TCP, PROTOCOL_UDP, RawTuple};

const ETHERNET_LEN: usize = 14;
const TCP_SYN: u8 = 2;
const TCP_ACK: u8 = 16;
const TCP_RST: u8 = 4;
/// As the program has it.
const MAX_EXTENSION_HEADERS: usize = 4;

/// What the program tells of a frame to decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct UpcallFrame {
    /// The device at which the frame came in; the program writes it in place of the source.
    pub(super) ifindex: u32,
    pub(super) tuple: RawTuple,
}

impl UpcallFrame {
    /// Reads a frame. Returns `None` for one that is not the first packet of a flow: the program sends none.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let ethernet = frame.get(..ETHERNET_LEN)?;
        let ifindex = u32::from_ne_bytes(ethernet[6..10].try_into().ok()?);
        let packet = &frame[ETHERNET_LEN..];
        let (source, destination, protocol, transport) =
            match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
                0x0800 => parse_ipv4(packet)?,
                0x86dd => parse_ipv6(packet)?,
                _ => return None,
            };
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
        Some(Self { ifindex, tuple: RawTuple::new(source, destination, protocol) })
    }

    /// Gives the frame the address of the device that it is written to, so that the stack takes it if the
    /// program does not.
    pub(super) fn address_to(frame: &mut [u8], mac: &[u8]) {
        if let (Some(destination), 6) = (frame.get_mut(..6), mac.len()) {
            destination.copy_from_slice(mac);
        }
    }
}

type ParsedPacket<'a> = (IpAddr, IpAddr, u8, &'a [u8]);

fn parse_ipv4(packet: &[u8]) -> Option<ParsedPacket<'_>> {
    let header = packet.get(..20)?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = header[at..at + 4].try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    (header[0] == 0x45).then_some(())?;
    Some((address(12)?, address(16)?, header[9], &packet[20..]))
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
    Some((address(8)?, address(24)?, next, rest))
}
