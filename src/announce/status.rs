//! The status of the announcements, for display and metrics.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

#[cfg(feature = "director")]
use super::AnnouncerConfig;
use super::{AnnounceMode, AnnounceReason, AnnouncementState};

/// The status of an [`Announcer`](super::Announcer); serde serializes it as JSON.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AnnounceStatus {
    /// The operator's mode.
    pub mode: AnnounceMode,
    /// The addresses, in their order.
    pub addresses: Vec<AnnouncedAddressStatus>,
}

/// The status of one announced address.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AnnouncedAddressStatus {
    /// The address.
    pub address: IpAddr,
    /// The state.
    pub state: AnnouncementState,
    /// Why it has this state.
    pub reason: AnnounceReason,
    /// The time in this state; in seconds when serialized.
    #[serde(serialize_with = "serialize_seconds")]
    pub since: Duration,
    /// The metric of the route that is announced; `None` if there is none.
    pub metric: Option<u32>,
    /// How long the recovery delay still takes, if it runs; in seconds when serialized.
    #[serde(serialize_with = "serialize_optional_seconds")]
    pub recovers_in: Option<Duration>,
    /// How often the state has changed.
    pub changes: u64,
    /// How often a route was added again that somebody else had removed.
    pub restored: u64,
    /// The operation that fails at present, with the system's error; it is tried again each second.
    pub failure: Option<String>,
}

impl AnnounceStatus {
    /// Returns the status of an announcer whose thread does not answer.
    #[cfg(feature = "director")]
    pub(crate) fn without_answer(mode: AnnounceMode, config: &AnnouncerConfig) -> Self {
        let addresses = config.addresses().map(|address| AnnouncedAddressStatus {
            address,
            state: AnnouncementState::Pending,
            reason: AnnounceReason::HealthUnknown,
            since: Duration::ZERO,
            metric: None,
            recovers_in: None,
            changes: 0,
            restored: 0,
            failure: Some("the thread of the announcements does not answer".to_owned()),
        });
        Self { mode, addresses: addresses.collect() }
    }
}

fn serialize_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn serialize_optional_seconds<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}
