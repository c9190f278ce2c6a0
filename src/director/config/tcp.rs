//! How connections of TCP are carried.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use super::document::{Fault, Step};
use super::value::{Patience, Several, Time, put, put_time};
use crate::Balancer;
use crate::forward::sni::Names;
use crate::forward::{Forwarder, ProxyOut, Rate, Source};

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
    queue: Option<QueueConfig>,
    connect_timeout: Option<Time>,
    connect_deadline: Option<Time>,
    connect_attempts: Option<u32>,
    idle_timeout: Option<Patience>,
    half_closed_timeout: Option<Patience>,
    total_timeout: Option<Patience>,
    #[serde(default)]
    cut_on_down: bool,
    keepalive: Option<Time>,
    user_timeout: Option<Time>,
    fastopen: Option<u32>,
    #[serde(default)]
    fastopen_servers: bool,
    source: Option<Several<Origin>>,
    accept_proxy: Option<Time>,
    send_proxy: Option<ProxyVersion>,
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
    hello_timeout: Option<Time>,
}

/// Who may wait for a server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
struct QueueConfig {
    capacity: usize,
    patience: Time,
}

/// The address that servers see: one of this machine's, or the client's own.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
struct Origin(Option<IpAddr>);

impl TryFrom<String> for Origin {
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
enum ProxyVersion {
    V1,
    V2,
}

/// How long a client may take for its ClientHello, unless that is said.
const HELLO: Duration = Duration::from_secs(5);

impl TcpConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        let wrong = |key, what: &str| Err(Fault::new([Step::Key(key)], what));
        if self.accept_burst.is_some() && self.accept_rate.is_none() {
            return wrong("accept_burst", "of which `accept_rate`?");
        }
        let is_plain = self.send_proxy != Some(ProxyVersion::V2);
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
        let origins = self.source.as_ref().map_or(&[][..], |Several(all)| all);
        if origins.len() > 1 && origins.contains(&Origin(None)) {
            return wrong("source", "either \"client\" or addresses");
        }
        self.names(&|_| Some(())).map(drop)
    }

    /// The services that server names lead to.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &String> {
        self.server_names.values()
    }

    fn names<V>(&self, value: &dyn Fn(&str) -> Option<V>) -> Result<Names<V>, Fault> {
        let wrong = |what: String| Fault::new([Step::Key("server_names")], what);
        let mut names = Names::new();
        for (pattern, service) in &self.server_names {
            let value = value(service).ok_or_else(|| wrong(format!("no service {service:?}")))?;
            if pattern == "*" {
                names = names.or(value);
            } else {
                names.insert(pattern, value).map_err(|error| wrong(error.to_string()))?;
            }
        }
        Ok(names)
    }

    /// Sets a forwarder up. `balancer` finds that of another service.
    pub(crate) fn set_up(
        &self,
        forwarder: Forwarder,
        balancer: &dyn Fn(&str) -> Option<Balancer<SocketAddr>>,
    ) -> Forwarder {
        let it = put(forwarder, self.max_connections, Forwarder::max_connections);
        let it = put(it, self.max_connections_per_client, Forwarder::max_connections_per_client);
        let (v4, v6) = (self.client_prefix.unwrap_or(32), self.client_prefix_v6.unwrap_or(64));
        let it = it.client_prefixes(v4, v6);
        let rate = self.accept_rate.map(Rate::per_second);
        let it =
            put(it, rate.map(|it| put(it, self.accept_burst, Rate::burst)), Forwarder::accept_rate);
        let it = put(it, self.queue, |it, queue| it.queue(queue.capacity, queue.patience.0));
        let it = put_time(it, self.accept_proxy, Forwarder::accept_proxy);
        let it = put(it, self.send_proxy(), Forwarder::send_proxy);
        let it = put(it, self.source(), Forwarder::source);
        let it = put(it, self.fastopen, Forwarder::fastopen);
        let it = it.cut_on_down(self.cut_on_down).fastopen_backends(self.fastopen_servers);
        let it = self.time(it);
        let Time(hello) = self.hello_timeout.unwrap_or(Time(HELLO));
        let it = if self.key_by_server_name { it.key_by_server_name(hello) } else { it };
        match self.names(balancer) {
            Ok(names) if !self.server_names.is_empty() => it.services_by_server_name(hello, names),
            // That they are there was checked with the configuration.
            _ => it,
        }
    }

    /// How long everything may take.
    fn time(&self, forwarder: Forwarder) -> Forwarder {
        let until = |patience: Option<Patience>| patience.map(|Patience(time)| time);
        let it = put_time(forwarder, self.connect_timeout, Forwarder::connect_timeout);
        let it = put_time(it, self.connect_deadline, Forwarder::connect_deadline);
        let it = put(it, self.connect_attempts, Forwarder::connect_attempts);
        let it = put(it, until(self.idle_timeout), Forwarder::idle_timeout);
        let it = put(it, until(self.half_closed_timeout), Forwarder::half_closed_timeout);
        let it = put(it, until(self.total_timeout), Forwarder::total_timeout);
        let it = put_time(it, self.keepalive, Forwarder::keepalive);
        put_time(it, self.user_timeout, Forwarder::user_timeout)
    }

    fn send_proxy(&self) -> Option<ProxyOut> {
        let out = match self.send_proxy? {
            ProxyVersion::V1 => ProxyOut::v1(),
            ProxyVersion::V2 => ProxyOut::v2(),
        };
        let out = if self.proxy_unique_id { out.with_unique_id() } else { out };
        Some(if self.proxy_checksum { out.with_checksum() } else { out })
    }

    fn source(&self) -> Option<Source> {
        let Several(origins) = self.source.as_ref()?;
        let addresses: Option<Vec<_>> = origins.iter().map(|origin| origin.0).collect();
        Some(addresses.map_or(Source::Client, Source::Addresses))
    }
}
