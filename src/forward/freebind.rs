//! Sockets for addresses that this machine need not have yet.

use std::io;
use std::net::SocketAddr;

use socket2::Socket;

/// Allows a socket to be bound to an address that this machine does not have (`IP_FREEBIND`, `ip(7)`).
pub(super) fn set_freebind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() { socket.set_freebind_v4(true) } else { socket.set_freebind_v6(true) }
}
