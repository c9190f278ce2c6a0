//! Descriptors that this process inherited.
#![expect(unsafe_code, reason = "a number becomes a descriptor that is owned")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes ownership of an inherited descriptor, and closes it in children of this process.
///
/// The caller must know from whoever started the process that the number is open for it, and must ask
/// for each number once: nothing else may own it.
///
/// # Errors
/// The error of `fcntl(2)`, such as `EBADF`: the number is not an open descriptor.
pub(crate) fn adopt_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: setting a flag touches no memory; a number that is not open is an error.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has shown that it is open, and by the contract nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
