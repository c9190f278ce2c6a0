//! Sockets for addresses that this machine need not have yet.

use std::io;
use std::net::SocketAddr;

use socket2::Socket;

/// How a listening socket is bound.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BindOptions {
    /// The machine need not have the address.
    pub(crate) is_nonlocal: bool,
    /// Other sockets of the same program may have the port, with `SO_REUSEPORT`, until they are closed.
    /// Otherwise a port that is in use is refused.
    pub(crate) is_shared: bool,
}

/// Allows a socket to be bound to an address that this machine does not have (`IP_FREEBIND`, `ip(7)`).
pub(super) fn set_freebind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() { socket.set_freebind_v4(true) } else { socket.set_freebind_v6(true) }
}
