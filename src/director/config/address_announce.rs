//! The `[vrrp.announce]` table.

use std::time::Duration;

use serde::Deserialize;

use super::table::config_table;
use super::value::HumanDuration;
use crate::vrrp::ElectionConfig;

config_table! {
/// A builder of a [`AddressAnnounceConfig`].
builder AddressAnnounceConfigBuilder;

/// How a new master announces its addresses.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct AddressAnnounceConfig {
    /// How many times the addresses are announced after the first time.
    repeats: u32,
    /// The time between two announcements.
    interval: HumanDuration,
}
}

impl AddressAnnounceConfig {
    /// Returns a builder of this many further announcements, an interval apart.
    pub fn builder(repeats: u32, interval: Duration) -> AddressAnnounceConfigBuilder {
        let interval = HumanDuration(interval);
        AddressAnnounceConfigBuilder { table: Self { repeats, interval } }
    }

    pub(super) fn apply_to(self, election: ElectionConfig) -> ElectionConfig {
        election.announce_repeats(self.repeats).announce_interval(self.interval.0)
    }
}
