//! System calls that no safe crate offers, one a function. The only unsafe code of the crate.

#[cfg(all(target_os = "linux", feature = "forward"))]
pub(crate) mod inherited_fd;
#[cfg(all(target_os = "linux", feature = "forward"))]
pub(crate) mod mmsg;
#[cfg(all(target_os = "linux", feature = "vrrp"))]
pub(crate) mod packet_socket;
#[cfg(all(target_os = "linux", feature = "vrrp"))]
pub(crate) mod sched;
#[cfg(all(target_os = "linux", any(feature = "forward", feature = "health")))]
pub(crate) mod shared_fd;
#[cfg(all(target_os = "linux", feature = "forward"))]
pub(crate) mod socket_option;
#[cfg(all(target_os = "linux", any(feature = "announce", feature = "packet")))]
pub(crate) mod tuntap;
