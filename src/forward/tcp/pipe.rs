//! Pipes for `splice(2)`: a pool for each thread, and a bound for the process.
//!
//! The kernel gives an unprivileged user 16 384 pages of pipes (`fs.pipe-user-pages-soft`); beyond
//! them a new pipe holds 8 KiB and cannot be made larger. So a direction has a pipe only while bytes
//! are on their way through it, and where none is to be had, bytes are copied.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

// Not those of the models: a static cannot be one.
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a pipe is asked to hold, in bytes.
const PIPE_SIZE: usize = 256 * 1024;
/// Below it copying is as good.
const MIN_PIPE_SIZE: usize = 64 * 1024;
/// As many as a user may have at that size.
const MAX_PIPES: usize = 256;
/// How many a thread keeps for later.
const MAX_POOLED_PIPES: usize = 32;

static OPEN_PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    #[expect(clippy::vec_box, reason = "they come and go in their boxes")]
    static PIPE_POOL: RefCell<Vec<Box<SplicePipe>>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, and how much is in it.
#[derive(Debug)]
pub(super) struct SplicePipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    len: usize,
}

impl SplicePipe {
    /// One from the pool, or a new one; `None` if there is none to be had.
    pub(super) fn acquire() -> Option<Box<Self>> {
        let spare = PIPE_POOL.try_with(|spare| spare.try_borrow_mut().ok()?.pop()).ok().flatten();
        spare.or_else(Self::new)
    }

    fn new() -> Option<Box<Self>> {
        if OPEN_PIPES.fetch_add(1, Ordering::Relaxed) >= MAX_PIPES {
            OPEN_PIPES.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let ends = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC);
        let Ok((read, write)) = ends else {
            OPEN_PIPES.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        // From here on dropping it counts it off.
        let mut pipe = Self { read, write, capacity: 0, len: 0 };
        pipe.capacity = fcntl_setpipe_size(&pipe.write, PIPE_SIZE).ok()?;
        (pipe.capacity >= MIN_PIPE_SIZE).then(|| Box::new(pipe))
    }

    /// Puts an empty pipe into the pool. One that holds bytes must never come here: they would reach
    /// another client.
    pub(super) fn return_to_pool(self: Box<Self>) {
        if self.len != 0 {
            return;
        }
        let _ = PIPE_POOL.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < MAX_POOLED_PIPES
            {
                spare.push(self);
            }
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves what a socket has into the pipe, which must be empty: then `EAGAIN` can only mean that
    /// the socket has nothing. 0 is the end of the stream.
    pub(super) fn fill_from(&mut self, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        debug_assert!(self.is_empty());
        let moved = splice(from, None, self.write.as_fd(), None, self.capacity, SPLICE_FLAGS)?;
        self.len = moved;
        Ok(moved)
    }

    /// Moves what is in the pipe on to a socket.
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
    fn bytes_go_through_whole_and_only_an_empty_pipe_is_kept() {
        let ((mut a, b), (c, mut d)) = (pair(), pair());
        a.write_all(b"through a pipe").expect("room");
        let mut pipe = SplicePipe::acquire().expect("a pipe");
        assert_eq!(pipe.fill_from(b.as_fd()), Ok(14));
        assert_eq!(pipe.drain_into(c.as_fd()), Ok(14));
        let mut got = [0; 14];
        d.read_exact(&mut got).expect("all of it");
        assert_eq!(&got, b"through a pipe");
        assert_eq!(pipe.fill_from(b.as_fd()), Err(Errno::AGAIN));

        let spare = || PIPE_POOL.with_borrow(Vec::len);
        let before = spare();
        pipe.return_to_pool();
        assert_eq!(spare(), before + 1);
        let mut full = SplicePipe::acquire().expect("the same again");
        a.write_all(b"x").expect("room");
        assert_eq!(full.fill_from(b.as_fd()), Ok(1));
        full.return_to_pool();
        assert_eq!(spare(), before, "what holds a byte is closed");
        drop(a);
        let mut pipe = SplicePipe::acquire().expect("a pipe");
        assert_eq!(pipe.fill_from(b.as_fd()), Ok(0), "the end");
    }

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().expect("a pair");
        b.set_nonblocking(true).expect("a socket");
        (a, b)
    }
}
