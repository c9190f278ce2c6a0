//! How virtual routers stand, to be looked at.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::histogram::Durations;
use crate::vrrp::State;

/// How all of them stand; as JSON by serde.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct View {
    /// Each virtual router.
    pub routers: Vec<RouterView>,
    /// How late the thread had its turns: time that was missing for the next advertisement. What
    /// nears the interval should be looked into; three intervals lose the addresses.
    #[serde(serialize_with = "in_microseconds")]
    pub lateness: Durations,
    /// The thread goes before all ordinary ones, which takes `CAP_SYS_NICE`.
    pub realtime: bool,
    /// Events that a reader lost by being slow, or that nobody has read.
    pub events_lost: u64,
}

/// How one virtual router stands.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RouterView {
    /// What it is called.
    pub name: String,
    /// Its number.
    pub router: u8,
    /// Its interface.
    pub interface: String,
    /// The virtual addresses, with their prefixes.
    pub addresses: Vec<String>,
    /// What it is.
    pub state: State,
    /// For how long, in seconds.
    #[serde(serialize_with = "in_seconds")]
    pub since: Duration,
    /// Its priority as it stands.
    pub priority: u8,
    /// The other router that was heard last, if any: while this one is a backup, the master.
    pub heard: Option<HeardView>,
    /// What its priority depends on, and whether that is up.
    pub tracks: BTreeMap<String, bool>,
    /// Changes of state since it was started, by what it became.
    pub transitions: BTreeMap<State, u64>,
    /// Advertisements.
    pub adverts: Adverts,
}

/// The last word of another router.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HeardView {
    /// Its address.
    pub source: IpAddr,
    /// Its priority.
    pub priority: u8,
}

/// Counts of advertisements.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Adverts {
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

fn in_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn in_microseconds<S: Serializer>(times: &Durations, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Micros {
        count: u64,
        mean_us: Option<u64>,
        p99_us: Option<u64>,
        max_us: u64,
    }
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let times = Micros {
        count: times.count(),
        mean_us: times.mean().map(micros),
        p99_us: times.quantile(0.99).map(micros),
        max_us: micros(times.max()),
    };
    times.serialize(serializer)
}
