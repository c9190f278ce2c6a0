//! The `[service.tcp]` table.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use super::error::ConfigProblem;
use super::table::config_table;
use super::value::{
    DurationOrNever, HumanDuration, OneOrMany, StringTable, apply_duration_if_some, apply_if_some,
};
use crate::Balancer;
use crate::forward::proxy_protocol::ProxyProtocolVersion;
use crate::forward::sni::ServerNameTable;
use crate::forward::{ConnectionRate, Forwarder, ProxyHeaderOptions, SourceAddress, TcpOptions};
use crate::health::CheckProxyHeader;
use crate::setting::SettingError;

config_table! {
/// A builder of a [`TcpConfig`].
builder TcpConfigBuilder;

/// How a TCP service forwards connections.
///
/// A reload that changes the table replaces the service's forwarders; existing connections keep the
/// forwarder that they have.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct TcpConfig {
    /// The maximum number of concurrent connections, at least 1, each of which takes two file
    /// descriptors; further clients wait in the kernel's queue. Default: `10000`.
    max_connections: Option<usize>,
    /// The maximum number of concurrent connections of one client, at least 1; further ones are
    /// reset. Default: no limit.
    max_connections_per_client: Option<u32>,
    /// How many leading bits of an IPv4 address identify a client for `max_connections_per_client`,
    /// from 0 to 32. Default: `32`.
    client_prefix: Option<u8>,
    /// How many leading bits of an IPv6 address identify a client for `max_connections_per_client`,
    /// from 0 to 128. Default: `64`.
    client_prefix_v6: Option<u8>,
    /// The maximum rate of new connections, per second, at least 1; further clients wait in the
    /// kernel's queue. Default: no limit.
    accept_rate: Option<u32>,
    /// How many connections may come at once after a quiet time; requires `accept_rate`. Range:
    /// from `1`. Default: the value of `accept_rate`.
    accept_burst: Option<u32>,
    /// A queue for connections while all servers are at their `max_connections`. Default: none, such
    /// connections go to the sorry server or are reset.
    queue: Option<TcpQueueConfig>,
    /// How long a server may take to accept a connection before the next one is tried. Default:
    /// `"5s"`.
    connect_timeout: Option<HumanDuration>,
    /// The maximum time of all attempts to connect together; time in the queue does not count.
    /// Default: `"15s"`.
    connect_deadline: Option<HumanDuration>,
    /// How many servers are tried for a connection, the first included; at least 1. Default: `3`.
    connect_attempts: Option<u32>,
    /// A connection ends when no byte has passed in either direction for this time. Default:
    /// `"15m"`.
    idle_timeout: Option<DurationOrNever>,
    /// The `idle_timeout` of a connection that one side has closed. Default: `"2m"`.
    half_closed_timeout: Option<DurationOrNever>,
    /// The maximum duration of a connection. Default: `"never"`.
    total_timeout: Option<DurationOrNever>,
    /// Resets the connections of a server that a health check finds down or that an operator
    /// disables, as HAProxy's `on-marked-down shutdown-sessions`. Default: `false`.
    #[serde(default)]
    cut_on_down: bool,
    /// Sends TCP keepalive probes to a peer, client or server, that was silent for this time, five
    /// times over as long again; whole seconds from 1 s to 32767 s. Default: none are sent.
    keepalive: Option<HumanDuration>,
    /// Ends a connection whose peer has not acknowledged data for this time (`TCP_USER_TIMEOUT`),
    /// from 1 ms to 2147483647 ms. Default: the kernel's, about 15 minutes.
    user_timeout: Option<HumanDuration>,
    /// The maximum number of pending requests with data in the client's SYN (TCP Fast Open), up to
    /// 2147483647; `0` disables it. Only for protocols in which a repeated request does no harm. Default: `0`.
    fastopen: Option<u32>,
    /// Sends the client's first bytes with the SYN to the server (TCP Fast Open). Not for protocols
    /// in which the server speaks first. Default: `false`.
    #[serde(default)]
    fastopen_servers: bool,
    /// The address from which connections to servers are made: `"client"` for the client's own
    /// (`IP_TRANSPARENT`), or addresses of this machine. Default: chosen by the routing table.
    source: Option<OneOrMany<SourceAddressConfig>>,
    /// Requires a PROXY header, version 1 or 2, from each client within this time, and trusts it:
    /// let only other load balancers reach the address. Default: none, no header is read.
    accept_proxy: Option<HumanDuration>,
    /// Sends a PROXY header of this version to servers, and to the sorry server. Health checks of the
    /// servers send one too, unless they have `send_proxy = "none"` or a `port` of their own. Default:
    /// none, no header is sent.
    send_proxy: Option<ProxyVersionConfig>,
    /// Sends a unique identifier of the connection in the header; requires `send_proxy = "v2"`.
    /// Default: `false`.
    #[serde(default)]
    proxy_unique_id: bool,
    /// Sends a CRC32c checksum in the header; requires `send_proxy = "v2"`. Default: `false`.
    #[serde(default)]
    proxy_checksum: bool,
    /// Uses the server name (SNI) that a TLS client asks for as the key of schedulers that hash. TLS
    /// is passed through; a client that does not speak TLS is reset. Default: `false`.
    #[serde(default)]
    key_by_server_name: bool,
    /// Services by the server name (SNI) that a TLS client asks for: a name, `"*.example.org"`, or
    /// `"*"` for all others, which ask for another name, for none, or for one that is no host name,
    /// such as an IP address. A client with an unlisted name is reset. Servers and scheduler are
    /// those of the named service; the `tcp` table and the `sorry_server` are those of this one.
    /// Persistence and the queue do not apply. Default: an empty table.
    #[serde(default)]
    server_names: StringTable,
    /// The service of clients that do not speak TLS, such as SSH on the same port; requires
    /// `key_by_server_name` or `server_names`. The client's first byte decides: a client that waits
    /// for the server to begin is reset after `hello_timeout`. Default: none, such clients are reset.
    without_tls: Option<String>,
    /// How long a client may take to send its TLS ClientHello; requires `key_by_server_name` or
    /// `server_names`. Default: `"5s"`.
    hello_timeout: Option<HumanDuration>,
}
}

config_table! {
/// A builder of a [`TcpQueueConfig`].
builder TcpQueueConfigBuilder;

/// A queue for connections while all servers are at their `max_connections`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct TcpQueueConfig {
    /// The maximum number of connections in the queue.
    capacity: usize,
    /// How long a connection may wait in the queue.
    timeout: HumanDuration,
}
}

/// `"client"`, or an address of this machine.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct SourceAddressConfig(Option<IpAddr>);

impl SourceAddressConfig {
    /// The client's own address (`IP_TRANSPARENT`).
    pub const CLIENT: Self = Self(None);
}

impl From<IpAddr> for SourceAddressConfig {
    fn from(address: IpAddr) -> Self {
        Self(Some(address))
    }
}

impl TryFrom<String> for SourceAddressConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "client" {
            return Ok(Self(None));
        }
        let address = text.parse().map(|address| Self(Some(address)));
        address.map_err(|_| format!("{text:?} is neither an IP address nor \"client\""))
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ProxyVersionConfig {
    V1,
    V2,
}

impl From<ProxyProtocolVersion> for ProxyVersionConfig {
    fn from(version: ProxyProtocolVersion) -> Self {
        match version {
            ProxyProtocolVersion::V1 => Self::V1,
            ProxyProtocolVersion::V2 => Self::V2,
        }
    }
}

/// The keys of settings whose setters have other names.
const SETTING_KEYS: [(&str, &str); 4] = [
    ("per_second", "accept_rate"),
    ("burst", "accept_burst"),
    ("client_prefixes.ipv4", "client_prefix"),
    ("client_prefixes.ipv6", "client_prefix_v6"),
];

const DEFAULT_CLIENT_HELLO_TIMEOUT: HumanDuration = HumanDuration(Duration::from_secs(5));

impl TcpQueueConfig {
    /// Returns a builder of a queue for this many connections, each for at most `timeout`.
    pub fn builder(capacity: usize, timeout: Duration) -> TcpQueueConfigBuilder {
        TcpQueueConfigBuilder { table: Self { capacity, timeout: HumanDuration(timeout) } }
    }
}

impl TcpConfig {
    /// Returns a builder of the defaults.
    pub fn builder() -> TcpConfigBuilder {
        TcpConfigBuilder { table: Self::default() }
    }

    /// Returns how many descriptors the configured number of connections takes; 0 without one.
    pub(crate) fn wanted_descriptors(&self) -> usize {
        self.max_connections.unwrap_or(0).saturating_mul(2)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        let problem = |key, reason: &str| Err(ConfigProblem::at_key(key, reason));
        if self.accept_burst.is_some() && self.accept_rate.is_none() {
            return problem("accept_burst", "`accept_burst` requires `accept_rate`");
        }
        let of_setting = |error| ConfigProblem::of_setting(error, &SETTING_KEYS);
        self.connection_rate().map_err(of_setting)?;
        self.options().validate().map_err(of_setting)?;
        let is_v2 = self.send_proxy == Some(ProxyVersionConfig::V2);
        if self.proxy_unique_id && !is_v2 {
            return problem("proxy_unique_id", "`proxy_unique_id` requires `send_proxy = \"v2\"`");
        }
        if self.proxy_checksum && !is_v2 {
            return problem("proxy_checksum", "`proxy_checksum` requires `send_proxy = \"v2\"`");
        }
        if !self.key_by_server_name && self.server_names.is_empty() {
            let reason = |key| format!("`{key}` requires `key_by_server_name` or `server_names`");
            for (key, is_set) in [
                ("hello_timeout", self.hello_timeout.is_some()),
                ("without_tls", self.without_tls.is_some()),
            ] {
                if is_set {
                    return problem(key, &reason(key));
                }
            }
        }
        let sources = self.source.as_ref().map_or(&[][..], |OneOrMany(sources)| sources);
        if sources.len() > 1 && sources.contains(&SourceAddressConfig(None)) {
            return problem("source", "\"client\" and addresses exclude each other");
        }
        self.server_name_table(&|_| Some(())).map(drop)
    }

    /// Returns whether all that is set is `send_proxy`, which health checks follow too.
    pub(super) fn affects_only_checks(&self) -> bool {
        *self == Self { send_proxy: self.send_proxy, ..Self::default() }
    }

    /// Returns whether connections of a server that is down are reset.
    pub(crate) fn cuts_on_down(&self) -> bool {
        self.cut_on_down
    }

    /// Returns the patterns of `server_names`, each with the name of the service that it leads to.
    pub(crate) fn services_by_name(&self) -> impl Iterator<Item = (&String, &String)> {
        self.server_names.iter()
    }

    /// Returns the service of clients that do not speak TLS.
    pub(crate) fn service_without_tls(&self) -> Option<&String> {
        self.without_tls.as_ref()
    }

    fn server_name_table<V>(
        &self,
        find_service: &dyn Fn(&str) -> Option<V>,
    ) -> Result<ServerNameTable<V>, ConfigProblem> {
        let problem = |reason: String| ConfigProblem::at_key("server_names", reason);
        let mut names = ServerNameTable::new();
        for (pattern, service) in &self.server_names {
            let value = find_service(service).ok_or_else(|| {
                problem(format!("{pattern:?} leads to service {service:?}, which does not exist"))
            })?;
            if pattern == "*" {
                names = names.with_default(value);
            } else {
                names.insert(pattern, value).map_err(|error| problem(error.to_string()))?;
            }
        }
        Ok(names)
    }

    /// Applies the settings to a forwarder. `find_balancer` returns the balancer of a service, by
    /// its name.
    pub(crate) fn configure(
        &self,
        forwarder: Forwarder,
        find_balancer: &dyn Fn(&str) -> Option<Balancer<SocketAddr>>,
    ) -> Forwarder {
        let forwarder = self.configure_limits(forwarder.options(self.options()));
        let forwarder = self.configure_timeouts(forwarder);
        let forwarder =
            apply_duration_if_some(forwarder, self.accept_proxy, Forwarder::accept_proxy);
        let forwarder = apply_if_some(forwarder, self.proxy_header(), Forwarder::send_proxy);
        let forwarder = apply_if_some(forwarder, self.connect_source(), Forwarder::source);
        let forwarder =
            forwarder.cut_on_down(self.cut_on_down).fastopen_backends(self.fastopen_servers);
        let HumanDuration(timeout) = self.hello_timeout.unwrap_or(DEFAULT_CLIENT_HELLO_TIMEOUT);
        let forwarder = match self.key_by_server_name {
            true => forwarder.key_by_server_name(timeout),
            false => forwarder,
        };
        // `None` cannot happen: the configuration was refused if the service is missing.
        let without_tls = self.without_tls.as_deref().and_then(find_balancer);
        let forwarder = apply_if_some(forwarder, without_tls, Forwarder::service_without_tls);
        match self.server_name_table(find_balancer) {
            Ok(names) if !self.server_names.is_empty() => {
                forwarder.services_by_server_name(timeout, names)
            }
            // `Err` cannot happen: the configuration was refused if a service is missing.
            _ => forwarder,
        }
    }

    fn configure_limits(&self, forwarder: Forwarder) -> Forwarder {
        // `Err` cannot happen: `validate` has refused it.
        let rate = self.connection_rate().ok().flatten();
        apply_if_some(forwarder, rate, Forwarder::accept_rate)
    }

    /// Returns the capacity and the timeout of the queue.
    pub(crate) fn queue_limits(&self) -> Option<(usize, Duration)> {
        self.queue.map(|queue| (queue.capacity, queue.timeout.0))
    }

    fn configure_timeouts(&self, forwarder: Forwarder) -> Forwarder {
        let limit =
            |timeout: Option<DurationOrNever>| timeout.map(|DurationOrNever(timeout)| timeout);
        let forwarder =
            apply_duration_if_some(forwarder, self.connect_timeout, Forwarder::connect_timeout);
        let forwarder =
            apply_duration_if_some(forwarder, self.connect_deadline, Forwarder::connect_deadline);
        let forwarder = apply_if_some(forwarder, limit(self.idle_timeout), Forwarder::idle_timeout);
        let forwarder = apply_if_some(
            forwarder,
            limit(self.half_closed_timeout),
            Forwarder::half_closed_timeout,
        );
        apply_if_some(forwarder, limit(self.total_timeout), Forwarder::total_timeout)
    }

    /// Returns the limit of each listener's open connections.
    pub(crate) fn connection_limit(&self) -> usize {
        self.options().max_connections
    }

    /// Returns the options whose values have a range.
    fn options(&self) -> TcpOptions {
        let mut options = TcpOptions::default();
        if let Some(connections) = self.max_connections {
            options.max_connections = connections;
        }
        options.max_connections_per_client = self.max_connections_per_client;
        if let Some(bits) = self.client_prefix {
            options.client_prefixes.ipv4 = bits;
        }
        if let Some(bits) = self.client_prefix_v6 {
            options.client_prefixes.ipv6 = bits;
        }
        if let Some(attempts) = self.connect_attempts {
            options.connect_attempts = attempts;
        }
        let sockets = &mut options.socket_options;
        sockets.keepalive = self.keepalive.map(|HumanDuration(idle)| idle);
        sockets.user_timeout = self.user_timeout.map(|HumanDuration(timeout)| timeout);
        if let Some(pending) = self.fastopen {
            sockets.fastopen = pending;
        }
        options
    }

    /// Returns the PROXY header that checks of the servers send.
    pub(crate) fn check_proxy_header(&self) -> Option<CheckProxyHeader> {
        self.send_proxy.map(|version| match version {
            ProxyVersionConfig::V1 => CheckProxyHeader::V1,
            ProxyVersionConfig::V2 => CheckProxyHeader::V2,
        })
    }

    fn proxy_header(&self) -> Option<ProxyHeaderOptions> {
        let options = match self.send_proxy? {
            ProxyVersionConfig::V1 => ProxyHeaderOptions::v1(),
            ProxyVersionConfig::V2 => ProxyHeaderOptions::v2(),
        };
        Some(options.unique_id(self.proxy_unique_id).checksum(self.proxy_checksum))
    }

    fn connection_rate(&self) -> Result<Option<ConnectionRate>, SettingError> {
        let Some(per_second) = self.accept_rate else { return Ok(None) };
        let rate = ConnectionRate::new(per_second)?;
        self.accept_burst.map_or(Ok(rate), |burst| rate.with_burst(burst)).map(Some)
    }

    fn connect_source(&self) -> Option<SourceAddress> {
        let OneOrMany(sources) = self.source.as_ref()?;
        let addresses: Option<Vec<_>> = sources.iter().map(|source| source.0).collect();
        Some(addresses.map_or(SourceAddress::Client, SourceAddress::Addresses))
    }
}
