//! The actions that an election asks its caller for.

use super::VrrpTransition;

/// An action that the caller of an [`Election`](super::Election) takes, in the order of the outputs.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ElectionOutput {
    /// Send an advertisement now.
    SendAdvert {
        /// The priority to advertise; 0 to resign as master.
        priority: u8,
    },
    /// Add the virtual addresses to this machine.
    AcquireAddresses,
    /// Remove the virtual addresses from this machine.
    ReleaseAddresses,
    /// Announce the addresses on the link: gratuitous ARP, unsolicited neighbour advertisements.
    AnnounceAddresses,
    /// The state has changed: for logs and notifications.
    StateChanged(VrrpTransition),
}
