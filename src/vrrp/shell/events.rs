//! What happens to virtual routers, one after the other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::vrrp::{VrrpState, VrrpTransition};

/// Something that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct VrrpEvent {
    /// The name of the virtual router.
    pub router_name: String,
    /// What.
    pub kind: VrrpEventKind,
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum VrrpEventKind {
    /// It changed its state; this is its priority.
    StateChanged(VrrpTransition, u8),
    /// Something that it tracks went down, or came up.
    TrackChanged {
        /// Its name.
        name: String,
        /// What it is now.
        is_up: bool,
    },
    /// An advertisement was refused. Said once in ten seconds for each reason.
    AdvertRefused {
        /// Who sent it.
        source: IpAddr,
        /// Why.
        why: String,
    },
    /// Another router has other virtual addresses. Said once in ten seconds.
    AddressMismatch {
        /// Who.
        source: IpAddr,
        /// What it has.
        addresses: Vec<IpAddr>,
    },
    /// Somebody else on the link says that it has an address, while this router is master: somebody
    /// who takes no part in the election, or whom it does not hear. Said once in ten seconds.
    AddressConflict {
        /// Which address.
        address: Ipv4Addr,
        /// The other's hardware address.
        mac: [u8; 6],
    },
    /// The system would not do something.
    OperationFailed {
        /// What.
        what: String,
        /// What it said.
        error: String,
    },
}

impl fmt::Display for VrrpEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vrrp {}: ", self.router_name)?;
        match &self.kind {
            VrrpEventKind::StateChanged(VrrpTransition { from, to, reason: why }, priority) => {
                write!(f, "{from} -> {to}, priority {priority}: {why}")
            }
            VrrpEventKind::TrackChanged { name, is_up } => {
                write!(f, "{name} is {}", if *is_up { "up" } else { "down" })
            }
            VrrpEventKind::AdvertRefused { source, why } => {
                write!(f, "refused what {source} sent: {why}")
            }
            VrrpEventKind::AddressMismatch { source, addresses } => {
                write!(f, "{source} has other virtual addresses: {addresses:?}")
            }
            VrrpEventKind::AddressConflict { address, mac: [a, b, c, d, e, g] } => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x} has {address} too")
            }
            VrrpEventKind::OperationFailed { what, error } => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl VrrpEvent {
    /// What the router became, if that is what happened.
    #[must_use]
    pub fn new_state(&self) -> Option<VrrpState> {
        match &self.kind {
            VrrpEventKind::StateChanged(transition, _) => Some(transition.to),
            _ => None,
        }
    }
}

/// The events from when it was [asked for](super::Vrrp::events) on; ends with the routers. It holds
/// 1024 of them: whoever reads slowly loses those that do not fit, which the
/// [view](super::View::events_lost) counts.
///
/// As an iterator it waits, which must not be done within an async task.
#[derive(Debug)]
pub struct VrrpEvents(pub(super) Receiver<VrrpEvent>);

/// There will be no more events: the routers have ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the routers have ended")]
pub struct VrrpEventsClosed;

impl VrrpEvents {
    /// Waits for the next one, so long at most.
    ///
    /// # Errors
    /// [`VrrpEventsClosed`].
    pub fn recv_timeout(&mut self, time: Duration) -> Result<Option<VrrpEvent>, VrrpEventsClosed> {
        match self.0.recv_timeout(time) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(VrrpEventsClosed),
        }
    }
}

impl Iterator for VrrpEvents {
    type Item = VrrpEvent;

    fn next(&mut self) -> Option<VrrpEvent> {
        self.0.recv().ok()
    }
}
