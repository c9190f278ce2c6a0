//! How virtual routers stand, to be looked at.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::histogram::DurationHistogram;
use crate::vrrp::VrrpState;

/// How all of them stand; as JSON by serde.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct VrrpStatus {
    /// Each virtual router.
    pub routers: Vec<VirtualRouterStatus>,
    /// How late the thread had its turns: time that was missing for the next advertisement. What
    /// nears the interval should be looked into; three intervals lose the addresses.
    #[serde(serialize_with = "serialize_microseconds")]
    pub lateness: DurationHistogram,
    /// The thread goes before all ordinary ones, which takes `CAP_SYS_NICE`.
    pub realtime: bool,
    /// Events that a reader lost by being slow, or that nobody has read.
    pub events_lost: u64,
}

/// How one virtual router stands.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct VirtualRouterStatus {
    /// What it is called.
    pub name: String,
    /// Its number.
    pub virtual_router_id: u8,
    /// Its interface.
    pub interface: String,
    /// The virtual addresses, with their prefixes.
    pub addresses: Vec<String>,
    /// What it is.
    pub state: VrrpState,
    /// For how long, in seconds.
    #[serde(serialize_with = "serialize_seconds")]
    pub since: Duration,
    /// Its priority as it stands.
    pub priority: u8,
    /// The other router that was heard last, if any: while this one is a backup, the master.
    pub last_advert: Option<LastAdvertStatus>,
    /// What its priority depends on, and whether that is up.
    pub tracks: BTreeMap<String, bool>,
    /// Changes of state since it was started, by what it became.
    pub transitions: BTreeMap<VrrpState, u64>,
    /// Advertisements.
    pub adverts: AdvertCounters,
}

/// The last word of another router.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LastAdvertStatus {
    /// Its address.
    pub source: IpAddr,
    /// Its priority.
    pub priority: u8,
}

/// Counts of advertisements.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AdvertCounters {
    /// Sent.
    pub sent: u64,
    /// That the system would not send.
    pub unsent: u64,
    /// Received for this virtual router, and believed.
    pub received: u64,
    /// Of those, with other virtual addresses than this one's: one of the two is set up wrongly.
    pub mismatched: u64,
    /// Refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Times that the link was told where the addresses are.
    pub announced: u64,
    /// Others that were heard to have one of the addresses while this one had them.
    pub conflicts: u64,
}

fn serialize_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn serialize_microseconds<S: Serializer>(
    times: &DurationHistogram,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct LatenessMicros {
        count: u64,
        mean_us: Option<u64>,
        p99_us: Option<u64>,
        max_us: u64,
    }
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let times = LatenessMicros {
        count: times.count(),
        mean_us: times.mean().map(micros),
        p99_us: times.quantile(0.99).map(micros),
        max_us: micros(times.max()),
    };
    times.serialize(serializer)
}
