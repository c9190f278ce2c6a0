//! The `discovery` table.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::error::ConfigProblem;
use super::table::config_table;
use super::value::HumanDuration;
use crate::discovery::{DiscoveryError, DnsSource, FileSource};

config_table! {
/// A builder of a [`DiscoveryConfig`].
builder DiscoveryConfigBuilder;

/// The source of a service's servers, in place of `[[service.server]]` tables.
///
/// Exactly one of `file`, `dns` and `srv` is required. A source that fails changes nothing: the last
/// known servers go on. A reload that changes the table keeps the servers that the new source names
/// too.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct DiscoveryConfig {
    /// A file that lists the servers, one per line: an address with a port, and optional settings
    /// such as `weight=3`. A changed file is read again. Default: none.
    file: Option<PathBuf>,
    /// A DNS name; its A and AAAA records, each with `port`, are the servers. Default: none.
    dns: Option<String>,
    /// The port of the servers that `dns` finds; required with `dns`, and refused without it.
    /// Default: none.
    port: Option<u16>,
    /// A DNS name with SRV records, such as `"_http._tcp.example.org"`; they name addresses, ports
    /// and weights. Default: none.
    srv: Option<String>,
    /// `file`: the time between two reads of the file, at least 100 ms. `dns` and `srv`: the minimum
    /// time between two queries; otherwise the records' TTL counts. Default: `"1s"`.
    interval: Option<HumanDuration>,
    /// `dns` and `srv`: the maximum time between two queries, however long the records' TTL; at least
    /// `interval`. Default: `"1h"`, or `interval` if that is longer.
    max_interval: Option<HumanDuration>,
    /// `dns` and `srv`: the name servers to query; search domains and `/etc/hosts` do not count
    /// then. Default: those of the system, from `/etc/resolv.conf`.
    #[serde(default)]
    name_servers: Vec<SocketAddr>,
    /// Accepts an empty list and removes all servers: an empty file, a name that does not exist or has
    /// no addresses, a service that is not available. Default: `false`, an empty list is a failure.
    #[serde(default)]
    pub(crate) allow_empty: bool,
    /// How long a server that is no longer named may finish its connections before it is removed.
    /// Default: `"5m"`.
    pub(crate) drain: Option<HumanDuration>,
}
}

/// A source of servers, ready to run.
#[derive(Debug)]
pub(crate) enum ConfiguredSource {
    File(FileSource),
    Dns(Box<DnsSource>),
}

impl DiscoveryConfig {
    /// Returns a builder without a source: one of `file`, `dns` and `srv` must be set.
    pub fn builder() -> DiscoveryConfigBuilder {
        let table = Self {
            file: None,
            dns: None,
            port: None,
            srv: None,
            interval: None,
            max_interval: None,
            name_servers: Vec::new(),
            allow_empty: false,
            drain: None,
        };
        DiscoveryConfigBuilder { table }
    }

    pub(crate) fn build_source(&self) -> Result<ConfiguredSource, ConfigProblem> {
        if self.port.is_some() != self.dns.is_some() {
            return Err(ConfigProblem::at_key("port", "`dns` and `port` require each other"));
        }
        match (&self.file, &self.dns, &self.srv) {
            (Some(_), None, None) if self.max_interval.is_some() => {
                Err(ConfigProblem::at_key("max_interval", "`file` has no TTL: `interval` counts"))
            }
            (Some(path), None, None) if self.name_servers.is_empty() => {
                let source = FileSource::new(path);
                Ok(ConfiguredSource::File(match self.interval {
                    Some(HumanDuration(interval)) => source
                        .interval(interval)
                        .map_err(|error| ConfigProblem::of_setting(error, &[]))?,
                    None => source,
                }))
            }
            (Some(_), None, None) => {
                Err(ConfigProblem::at_key("name_servers", "`file` uses no name servers"))
            }
            (None, Some(name), None) => {
                self.dns_source(DnsSource::addresses(name, self.port.unwrap_or_default()), "dns")
            }
            (None, None, Some(name)) => self.dns_source(DnsSource::srv(name), "srv"),
            _ => Err(ConfigProblem::new([], "exactly one of `file`, `dns` and `srv` is required")),
        }
    }

    fn dns_source(
        &self,
        source: Result<DnsSource, DiscoveryError>,
        key: &'static str,
    ) -> Result<ConfiguredSource, ConfigProblem> {
        let mut source = source.map_err(|error| ConfigProblem::at_key(key, error.to_string()))?;
        if !self.name_servers.is_empty() {
            source = source.name_servers(self.name_servers.iter().copied());
        }
        if let Some(scoped) = self.name_servers.iter().find(|server| has_scope(server)) {
            let reason = format!("{scoped} has a scope: link-local name servers are not supported");
            return Err(ConfigProblem::at_key("name_servers", reason));
        }
        let min = self.interval.map_or(DEFAULT_MIN_REFRESH, |HumanDuration(min)| min);
        let default_max = min.max(DEFAULT_MAX_REFRESH);
        let max = self.max_interval.map_or(default_max, |HumanDuration(max)| max);
        source = source.refresh_between(min, max).map_err(|mut error| {
            error.setting = "max_interval";
            ConfigProblem::of_setting(error, &[])
        })?;
        if self.allow_empty {
            source = source.allow_empty();
        }
        Ok(ConfiguredSource::Dns(Box::new(source)))
    }
}

fn has_scope(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(address) if address.scope_id() != 0)
}

const DEFAULT_MIN_REFRESH: Duration = Duration::from_secs(1);
const DEFAULT_MAX_REFRESH: Duration = Duration::from_secs(3600);
