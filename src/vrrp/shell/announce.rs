//! Telling the link where addresses are now: gratuitous ETHERTYPE_ARP (RFC 9568, section 6.4.1; RFC 5227) and
//! unsolicited neighbour advertisements (RFC 4861, section 7.2.6).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::packet_socket::PacketEndpoint;

const ETHERTYPE_ARP: u16 = 0x0806;
const BROADCAST_MAC: [u8; 6] = [0xff; 6];
/// How long a message of ETHERTYPE_ARP is for Ethernet and IPv4.
const ARP_LEN: usize = 28;

type MacAddress = [u8; 6];

/// Speaks for addresses on one interface, and hears who else does.
#[derive(Debug)]
pub(super) struct AddressAnnouncer {
    arp: Socket,
    frames: PacketEndpoint,
    /// For IPv6, where the system has it.
    icmpv6: Option<Socket>,
    mac: MacAddress,
}

impl AddressAnnouncer {
    pub(super) fn open(interface: &str, index: u32, mac: MacAddress) -> io::Result<Self> {
        // Protocol 0: it receives nothing until it is bound to its frames.
        let arp = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        arp.set_nonblocking(true)?;
        let frames = PacketEndpoint { interface: index, protocol: ETHERTYPE_ARP };
        frames.bind_socket(&arp)?;
        Ok(Self { arp, frames, icmpv6: open_icmpv6(interface, index).ok(), mac })
    }

    /// Says that an address is here.
    pub(super) fn announce(&self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => self.frames.send_frame(
                &self.arp,
                BROADCAST_MAC,
                &arp_announcement(self.mac, address),
            ),
            IpAddr::V6(address) => {
                let Some(icmp) = &self.icmpv6 else {
                    return Err(io::Error::from(io::ErrorKind::Unsupported));
                };
                let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                let to = SocketAddrV6::new(everybody, 0, 0, self.frames.interface);
                icmp.send_to(&neighbour_advertisement(self.mac, address), &to.into()).map(drop)
            }
        }
    }

    /// Who else says that it has an address of IPv4: what was heard next, of all there are.
    pub(super) fn receive_arp_claim(&self) -> Option<(Ipv4Addr, MacAddress)> {
        let mut buffer = [0; 64];
        // Bounded: a link may be full of it.
        for _ in 0..64 {
            let length = recv(self.arp.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
            if let Some((mac, address)) = arp_sender(&buffer[..length])
                && mac != self.mac
            {
                return Some((address, mac));
            }
        }
        None
    }
}

/// Readable when ETHERTYPE_ARP was heard.
impl AsFd for AddressAnnouncer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arp.as_fd()
    }
}

fn open_icmpv6(interface: &str, index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_if_v6(index)?;
    socket.set_nonblocking(true)?;
    // It would hear all ICMP there is, and is never read.
    socket.set_recv_buffer_size(1)?;
    Ok(socket)
}

/// A request for one's own address: all who know it learn where it is now.
fn arp_announcement(mac: MacAddress, address: Ipv4Addr) -> [u8; ARP_LEN] {
    let mut bytes = [0; ARP_LEN];
    // Ethernet, IPv4, their lengths, request.
    bytes[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    bytes[8..14].copy_from_slice(&mac);
    bytes[14..18].copy_from_slice(&address.octets());
    bytes[18..24].copy_from_slice(&BROADCAST_MAC);
    bytes[24..].copy_from_slice(&address.octets());
    bytes
}

/// Whose a message of ETHERTYPE_ARP is. One who asks whether an address is free says none.
fn arp_sender(bytes: &[u8]) -> Option<(MacAddress, Ipv4Addr)> {
    let bytes: &[u8; ARP_LEN] = bytes.get(..ARP_LEN)?.try_into().ok()?;
    let &[0, 1, 8, 0, 6, 4, 0, 1 | 2, a, b, c, d, e, f, g, h, i, j, ..] = bytes else {
        return None;
    };
    let address = Ipv4Addr::new(g, h, i, j);
    (!address.is_unspecified()).then_some(([a, b, c, d, e, f], address))
}

/// An answer that nobody asked for, from a router, which overrides what was known. The kernel writes
/// the checksum.
fn neighbour_advertisement(mac: MacAddress, address: Ipv6Addr) -> [u8; 32] {
    let mut bytes = [0; 32];
    (bytes[0], bytes[4]) = (136, 0b1010_0000);
    bytes[8..24].copy_from_slice(&address.octets());
    // The option that holds the hardware address, of eight bytes.
    bytes[24..26].copy_from_slice(&[2, 1]);
    bytes[26..].copy_from_slice(&mac);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = [2, 0, 0, 0, 0, 1];

    #[test]
    fn what_is_announced_is_heard_as_said() {
        let address = Ipv4Addr::new(10, 88, 0, 100);
        let bytes = arp_announcement(MAC, address);
        assert_eq!(arp_sender(&bytes), Some((MAC, address)));
        assert_eq!(bytes[24..], [10, 88, 0, 100], "the target is the address itself");
        assert!((0..ARP_LEN).all(|length| arp_sender(&bytes[..length]).is_none()));
        for (at, value) in [(0, 1), (3, 1), (4, 8), (5, 16), (7, 3)] {
            let mut odd = bytes;
            odd[at] = value;
            assert_eq!(arp_sender(&odd), None, "{at} {value}");
        }
        let probe = arp_announcement(MAC, Ipv4Addr::UNSPECIFIED);
        assert_eq!(arp_sender(&probe), None);
    }

    #[test]
    fn a_neighbour_advertisement_is_that_of_a_router_and_overrides() {
        let address: Ipv6Addr = "fd00:88::100".parse().expect("an address");
        let bytes = neighbour_advertisement(MAC, address);
        assert_eq!(bytes[..8], [136, 0, 0, 0, 0xa0, 0, 0, 0]);
        assert_eq!(bytes[8..24], address.octets());
        assert_eq!(bytes[24..], [2, 1, 2, 0, 0, 0, 0, 1]);
    }
}
