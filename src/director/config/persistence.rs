//! Clients that return to their server.

use serde::Deserialize;

use super::value::{HumanDuration, apply_if_some};
use crate::balancer::{AffinityPolicy, Persistence, PersistenceBuilder};

#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersistenceConfig {
    timeout: HumanDuration,
    /// Bits of an IPv4 client that count, and of an IPv6 one.
    netmask: Option<u8>,
    netmask_v6: Option<u8>,
    capacity: Option<usize>,
    draining: Option<AffinityConfig>,
    quiesced: Option<AffinityConfig>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum AffinityConfig {
    Ends,
    RunsOut,
    Stays,
}

impl From<AffinityConfig> for AffinityPolicy {
    fn from(config: AffinityConfig) -> Self {
        match config {
            AffinityConfig::Ends => Self::End,
            AffinityConfig::RunsOut => Self::Expire,
            AffinityConfig::Stays => Self::Keep,
        }
    }
}

impl PersistenceConfig {
    pub(crate) fn persistence_builder(&self) -> PersistenceBuilder {
        let HumanDuration(timeout) = self.timeout;
        let it = apply_if_some(
            Persistence::builder(timeout),
            self.netmask,
            PersistenceBuilder::ipv4_prefix,
        );
        let it = apply_if_some(it, self.netmask_v6, PersistenceBuilder::ipv6_prefix);
        let it = apply_if_some(it, self.capacity, PersistenceBuilder::capacity);
        let draining = self.draining.map(AffinityPolicy::from);
        let it = apply_if_some(it, draining, PersistenceBuilder::draining);
        apply_if_some(it, self.quiesced.map(AffinityPolicy::from), PersistenceBuilder::quiesced)
    }
}
