//! What happens to virtual routers, one after the other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::vrrp::{State, Transition};

/// Something that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// The name of the virtual router.
    pub router: String,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum What {
    /// It changed its state; this is its priority.
    Changed(Transition, u8),
    /// Something that it tracks went down, or came up.
    Tracked {
        /// Its name.
        name: String,
        /// What it is now.
        is_up: bool,
    },
    /// An advertisement was refused. Said once in ten seconds for each reason.
    Refused {
        /// Who sent it.
        source: IpAddr,
        /// Why.
        why: String,
    },
    /// Another router has other virtual addresses. Said once in ten seconds.
    Mismatch {
        /// Who.
        source: IpAddr,
        /// What it has.
        addresses: Vec<IpAddr>,
    },
    /// Somebody else on the link says that it has an address, while this router is master: somebody
    /// who takes no part in the election, or whom it does not hear. Said once in ten seconds.
    Conflict {
        /// Which address.
        address: Ipv4Addr,
        /// The other's hardware address.
        mac: [u8; 6],
    },
    /// The system would not do something.
    Failed {
        /// What.
        what: String,
        /// What it said.
        error: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vrrp {}: ", self.router)?;
        match &self.what {
            What::Changed(Transition { from, to, why }, priority) => {
                write!(f, "{from} -> {to}, priority {priority}: {why}")
            }
            What::Tracked { name, is_up } => {
                write!(f, "{name} is {}", if *is_up { "up" } else { "down" })
            }
            What::Refused { source, why } => write!(f, "refused what {source} sent: {why}"),
            What::Mismatch { source, addresses } => {
                write!(f, "{source} has other virtual addresses: {addresses:?}")
            }
            What::Conflict { address, mac: [a, b, c, d, e, g] } => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x} has {address} too")
            }
            What::Failed { what, error } => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl Event {
    /// What the router became, if that is what happened.
    #[must_use]
    pub fn became(&self) -> Option<State> {
        match &self.what {
            What::Changed(transition, _) => Some(transition.to),
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
pub struct Events(pub(super) Receiver<Event>);

/// There will be no more events: the routers have ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the routers have ended")]
pub struct Ended;

impl Events {
    /// Waits for the next one, so long at most.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn next_within(&mut self, time: Duration) -> Result<Option<Event>, Ended> {
        match self.0.recv_timeout(time) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Ended),
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.0.recv().ok()
    }
}
