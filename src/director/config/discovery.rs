//! Where real servers come from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::error::{ConfigProblem, KeyPathSegment};
use super::value::HumanDuration;
use crate::discovery::{DnsSource, FileSource};

/// `discovery`: servers that come and go by themselves.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiscoveryConfig {
    /// A file with a server a line.
    file: Option<PathBuf>,
    /// The addresses of a name, each with this port.
    dns: Option<String>,
    port: Option<u16>,
    /// The targets of a service's records.
    srv: Option<String>,
    /// How often a file is looked at; the least time between two questions.
    interval: Option<HumanDuration>,
    #[serde(default)]
    name_servers: Vec<SocketAddr>,
    /// Believes a source that says that there are no servers at all.
    #[serde(default)]
    pub(crate) allow_empty: bool,
    /// How long servers that are no longer named may take to end their connections.
    pub(crate) drain: Option<HumanDuration>,
}

/// Where servers come from.
#[derive(Debug)]
pub(crate) enum ConfiguredSource {
    File(FileSource),
    Dns(DnsSource),
}

impl DiscoveryConfig {
    pub(crate) fn build_source(&self) -> Result<ConfiguredSource, ConfigProblem> {
        let wrong = |key, what: &str| ConfigProblem::new([KeyPathSegment::Key(key)], what);
        let dns = |made: Result<DnsSource, _>, key| {
            let made = made.map_err(|error: crate::discovery::DiscoveryError| {
                wrong(key, &error.to_string())
            })?;
            let made = match &*self.name_servers {
                [] => made,
                servers => made.name_servers(servers.iter().copied()),
            };
            Ok(ConfiguredSource::Dns(match self.interval {
                Some(HumanDuration(least)) => {
                    made.refresh_between(least, least.max(DEFAULT_MAX_REFRESH))
                }
                None => made,
            }))
        };
        if self.port.is_some() != self.dns.is_some() {
            return Err(wrong("port", "`dns` and `port` go together"));
        }
        match (&self.file, &self.dns, &self.srv) {
            (Some(path), None, None) if self.name_servers.is_empty() => {
                let source = FileSource::new(path);
                Ok(ConfiguredSource::File(match self.interval {
                    Some(HumanDuration(interval)) => source.interval(interval),
                    None => source,
                }))
            }
            (Some(_), None, None) => Err(wrong("name_servers", "a file needs none")),
            (None, Some(name), None) => {
                dns(DnsSource::addresses(name, self.port.unwrap_or_default()), "dns")
            }
            (None, None, Some(name)) => dns(DnsSource::srv(name), "srv"),
            _ => Err(ConfigProblem::new([], "one of `file`, `dns` and `srv`")),
        }
    }
}

const DEFAULT_MAX_REFRESH: Duration = Duration::from_secs(3600);
