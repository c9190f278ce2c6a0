//! The events of virtual routers, in their order.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use super::MacAddress;
use crate::events::Events;
use crate::vrrp::{VrrpState, VrrpTransition};

/// An event of a virtual router. Its [`Display`](fmt::Display) is a line for logs.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct VrrpEvent {
    /// The time of the event.
    pub at: SystemTime,
    /// The name of the virtual router.
    pub router: Arc<str>,
    /// The kind of the event, and its details.
    pub kind: VrrpEventKind,
}

/// The kind of a [`VrrpEvent`].
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VrrpEventKind {
    /// The virtual router changed its state.
    StateChanged {
        /// The change and its reason.
        transition: VrrpTransition,
        /// The priority of this router at the change.
        priority: u8,
    },
    /// A tracked item went down or came up.
    TrackChanged {
        /// The name of the tracked item.
        name: String,
        /// Whether the item is up now.
        is_up: bool,
    },
    /// An advertisement was refused. Reported at most once in ten seconds for each reason.
    AdvertRefused {
        /// The sender.
        source: IpAddr,
        /// Why the advertisement was refused.
        reason: String,
    },
    /// Another router advertises other virtual addresses. Reported at most once in ten seconds.
    AddressMismatch {
        /// The other router.
        source: IpAddr,
        /// The addresses that the other router advertises.
        addresses: Vec<IpAddr>,
    },
    /// Another machine on the link uses a virtual address while this router is master: a machine
    /// outside the election, or a router whose advertisements do not arrive. Reported at most once in
    /// ten seconds.
    AddressConflict {
        /// The virtual address.
        address: Ipv4Addr,
        /// The hardware address of the other machine.
        mac: MacAddress,
    },
    /// A system call failed.
    OperationFailed {
        /// The operation that failed.
        operation: String,
        /// The system's error.
        error: String,
    },
}

impl fmt::Display for VrrpEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtual router {}: ", self.router)?;
        match &self.kind {
            VrrpEventKind::StateChanged { transition, priority } => {
                let VrrpTransition { from, to, reason } = transition;
                write!(f, "{from} -> {to}, priority {priority}: {reason}")
            }
            VrrpEventKind::TrackChanged { name, is_up } => {
                write!(f, "tracked item {name:?} is {}", if *is_up { "up" } else { "down" })
            }
            VrrpEventKind::AdvertRefused { source, reason } => {
                write!(f, "advertisement from {source} is refused: {reason}")
            }
            VrrpEventKind::AddressMismatch { source, addresses } => {
                write!(f, "{source} advertises other virtual addresses: {addresses:?}")
            }
            VrrpEventKind::AddressConflict { address, mac } => {
                write!(f, "{mac} uses virtual address {address} too")
            }
            VrrpEventKind::OperationFailed { operation, error } => {
                write!(f, "cannot {operation}: {error}")
            }
        }
    }
}

impl VrrpEvent {
    pub(super) fn new(router: &str, kind: VrrpEventKind) -> Self {
        Self { at: SystemTime::now(), router: router.into(), kind }
    }

    /// Returns whether the event reports a problem: a fault, a tracked item that went down, a refused
    /// advertisement, other addresses of a peer, an address conflict, or a failed operation.
    #[must_use]
    pub fn is_alert(&self) -> bool {
        match &self.kind {
            VrrpEventKind::StateChanged { transition, .. } => transition.to == VrrpState::Fault,
            VrrpEventKind::TrackChanged { is_up, .. } => !is_up,
            VrrpEventKind::AdvertRefused { .. }
            | VrrpEventKind::AddressMismatch { .. }
            | VrrpEventKind::AddressConflict { .. }
            | VrrpEventKind::OperationFailed { .. } => true,
        }
    }

    /// Returns the new state if the event is a change of the state.
    #[must_use]
    pub fn new_state(&self) -> Option<VrrpState> {
        match &self.kind {
            VrrpEventKind::StateChanged { transition, .. } => Some(transition.to),
            _ => None,
        }
    }
}

/// A reader of [`VrrpEvent`]s, from [`Vrrp::events`](super::Vrrp::events). It ends when the virtual
/// routers do.
pub type VrrpEvents = Events<VrrpEvent>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::TransitionReason;

    #[test]
    fn log_lines_name_the_router_the_change_and_the_reason() {
        let line = |kind| VrrpEvent::new("51@eth0", kind).to_string();
        let source = IpAddr::from([10, 88, 0, 2]);
        let transition = VrrpTransition {
            from: VrrpState::Backup,
            to: VrrpState::Master,
            reason: TransitionReason::Preempted { priority: 100, source },
        };
        assert_eq!(
            line(VrrpEventKind::StateChanged { transition, priority: 150 }),
            "virtual router 51@eth0: backup -> master, priority 150: \
             preempts a master of lower priority 100, 10.88.0.2"
        );
        let transition = VrrpTransition {
            from: VrrpState::Master,
            to: VrrpState::Fault,
            reason: TransitionReason::Fault { track: "link".into() },
        };
        assert_eq!(
            line(VrrpEventKind::StateChanged { transition, priority: 150 }),
            "virtual router 51@eth0: master -> fault, priority 150: tracked item \"link\" is down"
        );
        let mac = MacAddress([0, 0, 0x5e, 0, 1, 0x33]);
        assert_eq!(
            line(VrrpEventKind::AddressConflict { address: [10, 88, 0, 100].into(), mac }),
            "virtual router 51@eth0: 00:00:5e:00:01:33 uses virtual address 10.88.0.100 too"
        );
    }
}
