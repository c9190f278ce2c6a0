//! The only unsafe code: one system call a function, for what no safe crate offers.

#[cfg(all(target_os = "linux", feature = "vrrp"))]
pub(crate) mod fd;
#[cfg(all(target_os = "linux", feature = "forward"))]
pub(crate) mod inherit;
#[cfg(all(target_os = "linux", feature = "forward"))]
pub(crate) mod mmsg;
#[cfg(all(target_os = "linux", feature = "vrrp"))]
pub(crate) mod packet;
#[cfg(all(target_os = "linux", feature = "vrrp"))]
pub(crate) mod sched;
#[cfg(all(target_os = "linux", feature = "forward"))]
pub(crate) mod tcp;
