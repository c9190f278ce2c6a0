//! Pipes for `splice(2)`: a pool for each thread, and a bound for the process.
//!
//! The kernel gives an unprivileged user 16 384 pages of pipes (`fs.pipe-user-pages-soft`); beyond
//! them a new pipe holds 8 KiB and cannot be made larger. So a direction has a pipe only while bytes
//! are on their way through it, and where none is to be had, bytes are copied.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
// A static must be made at compile time, which the model's atomics are not.
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What a pipe is asked to hold, in bytes.
const SIZE: usize = 256 * 1024;
/// Below it copying is as good.
const SIZE_MIN: usize = 64 * 1024;
/// As many as a user may have at that size.
const LIVE_MAX: usize = 256;
/// How many a thread keeps for later.
const SPARE_MAX: usize = 32;

static LIVE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    #[expect(clippy::vec_box, reason = "they come and go in their boxes")]
    static SPARE: RefCell<Vec<Box<Pipe>>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, and how much is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    filled: usize,
}

impl Pipe {
    /// One from the pool, or a new one; `None` if there is none to be had.
    pub(super) fn take() -> Option<Box<Self>> {
        let spare = SPARE.try_with(|spare| spare.try_borrow_mut().ok()?.pop()).ok().flatten();
        spare.or_else(Self::new)
    }

    fn new() -> Option<Box<Self>> {
        if LIVE.fetch_add(1, Ordering::Relaxed) >= LIVE_MAX {
            LIVE.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let ends = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC);
        let Ok((read, write)) = ends else {
            LIVE.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        // From here on dropping it counts it off.
        let mut pipe = Self { read, write, size: 0, filled: 0 };
        pipe.size = fcntl_setpipe_size(&pipe.write, SIZE).ok()?;
        (pipe.size >= SIZE_MIN).then(|| Box::new(pipe))
    }

    /// Puts an empty pipe into the pool. One that holds bytes must never come here: they would reach
    /// another client.
    pub(super) fn give_back(self: Box<Self>) {
        if self.filled != 0 {
            return;
        }
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < SPARE_MAX
            {
                spare.push(self);
            }
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Moves what a socket has into the pipe, which must be empty: then `EAGAIN` can only mean that
    /// the socket has nothing. 0 is the end of the stream.
    pub(super) fn fill(&mut self, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        debug_assert!(self.is_empty());
        let moved = splice(from, None, self.write.as_fd(), None, self.size, MOVE)?;
        self.filled = moved;
        Ok(moved)
    }

    /// Moves what is in the pipe on to a socket.
    pub(super) fn empty_into(&mut self, to: BorrowedFd<'_>) -> Result<usize, Errno> {
        let moved = splice(self.read.as_fd(), None, to, None, self.filled, MOVE)?;
        self.filled -= moved;
        Ok(moved)
    }
}

const MOVE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Drop for Pipe {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
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
        let mut pipe = Pipe::take().expect("a pipe");
        assert_eq!(pipe.fill(b.as_fd()), Ok(14));
        assert_eq!(pipe.empty_into(c.as_fd()), Ok(14));
        let mut got = [0; 14];
        d.read_exact(&mut got).expect("all of it");
        assert_eq!(&got, b"through a pipe");
        assert_eq!(pipe.fill(b.as_fd()), Err(Errno::AGAIN));

        let spare = || SPARE.with_borrow(Vec::len);
        let before = spare();
        pipe.give_back();
        assert_eq!(spare(), before + 1);
        let mut full = Pipe::take().expect("the same again");
        a.write_all(b"x").expect("room");
        assert_eq!(full.fill(b.as_fd()), Ok(1));
        full.give_back();
        assert_eq!(spare(), before, "what holds a byte is closed");
        drop(a);
        let mut pipe = Pipe::take().expect("a pipe");
        assert_eq!(pipe.fill(b.as_fd()), Ok(0), "the end");
    }

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().expect("a pair");
        b.set_nonblocking(true).expect("a socket");
        (a, b)
    }
}
