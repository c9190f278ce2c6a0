//! The `[service.udp]` table.

use serde::Deserialize;

use super::error::ConfigProblem;
use super::table::config_table;
use super::value::HumanDuration;
use crate::forward::{Coalesce, UdpOptions};

config_table! {
/// A builder of a [`UdpConfig`].
builder UdpConfigBuilder;

/// How a UDP service forwards datagrams.
///
/// A flow is the datagrams between one client address and port and the service. A reload that
/// changes the table replaces the service's forwarders; existing flows keep the forwarder that they
/// have.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct UdpConfig {
    /// A flow ends when no datagram has passed in either direction for this time. With `one_packet`
    /// it is how long replies find their client, at most 5 s. Default: `"60s"`; `"5s"` with
    /// `one_packet`.
    idle_timeout: Option<HumanDuration>,
    /// The maximum duration of a flow; the client's next datagram is scheduled anew. Default: none.
    total_timeout: Option<HumanDuration>,
    /// The maximum number of concurrent flows, from 1 to 16777216, each of which takes a file
    /// descriptor. Default: `10000`.
    max_flows: Option<usize>,
    /// The maximum number of concurrent flows of one client, at least 1. Default: no limit.
    max_flows_per_client: Option<u32>,
    /// How many leading bits of an IPv4 address identify a client for `max_flows_per_client`, from 0
    /// to 32. Default: `32`.
    client_prefix: Option<u8>,
    /// How many leading bits of an IPv6 address identify a client for `max_flows_per_client`, from 0
    /// to 128. Default: `64`.
    client_prefix_v6: Option<u8>,
    /// How many servers are tried for a flow until one replies, the first included; at least 1.
    /// Default: `3`.
    attempts: Option<u32>,
    /// A flow ends when each datagram of the client has had this many replies (1 for DNS), at least
    /// 1. Default: none, flows end by timeout.
    replies: Option<u32>,
    /// Schedules each datagram by itself, as `ipvsadm --ops`. Default: `false`.
    #[serde(default)]
    one_packet: bool,
    /// Whether runs of datagrams are received and sent with one system call (UDP GRO and GSO).
    /// Default: `"auto"`.
    #[serde(default)]
    coalesce: CoalesceConfig,
}
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum CoalesceConfig {
    #[default]
    Auto,
    Always,
    Never,
}

/// The keys of settings whose setters have other names.
const SETTING_KEYS: [(&str, &str); 2] =
    [("client_prefixes.ipv4", "client_prefix"), ("client_prefixes.ipv6", "client_prefix_v6")];

impl From<Coalesce> for CoalesceConfig {
    fn from(coalesce: Coalesce) -> Self {
        match coalesce {
            Coalesce::Auto => Self::Auto,
            Coalesce::Always => Self::Always,
            Coalesce::Never => Self::Never,
        }
    }
}

impl UdpConfig {
    /// Returns a builder of the defaults.
    pub fn builder() -> UdpConfigBuilder {
        UdpConfigBuilder { table: Self::default() }
    }

    /// Returns how many descriptors the configured number of flows takes; 0 without one.
    pub(crate) fn wanted_descriptors(&self) -> usize {
        self.max_flows.unwrap_or(0)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        self.options().validate().map_err(|error| ConfigProblem::of_setting(error, &SETTING_KEYS))
    }

    /// Returns the options of the forwarder.
    pub(crate) fn options(&self) -> UdpOptions {
        let default = UdpOptions::default();
        let mut client_prefixes = default.client_prefixes;
        client_prefixes.ipv4 = self.client_prefix.unwrap_or(client_prefixes.ipv4);
        client_prefixes.ipv6 = self.client_prefix_v6.unwrap_or(client_prefixes.ipv6);
        UdpOptions {
            client_prefixes,
            idle_timeout: self.idle_timeout.map(|HumanDuration(timeout)| timeout),
            total_timeout: self.total_timeout.map(|HumanDuration(timeout)| timeout),
            max_flows: self.max_flows.unwrap_or(default.max_flows),
            max_flows_per_client: self.max_flows_per_client,
            attempts: self.attempts.unwrap_or(default.attempts),
            replies: self.replies,
            one_packet: self.one_packet,
            coalesce: match self.coalesce {
                CoalesceConfig::Auto => Coalesce::Auto,
                CoalesceConfig::Always => Coalesce::Always,
                CoalesceConfig::Never => Coalesce::Never,
            },
        }
    }
}
