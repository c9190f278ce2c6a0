//! Sends and receives advertisements by raw sockets for IP protocol 112.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn6, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use super::VrrpStartError;
use crate::vrrp::IpHeaderInfo;
use crate::vrrp::checksum::IPPROTO_VRRP;

const MULTICAST_GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const MULTICAST_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// The TTL of all advertisements (RFC 9568, section 5.1.1.3).
const ADVERT_TTL: u32 = 255;
/// An upper bound of a packet's length: 255 IPv6 addresses, a trailer, and the longest IPv4 header.
const MAX_PACKET_LEN: usize = 8 + 255 * 16 + 28 + 60;

/// The sockets of one virtual router, for multicast to all routers on the link, or unicast to its
/// peers. No method blocks.
#[derive(Debug)]
pub(super) struct AdvertSocket {
    /// Bound to the source address. A bound socket receives no multicast; therefore there are two.
    sender: Socket,
    receiver: Socket,
    source: IpAddr,
    destination_sockaddrs: Vec<SockAddr>,
    destinations: Vec<IpAddr>,
    buffer: Box<[u8; MAX_PACKET_LEN]>,
}

impl AdvertSocket {
    /// Opens the sockets: received packets arrive on `interface`, and packets are sent from `source` by
    /// `send_interface`, which may be a macvlan. For multicast over IPv6 the source must be a link-local
    /// address. Without peers, multicast is used.
    pub(super) fn open(
        interface: &str,
        send_interface: &str,
        source: IpAddr,
        peers: &[IpAddr],
    ) -> Result<Self, VrrpStartError> {
        if let Some(peer) = peers.iter().find(|peer| peer.is_ipv6() != source.is_ipv6()) {
            return Err(VrrpStartError::PeerFamily(*peer, source));
        }
        let index = if_nametoindex(interface)
            .map_err(|_| VrrpStartError::UnknownInterface(interface.to_owned()))?;
        let (sender, receiver) =
            (open_raw_socket(send_interface, source)?, open_raw_socket(interface, source)?);
        let group = if source.is_ipv6() {
            IpAddr::V6(MULTICAST_GROUP_V6)
        } else {
            IpAddr::V4(MULTICAST_GROUP_V4)
        };
        let io_error = |operation| move |source| VrrpStartError::Io { operation, source };
        let check = |operation, result: io::Result<()>| result.map_err(io_error(operation));
        sender.bind(&socket_address(source, index)).map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable => VrrpStartError::SourceNotLocal(source),
            _ => io_error("bind to the source address")(error),
        })?;
        match source {
            IpAddr::V4(_) => {
                check("set the TTL", sender.set_ttl_v4(ADVERT_TTL))?;
                check("set the TTL", sender.set_multicast_ttl_v4(ADVERT_TTL))?;
                check("disable multicast loopback", sender.set_multicast_loop_v4(false))?;
                let on_interface = InterfaceIndexOrAddress::Index(index);
                check(
                    "join 224.0.0.18",
                    receiver.join_multicast_v4_n(&MULTICAST_GROUP_V4, &on_interface),
                )?;
                check("limit multicast to the interface", receiver.set_multicast_all_v4(false))?;
            }
            IpAddr::V6(_) => {
                check("set the hop limit", sender.set_unicast_hops_v6(ADVERT_TTL))?;
                check("set the hop limit", sender.set_multicast_hops_v6(ADVERT_TTL))?;
                check("disable multicast loopback", sender.set_multicast_loop_v6(false))?;
                check("set the multicast interface", sender.set_multicast_if_v6(index))?;
                check("join ff02::12", receiver.join_multicast_v6(&MULTICAST_GROUP_V6, index))?;
                let hop_limit = setsockopt(&receiver, sockopt::Ipv6RecvHopLimit, &true);
                check("enable IPV6_RECVHOPLIMIT", hop_limit.map_err(io::Error::from))?;
                let packet_info = setsockopt(&receiver, sockopt::Ipv6RecvPacketInfo, &true);
                check("enable IPV6_RECVPKTINFO", packet_info.map_err(io::Error::from))?;
            }
        }
        let destinations = if peers.is_empty() { vec![group] } else { peers.to_vec() };
        let sockaddrs = destinations.iter().map(|address| socket_address(*address, index));
        let destination_sockaddrs = sockaddrs.collect();
        let buffer = Box::new([0; MAX_PACKET_LEN]);
        Ok(Self { sender, receiver, source, destination_sockaddrs, destinations, buffer })
    }

    /// Returns the address that advertisements are sent from.
    pub(super) fn source(&self) -> IpAddr {
        self.source
    }

    /// Sends the bytes that `encode` returns for each destination: the multicast group, or each peer.
    ///
    /// # Errors
    /// The first failure; the other destinations are sent to all the same.
    pub(super) fn send<B: AsRef<[u8]>>(
        &self,
        mut encode: impl FnMut(IpAddr) -> B,
    ) -> io::Result<()> {
        let mut result = Ok(());
        for (sockaddr, destination) in self.destination_sockaddrs.iter().zip(&self.destinations) {
            let sent = self.sender.send_to(encode(*destination).as_ref(), sockaddr).map(drop);
            result = result.and(sent);
        }
        result
    }

    /// Returns the next received payload with the fields of its IP header; `None` if there is none.
    /// Malformed IP packets are skipped.
    ///
    /// # Errors
    /// The failure of the system call.
    pub(super) fn receive(&mut self) -> io::Result<Option<(IpHeaderInfo, &[u8])>> {
        // Bounded, because malformed packets may arrive without end.
        for _ in 0..64 {
            let received = match self.source {
                IpAddr::V4(_) => receive_v4(&self.receiver, &mut self.buffer[..]),
                IpAddr::V6(_) => receive_v6(&self.receiver, &mut self.buffer[..]),
            };
            match received {
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) | Ok(None) => {}
                Err(error) => return Err(error.into()),
                Ok(Some((header, range))) => {
                    return Ok(Some((header, &self.buffer[range])));
                }
            }
        }
        Ok(None)
    }
}

/// The descriptor is readable when a packet has arrived.
impl AsFd for AdvertSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

fn open_raw_socket(interface: &str, source: IpAddr) -> Result<Socket, VrrpStartError> {
    let domain = if source.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let io_error = |operation| move |source| VrrpStartError::Io { operation, source };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(IPPROTO_VRRP))));
    let socket = socket.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            VrrpStartError::Privilege { operation: "open a raw socket", capability: "CAP_NET_RAW" }
        }
        _ => io_error("open a raw socket")(error),
    })?;
    socket.bind_device(Some(interface.as_bytes())).map_err(io_error("bind to the interface"))?;
    socket.set_nonblocking(true).map_err(io_error("make a socket nonblocking"))?;
    Ok(socket)
}

fn socket_address(address: IpAddr, index: u32) -> SockAddr {
    match address {
        IpAddr::V4(_) => SocketAddr::new(address, 0).into(),
        IpAddr::V6(address) => {
            let scope =
                if address.is_unicast_link_local() || address.is_multicast() { index } else { 0 };
            SocketAddrV6::new(address, 0, 0, scope).into()
        }
    }
}

/// The fields of a packet's IP header, and the range of the payload in the buffer; `None` for a
/// malformed packet.
type ReceivedPacket = Option<(IpHeaderInfo, Range<usize>)>;

fn receive_v4(socket: &Socket, buffer: &mut [u8]) -> nix::Result<ReceivedPacket> {
    let mut parts = [IoSliceMut::new(buffer)];
    let fd = socket.as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, None, MsgFlags::empty())?;
    let length = message.bytes;
    Ok(parse_ipv4_packet(&buffer[..length]))
}

/// Parses the IPv4 header.
fn parse_ipv4_packet(packet: &[u8]) -> ReceivedPacket {
    let header_len = 4 * usize::from(packet.first()? & 0xf);
    let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    if header_len < 20 || length < header_len || length > packet.len() {
        return None;
    }
    let address = |offset: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = packet.get(offset..offset + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    let header = IpHeaderInfo {
        source: address(12)?,
        destination: address(16)?,
        ttl: Some(*packet.get(8)?),
    };
    Some((header, header_len..length))
}

fn receive_v6(socket: &Socket, buffer: &mut [u8]) -> nix::Result<ReceivedPacket> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(nix::libc::in6_pktinfo, nix::libc::c_int);
    let fd = socket.as_raw_fd();
    let message = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
    let source = message.address.map(|address| IpAddr::V6(address.ip()));
    let (mut destination, mut ttl) = (None, None);
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                destination = Some(IpAddr::from(info.ipi6_addr.s6_addr));
            }
            ControlMessageOwned::Ipv6HopLimit(hop_limit) => ttl = u8::try_from(hop_limit).ok(),
            _ => {}
        }
    }
    let length = message.bytes;
    Ok(source.zip(destination).zip(ttl).map(|((source, destination), ttl)| {
        (IpHeaderInfo { source, destination, ttl: Some(ttl) }, 0..length)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_header_is_parsed_and_a_malformed_one_skipped() {
        let mut packet = vec![0x45, 0xc0, 0, 24, 0, 1, 0, 0, 255, 112, 0, 0];
        packet.extend([10, 88, 0, 1, 224, 0, 0, 18, 1, 2, 3, 4]);
        let (header, range) = parse_ipv4_packet(&packet).expect("the packet is valid");
        assert_eq!((header.source, header.ttl), ([10, 88, 0, 1].into(), Some(255)));
        assert_eq!((header.destination, range), (MULTICAST_GROUP_V4.into(), 20..24));
        let with_options = [&[0x46], &packet[1..]].concat();
        assert_eq!(parse_ipv4_packet(&with_options).expect("the packet is valid").1, 24..24);
        for (offset, value) in [(0, 0x44), (0, 0x4f), (3, 19), (3, 25)] {
            let mut changed = packet.clone();
            changed[offset] = value;
            assert!(parse_ipv4_packet(&changed).is_none(), "byte {offset} is {value}");
        }
        assert!((0..20).all(|length| parse_ipv4_packet(&packet[..length]).is_none()));
    }
}
