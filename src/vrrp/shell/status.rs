//! The status of running virtual routers, for display and metrics.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::histogram::DurationHistogram;
use crate::vrrp::VrrpState;

/// The status of all virtual routers of a [`Vrrp`](super::Vrrp); serde serializes it as JSON.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct VrrpStatus {
    /// The status of each virtual router.
    pub routers: Vec<VirtualRouterStatus>,
    /// How late the thread handled its timers. A value near the advertisement interval is a problem;
    /// after three intervals the addresses are lost.
    pub lateness: DurationHistogram,
    /// Whether the thread has real-time priority, which needs `CAP_SYS_NICE`.
    pub realtime: bool,
}

/// The status of one virtual router.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct VirtualRouterStatus {
    /// The name.
    pub name: String,
    /// The number of the virtual router.
    pub virtual_router_id: u8,
    /// The interface.
    pub interface: String,
    /// The virtual addresses, with their prefix lengths.
    pub addresses: Vec<String>,
    /// The state.
    pub state: VrrpState,
    /// The time in this state; in seconds when serialized.
    #[serde(serialize_with = "serialize_seconds")]
    pub since: Duration,
    /// The current priority.
    pub priority: u8,
    /// The last accepted advertisement of another router, if any; in state backup, the master's.
    pub last_advert: Option<LastAdvertStatus>,
    /// The tracked items, and whether each is up.
    pub tracks: BTreeMap<String, bool>,
    /// The number of transitions since the start, by the state entered.
    pub transitions: BTreeMap<VrrpState, u64>,
    /// Counts of advertisements.
    pub adverts: AdvertCounters,
}

/// The last accepted advertisement of another router.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LastAdvertStatus {
    /// The sender's address.
    pub source: IpAddr,
    /// The sender's priority.
    pub priority: u8,
}

/// Counts of a virtual router's advertisements, announcements and conflicts.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AdvertCounters {
    /// Advertisements sent.
    pub sent: u64,
    /// Advertisements that could not be sent, because the system call failed.
    pub unsent: u64,
    /// Advertisements received for this virtual router and accepted.
    pub received: u64,
    /// Accepted advertisements with other virtual addresses: the configurations differ.
    pub mismatched: u64,
    /// Advertisements refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Announcements of the addresses on the link.
    pub announced: u64,
    /// ARP packets of other machines for a virtual address while this router was master.
    pub conflicts: u64,
}

fn serialize_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
