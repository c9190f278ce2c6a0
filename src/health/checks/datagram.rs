//! Datagrams of checks: receives an answer, or the ICMP error in place of an answer.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::health::{CheckFailure, CheckFailureKind};

/// Enables the report of every ICMP error about a datagram of a socket (`IP_RECVERR`).
///
/// Without the option, Linux reports only the hard errors of RFC 1122 (section 4.2.3.9), such as
/// port unreachable, and not that a network is unreachable or that the host does not answer ARP. If
/// the option cannot be set, those errors end in a timeout.
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

/// Waits for a datagram; fills the buffer, and returns the whole length of the datagram.
///
/// Also waits for errors: an error alone does not make a socket readable.
///
/// # Cancel safety
/// No datagram is lost: a received datagram is returned in the same step.
pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    let receive = || {
        let (_, len) = rustix::net::recv(socket, &mut *buffer, RecvFlags::TRUNC)?;
        Ok(len)
    };
    socket.async_io(Interest::READABLE.add(Interest::ERROR), receive).await
}

/// Returns the failure of an error in place of an answer.
pub(super) fn receive_failure(stage: &str, error: &io::Error) -> CheckFailure {
    match error.kind() {
        // ICMPv6 "administratively prohibited" is reported as EACCES: a firewall rejected the
        // datagram, not this machine.
        ErrorKind::PermissionDenied => CheckFailure::new(
            CheckFailureKind::Unreachable,
            format!("{stage}: administratively prohibited"),
        ),
        _ => CheckFailure::io(stage, error),
    }
}

/// Returns the failure of an error in sending a datagram.
pub(super) fn send_failure(stage: &str, error: &io::Error) -> CheckFailure {
    match Errno::from_io_error(error) {
        Some(Errno::MSGSIZE | Errno::NOBUFS) => CheckFailure::local(stage, error),
        _ => CheckFailure::io(stage, error),
    }
}
