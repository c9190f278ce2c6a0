//! A virtual service.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Deserialize;

use super::availability::{FailModeConfig, QuorumConfig};
use super::check::CheckConfig;
use super::discovery::DiscoveryConfig;
use super::ejection::EjectionConfig;
use super::error::{ConfigProblem, KeyPathSegment};
use super::listen::{ListenAddress, ServiceProtocol};
use super::persistence::PersistenceConfig;
use super::real_server::RealServer;
use super::slow_start::SlowStartConfig;
use super::tcp::TcpConfig;
use super::udp::UdpConfig;
use super::value::OneOrMany;
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

/// What carries it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineKind {
    #[default]
    Proxy,
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
            plan = plan.ejection(ejection.to_ejection());
            let sound = plan.validate();
            sound.map_err(|error| {
                ConfigProblem::new([KeyPathSegment::Key("ejection")], error.to_string())
            })?;
        }
        Ok(plan)
    }

    /// Threads that carry it.
    pub(crate) fn effective_workers(&self, whole: Option<NonZeroUsize>) -> Option<usize> {
        self.workers.or(whole).map(usize::from)
    }
}
