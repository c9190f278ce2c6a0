//! Announces addresses on the link: gratuitous ARP (RFC 9568, section 6.4.1; RFC 5227) and unsolicited
//! neighbour advertisements (RFC 4861, section 7.2.6).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};

use super::MacAddress;
use crate::sys::packet_socket::PacketEndpoint;

const ETHERTYPE_ARP: u16 = 0x0806;
const BROADCAST_MAC: MacAddress = MacAddress([0xff; 6]);
/// The length of an ARP message for Ethernet and IPv4.
const ARP_LEN: usize = 28;

/// Announces addresses on one interface, and receives the ARP messages of other machines.
#[derive(Debug)]
pub(super) struct AddressAnnouncer {
    arp: Socket,
    frames: PacketEndpoint,
    /// `None` if the system has no IPv6.
    icmpv6: Option<Socket>,
    mac: MacAddress,
}

impl AddressAnnouncer {
    pub(super) fn open(interface: &str, index: u32, mac: MacAddress) -> io::Result<Self> {
        // With protocol 0 the socket receives nothing until it is bound to the interface and to ARP.
        let arp = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        arp.set_nonblocking(true)?;
        let frames = PacketEndpoint { interface: index, protocol: ETHERTYPE_ARP };
        frames.bind_socket(&arp)?;
        Ok(Self { arp, frames, icmpv6: open_icmpv6(interface, index).ok(), mac })
    }

    /// Announces that this machine has the address.
    pub(super) fn announce(&self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => self.frames.send_frame(
                &self.arp,
                BROADCAST_MAC.0,
                &arp_announcement(self.mac, address),
            ),
            IpAddr::V6(address) => {
                let Some(icmpv6) = &self.icmpv6 else {
                    return Err(io::Error::from(io::ErrorKind::Unsupported));
                };
                let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                let destination = SocketAddrV6::new(all_nodes, 0, 0, self.frames.interface);
                let message = neighbour_advertisement(self.mac, address);
                icmpv6.send_to(&message, &destination.into()).map(drop)
            }
        }
    }

    /// Returns the next ARP message in which another machine claims an IPv4 address, if any arrived.
    pub(super) fn receive_arp_claim(&self) -> Option<(Ipv4Addr, MacAddress)> {
        let mut buffer = [0; 64];
        // Bounded, because a busy link may deliver ARP without end.
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

/// The descriptor is readable when an ARP message has arrived.
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
    // The socket receives all ICMPv6, and is never read.
    socket.set_recv_buffer_size(1)?;
    Ok(socket)
}

/// Encodes an ARP request for the sender's own address: hosts that know the address update its MAC.
fn arp_announcement(mac: MacAddress, address: Ipv4Addr) -> [u8; ARP_LEN] {
    let mut bytes = [0; ARP_LEN];
    // Hardware type Ethernet, protocol type IPv4, address lengths, operation request.
    bytes[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    bytes[8..14].copy_from_slice(&mac.0);
    bytes[14..18].copy_from_slice(&address.octets());
    bytes[18..24].copy_from_slice(&BROADCAST_MAC.0);
    bytes[24..].copy_from_slice(&address.octets());
    bytes
}

/// Returns the sender of an ARP message. A probe (RFC 5227), which has no sender address, gives `None`.
fn arp_sender(bytes: &[u8]) -> Option<(MacAddress, Ipv4Addr)> {
    let bytes: &[u8; ARP_LEN] = bytes.get(..ARP_LEN)?.try_into().ok()?;
    let &[0, 1, 8, 0, 6, 4, 0, 1 | 2, a, b, c, d, e, f, g, h, i, j, ..] = bytes else {
        return None;
    };
    let address = Ipv4Addr::new(g, h, i, j);
    (!address.is_unspecified()).then_some((MacAddress([a, b, c, d, e, f]), address))
}

/// Encodes an unsolicited neighbour advertisement with the router and override flags. The kernel
/// computes the checksum.
fn neighbour_advertisement(mac: MacAddress, address: Ipv6Addr) -> [u8; 32] {
    let mut bytes = [0; 32];
    (bytes[0], bytes[4]) = (136, 0b1010_0000);
    bytes[8..24].copy_from_slice(&address.octets());
    // The option of target link-layer address, of length one: eight bytes.
    bytes[24..26].copy_from_slice(&[2, 1]);
    bytes[26..].copy_from_slice(&mac.0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    #[test]
    fn an_announcement_is_parsed_back_and_other_arp_messages_are_not() {
        let address = Ipv4Addr::new(10, 88, 0, 100);
        let bytes = arp_announcement(MAC, address);
        assert_eq!(arp_sender(&bytes), Some((MAC, address)));
        assert_eq!(bytes[24..], [10, 88, 0, 100], "the target address is the sender address");
        assert!((0..ARP_LEN).all(|length| arp_sender(&bytes[..length]).is_none()));
        for (offset, value) in [(0, 1), (3, 1), (4, 8), (5, 16), (7, 3)] {
            let mut changed = bytes;
            changed[offset] = value;
            assert_eq!(arp_sender(&changed), None, "byte {offset} is {value}");
        }
        let probe = arp_announcement(MAC, Ipv4Addr::UNSPECIFIED);
        assert_eq!(arp_sender(&probe), None);
    }

    #[test]
    fn a_neighbour_advertisement_has_the_router_and_override_flags() {
        let address: Ipv6Addr = "fd00:88::100".parse().expect("an IP address");
        let bytes = neighbour_advertisement(MAC, address);
        assert_eq!(bytes[..8], [136, 0, 0, 0, 0xa0, 0, 0, 0]);
        assert_eq!(bytes[8..24], address.octets());
        assert_eq!(bytes[24..], [2, 1, 2, 0, 0, 0, 0, 1]);
    }
}
