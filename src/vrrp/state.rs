//! The states of a virtual router, and the reasons for its transitions.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

/// The state of a virtual router on one machine (RFC 9568, section 6.4).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VrrpState {
    /// It takes no part in the election: not started, or stopped.
    Init,
    /// It receives the master's advertisements.
    Backup,
    /// It holds the addresses.
    Master,
    /// It cannot be master, because an item with [`TrackEffect::Fault`](super::TrackEffect::Fault) is
    /// down.
    Fault,
}

impl fmt::Display for VrrpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init",
            Self::Backup => "backup",
            Self::Master => "master",
            Self::Fault => "fault",
        })
    }
}

/// Why a virtual router changed its state.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TransitionReason {
    /// The virtual router was started.
    Started,
    /// The virtual router was stopped.
    Stopped,
    /// The router owns the addresses: its priority is 255.
    AddressOwner,
    /// No advertisement from a master arrived within the master-down interval.
    MasterTimeout,
    /// The master resigned: it sent an advertisement of priority 0.
    MasterResigned,
    /// The router replaces a master of lower priority.
    Preempted {
        /// The priority of that master.
        priority: u8,
        /// The address that the master sends from.
        source: IpAddr,
    },
    /// Another router, with a higher priority or the same priority and a higher address, is master.
    HigherPriority {
        /// The priority of the other router.
        priority: u8,
        /// The address that the other router sends from.
        source: IpAddr,
    },
    /// The router sent no advertisement for this long, at least three intervals: other routers may
    /// have taken over.
    Stalled(Duration),
    /// A tracked item without which the router cannot be master is down.
    Fault {
        /// The name of the tracked item.
        track: String,
    },
    /// All tracked items without which the router cannot be master are up again.
    FaultCleared {
        /// The name of the tracked item that was down last.
        track: String,
    },
    /// Another member of its [`VrrpSyncGroup`](super::VrrpSyncGroup) is no longer master.
    SyncGroup,
}

impl fmt::Display for TransitionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Stopped => f.write_str("stopped"),
            Self::AddressOwner => f.write_str("owns the addresses"),
            Self::MasterTimeout => f.write_str("no advertisement from a master"),
            Self::MasterResigned => f.write_str("the master resigned"),
            Self::Preempted { priority, source } => {
                write!(f, "preempts a master of lower priority {priority}, {source}")
            }
            Self::HigherPriority { priority, source } => {
                write!(f, "{source} is master with priority {priority}")
            }
            Self::Stalled(time) => write!(f, "stalled, sent no advertisement for {time:?}"),
            Self::Fault { track } => write!(f, "tracked item {track:?} is down"),
            Self::FaultCleared { track } => {
                write!(f, "the fault of tracked item {track:?} is cleared")
            }
            Self::SyncGroup => {
                f.write_str("another virtual router of its sync group is no longer master")
            }
        }
    }
}

/// A change of the state.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct VrrpTransition {
    /// The state before.
    pub from: VrrpState,
    /// The state after.
    pub to: VrrpState,
    /// The reason for the change.
    pub reason: TransitionReason,
}
