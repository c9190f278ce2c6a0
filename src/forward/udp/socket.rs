//! Sockets: more listeners beside the first, and connected ones to backends.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, getsockname, socket_with};
use socket2::{Domain, SockRef, Socket, Type};

use crate::forward::freebind::set_freebind;

/// Opens the first listener; `ahead` of the address, which may be none of this machine's.
pub(super) fn bind_listener(address: SocketAddr, ahead: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if ahead {
        set_freebind(&socket, address)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Makes listeners on the address of the first one until there are `count`; the kernel spreads
/// senders over them by a hash (`SO_REUSEPORT`, `socket(7)`).
pub(super) fn add_reuseport_listeners(
    mut all: Vec<UdpSocket>,
    count: usize,
) -> io::Result<Vec<UdpSocket>> {
    if count <= all.len() {
        return Ok(all);
    }
    let address = all[0].local_addr()?;
    let option = SockRef::from(&all[0]);
    // Only now, so that an address that somebody else uses was refused when it was bound.
    option.set_reuse_port(true)?;
    let only_v6 = address.is_ipv6() && option.only_v6()?;
    while all.len() < count {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(only_v6)?;
        }
        socket.set_reuse_port(true)?;
        // The first has shown that it may; the address may have gone since.
        set_freebind(&socket, address)?;
        socket.bind(&address.into())?;
        all.push(socket.into());
    }
    Ok(all)
}

/// Opens a socket that talks to one backend only: it hears nobody else, and is told of ICMP errors.
pub(super) fn open_connected(target: SocketAddr) -> io::Result<OwnedFd> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    connect(&socket, &target)?;
    // Where nobody listens on a port of this machine, the kernel may give out that very port for
    // the outgoing side, and the socket would talk to itself.
    if SocketAddr::try_from(getsockname(&socket)?).is_ok_and(|own| own == target) {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(socket)
}

/// Tells whether an error is this machine's and says nothing about the backend.
pub(super) fn is_local_error(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // `AGAIN` from `connect`: every port for the outgoing side is taken.
    const LOCAL: [Errno; 7] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::NOSPC,
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
    ];
    Errno::from_io_error(error).is_some_and(|errno| LOCAL.contains(&errno))
}

/// Tells whether an error on a backend's socket says that the backend cannot be reached.
pub(super) fn is_unreachable_error(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const UNREACHABLE: [Errno; 8] = [
        Errno::CONNREFUSED,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::NETDOWN,
        Errno::NOPROTOOPT,
        Errno::PROTO,
        Errno::OPNOTSUPP,
    ];
    Errno::from_io_error(error).is_some_and(|errno| UNREACHABLE.contains(&errno))
        || error.kind() == ErrorKind::ConnectionRefused
}

/// Tells whether a message was refused because it was to be cut by the kernel: the device cannot,
/// or a part is longer than the path takes in one piece.
pub(super) fn is_segmentation_error(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const UNCUT: [Errno; 4] = [Errno::IO, Errno::INVAL, Errno::MSGSIZE, Errno::OPNOTSUPP];
    Errno::from_io_error(error).is_some_and(|errno| UNCUT.contains(&errno))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn shortages_of_this_machine_are_not_the_backends_fault() {
        for local in [23, 24, 12, 11].map(io::Error::from_raw_os_error) {
            assert!(is_local_error(&local) && !is_unreachable_error(&local), "{local}");
        }
        for remote in [111, 113, 101].map(io::Error::from_raw_os_error) {
            assert!(is_unreachable_error(&remote) && !is_local_error(&remote), "{remote}");
        }
    }

    #[test]
    fn an_address_in_use_is_refused_though_siblings_share_it() {
        let first = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let address = first.local_addr().expect("bound");
        let all = add_reuseport_listeners(vec![first], 3).expect("loopback");
        assert!(all.iter().all(|it| it.local_addr().expect("bound") == address));
        UdpSocket::bind(address).expect_err("in use");
    }
}
