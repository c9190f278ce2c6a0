//! One side of a connection: a TCP or Unix stream socket as the relay needs it.
//!
//! Writes are tried before anybody asks whether they would go: they nearly always do, and the
//! runtime is asked only after one did not. Reads go by readiness, and a read that comes back short
//! has drained the socket, which saves the call that would only say so; unless it stopped at the mark
//! of urgent data (RFC 6093), behind which may lie more. The urgent byte itself goes nowhere.

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

    fn try_io<R>(&self, interest: Interest, act: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, act),
            Self::Unix(stream) => stream.try_io(interest, act),
        }
    }

    /// Reads; 0 is the end of the stream.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let mut got = None;
            let tried = self.try_io(Interest::READABLE, || {
                let count =
                    retry_interrupted(|| recv(self.as_fd(), &mut *into, RecvFlags::empty()))?.0;
                got = Some(count);
                let is_drained = count != 0 && count < into.len() && !is_at_urgent_mark(self);
                // Said as `WouldBlock`, so that the runtime forgets the readiness.
                if is_drained { Err(would_block()) } else { Ok(()) }
            });
            match (got, tried) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, tried) => return Poll::Ready(tried.map(|()| 0)),
            }
        }
    }

    /// Writes some of it, as much as there is room for.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // A peer that is gone is an error of this call and no signal to the process.
        self.poll_write_with(cx, || {
            retry_interrupted(|| send(self.as_fd(), bytes, SendFlags::NOSIGNAL))
        })
    }

    /// Moves what the socket has into an empty pipe; 0 is the end of the stream, and `None` a mark
    /// that only a read steps over.
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

    /// Moves what is in a pipe on.
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
            // Once more, under the runtime's eyes: what it forgets is the readiness it had before.
            match self.try_io(Interest::WRITABLE, &mut write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Waits for a reset while nothing is read or written: without a system call, since the runtime
    /// hears of it.
    pub(super) async fn wait_for_reset(&self) {
        // An error of the wait itself is as good: the stream is of no use.
        let _ = match self {
            Self::Tcp(stream) => stream.ready(Interest::ERROR).await,
            Self::Unix(stream) => stream.ready(Interest::ERROR).await,
        };
    }

    /// Waits for a reset of a connection that nobody reads from any more and nobody writes to now;
    /// without it only the next write would tell.
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        // A Unix peer that has closed in order is ready for ever and says no error: nothing more is to
        // be heard of it. Twice, since readiness that can be forgotten is forgotten the first time.
        for _ in 0..2 {
            if let Err(error) = ready!(self.poll_write_ready(cx)) {
                return Poll::Ready(error);
            }
            let asked =
                self.try_io(Interest::WRITABLE, || match sockopt::socket_error(self.as_fd())? {
                    Ok(()) => Err(would_block()),
                    Err(reset) => Ok(reset),
                });
            match asked {
                Ok(reset) => return Poll::Ready(reset.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }

    /// Says that nothing more will be written.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match shutdown(self.as_fd(), Shutdown::Write) {
            // Both sides have ended already.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the close that follows a reset, which drops what is not sent yet.
    fn set_reset_on_close(&self) {
        // A socket that does not take the option is closed in the ordinary way.
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

/// A stream that is reset when dropped, unless it has ended in order: nobody shall take half an
/// answer for the whole.
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

fn retry_interrupted<R>(mut act: impl FnMut() -> Result<R, Errno>) -> io::Result<R> {
    Ok(rustix::io::retry_on_intr(&mut act)?)
}

fn would_block() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}
