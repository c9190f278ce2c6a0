//! One side of a connection: a TCP or Unix stream socket as the relay needs it.
//!
//! Writes are tried without a check of readiness: nearly all succeed, and the runtime is asked only
//! after a write would have blocked. Reads follow readiness. A short read has drained the socket,
//! which saves the call that would return `EAGAIN`; unless the read stopped at the mark of urgent
//! data (RFC 6093), behind which there may be more bytes. The urgent byte itself is not relayed.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::pipe::SplicePipe;
use crate::sys::socket_option::is_at_urgent_mark;

/// A connected stream socket.
#[derive(Debug)]
pub(super) enum StreamSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl StreamSocket {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, call),
            Self::Unix(stream) => stream.try_io(interest, call),
        }
    }

    /// Reads into a buffer; 0 is the end of the stream.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let mut received = None;
            let tried = self.try_io(Interest::READABLE, || {
                let count =
                    retry_interrupted(|| recv(self.as_fd(), &mut *buffer, RecvFlags::empty()))?.0;
                received = Some(count);
                let is_drained = count != 0 && count < buffer.len() && !is_at_urgent_mark(self);
                // Returned as `WouldBlock`, so that the runtime clears the readiness.
                if is_drained { Err(would_block()) } else { Ok(()) }
            });
            match (received, tried) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, tried) => return Poll::Ready(tried.map(|()| 0)),
            }
        }
    }

    /// Sends as many of the bytes as the socket buffer has space for.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // A closed peer is an error of this call, not a SIGPIPE for the process.
        self.poll_write_with(cx, || {
            retry_interrupted(|| send(self.as_fd(), bytes, SendFlags::NOSIGNAL))
        })
    }

    /// Moves bytes from the socket into an empty pipe; 0 is the end of the stream, and `None` the mark
    /// of urgent data, which only a read passes.
    pub(super) fn poll_splice_into(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut SplicePipe,
    ) -> Poll<io::Result<Option<usize>>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let tried = self.try_io(Interest::READABLE, || {
                match rustix::io::retry_on_intr(|| pipe.fill_from(self.as_fd())) {
                    Ok(0) | Err(Errno::AGAIN) if is_at_urgent_mark(self) => Ok(None),
                    moved => Ok(Some(moved?)),
                }
            });
            match tried {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => return Poll::Ready(moved),
            }
        }
    }

    /// Moves the bytes in a pipe to the socket.
    pub(super) fn poll_splice_from(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut SplicePipe,
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, || retry_interrupted(|| pipe.drain_into(self.as_fd())))
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
        loop {
            ready!(self.poll_write_ready(cx))?;
            // Tried again within `try_io`, so that the runtime clears only the readiness from before.
            match self.try_io(Interest::WRITABLE, &mut write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Waits for a reset while nothing is read or written. Makes no system call: the runtime gets the
    /// event.
    pub(super) async fn wait_for_reset(&self) {
        // An error of the wait itself also means that the stream cannot be used.
        let _ = match self {
            Self::Tcp(stream) => stream.ready(Interest::ERROR).await,
            Self::Unix(stream) => stream.ready(Interest::ERROR).await,
        };
    }

    /// Waits for a reset of a stream that is neither read nor written now; otherwise the reset would
    /// be noticed only by the next write.
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        // A Unix socket whose peer has closed in order stays ready for ever without an error: nothing
        // more can be learnt from it. Two rounds, since the first clears the readiness where it can be
        // cleared.
        for _ in 0..2 {
            if let Err(error) = ready!(self.poll_write_ready(cx)) {
                return Poll::Ready(error);
            }
            let result =
                self.try_io(Interest::WRITABLE, || match sockopt::socket_error(self.as_fd())? {
                    Ok(()) => Err(would_block()),
                    Err(reset) => Ok(reset),
                });
            match result {
                Ok(reset) => return Poll::Ready(reset.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }

    /// Closes the sending half.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match shutdown(self.as_fd(), Shutdown::Write) {
            // The peer has closed or reset the connection already.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the close of the socket send a reset and drop the bytes that are not sent yet.
    fn set_reset_on_close(&self) {
        // A socket that refuses the option is closed in order.
        let _ = sockopt::set_socket_linger(self.as_fd(), Some(std::time::Duration::ZERO));
    }
}

impl AsFd for StreamSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A stream that is reset when dropped unless it was closed in order, so that no peer takes a
/// truncated answer for a complete answer.
#[derive(Debug)]
pub(super) struct ResetOnDrop {
    stream: StreamSocket,
    pub(super) is_closed_in_order: bool,
}

impl From<StreamSocket> for ResetOnDrop {
    fn from(stream: StreamSocket) -> Self {
        Self { stream, is_closed_in_order: false }
    }
}

impl Deref for ResetOnDrop {
    type Target = StreamSocket;

    fn deref(&self) -> &StreamSocket {
        &self.stream
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if !self.is_closed_in_order {
            self.stream.set_reset_on_close();
        }
    }
}

fn retry_interrupted<R>(mut call: impl FnMut() -> Result<R, Errno>) -> io::Result<R> {
    Ok(rustix::io::retry_on_intr(&mut call)?)
}

fn would_block() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}
