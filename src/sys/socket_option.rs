//! Socket options that no safe crate sets, and the mark of urgent data.
#![expect(unsafe_code, reason = "setsockopt(2) and ioctl(2) take pointers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{Ioctl, c_int, socklen_t};

/// `<asm-generic/sockios.h>`; the same on all but MIPS, SPARC, PA-RISC and Alpha.
const SIOCATMARK: Ioctl = 0x8905;

/// Lets a listener accept data with the SYN (`TCP_FASTOPEN`, RFC 7413), with at most `pending` such
/// requests at a time.
pub(crate) fn set_fastopen(socket: impl AsFd, pending: u32) -> io::Result<()> {
    let pending = c_int::try_from(pending).unwrap_or(c_int::MAX);
    set_int_option(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, pending)
}

/// Delays a connect until the first write, which goes with the SYN (`TCP_FASTOPEN_CONNECT`).
pub(crate) fn set_fastopen_connect(socket: impl AsFd) -> io::Result<()> {
    set_int_option(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)
}

/// Leaves the choice of the local port to `connect` (`IP_BIND_ADDRESS_NO_PORT`), which knows the
/// destination and may share a port between destinations.
pub(crate) fn set_bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    set_int_option(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Tells whether the next byte to be read follows urgent data (`SIOCATMARK`, `tcp(7)`). A read stops
/// there and the next one goes on; a splice never goes on.
pub(crate) fn is_at_urgent_mark(socket: impl AsFd) -> bool {
    let mut mark: c_int = 0;
    // SAFETY: the call writes one `c_int` to the live one that the pointer points to; the descriptor
    // is open for as long as it is borrowed.
    let answer = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCATMARK, &raw mut mark) };
    // A socket without support for the mark is not at one.
    answer == 0 && mark != 0
}

/// Sets a socket option whose value is an `int`.
pub(super) fn set_int_option(
    socket: impl AsFd,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer is to a live `c_int` whose size is given, and the call only reads it; the
    // descriptor is open for as long as it is borrowed.
    let answer = unsafe {
        let size = size_of::<c_int>() as socklen_t;
        libc::setsockopt(descriptor, level, name, (&raw const value).cast(), size)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
