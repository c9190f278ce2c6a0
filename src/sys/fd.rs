//! Descriptors of types that do not lend them.
#![expect(unsafe_code, reason = "a number becomes a descriptor that is borrowed")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Borrows the descriptor of what owns it but gives its number only.
///
/// The owner must keep it open for as long as it lives, as all do whose `Drop` closes it.
pub(crate) fn borrow_fd<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: the owner is borrowed for as long as the descriptor is, and closes it when dropped.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}
