//! The `[service.udp]` table.

use serde::Deserialize;

use super::value::{HumanDuration, apply_duration_if_some, apply_if_some};
use crate::forward::{Coalesce, UdpForwarder};

/// How a UDP service forwards datagrams.
///
/// A flow is the datagrams between one client address and port and the service. A reload that
/// changes the table replaces the service's forwarders; existing flows keep the forwarder that they
/// have.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct UdpConfig {
    /// A flow ends when no datagram has passed in either direction for this time. With `one_packet`
    /// it is how long replies find their client, at most 5 s. Default: `"60s"`.
    idle_timeout: Option<HumanDuration>,
    /// The maximum duration of a flow; the client's next datagram is scheduled anew. Default: none.
    total_timeout: Option<HumanDuration>,
    /// The maximum number of concurrent flows, each of which takes a file descriptor; `0` means `1`.
    /// Default: `10000`.
    max_flows: Option<usize>,
    /// The maximum number of concurrent flows of one client address. Default: no limit.
    max_flows_per_client: Option<u32>,
    /// How many servers are tried for a flow until one replies, the first included; `0` means `1`.
    /// Default: `3`.
    attempts: Option<u32>,
    /// A flow ends when each datagram of the client has had this many replies (1 for DNS); `0` means
    /// `1`. Default: none, flows end by timeout.
    replies: Option<u32>,
    /// Schedules each datagram by itself, as `ipvsadm --ops`. Default: `false`.
    #[serde(default)]
    one_packet: bool,
    /// Whether runs of datagrams are received and sent with one system call (UDP GRO and GSO).
    /// Default: `"auto"`.
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
        let forwarder = forwarder.one_packet(self.one_packet).coalesce(match self.coalesce {
            CoalesceConfig::Auto => Coalesce::Auto,
            CoalesceConfig::Always => Coalesce::Always,
            CoalesceConfig::Never => Coalesce::Never,
        });
        let forwarder =
            apply_duration_if_some(forwarder, self.idle_timeout, UdpForwarder::idle_timeout);
        let forwarder =
            apply_duration_if_some(forwarder, self.total_timeout, UdpForwarder::total_timeout);
        let forwarder = apply_if_some(forwarder, self.max_flows, UdpForwarder::max_flows);
        let forwarder =
            apply_if_some(forwarder, self.max_flows_per_client, UdpForwarder::max_flows_per_client);
        let forwarder = apply_if_some(forwarder, self.attempts, UdpForwarder::attempts);
        apply_if_some(forwarder, self.replies, UdpForwarder::replies)
    }
}
