//! Descriptors that this process was born with.
#![expect(unsafe_code, reason = "a number becomes a descriptor that is owned")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes possession of a descriptor by its number, and keeps it from children of this process.
///
/// The caller must have been told by whoever started the process that the number was opened for it,
/// and must ask for each number once: nobody else may own it.
///
/// # Errors
/// What `fcntl(2)` says, `EBADF` for one: the number is no open descriptor.
pub(crate) fn adopt_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: setting a flag touches no memory; a number that is not open is an error.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as the call above has shown, and by the caller's promise nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
