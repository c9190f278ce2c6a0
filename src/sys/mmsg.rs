//! Many datagrams with one system call: `recvmmsg(2)` and `sendmmsg(2)`.
//!
//! A [`Batch`] is where datagrams are received, with who sent them and to which address (RFC 3542
//! section 6 for IPv6, `ip(7)` for IPv4). [`Sender`] sends pieces of a batch on without copying
//! them; several pieces of one size may go as one message that the kernel cuts (`UDP_SEGMENT`,
//! `udp(7)`), and what it has put together on the way in (`UDP_GRO`) is received as one.
#![expect(unsafe_code, reason = "no safe crate offers batched datagrams with control messages")]

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_void, iovec, mmsghdr, msghdr};

/// What one datagram or one run of coalesced ones needs: both are bounded by the length field of
/// UDP.
const DATAGRAM_MAX: usize = 65_536;

/// A little more than a datagram, so that the beginnings of the buffers, which is what small
/// datagrams use, fall into different sets of the processor's caches.
const STRIDE: usize = DATAGRAM_MAX + 320;

/// Room for the address and the segment size of one message, both ways.
const CONTROL: usize = 64;

/// The most pieces that the kernel cuts one message into (since 4.18; later kernels allow more).
pub(crate) const SEGMENTS_MAX: usize = 64;

/// The most bytes of a message that is to be cut, within both families' limits.
pub(crate) const SEGMENTED_MAX: usize = 65_000;

/// What is known of a datagram that was received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Received {
    /// Who sent it; `None` on a connected socket.
    pub(crate) peer: Option<SocketAddr>,
    /// The address it was sent to, where the socket [says](tell_destination) it.
    pub(crate) local: Option<IpAddr>,
    pub(crate) len: usize,
    /// The size of each of the datagrams (the last may be shorter) that were put together here; 0
    /// for a datagram that came alone.
    pub(crate) segment: usize,
    /// It was longer than what was kept of it.
    pub(crate) truncated: bool,
}

/// Place for datagrams, used again and again.
///
/// Memory is taken as it is first used: a page a place for small datagrams, 64 KiB for large ones.
pub(crate) struct Batch {
    bytes: Box<[u8]>,
    headers: Box<[mmsghdr]>,
    vectors: Box<[iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    received: Vec<Received>,
}

// SAFETY: the raw pointers in `headers` and `vectors` are written ahead of each system call and
// read by nothing but that call; between calls they are dead.
unsafe impl Send for Batch {}

type Name = libc::sockaddr_in6;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

impl Batch {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            bytes: vec![0; places * STRIDE].into_boxed_slice(),
            headers: vec![no_header(); places].into_boxed_slice(),
            vectors: vec![no_vector(); places].into_boxed_slice(),
            names: vec![no_name(); places].into_boxed_slice(),
            controls: vec![Control([0; CONTROL]); places].into_boxed_slice(),
            received: Vec::with_capacity(places),
        }
    }

    /// How many more datagrams fit.
    pub(crate) fn room(&self) -> usize {
        self.headers.len() - self.received.len()
    }

    /// Forgets what was received.
    pub(crate) fn clear(&mut self) {
        self.received.clear();
    }

    /// What was received since the last [`Batch::clear`].
    pub(crate) fn received(&self) -> &[Received] {
        &self.received
    }

    /// The bytes of one of those.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        let begin = index * STRIDE;
        &self.bytes[begin..begin + self.received[index].len]
    }

    /// Receives what is there, at most `count` datagrams, behind what the batch holds; never waits.
    ///
    /// `named` asks for the sender and the control messages; a connected socket has no need of the
    /// first and takes [`Received::segment`] from the second.
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
        let count = count.min(self.room());
        for i in begin..begin + count {
            let place = &mut self.bytes[i * STRIDE..i * STRIDE + DATAGRAM_MAX];
            self.vectors[i] = iovec { iov_base: place.as_mut_ptr().cast(), iov_len: DATAGRAM_MAX };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_iov = &mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_name = ptr::null_mut();
            header.msg_namelen = 0;
            if named {
                header.msg_name = ptr::from_mut(&mut self.names[i]).cast();
                header.msg_namelen = size_of::<Name>() as libc::socklen_t;
            }
            header.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
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
            let received = self.read(i, named);
            self.received.push(received);
        }
        Ok(filled)
    }

    fn read(&self, index: usize, named: bool) -> Received {
        let header = &self.headers[index];
        let mut received = Received {
            peer: if named { address(&self.names[index]) } else { None },
            local: None,
            len: (header.msg_len as usize).min(DATAGRAM_MAX),
            segment: 0,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        };
        if header.msg_hdr.msg_controllen >= size_of::<libc::cmsghdr>() {
            read_control(&header.msg_hdr, &mut received);
        }
        // A run of one is a datagram like any other.
        if received.segment >= received.len {
            received.segment = 0;
        }
        received
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("received", &self.received).finish_non_exhaustive()
    }
}

/// A part of what a [`Batch`] holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) index: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// One message to be sent: some pieces, one behind the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    /// `None` on a connected socket.
    pub(crate) to: Option<SocketAddr>,
    /// The address it shall come from; `None` leaves that to the system.
    pub(crate) from: Option<IpAddr>,
    /// Into datagrams of which size the kernel cuts it; 0 if it is one.
    pub(crate) segment: usize,
    /// The first of its pieces.
    pub(crate) first: usize,
    /// How many it has.
    pub(crate) count: usize,
}

/// Sends messages; keeps its memory for the next time.
#[derive(Default)]
pub(crate) struct Sender {
    headers: Vec<mmsghdr>,
    vectors: Vec<iovec>,
    names: Vec<Name>,
    controls: Vec<Control>,
}

// SAFETY: as for `Batch`: the pointers are dead between calls.
unsafe impl Send for Sender {}

impl Sender {
    /// Sends as many of the messages as the system takes at once, in order.
    ///
    /// # Errors
    /// What the system says of the first one. Errors after that come with the next call.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: &[Message],
        pieces: &[Piece],
        batch: &Batch,
    ) -> io::Result<usize> {
        self.vectors.clear();
        self.vectors.extend(pieces.iter().map(|piece| {
            let begin = piece.offset as usize;
            let bytes = &batch.bytes(piece.index as usize)[begin..begin + piece.len as usize];
            iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
        }));
        // All of one length first: a vector that grows would move what was pointed to.
        self.names.clear();
        self.names.resize(messages.len(), no_name());
        self.controls.clear();
        self.controls.resize(messages.len(), Control([0; CONTROL]));
        self.headers.clear();
        for (i, message) in messages.iter().enumerate() {
            let mut header = no_header();
            if let Some(to) = message.to {
                header.msg_hdr.msg_namelen = write_address(&mut self.names[i], to);
                header.msg_hdr.msg_name = ptr::from_mut(&mut self.names[i]).cast();
            }
            let vectors = &mut self.vectors[message.first..message.first + message.count];
            header.msg_hdr.msg_iov = vectors.as_mut_ptr();
            header.msg_hdr.msg_iovlen = vectors.len() as _;
            let length = write_control(&mut self.controls[i], message.from, message.segment);
            if length != 0 {
                header.msg_hdr.msg_control = self.controls[i].0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = length as _;
            }
            self.headers.push(header);
        }
        // SAFETY: the headers are as many as said; every pointer in them is to memory of `self`, or
        // of `batch`, which is borrowed for the call and only read from.
        let answer = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(answer).map_err(|_| io::Error::last_os_error())
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// Has a socket say to which address each datagram was sent ([`Received::local`]).
pub(crate) fn tell_destination(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Has a socket receive runs of datagrams of one sender as one (Linux 5.0).
pub(crate) fn coalesce(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, c_int::from(on))
}

fn set(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
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

fn no_header() -> mmsghdr {
    // SAFETY: integers and raw pointers, for which all zeroes is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn no_vector() -> iovec {
    iovec { iov_base: ptr::null_mut(), iov_len: 0 }
}

fn no_name() -> Name {
    // SAFETY: integers only, for which all zeroes is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn address(name: &Name) -> Option<SocketAddr> {
    match c_int::from(name.sin6_family) {
        libc::AF_INET => {
            // SAFETY: both are plain integers, the IPv4 address is the smaller one, and its
            // alignment is no stricter.
            let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn write_address(name: &mut Name, address: SocketAddr) -> libc::socklen_t {
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: as in `address`.
            let name = unsafe { &mut *ptr::from_mut(name).cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = v4.port().to_be();
            name.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(v6) => {
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = v6.port().to_be();
            name.sin6_addr.s6_addr = v6.ip().octets();
            name.sin6_scope_id = v6.scope_id();
            size_of::<Name>() as libc::socklen_t
        }
    }
}

fn read_control(header: &msghdr, received: &mut Received) {
    // SAFETY: the kernel has filled `msg_controllen` bytes of the buffer that the header points to,
    // which is alive: it belongs to the same `Batch`. The macros stay within that length, and what
    // is read behind a header is what its level and type say, copied out unaligned.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = next.as_ref() {
            let data = libc::CMSG_DATA(control);
            match (control.cmsg_level, control.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = data.cast::<libc::in_pktinfo>().read_unaligned();
                    // Of a broadcast this is the address of the interface, which can be answered
                    // from; of all else it is the destination.
                    let ip = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                    received.local = Some(ip.into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    received.local = (!ip.is_multicast()).then_some(ip.into());
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size: c_int = data.cast::<c_int>().read_unaligned();
                    received.segment = usize::try_from(size).unwrap_or(0);
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(header, control);
        }
    }
}

/// Writes what a message needs and says how long that is.
fn write_control(control: &mut Control, from: Option<IpAddr>, segment: usize) -> usize {
    let mut used = 0;
    match from {
        Some(IpAddr::V4(ip)) => {
            let mut info = [0; size_of::<libc::in_pktinfo>()];
            let at = offset_of!(libc::in_pktinfo, ipi_spec_dst);
            info[at..at + 4].copy_from_slice(&ip.octets());
            used += put(&mut control.0[used..], libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(ip)) => {
            let mut info = [0; size_of::<libc::in6_pktinfo>()];
            let at = offset_of!(libc::in6_pktinfo, ipi6_addr);
            info[at..at + 16].copy_from_slice(&ip.octets());
            used += put(&mut control.0[used..], libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if segment != 0 {
        let size = (segment as u16).to_ne_bytes();
        used += put(&mut control.0[used..], libc::SOL_UDP, libc::UDP_SEGMENT, &size);
    }
    used
}

/// Writes one control message, padded as the next one needs it, and says how long that is.
fn put(into: &mut [u8], level: c_int, kind: c_int, data: &[u8]) -> usize {
    // SAFETY: arithmetic only.
    let (space, length, offset) = unsafe {
        let length = data.len() as libc::c_uint;
        let offset = libc::CMSG_LEN(0);
        (libc::CMSG_SPACE(length) as usize, libc::CMSG_LEN(length) as usize, offset as usize)
    };
    let at = offset_of!(libc::cmsghdr, cmsg_len);
    into[at..at + size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
    let at = offset_of!(libc::cmsghdr, cmsg_level);
    into[at..at + 4].copy_from_slice(&level.to_ne_bytes());
    let at = offset_of!(libc::cmsghdr, cmsg_type);
    into[at..at + 4].copy_from_slice(&kind.to_ne_bytes());
    into[offset..offset + data.len()].copy_from_slice(data);
    space
}

/// Two of the largest kind fit, and `cmsg_len` is as wide as [`put`] writes it.
const _: () = {
    let header = size_of::<libc::cmsghdr>();
    let padded = size_of::<libc::in6_pktinfo>().next_multiple_of(size_of::<usize>());
    assert!(CONTROL >= header + padded + header + size_of::<usize>());
    assert!(offset_of!(libc::cmsghdr, cmsg_level) >= size_of::<usize>());
};

#[cfg(all(test, not(lvs_loom)))]
mod tests;
