//! Messages to be sent, many with one system call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{iovec, mmsghdr};

use super::control::{CONTROL, Control, write_control};
use super::name::{Name, no_name, write_address};
use super::{Batch, no_header};

/// The most pieces that the kernel cuts one message into (since 4.18; later kernels allow more).
pub(crate) const SEGMENTS_MAX: usize = 64;

/// The most bytes of a message that is to be cut, within both families' limits.
pub(crate) const SEGMENTED_MAX: usize = 65_000;

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
