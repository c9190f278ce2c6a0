//! Packet sockets, which send and receive frames whose link header the kernel writes.
#![expect(
    unsafe_code,
    reason = "bind(2) and sendto(2) take pointers to an address of their own kind"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, sockaddr_ll, socklen_t};

/// The interface and the Ethernet protocol number of a packet socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketEndpoint {
    pub(crate) interface: u32,
    pub(crate) protocol: u16,
}

impl PacketEndpoint {
    fn link_address(self, mac: [u8; 6]) -> sockaddr_ll {
        let mut octets = [0; 8];
        octets[..6].copy_from_slice(&mac);
        sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: self.protocol.to_be(),
            sll_ifindex: self.interface as c_int,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: octets,
        }
    }

    /// Binds a packet socket, which then receives these frames.
    pub(crate) fn bind_socket(self, socket: impl AsFd) -> io::Result<()> {
        let address = self.link_address([0; 6]);
        // SAFETY: the pointer is to a live `sockaddr_ll` whose size is given, and the call only reads
        // it; the descriptor is open for as long as it is borrowed.
        let answer = unsafe {
            let size = size_of::<sockaddr_ll>() as socklen_t;
            libc::bind(socket.as_fd().as_raw_fd(), (&raw const address).cast(), size)
        };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends a frame to a hardware address.
    pub(crate) fn send_frame(
        self,
        socket: impl AsFd,
        mac: [u8; 6],
        bytes: &[u8],
    ) -> io::Result<()> {
        let address = self.link_address(mac);
        // SAFETY: both pointers are to live memory whose sizes are given, and the call only reads it;
        // the descriptor is open for as long as it is borrowed.
        let answer = unsafe {
            let size = size_of::<sockaddr_ll>() as socklen_t;
            let socket = socket.as_fd().as_raw_fd();
            let address = (&raw const address).cast();
            libc::sendto(socket, bytes.as_ptr().cast(), bytes.len(), 0, address, size)
        };
        if answer >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
