//! Sending and receiving advertisements: raw sockets for IP protocol 112.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn6, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use super::VrrpStartError;
use crate::vrrp::IpHeaderInfo;
use crate::vrrp::advert::IPPROTO_VRRP;

const MULTICAST_GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const MULTICAST_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// What all send with (RFC 9568, section 5.1.1.3).
const ADVERT_TTL: u32 = 255;
/// Longer than any message: 255 addresses of IPv6, a trailer, and the longest header of IPv4.
const MAX_PACKET_LEN: usize = 8 + 255 * 16 + 28 + 60;

/// Where the routers of one link hear each other: all of them by multicast, or certain peers by
/// unicast. Neither of its methods blocks.
#[derive(Debug)]
pub(super) struct AdvertSocket {
    /// Bound to the source; one that is hears no multicast, hence two.
    sender: Socket,
    receiver: Socket,
    source: IpAddr,
    destination_sockaddrs: Vec<SockAddr>,
    destinations: Vec<IpAddr>,
    buffer: Box<[u8; MAX_PACKET_LEN]>,
}

impl AdvertSocket {
    /// Opens it on an interface, and to send by another if that has a macvlan, with this source, which
    /// for multicast over IPv6 is the link-local address; without peers it is for multicast.
    pub(super) fn open(
        interface: &str,
        sends_by: &str,
        source: IpAddr,
        peers: &[IpAddr],
    ) -> Result<Self, VrrpStartError> {
        if let Some(peer) = peers.iter().find(|peer| peer.is_ipv6() != source.is_ipv6()) {
            return Err(VrrpStartError::PeerFamily(*peer, source));
        }
        let index = if_nametoindex(interface)
            .map_err(|_| VrrpStartError::UnknownInterface(interface.to_owned()))?;
        let (sender, receiver) =
            (open_raw_socket(sends_by, source)?, open_raw_socket(interface, source)?);
        let group = if source.is_ipv6() {
            IpAddr::V6(MULTICAST_GROUP_V6)
        } else {
            IpAddr::V4(MULTICAST_GROUP_V4)
        };
        let doing = |what| move |source| VrrpStartError::Io { what, source };
        let set = |what, result: io::Result<()>| result.map_err(doing(what));
        sender.bind(&socket_address(source, index)).map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable => VrrpStartError::SourceNotLocal(source),
            _ => doing("bind to the source")(error),
        })?;
        match source {
            IpAddr::V4(_) => {
                set("set the TTL", sender.set_ttl_v4(ADVERT_TTL))?;
                set("set the TTL", sender.set_multicast_ttl_v4(ADVERT_TTL))?;
                set("not hear itself", sender.set_multicast_loop_v4(false))?;
                let on = InterfaceIndexOrAddress::Index(index);
                set("join 224.0.0.18", receiver.join_multicast_v4_n(&MULTICAST_GROUP_V4, &on))?;
                set("hear this interface alone", receiver.set_multicast_all_v4(false))?;
            }
            IpAddr::V6(_) => {
                set("set the hop limit", sender.set_unicast_hops_v6(ADVERT_TTL))?;
                set("set the hop limit", sender.set_multicast_hops_v6(ADVERT_TTL))?;
                set("not hear itself", sender.set_multicast_loop_v6(false))?;
                set("choose the interface", sender.set_multicast_if_v6(index))?;
                set("join ff02::12", receiver.join_multicast_v6(&MULTICAST_GROUP_V6, index))?;
                let told = |result: nix::Result<()>| result.map_err(io::Error::from);
                let hops = setsockopt(&receiver, sockopt::Ipv6RecvHopLimit, &true);
                set("learn hop limits", told(hops))?;
                let info = setsockopt(&receiver, sockopt::Ipv6RecvPacketInfo, &true);
                set("learn destinations", told(info))?;
            }
        }
        let destinations = if peers.is_empty() { vec![group] } else { peers.to_vec() };
        let to = destinations.iter().map(|it| socket_address(*it, index)).collect();
        let buffer = Box::new([0; MAX_PACKET_LEN]);
        Ok(Self { sender, receiver, source, destination_sockaddrs: to, destinations, buffer })
    }

    /// Its address: from where it sends.
    pub(super) fn source(&self) -> IpAddr {
        self.source
    }

    /// Sends what `write` makes for each destination: the group, or each peer.
    ///
    /// # Errors
    /// The first of the system's; the other destinations are sent to all the same.
    pub(super) fn send<B: AsRef<[u8]>>(
        &self,
        mut write: impl FnMut(IpAddr) -> B,
    ) -> io::Result<()> {
        let mut result = Ok(());
        for (to, destination) in self.destination_sockaddrs.iter().zip(&self.destinations) {
            let sent = self.sender.send_to(write(*destination).as_ref(), to).map(drop);
            result = result.and(sent);
        }
        result
    }

    /// What has come, and from whom; `None` when nothing has. What is no IP packet as it should be is
    /// passed over.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn receive(&mut self) -> io::Result<Option<(IpHeaderInfo, &[u8])>> {
        // Bounded: others may go on and on.
        for _ in 0..64 {
            let received = match self.source {
                IpAddr::V4(_) => receive_v4(&self.receiver, &mut self.buffer[..]),
                IpAddr::V6(_) => receive_v6(&self.receiver, &mut self.buffer[..]),
            };
            match received {
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) | Ok(None) => {}
                Err(error) => return Err(error.into()),
                Ok(Some((envelope, range))) => {
                    return Ok(Some((envelope, &self.buffer[range])));
                }
            }
        }
        Ok(None)
    }
}

/// Readable when something has come.
impl AsFd for AdvertSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

fn open_raw_socket(interface: &str, source: IpAddr) -> Result<Socket, VrrpStartError> {
    let domain = if source.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let doing = |what| move |source| VrrpStartError::Io { what, source };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(IPPROTO_VRRP))));
    let socket = socket.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            VrrpStartError::Privilege { what: "open a raw socket", capability: "CAP_NET_RAW" }
        }
        _ => doing("open a raw socket")(error),
    })?;
    socket.bind_device(Some(interface.as_bytes())).map_err(doing("bind to the interface"))?;
    socket.set_nonblocking(true).map_err(doing("not block"))?;
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

type ReceivedPacket = nix::Result<Option<(IpHeaderInfo, std::ops::Range<usize>)>>;

fn receive_v4(socket: &Socket, buffer: &mut [u8]) -> ReceivedPacket {
    let mut parts = [IoSliceMut::new(buffer)];
    let fd = socket.as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, None, MsgFlags::empty())?;
    let length = message.bytes;
    Ok(parse_ipv4_packet(&buffer[..length]))
}

/// Takes a packet of IPv4 out of its header.
fn parse_ipv4_packet(packet: &[u8]) -> Option<(IpHeaderInfo, std::ops::Range<usize>)> {
    let header = 4 * usize::from(packet.first()? & 0xf);
    let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    if header < 20 || length < header || length > packet.len() {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    let envelope = IpHeaderInfo {
        source: address(12)?,
        destination: address(16)?,
        ttl: Some(*packet.get(8)?),
    };
    Some((envelope, header..length))
}

fn receive_v6(socket: &Socket, buffer: &mut [u8]) -> ReceivedPacket {
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
            ControlMessageOwned::Ipv6HopLimit(hops) => ttl = u8::try_from(hops).ok(),
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
    fn a_packet_is_taken_out_of_its_header_or_passed_over() {
        let mut packet = vec![0x45, 0xc0, 0, 24, 0, 1, 0, 0, 255, 112, 0, 0];
        packet.extend([10, 88, 0, 1, 224, 0, 0, 18, 1, 2, 3, 4]);
        let (envelope, range) = parse_ipv4_packet(&packet).expect("a packet");
        assert_eq!((envelope.source, envelope.ttl), ([10, 88, 0, 1].into(), Some(255)));
        assert_eq!((envelope.destination, range), (MULTICAST_GROUP_V4.into(), 20..24));
        let with_options = [&[0x46], &packet[1..]].concat();
        assert_eq!(parse_ipv4_packet(&with_options).expect("a packet").1, 24..24);
        for (at, value) in [(0, 0x44), (0, 0x4f), (3, 19), (3, 25)] {
            let mut odd = packet.clone();
            odd[at] = value;
            assert!(parse_ipv4_packet(&odd).is_none(), "{at} {value}");
        }
        assert!((0..20).all(|length| parse_ipv4_packet(&packet[..length]).is_none()));
    }
}
