//! Pipes for `splice(2)`: a pool for each thread, and a limit for the process.
//!
//! The kernel gives an unprivileged user 16 384 pages of pipe buffers (`fs.pipe-user-pages-soft`);
//! beyond them a new pipe holds 8 KiB and cannot be enlarged. So a direction holds a pipe only while
//! bytes are in it, and copies if no pipe is available.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::forward::descriptors::DescriptorPermit;

// Not the atomics of `crate::sync`: loom's cannot be in a static.
use std::sync::atomic::{AtomicUsize, Ordering};

/// The requested capacity of a pipe in bytes.
const PIPE_SIZE: usize = 256 * 1024;
/// The least capacity that makes splicing faster than copying.
const MIN_PIPE_SIZE: usize = 64 * 1024;
/// The most pipes of that size that the kernel gives an unprivileged user.
const MAX_PIPES: usize = 256;
/// The most pipes that a thread keeps in its pool.
const MAX_POOLED_PIPES: usize = 32;

static OPEN_PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    #[expect(clippy::vec_box, reason = "a relay holds the pipe in the same box")]
    static PIPE_POOL: RefCell<Vec<Box<SplicePipe>>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, and the number of bytes in it.
#[derive(Debug)]
pub(super) struct SplicePipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    len: usize,
    _descriptors: DescriptorPermit<2>,
}

impl SplicePipe {
    /// Takes a pipe from the pool, or makes one; `None` at the limit, or if the system gives none.
    pub(super) fn acquire() -> Option<Box<Self>> {
        let pooled = PIPE_POOL.try_with(|pool| pool.try_borrow_mut().ok()?.pop()).ok().flatten();
        pooled.or_else(Self::new)
    }

    fn new() -> Option<Box<Self>> {
        if OPEN_PIPES.fetch_add(1, Ordering::Relaxed) >= MAX_PIPES {
            OPEN_PIPES.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let Some(descriptors) = DescriptorPermit::try_acquire_spare() else {
            OPEN_PIPES.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        let ends = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC);
        let Ok((read, write)) = ends else {
            OPEN_PIPES.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        // From here on the drop of the pipe decrements the count.
        let mut pipe = Self { read, write, capacity: 0, len: 0, _descriptors: descriptors };
        pipe.capacity = fcntl_setpipe_size(&pipe.write, PIPE_SIZE).ok()?;
        (pipe.capacity >= MIN_PIPE_SIZE).then(|| Box::new(pipe))
    }

    /// Returns an empty pipe to the pool. A pipe with bytes in it is closed: the bytes would reach
    /// another client.
    pub(super) fn return_to_pool(self: Box<Self>) {
        if self.len != 0 {
            return;
        }
        let _ = PIPE_POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool.len() < MAX_POOLED_PIPES
            {
                pool.push(self);
            }
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves bytes from a socket into the pipe, which must be empty, so that `EAGAIN` can only mean
    /// that the socket has no bytes. Returns 0 at the end of the stream.
    pub(super) fn fill_from(&mut self, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        debug_assert!(self.is_empty());
        let moved = splice(from, None, self.write.as_fd(), None, self.capacity, SPLICE_FLAGS)?;
        self.len = moved;
        Ok(moved)
    }

    /// Moves the bytes in the pipe to a socket.
    pub(super) fn drain_into(&mut self, to: BorrowedFd<'_>) -> Result<usize, Errno> {
        let moved = splice(self.read.as_fd(), None, to, None, self.len, SPLICE_FLAGS)?;
        self.len -= moved;
        Ok(moved)
    }
}

const SPLICE_FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Drop for SplicePipe {
    fn drop(&mut self) {
        OPEN_PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_pass_unchanged_and_only_an_empty_pipe_is_pooled() {
        let ((mut a, b), (c, mut d)) = (socket_pair(), socket_pair());
        a.write_all(b"through a pipe").expect("the socket buffer has space");
        let mut pipe = SplicePipe::acquire().expect("a pipe");
        assert_eq!(pipe.fill_from(b.as_fd()), Ok(14));
        assert_eq!(pipe.drain_into(c.as_fd()), Ok(14));
        let mut got = [0; 14];
        d.read_exact(&mut got).expect("all bytes arrive");
        assert_eq!(&got, b"through a pipe");
        assert_eq!(pipe.fill_from(b.as_fd()), Err(Errno::AGAIN));

        let pooled = || PIPE_POOL.with_borrow(Vec::len);
        let before = pooled();
        pipe.return_to_pool();
        assert_eq!(pooled(), before + 1);
        let mut full = SplicePipe::acquire().expect("the pooled pipe");
        a.write_all(b"x").expect("the socket buffer has space");
        assert_eq!(full.fill_from(b.as_fd()), Ok(1));
        full.return_to_pool();
        assert_eq!(pooled(), before, "a pipe with a byte in it is closed");
        drop(a);
        let mut pipe = SplicePipe::acquire().expect("a pipe");
        assert_eq!(pipe.fill_from(b.as_fd()), Ok(0), "end of stream");
    }

    fn socket_pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().expect("a socket pair");
        b.set_nonblocking(true).expect("a socket");
        (a, b)
    }
}
