//! How flows of UDP are carried.

use serde::Deserialize;

use super::value::{HumanDuration, apply_duration_if_some, apply_if_some};
use crate::forward::{Coalesce, UdpForwarder};

/// `[service.udp]`: what is left out is as [`UdpForwarder`] has it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct UdpConfig {
    idle_timeout: Option<HumanDuration>,
    total_timeout: Option<HumanDuration>,
    max_flows: Option<usize>,
    max_flows_per_client: Option<usize>,
    attempts: Option<u32>,
    replies: Option<u32>,
    #[serde(default)]
    one_packet: bool,
    #[serde(default)]
    coalesce: CoalesceConfig,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum CoalesceConfig {
    #[default]
    Auto,
    Always,
    Never,
}

impl UdpConfig {
    pub(crate) fn configure(&self, forwarder: UdpForwarder) -> UdpForwarder {
        let it = forwarder.one_packet(self.one_packet).coalesce(match self.coalesce {
            CoalesceConfig::Auto => Coalesce::Auto,
            CoalesceConfig::Always => Coalesce::Always,
            CoalesceConfig::Never => Coalesce::Never,
        });
        let it = apply_duration_if_some(it, self.idle_timeout, UdpForwarder::idle_timeout);
        let it = apply_duration_if_some(it, self.total_timeout, UdpForwarder::total_timeout);
        let it = apply_if_some(it, self.max_flows, UdpForwarder::max_flows);
        let it = apply_if_some(it, self.max_flows_per_client, UdpForwarder::max_flows_per_client);
        let it = apply_if_some(it, self.attempts, UdpForwarder::attempts);
        apply_if_some(it, self.replies, UdpForwarder::replies)
    }
}
