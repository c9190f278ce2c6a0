//! Messages that are sent with one system call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{iovec, mmsghdr};

use super::batch::DatagramBatch;
use super::control::{CONTROL_BUFFER_BYTES, ControlBuffer, write_control_messages};
use super::header::empty_header;
use super::sockaddr::{SockaddrBuffer, empty_sockaddr, write_sockaddr};

/// The most segments of one message (Linux 4.18; later kernels allow more).
pub(crate) const MAX_SEGMENTS: usize = 64;

/// The most bytes of a segmented message, within the limits of both families.
pub(crate) const MAX_SEGMENTED_BYTES: usize = 65_000;

/// A part of a datagram in a [`DatagramBatch`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatagramSlice {
    pub(crate) datagram: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// A message that is to be sent: slices, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutgoingMessage {
    /// `None` on a connected socket.
    pub(crate) to: Option<SocketAddr>,
    /// The source address; `None` leaves it to the system.
    pub(crate) from: Option<IpAddr>,
    /// The size of the datagrams that the kernel makes of it; 0 for a single datagram.
    pub(crate) segment_size: usize,
    /// The position of its first slice.
    pub(crate) first_slice: usize,
    /// The number of its slices.
    pub(crate) slice_count: usize,
}

/// Sends messages, and keeps its memory for the next call.
#[derive(Default)]
pub(crate) struct DatagramSender {
    headers: Vec<mmsghdr>,
    iovecs: Vec<iovec>,
    sockaddrs: Vec<SockaddrBuffer>,
    controls: Vec<ControlBuffer>,
}

// SAFETY: as for `DatagramBatch`: the pointers are dead between calls.
unsafe impl Send for DatagramSender {}

impl DatagramSender {
    /// Sends as many of the messages as the system accepts at once, in order, and returns how many.
    ///
    /// # Errors
    /// The system's error for the first message. Later errors come with the next call.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: &[OutgoingMessage],
        slices: &[DatagramSlice],
        batch: &DatagramBatch,
    ) -> io::Result<usize> {
        self.iovecs.clear();
        self.iovecs.extend(slices.iter().map(|slice| {
            let begin = slice.offset as usize;
            let bytes = &batch.bytes(slice.datagram as usize)[begin..begin + slice.len as usize];
            iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
        }));
        // Resized first: a vector that grows later would move what the headers point to.
        self.sockaddrs.clear();
        self.sockaddrs.resize(messages.len(), empty_sockaddr());
        self.controls.clear();
        self.controls.resize(messages.len(), ControlBuffer([0; CONTROL_BUFFER_BYTES]));
        self.headers.clear();
        for (i, message) in messages.iter().enumerate() {
            let mut header = empty_header();
            if let Some(to) = message.to {
                header.msg_hdr.msg_namelen = write_sockaddr(&mut self.sockaddrs[i], to);
                header.msg_hdr.msg_name = ptr::from_mut(&mut self.sockaddrs[i]).cast();
            }
            let vectors =
                &mut self.iovecs[message.first_slice..message.first_slice + message.slice_count];
            header.msg_hdr.msg_iov = vectors.as_mut_ptr();
            header.msg_hdr.msg_iovlen = vectors.len() as _;
            let length =
                write_control_messages(&mut self.controls[i], message.from, message.segment_size);
            if length != 0 {
                header.msg_hdr.msg_control = self.controls[i].0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = length as _;
            }
            self.headers.push(header);
        }
        // SAFETY: the count is that of the headers; every pointer in them points to memory of `self`, or
        // of `batch`, which is borrowed for the call and only read.
        let answer = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        usize::try_from(answer).map_err(|_| io::Error::last_os_error())
    }
}

impl std::fmt::Debug for DatagramSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatagramSender").finish_non_exhaustive()
    }
}
