//! UDP sockets: the listeners, and connected sockets to backends.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, getsockname, socket_with};
use socket2::{Domain, SockRef, Socket, Type};

use crate::forward::freebind::{BindOptions, set_freebind};

/// Binds the first listener.
pub(super) fn bind_listener(address: SocketAddr, options: BindOptions) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if options.is_nonlocal {
        set_freebind(&socket, address)?;
    }
    socket.set_reuse_port(options.is_shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Adds listeners on the address of the first listener until there are `count`. The kernel
/// distributes senders over them by a hash (`SO_REUSEPORT`, `socket(7)`).
pub(super) fn add_reuseport_listeners(
    mut listeners: Vec<UdpSocket>,
    count: usize,
) -> io::Result<Vec<UdpSocket>> {
    if count <= listeners.len() {
        return Ok(listeners);
    }
    let address = listeners[0].local_addr()?;
    let first = SockRef::from(&listeners[0]);
    // Set after binding, so that binding has failed if another process uses the address.
    first.set_reuse_port(true)?;
    let only_v6 = address.is_ipv6() && first.only_v6()?;
    while listeners.len() < count {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(only_v6)?;
        }
        socket.set_reuse_port(true)?;
        // The first listener is bound already, but the machine may have lost the address since.
        set_freebind(&socket, address)?;
        socket.bind(&address.into())?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

/// Opens a socket connected to a backend: it receives from this backend only, and reports ICMP
/// errors.
pub(super) fn open_connected(target: SocketAddr) -> io::Result<OwnedFd> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    connect(&socket, &target)?;
    // If `target` is a closed port of this machine, the kernel may choose the same port as local
    // port, and the socket would be connected to itself.
    if SocketAddr::try_from(getsockname(&socket)?).is_ok_and(|local| local == target) {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(socket)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn address_in_use_is_refused_although_reuseport_listeners_share_it() {
        let first = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let address = first.local_addr().expect("bound");
        let listeners = add_reuseport_listeners(vec![first], 3).expect("loopback");
        assert!(listeners.iter().all(|socket| socket.local_addr().expect("bound") == address));
        UdpSocket::bind(address).expect_err("in use");
    }
}
