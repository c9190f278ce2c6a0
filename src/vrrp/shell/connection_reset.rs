//! Resets the TCP connections of addresses that this machine gives away, by `sock_diag(7)`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// All states with a peer: neither closed, nor listening, nor in `TIME_WAIT`.
const CONNECTED_STATES: u32 = 0b1011_0011_1110;
const HEADER_LEN: usize = 16;
/// `inet_diag_sockid`: ports, addresses, interface, cookie.
const SOCKET_ID_LEN: usize = 48;
/// The longest datagram of a reply: kernels fill up to 32 KiB.
const MAX_DATAGRAM_LEN: usize = 32 * 1024;
/// The number of connections that are reset at a time, so that the thread goes on within a second.
const MAX_CONNECTIONS: usize = 100_000;

/// The identity of a socket, as the kernel writes it.
type SocketId = [u8; SOCKET_ID_LEN];

/// Resets the TCP connections of this network namespace whose local address is one of these, whichever
/// process has them: their clients are told at once, and not when they send next. Must be called while
/// the machine has the addresses. Returns the number of connections.
///
/// # Errors
/// The kernel has no `CONFIG_INET_DIAG_DESTROY`, or refuses the request.
pub(super) fn reset_connections(addresses: &[IpAddr]) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // The reply is there when the request has been sent.
    socket.set_non_blocking(true)?;
    let mut count = 0;
    for family in [AF_INET, AF_INET6] {
        for id in list_connections(&socket, family, addresses)? {
            match destroy(&socket, family, &id) {
                Ok(()) => count += 1,
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(count)
}

fn list_connections(
    socket: &Socket,
    family: u8,
    addresses: &[IpAddr],
) -> io::Result<Vec<SocketId>> {
    let id = [0; SOCKET_ID_LEN];
    let message = request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, CONNECTED_STATES, &id);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let (mut ids, mut buffer) = (Vec::new(), vec![0; MAX_DATAGRAM_LEN]);
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, payload) in messages(&buffer[..length]) {
            match kind {
                NLMSG_DONE => return Ok(ids),
                NLMSG_ERROR => {
                    error_of(payload)?;
                }
                SOCK_DIAG_BY_FAMILY => {
                    let found = payload.get(4..4 + SOCKET_ID_LEN);
                    let Some(id) = found.and_then(|id| SocketId::try_from(id).ok()) else {
                        continue;
                    };
                    if ids.len() < MAX_CONNECTIONS
                        && addresses.contains(&local_address(family, &id))
                    {
                        ids.push(id);
                    }
                }
                _ => {}
            }
        }
    }
}

fn destroy(socket: &Socket, family: u8, id: &SocketId) -> io::Result<()> {
    let message = request(SOCK_DESTROY, NLM_F_ACK, family, CONNECTED_STATES, id);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut buffer = [0; 1024];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    messages(&buffer[..length]).try_for_each(|(kind, payload)| match kind {
        NLMSG_ERROR => error_of(payload),
        _ => Ok(()),
    })
}

/// Encodes a request: a netlink header and an `inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8, states: u32, id: &SocketId) -> Vec<u8> {
    let length = (HEADER_LEN + 8 + SOCKET_ID_LEN) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and port: one request is answered at a time.
    bytes.extend([0; 8]);
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// Splits a datagram into the kind and the payload of each message.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let payload = bytes.get(HEADER_LEN..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// Returns the error of an acknowledgement; 0 is none.
fn error_of(payload: &[u8]) -> io::Result<()> {
    let code = payload.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) }
}

/// Returns the local address of a socket; that of an IPv4 connection of an IPv6 socket is IPv4.
fn local_address(family: u8, id: &SocketId) -> IpAddr {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&id[4..20]);
    match family {
        AF_INET => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        _ => IpAddr::from(Ipv6Addr::from(bytes)).to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_and_cut_ones_ignored() {
        let id: SocketId = std::array::from_fn(|n| n as u8);
        let one = request(SOCK_DESTROY, NLM_F_ACK, AF_INET, 2, &id);
        let two = [one.clone(), one.clone()].concat();
        assert_eq!(messages(&two).count(), 2);
        for length in 0..one.len() {
            assert_eq!(messages(&one[..length]).count(), 0, "{length} bytes");
        }
        assert_eq!(local_address(AF_INET, &id), IpAddr::from([4, 5, 6, 7]));
        let mut mapped = [0; SOCKET_ID_LEN];
        mapped[14..20].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(local_address(AF_INET6, &mapped), IpAddr::from([10, 0, 0, 1]));
        assert!(error_of(&(-2_i32).to_ne_bytes()).is_err() && error_of(&[0; 4]).is_ok());
    }
}
