//! What a router is, and why it became that.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

/// What a router is (RFC 9568, section 6.4).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VrrpState {
    /// It takes no part: not started, or stopped.
    Init,
    /// It listens for the master.
    Backup,
    /// It has the addresses.
    Master,
    /// It may not be master, because something that it needs has failed.
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

/// Why a router changed its state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TransitionReason {
    /// It was started, or stopped.
    Requested,
    /// It owns the addresses.
    AddressOwner,
    /// No master was heard for as long as it waits.
    MasterTimeout,
    /// The master gave up.
    MasterResigned,
    /// It heard a master that goes before it: of this priority, at this address.
    HigherPriority {
        /// The priority of the other.
        priority: u8,
        /// Its address.
        source: IpAddr,
    },
    /// It was held up for so long that the others hold it to be dead.
    Stalled(Duration),
    /// Something that it needs has failed, or is there again.
    FaultChanged,
    /// One of its [`Group`](super::Group) is no longer master.
    SyncGroup,
}

impl fmt::Display for TransitionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("told to"),
            Self::AddressOwner => f.write_str("it owns the addresses"),
            Self::MasterTimeout => f.write_str("no master was heard"),
            Self::MasterResigned => f.write_str("the master gave up"),
            Self::HigherPriority { priority, source } => {
                write!(f, "{source} advertises priority {priority}")
            }
            Self::Stalled(time) => write!(f, "it was held up for {time:?}"),
            Self::FaultChanged => f.write_str("something that it needs failed, or is there again"),
            Self::SyncGroup => f.write_str("another of its group is no longer master"),
        }
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VrrpTransition {
    /// What it was.
    pub from: VrrpState,
    /// What it is.
    pub to: VrrpState,
    /// Why.
    pub reason: TransitionReason,
}
