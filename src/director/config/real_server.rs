//! The `[[service.server]]` tables.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize, Serializer};

use super::check::CheckConfig;
use super::engine::{ServerMethod, TunnelConfig};
use super::error::ConfigProblem;
use super::notify::NotifyCommandList;
use super::table::config_table;
use super::value::{OneOrMany, deserialize_address};
use crate::backend::{Limits, Spec, Zone, validate_weight};

config_table! {
/// A builder of a [`RealServer`].
builder RealServerBuilder;

/// A real server of a service.
///
/// The order counts, as if `ipvsadm -a` had added the servers one after the other: `first` fills the
/// first one first, and among equal servers the kernel's rules take the one that was added last. A
/// reload adds, removes and changes servers in one step; what an operator has set by hand stays
/// until the file changes the same setting.
///
/// # Examples
/// ```
/// use lvs::director::RealServer;
///
/// let server: RealServer =
///     serde_json::from_str(r#"{ "address": "10.88.1.1:80", "weight": 3 }"#)?;
/// assert_eq!((server.address, server.weight), ("10.88.1.1:80".parse()?, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[non_exhaustive]
pub struct RealServer {
    /// The server's address, which identifies it within its service. Port 0 means the port that the
    /// client has connected to.
    #[serde(deserialize_with = "deserialize_address")]
    pub address: SocketAddr,
    /// A name for people, shown on the status page and in the API. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The server's share of new connections relative to the other servers, from 0 to 65535. `0`
    /// quiesces the server: it gets no new connections and keeps those that it has. Default: `1`.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// The maximum number of concurrent connections, up to 2^30; `0` means no limit. Default: `0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// A server that has reached `max_connections` gets no new connections until it has fewer than
    /// this number; at most `max_connections`; `0` means three quarters of `max_connections`.
    /// Default: `0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_connections: Option<u32>,
    /// The tier for the `priority` scheduler, from 0 to 255; tier 0 serves first. Default: `0`.
    #[serde(default, skip_serializing_if = "is_default_tier")]
    pub tier: u8,
    /// The zone of the server, such as `"eu-1a"`: 1 to 64 ASCII letters, digits, `.`, `_`, `-` and `/`. The scheduler
    /// `priority(..., zone=eu-1a)` prefers servers of its zone. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// How packets reach the server. The engine `proxy` has `nat` alone. Default: `"nat"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<ServerMethod>,
    /// The tunnel to the server; requires `method = "tunnel"`. Default: an IP-in-IP tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<TunnelConfig>,
    /// The health checks of this server, in place of those of the service; `[]` for none. Default:
    /// those of the service.
    ///
    /// Only a configuration has them: a server that is added by hand has the checks of the service.
    #[serde(default, skip_serializing)]
    pub(crate) health: Option<OneOrMany<CheckConfig>>,
    /// Runs when the server, which was down or ejected, is up again. Default: none.
    ///
    /// Only a configuration has it.
    #[serde(default, skip_serializing)]
    pub(crate) notify_up: Option<NotifyCommandList>,
    /// Runs when the server goes down, or is ejected. Default: none.
    ///
    /// Only a configuration has it.
    #[serde(default, skip_serializing)]
    pub(crate) notify_down: Option<NotifyCommandList>,
}
}

const fn default_weight() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_default_tier(tier: &u8) -> bool {
    *tier == 0
}

impl Serialize for RealServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl From<SocketAddr> for RealServer {
    /// Returns a server of weight 1 without a connection limit.
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

impl RealServer {
    /// Returns a builder of a server of weight 1 without a connection limit.
    pub fn builder(address: SocketAddr) -> RealServerBuilder {
        RealServerBuilder { table: Self::new(address) }
    }

    /// Returns a server of weight 1 without a connection limit.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let (max_connections, resume_connections) = (None, None);
        Self {
            address,
            name: None,
            weight: default_weight(),
            max_connections,
            resume_connections,
            tier: 0,
            zone: None,
            method: None,
            tunnel: None,
            health: None,
            notify_up: None,
            notify_down: None,
        }
    }

    /// Returns the key, if any, that only a configuration may have, because it names programs.
    pub(crate) fn configuration_only_key(&self) -> Option<&'static str> {
        let keys = [
            ("health", self.health.is_some()),
            ("notify_up", self.notify_up.is_some()),
            ("notify_down", self.notify_down.is_some()),
        ];
        keys.into_iter().find_map(|(key, is_set)| is_set.then_some(key))
    }

    pub(crate) fn limits(&self) -> Limits {
        let limits = Limits::new(self.max_connections.unwrap_or(0));
        self.resume_connections.map_or(limits, |resume| limits.with_resume_below(resume))
    }

    pub(crate) fn backend_spec(&self) -> Spec<SocketAddr> {
        let spec = Spec::from(self.address).weight(self.weight).limits(self.limits());
        Spec { zone: self.zone, ..spec.tier(self.tier) }
    }

    /// Returns the keys with commands.
    pub(super) fn notify_commands(
        &self,
    ) -> impl Iterator<Item = (&'static str, &NotifyCommandList)> {
        let commands = [("notify_up", &self.notify_up), ("notify_down", &self.notify_down)];
        commands.into_iter().filter_map(|(key, commands)| Some((key, commands.as_ref()?)))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        const KEYS: [(&str, &str); 1] = [("resume_below", "resume_connections")];
        for (key, commands) in self.notify_commands() {
            commands.validate(key)?;
        }
        if self.resume_connections.is_some() && self.max_connections.is_none_or(|max| max == 0) {
            let reason = "`resume_connections` requires `max_connections`";
            return Err(ConfigProblem::at_key("resume_connections", reason));
        }
        self.forwarding_method()?;
        let checked = validate_weight(self.weight).and_then(|()| self.limits().validate());
        checked.map_err(|error| ConfigProblem::of_setting(error, &KEYS))
    }
}
