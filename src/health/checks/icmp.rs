//! The ICMP check.

pub(super) mod echo;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use self::echo::IcmpEchoRequest;
use super::datagram::{enable_icmp_errors, receive, receive_failure, send_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Sends one ICMP echo request (RFC 792, RFC 4443), as `ping` does, and requires the reply.
///
/// The check tests the host and the network, not a service; the port is not used. The reply must
/// have the sequence number and the 56 bytes of payload of the request, 16 of them random, so that
/// the reply to another program does not count. ICMP errors about the request (host unreachable,
/// time exceeded, administratively prohibited) fail the check at once.
///
/// # Privileges
/// The check uses a datagram socket (`IPPROTO_ICMP`), which needs no privilege if the sysctl
/// `net.ipv4.ping_group_range` includes a group of this process; the sysctl applies to IPv6, too.
/// Otherwise it uses a raw socket, which needs `CAP_NET_RAW` and receives all ICMP packets of the
/// host: packets other than the reply are ignored. If neither can be opened, the check fails as
/// [`Local`](CheckFailureKind::Local), which does not count against the backend.
#[derive(Clone, Debug, Default)]
pub struct IcmpCheck {}

impl IcmpCheck {
    /// Makes a check.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }
}

impl Check for IcmpCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let address = context.address();
        let (socket, own_identifier) = open_icmp_socket(address)?;
        let local = |error: io::Error| CheckFailure::local("preparing an ICMP socket", &error);
        socket.set_nonblocking(true).map_err(local)?;
        enable_icmp_errors(&socket, address);
        if let Some(source) = context.local_source()? {
            let bound = socket.bind(&SocketAddr::new(source, 0).into());
            bound.map_err(|error| CheckFailure::of_source(source, &error))?;
        }
        let mut host = address;
        host.set_port(0);
        context.set_stage("looking up the route to the host");
        socket.connect(&host.into()).map_err(|error| context.io_failure(&error))?;
        // tokio's type works with any datagram socket.
        let socket = UdpSocket::from_std(socket.into()).map_err(local)?;

        let echo = IcmpEchoRequest::random(own_identifier);
        context.set_stage("sending the echo request");
        let sent = socket.send(&echo.encode(address.is_ipv4())).await;
        sent.map_err(|error| send_failure(context.stage(), &error))?;
        context.set_stage("waiting for the echo reply");
        let mut buffer = [0; echo::MAX_REPLY_LEN];
        loop {
            let received = receive(&socket, &mut buffer).await;
            let len = received.map_err(|error| receive_failure(context.stage(), &error))?;
            if buffer.get(..len).is_some_and(|packet| echo.is_answered_by(packet)) {
                return Ok(CheckReport::up());
            }
        }
    }

    fn name(&self) -> &str {
        "icmp"
    }
}

/// Opens a socket; returns whether the check chooses the identifier. The kernel chooses the
/// identifier of a datagram socket, and passes only replies with that identifier to the socket.
fn open_icmp_socket(address: SocketAddr) -> Result<(Socket, bool), CheckFailure> {
    let (domain, protocol) = match address {
        SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let error = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => return Ok((socket, false)),
        Err(error) => error,
    };
    if !is_not_permitted(&error) {
        return Err(CheckFailure::local("opening an ICMP socket", &error));
    }
    match Socket::new(domain, Type::RAW, Some(protocol)) {
        Ok(socket) => Ok((socket, true)),
        Err(error) if is_not_permitted(&error) => Err(CheckFailure::new(
            CheckFailureKind::Local,
            format!(
                "opening an ICMP socket: {error} (no group of this process is in \
                 net.ipv4.ping_group_range, and the process lacks CAP_NET_RAW)"
            ),
        )),
        Err(error) => Err(CheckFailure::local("opening a raw ICMP socket", &error)),
    }
}

/// Returns whether the process lacks the privilege, or the kernel lacks the protocol.
fn is_not_permitted(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
        || Errno::from_io_error(error) == Some(Errno::PROTONOSUPPORT)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
