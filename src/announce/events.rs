//! The events of announcements, in their order.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::{ANNOUNCE_INTERFACE, AnnounceReason, AnnouncementState};
use crate::events::Events;

/// An event of an announced address. Its [`Display`](fmt::Display) is a line for logs.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AnnounceEvent {
    /// The time of the event.
    pub at: SystemTime,
    /// The address; `None` for all.
    pub address: Option<IpAddr>,
    /// The kind of the event, and its details.
    pub kind: AnnounceEventKind,
}

/// The kind of an [`AnnounceEvent`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AnnounceEventKind {
    /// The address changed its state.
    StateChanged {
        /// The state before.
        from: AnnouncementState,
        /// The state now.
        to: AnnouncementState,
        /// Why.
        reason: AnnounceReason,
    },
    /// Somebody else had removed a route, which was added again.
    RouteRestored,
    /// Somebody else had removed the interface, which was made again.
    InterfaceRestored,
    /// A system call failed. The operation is tried again each second.
    OperationFailed {
        /// The operation that failed.
        operation: String,
        /// The system's error.
        error: String,
    },
}

impl AnnounceEvent {
    pub(super) fn new(address: Option<IpAddr>, kind: AnnounceEventKind) -> Self {
        Self { at: SystemTime::now(), address, kind }
    }

    /// Returns whether the event reports a problem: services without quorum, something that somebody else removed,
    /// or a failed operation.
    #[must_use]
    pub fn is_alert(&self) -> bool {
        match &self.kind {
            AnnounceEventKind::StateChanged { reason, .. } => *reason == AnnounceReason::QuorumLost,
            AnnounceEventKind::RouteRestored
            | AnnounceEventKind::InterfaceRestored
            | AnnounceEventKind::OperationFailed { .. } => true,
        }
    }
}

impl fmt::Display for AnnounceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("announcement")?;
        if let Some(address) = self.address {
            write!(f, " of {address}")?;
        }
        match &self.kind {
            AnnounceEventKind::StateChanged { from, to, reason } => {
                write!(f, ": {from} -> {to}: {reason}")
            }
            AnnounceEventKind::RouteRestored => {
                f.write_str(": another program had removed its route; the route was added again")
            }
            AnnounceEventKind::InterfaceRestored => write!(
                f,
                ": another program had removed the interface {ANNOUNCE_INTERFACE}; it was made again"
            ),
            AnnounceEventKind::OperationFailed { operation, error } => {
                write!(f, ": cannot {operation}: {error}")
            }
        }
    }
}

/// A reader of [`AnnounceEvent`]s, from [`Announcer::events`](super::Announcer::events). It ends when the announcer
/// does.
pub type AnnounceEvents = Events<AnnounceEvent>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_name_the_address_the_change_and_the_reason() {
        let address = Some([203, 0, 113, 10].into());
        let kind = AnnounceEventKind::StateChanged {
            from: AnnouncementState::Announced,
            to: AnnouncementState::LastResort,
            reason: AnnounceReason::QuorumLost,
        };
        let event = AnnounceEvent::new(address, kind);
        assert!(event.is_alert());
        assert_eq!(
            event.to_string(),
            "announcement of 203.0.113.10: announced -> last_resort: one of its services does not have its quorum"
        );
        let event = AnnounceEvent::new(None, AnnounceEventKind::InterfaceRestored);
        assert_eq!(
            event.to_string(),
            "announcement: another program had removed the interface lvs-announce; it was made again"
        );
    }
}
