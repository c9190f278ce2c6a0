//! The scheduling policy of a thread.
#![expect(unsafe_code, reason = "sched_setscheduler(2) takes a pointer")]

use std::io;

/// Gives the calling thread a real-time priority (`SCHED_FIFO`), so that it runs before all ordinary
/// threads. Threads and processes that it starts get the ordinary policy.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`.
pub(crate) fn set_realtime_priority(priority: i32) -> io::Result<()> {
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // The function of that name in musl does nothing. The kernel's `sched_param` is one integer.
    // SAFETY: the pointer is to a live integer, which the call only reads; 0 is the caller.
    let answer =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
