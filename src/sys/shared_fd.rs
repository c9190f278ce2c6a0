//! A descriptor that several worker threads wait on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that is open until its last owner is dropped.
#[derive(Clone, Debug)]
pub(crate) struct SharedFd(Arc<OwnedFd>);

impl SharedFd {
    /// Registers the descriptor with the current runtime, for the end of waiting to read. Several
    /// runtimes may register one descriptor.
    ///
    /// # Errors
    /// The error of the system, `epoll_ctl(2)`.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O enabled.
    pub(crate) fn register_readable(&self) -> io::Result<AsyncFd<Self>> {
        #[expect(deprecated, reason = "sound: the clone is and stays the same open descriptor")]
        AsyncFd::with_interest(self.clone(), Interest::READABLE)
    }
}

impl<F: Into<OwnedFd>> From<F> for SharedFd {
    fn from(fd: F) -> Self {
        Self(Arc::new(fd.into()))
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
