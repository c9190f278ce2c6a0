//! A batch of datagrams that were received with one system call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, iovec, mmsghdr};

use super::control::{CONTROL_BUFFER_BYTES, ControlBuffer, read_control_messages};
use super::header::{empty_header, empty_iovec};
use super::received::ReceivedDatagram;
use super::sockaddr::{SockaddrBuffer, empty_sockaddr, read_sockaddr};
use crate::sys::socket_option::set_int_option;

/// The most bytes of one datagram, or of one run of coalesced ones: UDP's length field bounds both.
const MAX_DATAGRAM_BYTES: usize = 65_536;

/// The distance between two buffers. It exceeds a datagram a little, so that the starts of the buffers,
/// which small datagrams use, fall into different sets of the processor's caches.
const SLOT_STRIDE: usize = MAX_DATAGRAM_BYTES + 320;

/// Buffers for datagrams, which are used again for each batch.
///
/// A buffer takes memory when it is first used: a page for small datagrams, 64 KiB for large ones.
pub(crate) struct DatagramBatch {
    bytes: Box<[u8]>,
    headers: Box<[mmsghdr]>,
    iovecs: Box<[iovec]>,
    sockaddrs: Box<[SockaddrBuffer]>,
    controls: Box<[ControlBuffer]>,
    received: Vec<ReceivedDatagram>,
}

// SAFETY: the raw pointers in `headers` and `iovecs` are written before each system call and read only
// by that call; between calls nothing reads them.
unsafe impl Send for DatagramBatch {}

impl DatagramBatch {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            bytes: vec![0; slots * SLOT_STRIDE].into_boxed_slice(),
            headers: vec![empty_header(); slots].into_boxed_slice(),
            iovecs: vec![empty_iovec(); slots].into_boxed_slice(),
            sockaddrs: vec![empty_sockaddr(); slots].into_boxed_slice(),
            controls: vec![ControlBuffer([0; CONTROL_BUFFER_BYTES]); slots].into_boxed_slice(),
            received: Vec::with_capacity(slots),
        }
    }

    /// Returns how many more datagrams fit.
    pub(crate) fn free_slots(&self) -> usize {
        self.headers.len() - self.received.len()
    }

    /// Removes all datagrams.
    pub(crate) fn clear(&mut self) {
        self.received.clear();
    }

    /// Returns the datagrams since the last [`DatagramBatch::clear`].
    pub(crate) fn received(&self) -> &[ReceivedDatagram] {
        &self.received
    }

    /// Returns the bytes of one datagram.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        let begin = index * SLOT_STRIDE;
        &self.bytes[begin..begin + self.received[index].len]
    }

    /// Receives at most `count` datagrams without waiting, and appends them to the batch.
    ///
    /// `named` asks for the sender of each datagram, which a connected socket does not need.
    ///
    /// # Errors
    /// The system's error for the first datagram: `WouldBlock` if there is none, or the pending error of
    /// a connected socket. Errors after the first datagram come with the next call.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        count: usize,
        named: bool,
    ) -> io::Result<usize> {
        let begin = self.received.len();
        let count = count.min(self.free_slots());
        for i in begin..begin + count {
            let buffer = &mut self.bytes[i * SLOT_STRIDE..i * SLOT_STRIDE + MAX_DATAGRAM_BYTES];
            self.iovecs[i] =
                iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: MAX_DATAGRAM_BYTES };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_iov = &mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_name = ptr::null_mut();
            header.msg_namelen = 0;
            if named {
                header.msg_name = ptr::from_mut(&mut self.sockaddrs[i]).cast();
                header.msg_namelen = size_of::<SockaddrBuffer>() as libc::socklen_t;
            }
            header.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BUFFER_BYTES as _;
            header.msg_flags = 0;
        }
        let headers = &mut self.headers[begin..begin + count];
        // SAFETY: `count` headers start at the pointer, and every pointer in them points to memory of
        // `self` of the length given beside it, which nothing else uses during the call.
        let answer = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let filled = usize::try_from(answer).map_err(|_| io::Error::last_os_error())?;
        for i in begin..begin + filled {
            let received = self.read_header(i, named);
            self.received.push(received);
        }
        Ok(filled)
    }

    fn read_header(&self, index: usize, named: bool) -> ReceivedDatagram {
        let header = &self.headers[index];
        let mut received = ReceivedDatagram {
            peer: if named { read_sockaddr(&self.sockaddrs[index]) } else { None },
            local: None,
            len: (header.msg_len as usize).min(MAX_DATAGRAM_BYTES),
            segment_size: 0,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        };
        // The types of this field and of flags differ between glibc and musl.
        let control_length: usize = header.msg_hdr.msg_controllen as _;
        if control_length >= size_of::<libc::cmsghdr>() {
            read_control_messages(&header.msg_hdr, &mut received);
        }
        // A run of one datagram is a single datagram.
        if received.segment_size >= received.len {
            received.segment_size = 0;
        }
        received
    }
}

impl std::fmt::Debug for DatagramBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatagramBatch").field("received", &self.received).finish_non_exhaustive()
    }
}

/// Makes a socket report the local address of each datagram ([`ReceivedDatagram::local`]).
pub(crate) fn enable_pktinfo(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set_int_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_int_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Makes a socket receive runs of datagrams of one sender as one (Linux 5.0).
pub(crate) fn set_udp_gro(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set_int_option(socket, libc::SOL_UDP, libc::UDP_GRO, c_int::from(on))
}
