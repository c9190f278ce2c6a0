//! Does the host answer an ICMP echo?

pub(super) mod echo;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use self::echo::IcmpEchoRequest;
use super::datagram::{enable_icmp_errors, receive, receive_failure, send_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Up if the host answers one ICMP echo request (RFC 792, RFC 4443): what `ping` asks.
///
/// It says that the host is there and its network works, nothing about any service; the port is not
/// used. The answer must have the sequence number and the 56 bytes of payload that were sent, 16 of
/// them random, so that another's does not count. ICMP errors about the request (host unreachable,
/// time exceeded, administratively prohibited) fail the check at once with the reason.
///
/// # Privileges
/// The socket is a datagram one (`IPPROTO_ICMP`), which needs none where the sysctl
/// `net.ipv4.ping_group_range` includes a group of this process; it speaks for IPv6, too. Elsewhere
/// a raw socket is used, which needs `CAP_NET_RAW` and sees all ICMP that comes from the host: what
/// is not the answer is passed over. Where neither may be opened the check fails as
/// [`Local`](CheckFailureKind::Local), which counts against nobody.
#[derive(Clone, Debug, Default)]
pub struct IcmpCheck {}

impl IcmpCheck {
    /// Asks for one echo.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }
}

impl Check for IcmpCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let address = probe.address();
        let (socket, own_identifier) = open_icmp_socket(address)?;
        let local = |error: io::Error| CheckFailure::local("preparing an ICMP socket", &error);
        socket.set_nonblocking(true).map_err(local)?;
        enable_icmp_errors(&socket, address);
        if let Some(source) = probe.source() {
            socket.bind(&SocketAddr::new(source, 0).into()).map_err(local)?;
        }
        let mut host = address;
        host.set_port(0);
        probe.set_stage("finding a way to the host");
        socket.connect(&host.into()).map_err(|error| probe.io_failure(&error))?;
        // Nothing in it is about UDP: sockets that send and receive are all alike.
        let socket = UdpSocket::from_std(socket.into()).map_err(local)?;

        let echo = IcmpEchoRequest::random(own_identifier);
        probe.set_stage("sending the echo request");
        let sent = socket.send(&echo.encode(address.is_ipv4())).await;
        sent.map_err(|error| send_failure(probe.stage(), &error))?;
        probe.set_stage("waiting for the echo reply");
        let mut buffer = [0; echo::MAX_REPLY_LEN];
        loop {
            let heard = receive(&socket, &mut buffer).await;
            let len = heard.map_err(|error| receive_failure(probe.stage(), &error))?;
            if buffer.get(..len).is_some_and(|packet| echo.is_answered_by(packet)) {
                return Ok(CheckReport::up());
            }
        }
    }

    fn name(&self) -> &str {
        "icmp"
    }
}

/// Opens a socket, and tells whether the identifier is ours to choose. In a datagram socket it is
/// the kernel's, which hands the socket replies with that identifier only.
fn open_icmp_socket(address: SocketAddr) -> Result<(Socket, bool), CheckFailure> {
    let (domain, protocol) = match address {
        SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let refused = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => return Ok((socket, false)),
        Err(error) => error,
    };
    if !is_not_permitted(&refused) {
        return Err(CheckFailure::local("opening an ICMP socket", &refused));
    }
    match Socket::new(domain, Type::RAW, Some(protocol)) {
        Ok(socket) => Ok((socket, true)),
        Err(error) if is_not_permitted(&error) => Err(CheckFailure::new(
            CheckFailureKind::Local,
            format!(
                "opening an ICMP socket: no group of this process is in \
                 net.ipv4.ping_group_range, and it has no CAP_NET_RAW ({error})"
            ),
        )),
        Err(error) => Err(CheckFailure::local("opening a raw ICMP socket", &error)),
    }
}

/// Not for this process, or not in this kernel.
fn is_not_permitted(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
        || Errno::from_io_error(error) == Some(Errno::PROTONOSUPPORT)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
