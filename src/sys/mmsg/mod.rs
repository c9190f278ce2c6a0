//! Many datagrams with one system call: `recvmmsg(2)` and `sendmmsg(2)`.
//!
//! A [`DatagramBatch`] is where datagrams are received, with who sent them and to which address (RFC 3542
//! section 6 for IPv6, `ip(7)` for IPv4). [`DatagramSender`] sends pieces of a batch on without copying
//! them; several pieces of one size may go as one message that the kernel cuts (`UDP_SEGMENT`,
//! `udp(7)`), and what it has put together on the way in (`UDP_GRO`) is received as one.
#![expect(unsafe_code, reason = "no safe crate offers batched datagrams with control messages")]

mod control;
mod name;
mod send;

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_void, iovec, mmsghdr};

use self::control::{CONTROL_BUFFER_BYTES, ControlBuffer, read_control_messages};
use self::name::{SockaddrBuffer, empty_sockaddr, read_sockaddr};
pub(crate) use self::send::{
    DatagramSender, DatagramSlice, MAX_SEGMENTED_BYTES, MAX_SEGMENTS, OutgoingMessage,
};

/// What one datagram or one run of coalesced ones needs: both are bounded by the length field of
/// UDP.
const MAX_DATAGRAM_BYTES: usize = 65_536;

/// A little more than a datagram, so that the beginnings of the buffers, which is what small
/// datagrams use, fall into different sets of the processor's caches.
const SLOT_STRIDE: usize = MAX_DATAGRAM_BYTES + 320;

/// What is known of a datagram that was received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ReceivedDatagram {
    /// Who sent it; `None` on a connected socket.
    pub(crate) peer: Option<SocketAddr>,
    /// The address it was sent to, where the socket [says](enable_pktinfo) it.
    pub(crate) local: Option<IpAddr>,
    pub(crate) len: usize,
    /// The size of each of the datagrams (the last may be shorter) that were put together here; 0
    /// for a datagram that came alone.
    pub(crate) segment_size: usize,
    /// It was longer than what was kept of it.
    pub(crate) truncated: bool,
}

/// Place for datagrams, used again and again.
///
/// Memory is taken as it is first used: a page a place for small datagrams, 64 KiB for large ones.
pub(crate) struct DatagramBatch {
    bytes: Box<[u8]>,
    headers: Box<[mmsghdr]>,
    iovecs: Box<[iovec]>,
    sockaddrs: Box<[SockaddrBuffer]>,
    controls: Box<[ControlBuffer]>,
    received: Vec<ReceivedDatagram>,
}

// SAFETY: the raw pointers in `headers` and `vectors` are written ahead of each system call and
// read by nothing but that call; between calls they are dead.
unsafe impl Send for DatagramBatch {}

impl DatagramBatch {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            bytes: vec![0; places * SLOT_STRIDE].into_boxed_slice(),
            headers: vec![empty_header(); places].into_boxed_slice(),
            iovecs: vec![empty_iovec(); places].into_boxed_slice(),
            sockaddrs: vec![empty_sockaddr(); places].into_boxed_slice(),
            controls: vec![ControlBuffer([0; CONTROL_BUFFER_BYTES]); places].into_boxed_slice(),
            received: Vec::with_capacity(places),
        }
    }

    /// How many more datagrams fit.
    pub(crate) fn free_slots(&self) -> usize {
        self.headers.len() - self.received.len()
    }

    /// Forgets what was received.
    pub(crate) fn clear(&mut self) {
        self.received.clear();
    }

    /// What was received since the last [`DatagramBatch::clear`].
    pub(crate) fn received(&self) -> &[ReceivedDatagram] {
        &self.received
    }

    /// The bytes of one of those.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        let begin = index * SLOT_STRIDE;
        &self.bytes[begin..begin + self.received[index].len]
    }

    /// Receives what is there, at most `count` datagrams, behind what the batch holds; never waits.
    ///
    /// `named` asks for the sender and the control messages; a connected socket has no need of the
    /// first and takes [`ReceivedDatagram::segment`] from the second.
    ///
    /// # Errors
    /// What the system says of the first one: `WouldBlock` if there is none, and the pending error
    /// of a connected socket. Errors after the first datagram come with the next call.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        count: usize,
        named: bool,
    ) -> io::Result<usize> {
        let begin = self.received.len();
        let count = count.min(self.free_slots());
        for i in begin..begin + count {
            let place = &mut self.bytes[i * SLOT_STRIDE..i * SLOT_STRIDE + MAX_DATAGRAM_BYTES];
            self.iovecs[i] =
                iovec { iov_base: place.as_mut_ptr().cast(), iov_len: MAX_DATAGRAM_BYTES };
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
        // SAFETY: `count` headers begin at the pointer, and every pointer in them is to memory of
        // `self` of the length given beside it, which nothing else touches during the call.
        let answer = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
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
        if header.msg_hdr.msg_controllen >= size_of::<libc::cmsghdr>() {
            read_control_messages(&header.msg_hdr, &mut received);
        }
        // A run of one is a datagram like any other.
        if received.segment_size >= received.len {
            received.segment_size = 0;
        }
        received
    }
}

impl std::fmt::Debug for DatagramBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("received", &self.received).finish_non_exhaustive()
    }
}

/// Has a socket say to which address each datagram was sent ([`ReceivedDatagram::local`]).
pub(crate) fn enable_pktinfo(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set_int_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_int_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Has a socket receive runs of datagrams of one sender as one (Linux 5.0).
pub(crate) fn set_udp_gro(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set_int_option(socket, libc::SOL_UDP, libc::UDP_GRO, c_int::from(on))
}

fn set_int_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the value is an `int` that lives through the call, and its size is given.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn empty_header() -> mmsghdr {
    // SAFETY: integers and raw pointers, for which all zeroes is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn empty_iovec() -> iovec {
    iovec { iov_base: ptr::null_mut(), iov_len: 0 }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
