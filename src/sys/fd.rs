//! Borrowed descriptors of types that only give the number.
#![expect(unsafe_code, reason = "a number becomes a descriptor that is borrowed")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Borrows the descriptor of an owner that only gives its number.
///
/// The owner must keep the descriptor open as long as it lives, as every owner does whose `Drop` closes
/// it.
pub(crate) fn borrow_fd<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: the owner is borrowed for as long as the descriptor is, and closes it when dropped.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}
