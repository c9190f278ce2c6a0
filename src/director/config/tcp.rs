//! How connections of TCP are carried.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use super::error::{ConfigProblem, KeyPathSegment};
use super::value::{
    DurationOrNever, HumanDuration, OneOrMany, apply_duration_if_some, apply_if_some,
};
use crate::Balancer;
use crate::forward::sni::ServerNameTable;
use crate::forward::{ConnectionRate, Forwarder, ProxyHeaderOptions, SourceAddress};

/// `[service.tcp]`: what is left out is as [`Forwarder`] has it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct TcpConfig {
    max_connections: Option<usize>,
    max_connections_per_client: Option<u32>,
    client_prefix: Option<u8>,
    client_prefix_v6: Option<u8>,
    accept_rate: Option<u32>,
    accept_burst: Option<u32>,
    queue: Option<TcpQueueConfig>,
    connect_timeout: Option<HumanDuration>,
    connect_deadline: Option<HumanDuration>,
    connect_attempts: Option<u32>,
    idle_timeout: Option<DurationOrNever>,
    half_closed_timeout: Option<DurationOrNever>,
    total_timeout: Option<DurationOrNever>,
    #[serde(default)]
    cut_on_down: bool,
    keepalive: Option<HumanDuration>,
    user_timeout: Option<HumanDuration>,
    fastopen: Option<u32>,
    #[serde(default)]
    fastopen_servers: bool,
    source: Option<OneOrMany<SourceAddressConfig>>,
    accept_proxy: Option<HumanDuration>,
    send_proxy: Option<ProxyVersionConfig>,
    #[serde(default)]
    proxy_unique_id: bool,
    #[serde(default)]
    proxy_checksum: bool,
    /// The name that a TLS client asks for is the key.
    #[serde(default)]
    key_by_server_name: bool,
    /// Services by the name that a TLS client asks for; `*` is for all others.
    #[serde(default)]
    server_names: BTreeMap<String, String>,
    hello_timeout: Option<HumanDuration>,
}

/// Who may wait for a server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
struct TcpQueueConfig {
    capacity: usize,
    patience: HumanDuration,
}

/// The address that servers see: one of this machine's, or the client's own.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
struct SourceAddressConfig(Option<IpAddr>);

impl TryFrom<String> for SourceAddressConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "client" {
            return Ok(Self(None));
        }
        let address = text.parse().map(|address| Self(Some(address)));
        address.map_err(|_| format!("{text:?} is no address, and not \"client\""))
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ProxyVersionConfig {
    V1,
    V2,
}

/// How long a client may take for its ClientHello, unless that is said.
const DEFAULT_CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(5);

impl TcpConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        let wrong = |key, what: &str| Err(ConfigProblem::new([KeyPathSegment::Key(key)], what));
        if self.accept_burst.is_some() && self.accept_rate.is_none() {
            return wrong("accept_burst", "of which `accept_rate`?");
        }
        let is_plain = self.send_proxy != Some(ProxyVersionConfig::V2);
        if is_plain && self.proxy_unique_id {
            return wrong("proxy_unique_id", "only `send_proxy = \"v2\"` has it");
        }
        if is_plain && self.proxy_checksum {
            return wrong("proxy_checksum", "only `send_proxy = \"v2\"` has it");
        }
        if self.hello_timeout.is_some() && !self.key_by_server_name && self.server_names.is_empty()
        {
            return wrong("hello_timeout", "nothing asks for a server name");
        }
        let origins = self.source.as_ref().map_or(&[][..], |OneOrMany(all)| all);
        if origins.len() > 1 && origins.contains(&SourceAddressConfig(None)) {
            return wrong("source", "either \"client\" or addresses");
        }
        self.server_name_map(&|_| Some(())).map(drop)
    }

    /// The services that server names lead to.
    pub(crate) fn routed_services(&self) -> impl Iterator<Item = &String> {
        self.server_names.values()
    }

    fn server_name_map<V>(
        &self,
        value: &dyn Fn(&str) -> Option<V>,
    ) -> Result<ServerNameTable<V>, ConfigProblem> {
        let wrong = |what: String| ConfigProblem::new([KeyPathSegment::Key("server_names")], what);
        let mut names = ServerNameTable::new();
        for (pattern, service) in &self.server_names {
            let value = value(service).ok_or_else(|| wrong(format!("no service {service:?}")))?;
            if pattern == "*" {
                names = names.with_default(value);
            } else {
                names.insert(pattern, value).map_err(|error| wrong(error.to_string()))?;
            }
        }
        Ok(names)
    }

    /// Sets a forwarder up. `balancer` finds that of another service.
    pub(crate) fn configure(
        &self,
        forwarder: Forwarder,
        balancer: &dyn Fn(&str) -> Option<Balancer<SocketAddr>>,
    ) -> Forwarder {
        let it = apply_if_some(forwarder, self.max_connections, Forwarder::max_connections);
        let it = apply_if_some(
            it,
            self.max_connections_per_client,
            Forwarder::max_connections_per_client,
        );
        let (v4, v6) = (self.client_prefix.unwrap_or(32), self.client_prefix_v6.unwrap_or(64));
        let it = it.client_prefixes(v4, v6);
        let rate = self.accept_rate.map(ConnectionRate::per_second);
        let it = apply_if_some(
            it,
            rate.map(|it| apply_if_some(it, self.accept_burst, ConnectionRate::burst)),
            Forwarder::accept_rate,
        );
        let it =
            apply_if_some(it, self.queue, |it, queue| it.queue(queue.capacity, queue.patience.0));
        let it = apply_duration_if_some(it, self.accept_proxy, Forwarder::accept_proxy);
        let it = apply_if_some(it, self.proxy_header(), Forwarder::send_proxy);
        let it = apply_if_some(it, self.connect_source(), Forwarder::source);
        let it = apply_if_some(it, self.fastopen, Forwarder::fastopen);
        let it = it.cut_on_down(self.cut_on_down).fastopen_backends(self.fastopen_servers);
        let it = self.configure_timeouts(it);
        let HumanDuration(hello) =
            self.hello_timeout.unwrap_or(HumanDuration(DEFAULT_CLIENT_HELLO_TIMEOUT));
        let it = if self.key_by_server_name { it.key_by_server_name(hello) } else { it };
        match self.server_name_map(balancer) {
            Ok(names) if !self.server_names.is_empty() => it.services_by_server_name(hello, names),
            // That they are there was checked with the configuration.
            _ => it,
        }
    }

    /// How long everything may take.
    fn configure_timeouts(&self, forwarder: Forwarder) -> Forwarder {
        let until = |patience: Option<DurationOrNever>| patience.map(|DurationOrNever(time)| time);
        let it =
            apply_duration_if_some(forwarder, self.connect_timeout, Forwarder::connect_timeout);
        let it = apply_duration_if_some(it, self.connect_deadline, Forwarder::connect_deadline);
        let it = apply_if_some(it, self.connect_attempts, Forwarder::connect_attempts);
        let it = apply_if_some(it, until(self.idle_timeout), Forwarder::idle_timeout);
        let it = apply_if_some(it, until(self.half_closed_timeout), Forwarder::half_closed_timeout);
        let it = apply_if_some(it, until(self.total_timeout), Forwarder::total_timeout);
        let it = apply_duration_if_some(it, self.keepalive, Forwarder::keepalive);
        apply_duration_if_some(it, self.user_timeout, Forwarder::user_timeout)
    }

    fn proxy_header(&self) -> Option<ProxyHeaderOptions> {
        let out = match self.send_proxy? {
            ProxyVersionConfig::V1 => ProxyHeaderOptions::v1(),
            ProxyVersionConfig::V2 => ProxyHeaderOptions::v2(),
        };
        let out = if self.proxy_unique_id { out.unique_id() } else { out };
        Some(if self.proxy_checksum { out.checksum() } else { out })
    }

    fn connect_source(&self) -> Option<SourceAddress> {
        let OneOrMany(origins) = self.source.as_ref()?;
        let addresses: Option<Vec<_>> = origins.iter().map(|origin| origin.0).collect();
        Some(addresses.map_or(SourceAddress::Client, SourceAddress::Addresses))
    }
}
