//! A virtual service.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Deserialize;

use super::check::CheckConfig;
use super::document::{ConfigProblem, KeyPathSegment};
use super::ejection::EjectionConfig;
use super::servers::{DiscoveryConfig, RealServer};
use super::tcp::TcpConfig;
use super::udp::UdpConfig;
use super::value::{HumanDuration, OneOrMany, apply_if_some};
use crate::backend::{FailMode, Quorum, SlowStart, SlowStartError};
use crate::balancer::{AffinityPolicy, Persistence, PersistenceBuilder};
use crate::health::HealthPlan;
use crate::scheduler::SchedulerRegistry;

/// `[[service]]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceConfig {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) listen: OneOrMany<ListenAddress>,
    #[serde(default)]
    pub(crate) protocol: ServiceProtocol,
    #[serde(default = "default_scheduler")]
    pub(crate) scheduler: String,
    #[serde(default)]
    pub(crate) engine: EngineKind,
    pub(crate) workers: Option<NonZeroUsize>,
    pub(crate) persistence: Option<PersistenceConfig>,
    #[serde(default)]
    pub(crate) health: OneOrMany<CheckConfig>,
    pub(crate) ejection: Option<EjectionConfig>,
    pub(crate) slow_start: Option<SlowStartConfig>,
    #[serde(default)]
    pub(crate) fail_mode: FailModeConfig,
    pub(crate) quorum: Option<QuorumConfig>,
    pub(crate) sorry_server: Option<SocketAddr>,
    #[serde(default)]
    pub(crate) tcp: TcpConfig,
    #[serde(default)]
    pub(crate) udp: UdpConfig,
    #[serde(default, rename = "server")]
    pub(crate) servers: Vec<RealServer>,
    pub(crate) discovery: Option<DiscoveryConfig>,
}

fn default_scheduler() -> String {
    "wlc".to_owned()
}

/// Where clients come: an address and a port, or `unix:` and a path.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub(crate) enum ListenAddress {
    Address(SocketAddr),
    Unix(PathBuf),
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.parse().map(Self::Address);
        address.map_err(|_| format!("{text:?} is no address with a port, as in \"10.0.0.1:80\""))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is carried.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServiceProtocol {
    #[default]
    Tcp,
    Udp,
}

/// What carries it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineKind {
    #[default]
    Proxy,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersistenceConfig {
    timeout: HumanDuration,
    /// Bits of an IPv4 client that count, and of an IPv6 one.
    netmask: Option<u8>,
    netmask_v6: Option<u8>,
    capacity: Option<usize>,
    draining: Option<AffinityConfig>,
    quiesced: Option<AffinityConfig>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum AffinityConfig {
    Ends,
    RunsOut,
    Stays,
}

impl From<AffinityConfig> for AffinityPolicy {
    fn from(config: AffinityConfig) -> Self {
        match config {
            AffinityConfig::Ends => Self::End,
            AffinityConfig::RunsOut => Self::Expire,
            AffinityConfig::Stays => Self::Keep,
        }
    }
}

impl PersistenceConfig {
    pub(crate) fn persistence_builder(&self) -> PersistenceBuilder {
        let HumanDuration(timeout) = self.timeout;
        let it = apply_if_some(
            Persistence::builder(timeout),
            self.netmask,
            PersistenceBuilder::ipv4_prefix,
        );
        let it = apply_if_some(it, self.netmask_v6, PersistenceBuilder::ipv6_prefix);
        let it = apply_if_some(it, self.capacity, PersistenceBuilder::capacity);
        let draining = self.draining.map(AffinityPolicy::from);
        let it = apply_if_some(it, draining, PersistenceBuilder::draining);
        apply_if_some(it, self.quiesced.map(AffinityPolicy::from), PersistenceBuilder::quiesced)
    }
}

/// How the share of a server grows that has come back.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlowStartConfig {
    window: HumanDuration,
    aggression: Option<f64>,
    /// In percent.
    floor: Option<u8>,
}

impl SlowStartConfig {
    /// `validate` has refused what slow start cannot use.
    pub(crate) fn to_slow_start(&self) -> SlowStart {
        self.build().unwrap_or_else(|_| SlowStart::new(self.window.0))
    }

    pub(super) fn build(&self) -> Result<SlowStart, SlowStartError> {
        let mut slow_start = SlowStart::new(self.window.0);
        if let Some(aggression) = self.aggression {
            slow_start = slow_start.with_aggression(aggression)?;
        }
        if let Some(floor) = self.floor {
            slow_start = slow_start.with_min_percent(floor)?;
        }
        Ok(slow_start)
    }
}

/// What happens when too few servers are healthy: `"closed"`, `"open"`, or a percentage below which
/// all are used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct FailModeConfig(pub(crate) FailMode);

impl<'de> Deserialize<'de> for FailModeConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FailModeVisitor;
        impl serde::de::Visitor<'_> for FailModeVisitor {
            type Value = FailModeConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"closed\", \"open\", or a percentage")
            }

            fn visit_i64<E: serde::de::Error>(self, percent: i64) -> Result<FailModeConfig, E> {
                let wrong = || E::custom(format!("{percent} is no percentage from 1 to 100"));
                let percent = u8::try_from(percent).ok().filter(|it| (1..=100).contains(it));
                percent.map(|it| FailModeConfig(FailMode::PanicBelow(it))).ok_or_else(wrong)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FailModeConfig, E> {
                match text {
                    "closed" => Ok(FailModeConfig(FailMode::Closed)),
                    "open" => Ok(FailModeConfig(FailMode::Open)),
                    _ => Err(E::unknown_variant(text, &["closed", "open"])),
                }
            }
        }
        deserializer.deserialize_any(FailModeVisitor)
    }
}

/// The weight that must be healthy for the service to count as up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuorumConfig {
    weight: u64,
    hysteresis: Option<u64>,
    #[serde(default)]
    advisory: bool,
}

impl QuorumConfig {
    pub(crate) fn to_quorum(self) -> Quorum {
        Quorum::new(self.weight)
            .with_hysteresis(self.hysteresis.unwrap_or_default())
            .with_advisory(self.advisory)
    }
}

impl ServiceConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        let wrong = |key, what: &str| Err(ConfigProblem::new([KeyPathSegment::Key(key)], what));
        let EngineKind::Proxy = self.engine;
        if let Err(error) = SchedulerRegistry::default().parse(&self.scheduler) {
            return wrong("scheduler", &error.to_string());
        }
        let mut addresses = BTreeSet::new();
        for (n, server) in self.servers.iter().enumerate() {
            let at = [KeyPathSegment::Key("server"), KeyPathSegment::Index(n)];
            if !addresses.insert(server.address) {
                let what = format!("{} is there twice", server.address);
                return Err(
                    ConfigProblem::new([KeyPathSegment::Key("address")], what).prefixed(&at)
                );
            }
            server.validate().map_err(|fault| fault.prefixed(&at))?;
        }
        if let Some(Err(error)) = self.slow_start.as_ref().map(SlowStartConfig::build) {
            return wrong("slow_start", &error.to_string());
        }
        if self.discovery.is_some() && !self.servers.is_empty() {
            return wrong("discovery", "there are servers already: one of the two");
        }
        match self.protocol {
            ServiceProtocol::Udp if self.sorry_server.is_some() => {
                return wrong("sorry_server", "services of UDP have none");
            }
            ServiceProtocol::Udp if self.tcp != TcpConfig::default() => {
                return wrong("tcp", "the service is one of UDP");
            }
            ServiceProtocol::Tcp if self.udp != UdpConfig::default() => {
                return wrong("udp", "the service is one of TCP");
            }
            ServiceProtocol::Udp if self.unix_path().is_some() => {
                return wrong("listen", "services of UDP have addresses");
            }
            _ => {}
        }
        self.tcp.validate().map_err(|fault| fault.prefixed(&[KeyPathSegment::Key("tcp")]))?;
        if let Some(discovery) = &self.discovery {
            let origin = discovery.build_source().map(drop);
            origin.map_err(|fault| fault.prefixed(&[KeyPathSegment::Key("discovery")]))?;
        }
        self.health_plan().map(drop)
    }

    fn unix_path(&self) -> Option<&PathBuf> {
        self.listen.0.iter().find_map(|listen| match listen {
            ListenAddress::Unix(path) => Some(path),
            ListenAddress::Address(_) => None,
        })
    }

    /// Who looks after the servers. Without checks, slow starts and ejections still move on.
    pub(crate) fn health_plan(&self) -> Result<HealthPlan, ConfigProblem> {
        let mut plan = HealthPlan::new(&*self.name);
        let OneOrMany(checks) = &self.health;
        for (n, check) in checks.iter().enumerate() {
            let at = [KeyPathSegment::Key("health"), KeyPathSegment::Index(n)];
            plan = plan.check(check.to_checks().map_err(|fault| fault.prefixed(&at))?);
            let sound = plan.validate();
            sound.map_err(|error| ConfigProblem::new(at, error.to_string()))?;
        }
        if let Some(ejection) = &self.ejection {
            let policy = ejection.to_ejection().map_err(|error| {
                ConfigProblem::new([KeyPathSegment::Key("ejection")], error.to_string())
            })?;
            plan = plan.ejection(policy);
        }
        Ok(plan)
    }

    /// Threads that carry it.
    pub(crate) fn effective_workers(&self, whole: Option<NonZeroUsize>) -> Option<usize> {
        self.workers.or(whole).map(usize::from)
    }
}
