//! What the checks over datagrams share: hearing the answer, or the network's word that there will
//! be none.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::health::{CheckFailure, CheckFailureKind};

/// Has every ICMP error reported that is about a datagram of this socket (`IP_RECVERR`).
///
/// Without it Linux reports only what RFC 1122 (section 4.2.3.9) calls hard errors, such as port
/// unreachable, and keeps for itself that no router knows a way or that the host does not answer
/// ARP. Where it cannot be set, those end in a timeout.
pub(super) fn enable_icmp_errors(socket: impl AsFd, address: SocketAddr) {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        let _ = match address {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, address);
}

/// Waits for a datagram: as much of it as fits, and its whole length.
///
/// An error alone makes a socket not readable, so it is waited for besides.
///
/// # Cancel safety
/// Nothing is lost: a datagram that was taken is returned in the same step.
pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    let take = || {
        let (_, len) = rustix::net::recv(socket, &mut *buffer, RecvFlags::TRUNC)?;
        Ok(len)
    };
    socket.async_io(Interest::READABLE.add(Interest::ERROR), take).await
}

/// What the network said instead of an answer.
pub(super) fn receive_failure(doing: &str, error: &io::Error) -> CheckFailure {
    match error.kind() {
        // ICMPv6 "administratively prohibited" comes as EACCES: a firewall's word, not this
        // machine's lack.
        ErrorKind::PermissionDenied => CheckFailure::new(
            CheckFailureKind::Unreachable,
            format!("{doing}: administratively prohibited"),
        ),
        _ => CheckFailure::io(doing, error),
    }
}

/// Why a datagram could not be sent.
pub(super) fn send_failure(doing: &str, error: &io::Error) -> CheckFailure {
    match Errno::from_io_error(error) {
        Some(Errno::MSGSIZE | Errno::NOBUFS) => CheckFailure::local(doing, error),
        _ => CheckFailure::io(doing, error),
    }
}
