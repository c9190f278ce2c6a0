//! Empty headers and vectors of messages.

use std::mem::MaybeUninit;
use std::ptr;

use libc::{iovec, mmsghdr};

pub(super) fn empty_header() -> mmsghdr {
    // SAFETY: integers and raw pointers, for which all zeroes is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

pub(super) fn empty_iovec() -> iovec {
    iovec { iov_base: ptr::null_mut(), iov_len: 0 }
}
