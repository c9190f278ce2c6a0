//! A virtual service and its real servers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::document::{Fault, Step};
use super::{duration, some_duration};
use crate::balancer::{Persistence, PersistenceBuilder};
use crate::health::{Checks, Ejection, HttpCheck, Plan, TcpCheck};
use crate::scheduler::Registry;

/// `[[service]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::director) struct ServiceConfig {
    pub(in crate::director) name: String,
    pub(in crate::director) listen: SocketAddr,
    #[serde(default)]
    pub(in crate::director) protocol: Protocol,
    #[serde(default = "wlc")]
    pub(in crate::director) scheduler: String,
    #[serde(default)]
    engine: Engine,
    persistence: Option<PersistenceConfig>,
    health: Option<CheckConfig>,
    pub(in crate::director) sorry_server: Option<SocketAddr>,
    #[serde(default, rename = "server")]
    pub(in crate::director) servers: Vec<ServerConfig>,
}

fn wlc() -> String {
    "wlc".to_owned()
}

/// What is carried.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
pub(in crate::director) enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// What carries it.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Engine {
    #[default]
    Proxy,
}

/// `[[service.server]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::director) struct ServerConfig {
    pub(in crate::director) address: SocketAddr,
    #[serde(default = "one")]
    pub(in crate::director) weight: u32,
    pub(in crate::director) max_connections: Option<u32>,
}

const fn one() -> u32 {
    1
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PersistenceConfig {
    #[serde(deserialize_with = "duration")]
    timeout: Duration,
    /// Bits of an IPv4 client that count, and of an IPv6 one.
    netmask: Option<u8>,
    netmask_v6: Option<u8>,
}

/// How servers are checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckConfig {
    #[serde(rename = "type")]
    kind: CheckKind,
    path: Option<String>,
    /// The statuses that will do, `[from, to]`.
    status: Option<[u16; 2]>,
    #[serde(default, deserialize_with = "some_duration")]
    interval: Option<Duration>,
    #[serde(default, deserialize_with = "some_duration")]
    timeout: Option<Duration>,
    rise: Option<u32>,
    fall: Option<u32>,
    /// Takes out servers whose traffic fails.
    #[serde(default)]
    eject: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum CheckKind {
    Tcp,
    Http,
}

impl ServiceConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        let wrong = |key, what: &str| Fault::new([Step::Key(key)], what);
        let Engine::Proxy = self.engine;
        if let Err(error) = Registry::default().parse(&self.scheduler) {
            return Err(wrong("scheduler", &error.to_string()));
        }
        let mut addresses = BTreeSet::new();
        for (n, server) in self.servers.iter().enumerate() {
            if !addresses.insert(server.address) {
                let path = [Step::Key("server"), Step::Nth(n), Step::Key("address")];
                return Err(Fault::new(path, format!("{} is there twice", server.address)));
            }
        }
        if self.protocol == Protocol::Udp && self.sorry_server.is_some() {
            return Err(wrong("sorry_server", "services of UDP have none"));
        }
        self.plan().map(drop).map_err(|what| wrong("health", &what))
    }

    /// Who looks after the servers, if they are looked after.
    pub(in crate::director) fn plan(&self) -> Result<Option<Plan>, String> {
        let Some(health) = &self.health else { return Ok(None) };
        let mut checks = match (health.kind, &health.path) {
            (CheckKind::Tcp, Some(_)) => return Err("`path` is for type \"http\"".to_owned()),
            (CheckKind::Tcp, None) => Checks::new(TcpCheck::new()),
            (CheckKind::Http, path) => {
                let path = path.as_deref().unwrap_or("/");
                let check = HttpCheck::get(path).map_err(|error| error.to_string())?;
                Checks::new(match health.status {
                    Some([from, to]) => check.accept(RangeInclusive::new(from, to)),
                    None => check,
                })
            }
        };
        if let Some(interval) = health.interval {
            checks = checks.interval(interval);
        }
        // Without a word about it, a check may take as long as there is until the next.
        if let Some(timeout) = health.timeout.or(health.interval) {
            checks = checks.timeout(timeout);
        }
        if let Some(rise) = health.rise {
            checks = checks.rise(rise);
        }
        if let Some(fall) = health.fall {
            checks = checks.fall(fall);
        }
        let plan = Plan::new(&*self.name).check(checks);
        let plan = if health.eject { plan.eject(Ejection::new()) } else { plan };
        plan.validate().map_err(|error| error.to_string())?;
        Ok(Some(plan))
    }

    pub(in crate::director) fn persistence(&self) -> Option<PersistenceBuilder> {
        self.persistence.as_ref().map(|asked| {
            Persistence::new(asked.timeout)
                .ipv4_prefix(asked.netmask.unwrap_or(32))
                .ipv6_prefix(asked.netmask_v6.unwrap_or(128))
        })
    }
}
