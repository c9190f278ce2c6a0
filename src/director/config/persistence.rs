//! The `persistence` table.

use std::time::Duration;

use serde::Deserialize;

use super::error::ConfigProblem;
use super::table::config_table;
use super::value::{HumanDuration, apply_if_some};
use crate::balancer::{AffinityPolicy, Persistence, PersistenceBuilder};
use crate::engine::EnginePersistence;

config_table! {
/// A builder of a [`PersistenceConfig`].
builder PersistenceConfigBuilder;

/// Persistence: a client returns to the server that it had before, as with `ipvsadm -p`.
///
/// Without the table there is none. A reload that changes the table keeps the clients that are
/// known, and replaces the service's forwarders; existing connections keep the forwarder that they
/// have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct PersistenceConfig {
    /// How long a client is remembered after its last connection, at most 2^32 s.
    timeout: HumanDuration,
    /// How many leading bits of an IPv4 client's address identify the client, from 0 to 32. Default:
    /// `32`.
    netmask: Option<u8>,
    /// How many leading bits of an IPv6 client's address identify the client, from 0 to 128.
    /// Default: `128`.
    netmask_v6: Option<u8>,
    /// The maximum number of clients that are remembered. Default: `1048576`.
    capacity: Option<usize>,
    /// What happens to the known clients of a server that is drained. Default: `"end"`.
    draining: Option<AffinityConfig>,
    /// What happens to the known clients of a server of weight 0. Default: `"keep"`.
    quiesced: Option<AffinityConfig>,
}
}

/// What happens to the known clients of a server that gets no new ones.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum AffinityConfig {
    /// The next connection of a known client goes to another server, and the client stays there.
    End,
    /// Known clients return until their `timeout` ends, which is not renewed any more.
    Expire,
    /// Known clients return, and renew their `timeout`.
    Keep,
}

impl From<AffinityConfig> for AffinityPolicy {
    fn from(config: AffinityConfig) -> Self {
        match config {
            AffinityConfig::End => Self::End,
            AffinityConfig::Expire => Self::Expire,
            AffinityConfig::Keep => Self::Keep,
        }
    }
}

impl From<AffinityPolicy> for AffinityConfig {
    fn from(policy: AffinityPolicy) -> Self {
        match policy {
            AffinityPolicy::End => Self::End,
            AffinityPolicy::Expire => Self::Expire,
            AffinityPolicy::Keep => Self::Keep,
        }
    }
}

impl PersistenceConfig {
    /// Returns a builder of persistence that remembers a client for this time.
    pub fn builder(timeout: Duration) -> PersistenceConfigBuilder {
        let (netmask, netmask_v6, capacity, draining, quiesced) = (None, None, None, None, None);
        let timeout = HumanDuration(timeout);
        let table = Self { timeout, netmask, netmask_v6, capacity, draining, quiesced };
        PersistenceConfigBuilder { table }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        const KEYS: [(&str, &str); 2] = [("ipv4_prefix", "netmask"), ("ipv6_prefix", "netmask_v6")];
        let checked = self.persistence_builder().validate();
        checked.map_err(|error| ConfigProblem::of_setting(error, &KEYS))
    }

    /// Returns the persistence of an engine for addresses of a family; `None` if the timeout is no number
    /// of whole seconds that the kernel takes.
    pub(crate) fn engine_persistence(&self, is_ipv6: bool) -> Option<EnginePersistence> {
        let HumanDuration(timeout) = self.timeout;
        let is_whole = timeout.subsec_nanos() == 0 && u32::try_from(timeout.as_secs()).is_ok();
        let prefix = match is_ipv6 {
            false => self.netmask.unwrap_or(32),
            true => self.netmask_v6.unwrap_or(128),
        };
        (is_whole && !timeout.is_zero()).then_some(EnginePersistence { timeout, prefix })
    }

    /// Returns the keys that only the forwarder of this crate has something for.
    pub(super) fn keys_of_proxy(&self) -> impl Iterator<Item = &'static str> {
        let keys = [
            ("capacity", self.capacity.is_some()),
            ("draining", self.draining.is_some()),
            ("quiesced", self.quiesced.is_some()),
        ];
        keys.into_iter().filter_map(|(key, is_set)| is_set.then_some(key))
    }

    pub(crate) fn persistence_builder(&self) -> PersistenceBuilder {
        let builder = Persistence::builder(self.timeout.0);
        let builder = apply_if_some(builder, self.netmask, PersistenceBuilder::ipv4_prefix);
        let builder = apply_if_some(builder, self.netmask_v6, PersistenceBuilder::ipv6_prefix);
        let builder = apply_if_some(builder, self.capacity, PersistenceBuilder::capacity);
        let draining = self.draining.map(AffinityPolicy::from);
        let builder = apply_if_some(builder, draining, PersistenceBuilder::draining);
        let quiesced = self.quiesced.map(AffinityPolicy::from);
        apply_if_some(builder, quiesced, PersistenceBuilder::quiesced)
    }
}
