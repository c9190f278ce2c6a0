//! The socket for requests.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
#[cfg(any(feature = "announce", feature = "vrrp"))]
use rustix::io::Errno;

/// The longest datagram of a reply: kernels fill up to 32 KiB.
pub(super) const MAX_DATAGRAM_LEN: usize = 32 * 1024;

/// A netlink socket for requests, in the network namespace of the thread that opens it.
pub(crate) struct RtnetlinkSocket {
    socket: Socket,
    sequence: u32,
}

impl std::fmt::Debug for RtnetlinkSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtnetlinkSocket").finish_non_exhaustive()
    }
}

impl RtnetlinkSocket {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The reply is there when the request has been sent; if it is not, the call fails.
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Has the kernel (Linux 4.20) select what lists ask for. Others list everything.
    #[cfg(feature = "announce")]
    pub(crate) fn filter_lists(&mut self) {
        let _ = self.socket.set_netlink_get_strict_chk(true);
    }

    /// Changes something, and waits for the kernel's acknowledgement.
    pub(crate) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, flags | NLM_F_ACK).map(drop)
    }

    /// Sends a request, and returns the replies: all parts of a dump, or one message, or none with `NLM_F_ACK`.
    pub(crate) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.receive_replies(flags & (NLM_F_ACK | NLM_F_DUMP) == 0)
    }

    /// Receives the parts of a reply, until an acknowledgement, or the only part if `is_single`.
    fn receive_replies(&mut self, is_single: bool) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut replies = Vec::new();
        let mut buffer = Vec::with_capacity(MAX_DATAGRAM_LEN);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                // Parts are aligned to four bytes.
                let length = (message.header.length as usize).max(16).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(replies),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(replies),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => replies.push(message),
                    _ => {}
                }
            }
            if is_single && !replies.is_empty() {
                return Ok(replies);
            }
        }
    }
}

pub(crate) const fn address_family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

#[cfg(any(feature = "announce", feature = "vrrp"))]
pub(crate) fn is_errno(error: &io::Error, code: Errno) -> bool {
    error.raw_os_error() == Some(code.raw_os_error())
}

/// Treats these errors as success.
#[cfg(any(feature = "announce", feature = "vrrp"))]
pub(crate) fn ignore_errnos<T>(result: io::Result<T>, codes: &[Errno]) -> io::Result<()> {
    match result {
        Err(error) if codes.iter().any(|code| is_errno(&error, *code)) => Ok(()),
        result => result.map(drop),
    }
}
