//! The scheduling of a thread.
#![expect(unsafe_code, reason = "sched_setscheduler(2) takes a pointer")]

use std::io;

/// Lets the calling thread go before all ordinary ones (`SCHED_FIFO`), whenever it has something to
/// do; what it starts goes by the ordinary rule.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`.
pub(crate) fn set_realtime_priority(priority: i32) -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: priority };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the pointer is to a live `sched_param`, which the call only reads; 0 is the caller.
    let answer = unsafe { libc::sched_setscheduler(0, policy, &raw const priority) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
