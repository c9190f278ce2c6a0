//! The socket that tells of changes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::socket::MAX_DATAGRAM_LEN;

/// The notifications that are read before they are heeded.
const MAX_NOTIFICATIONS: usize = 64;

/// A multicast group of notifications (`RTNLGRP_*`).
#[derive(Clone, Copy, Debug)]
pub(crate) enum RtnetlinkGroup {
    /// Changes of interfaces.
    #[cfg(feature = "vrrp")]
    Links = 1,
    /// Changes of IPv4 addresses.
    Ipv4Addresses = 5,
    /// Changes of IPv6 addresses.
    Ipv6Addresses = 9,
}

/// A netlink socket for notifications, in the network namespace of the thread that opens it: readable when
/// something of its groups has changed.
pub(crate) struct RtnetlinkMonitor {
    socket: Socket,
}

impl std::fmt::Debug for RtnetlinkMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtnetlinkMonitor").finish_non_exhaustive()
    }
}

impl RtnetlinkMonitor {
    pub(crate) fn open(groups: &[RtnetlinkGroup]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in groups {
            socket.add_membership(*group as u32)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Tells whether something changed since the last call. The notifications are discarded, because some may
    /// be lost: the caller requests the current state.
    pub(crate) fn has_changed(&self) -> bool {
        let mut has_changed = false;
        let mut buffer = Vec::with_capacity(MAX_DATAGRAM_LEN);
        // Bounded, because more notifications may arrive meanwhile.
        for _ in 0..MAX_NOTIFICATIONS {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => has_changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Notifications were lost (ENOBUFS), or reading failed.
                Err(_) => has_changed = true,
            }
        }
        has_changed
    }
}

impl AsFd for RtnetlinkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
