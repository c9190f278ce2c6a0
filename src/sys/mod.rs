//! The only unsafe code: one system call a function, for what no safe crate offers.

#[cfg(target_os = "linux")]
pub(crate) mod inherit;
#[cfg(target_os = "linux")]
pub(crate) mod mmsg;
#[cfg(target_os = "linux")]
pub(crate) mod tcp;
