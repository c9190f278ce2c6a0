//! Sockets of rtnetlink, by which the kernel's interfaces, addresses and routes are read and changed.
//!
//! Each call sends a request and reads the kernel's replies, which are there at once: no call blocks. What is
//! asked for is with those who ask: `impl RtnetlinkSocket` in the files named `netlink.rs`.

#[cfg(any(feature = "packet", feature = "vrrp"))]
mod monitor;
mod socket;

#[cfg(any(feature = "packet", feature = "vrrp"))]
pub(crate) use self::monitor::{RtnetlinkGroup, RtnetlinkMonitor};
pub(crate) use self::socket::{RtnetlinkSocket, address_family};
#[cfg(any(feature = "announce", feature = "vrrp"))]
pub(crate) use self::socket::{ignore_errnos, is_errno};
