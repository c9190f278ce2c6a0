//! The `[[service]]` tables.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Deserialize;

use super::availability::{FailModeConfig, QuorumConfig};
use super::check::CheckConfig;
use super::custom::ServiceOnEnd;
use super::discovery::DiscoveryConfig;
use super::ejection::EjectionConfig;
use super::engine::{EngineKind, ServerMethod};
use super::engine_refusals::validate_engines;
use super::error::{ConfigProblem, ConfigProblems, KeyPathSegment};
use super::listen::{ListenAddress, ServiceProtocol};
use super::notify::NotifyCommandList;
use super::persistence::PersistenceConfig;
use super::real_server::RealServer;
use super::scheduler::SchedulerConfig;
use super::slow_start::SlowStartConfig;
use super::table::{Tables, config_table};
use super::tcp::TcpConfig;
use super::udp::UdpConfig;
use super::value::{OneOrMany, deserialize_some_address};
use crate::backend::InitialHealthRule;
use crate::forward::{ConnectionRecord, validate_workers};
use crate::health::{HealthPlan, TimedCheck};

config_table! {
/// A builder of a [`ServiceConfig`].
builder ServiceConfigBuilder;

/// A virtual service: the addresses at which clients connect, and the servers behind them.
///
/// A reload compares services by `name` and `protocol`: it adds those that
/// are new, removes those that are gone, and changes only what differs in the others. A change of
/// the servers, the scheduler, the health checks, `slow_start`, `fail_mode` or `quorum` closes no
/// connection.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ServiceConfig {
    /// The name of the service in logs, metrics and the API. It must be unique.
    pub(crate) name: String,
    /// The addresses to listen on, or firewall marks. Without any, `server_names` or `without_tls` of another
    /// service must lead here. A reload opens new listeners, and closes those that are gone after
    /// `drain_timeout`. Default: none.
    #[serde(default)]
    pub(crate) listen: OneOrMany<ListenAddress>,
    /// Listens on addresses that this machine does not have yet (`IP_FREEBIND`), such as those that
    /// another program adds later. Default: `true` with a `[vrrp]` or an `[announce]` table, `false` without.
    pub(crate) freebind: Option<bool>,
    /// The transport protocol of the addresses. A firewall mark has packets of every protocol: `protocol` then
    /// says only whether the service may have a `tcp` or a `udp` table, and `udp.one_packet` is for the datagrams
    /// among them. Default: `"tcp"`.
    #[serde(default)]
    pub(crate) protocol: ServiceProtocol,
    /// The scheduler by its IPVS name, such as `rr`, `wrr`, `lc` or `wlc`, or by another name of
    /// this crate, with arguments if any, such as `"bounded(ring, factor=1.25)"`. Default: `"wlc"`.
    #[serde(default)]
    pub(crate) scheduler: SchedulerConfig,
    /// The engine that forwards the traffic, or a list of which the first one is used that this machine
    /// allows; each of them must be able to do all that the service asks for. A reload that changes the
    /// engine keeps connections in the engine that they have. Default: `"proxy"`.
    pub(crate) engine: Option<OneOrMany<EngineKind>>,
    /// Gives the service worker threads of its own, from 1 to 1024, so that it does not share
    /// processor time with the other services. Default: the worker threads that all services share.
    pub(crate) workers: Option<usize>,
    /// Persistence: clients return to their server. Default: none.
    pub(crate) persistence: Option<PersistenceConfig>,
    /// The health checks of each server that has no `health` of its own. With several, a server is up
    /// while none of them reports it down. Default: none, all servers are up.
    #[serde(default)]
    pub(crate) health: OneOrMany<CheckConfig>,
    /// Outlier ejection: servers whose traffic fails are taken out for a time. Default: none.
    pub(crate) ejection: Option<EjectionConfig>,
    /// Slow start of a server that comes up. Default: none.
    pub(crate) slow_start: Option<SlowStartConfig>,
    /// What happens when too few servers are healthy. `"closed"`: only healthy servers are used.
    /// `"open"`: all are used when none is healthy. A percentage from 1 to 100: all are used when
    /// fewer are healthy (Envoy's panic threshold). Default: `"closed"`.
    #[serde(default)]
    pub(crate) fail_mode: FailModeConfig,
    /// The total weight of healthy servers that the service needs. Default: none.
    pub(crate) quorum: Option<QuorumConfig>,
    /// Runs when the quorum is reached again. Requires `quorum`. Default: none.
    pub(crate) quorum_up: Option<NotifyCommandList>,
    /// Runs when the quorum is lost. Requires `quorum`. Default: none.
    pub(crate) quorum_down: Option<NotifyCommandList>,
    /// The server that takes connections and flows when no other server can. Default: none, such
    /// connections are reset and such datagrams dropped.
    #[serde(default, deserialize_with = "deserialize_some_address")]
    pub(crate) sorry_server: Option<SocketAddr>,
    /// How packets reach the sorry server; `tunnel` is IP in IP. The engine `proxy` has `nat` alone.
    /// Default: `"nat"`.
    pub(crate) sorry_server_method: Option<ServerMethod>,
    /// Settings of a TCP service. Default: an empty table.
    #[serde(default)]
    pub(crate) tcp: TcpConfig,
    /// Settings of a UDP service. Default: an empty table.
    #[serde(default)]
    pub(crate) udp: UdpConfig,
    /// The real servers. Default: none.
    #[setter(server)]
    #[serde(default, rename = "server")]
    pub(crate) servers: Tables<RealServer>,
    /// A source of real servers, in place of `server` tables. Default: none.
    pub(crate) discovery: Option<DiscoveryConfig>,
    #[setter()]
    #[serde(skip)]
    pub(crate) on_end: Option<ServiceOnEnd>,
}
}

impl ServiceConfigBuilder {
    /// Sets a callback for the record of each TCP connection that has ended, refused connections
    /// included; for an access log of the program's own. It is no key of TOML.
    ///
    /// Called on the worker thread, which relays no bytes meanwhile: move slow work to another thread.
    /// A panic of the callback is caught and logged.
    ///
    /// A reload compares callbacks by identity: a clone of the same builder has the same one. Another
    /// callback, as another option of the service, applies to new connections.
    pub fn on_end(mut self, callback: impl Fn(&ConnectionRecord) + Send + Sync + 'static) -> Self {
        self.table.on_end = Some(ServiceOnEnd::new(callback));
        self
    }
}

impl ServiceConfig {
    /// Returns a builder of a TCP service without servers, with the scheduler `wlc`.
    pub fn tcp(name: impl Into<String>) -> ServiceConfigBuilder {
        let table = Self {
            name: name.into(),
            listen: OneOrMany::default(),
            freebind: None,
            protocol: ServiceProtocol::Tcp,
            scheduler: SchedulerConfig::default(),
            engine: None,
            workers: None,
            persistence: None,
            health: OneOrMany::default(),
            ejection: None,
            slow_start: None,
            fail_mode: FailModeConfig::default(),
            quorum: None,
            quorum_up: None,
            quorum_down: None,
            sorry_server: None,
            sorry_server_method: None,
            tcp: TcpConfig::default(),
            udp: UdpConfig::default(),
            servers: Vec::new(),
            discovery: None,
            on_end: None,
        };
        ServiceConfigBuilder { table }
    }

    /// Returns a builder of a UDP service without servers, with the scheduler `wlc`.
    pub fn udp(name: impl Into<String>) -> ServiceConfigBuilder {
        Self::tcp(name).protocol(ServiceProtocol::Udp)
    }

    /// Checks the service by itself.
    pub(super) fn validate(&self) -> ConfigProblems {
        let mut problems = validate_engines(self);
        let scheduler = self.scheduler.build().map(drop);
        problems.record(
            scheduler.map_err(|error| ConfigProblem::at_key("scheduler", error.to_string())),
        );
        if let Some(workers) = self.workers {
            let checked = validate_workers(workers);
            problems.record(checked.map_err(|error| ConfigProblem::of_setting(error, &[])));
        }
        problems.record(self.fail_mode.validate());
        for (key, commands) in self.notify_commands() {
            problems.record(commands.validate(key));
            if self.quorum.is_none() {
                let reason = format!("`{key}` requires `quorum`");
                problems.record(Err(ConfigProblem::at_key(key, reason)));
            }
        }
        self.validate_servers(&mut problems);
        let in_table =
            |key| move |problem: ConfigProblem| problem.prefixed(&[KeyPathSegment::Key(key)]);
        if let Some(slow_start) = &self.slow_start {
            let checked = slow_start.to_slow_start().map(drop);
            let checked = checked.map_err(|error| ConfigProblem::of_setting(error, &[]));
            problems.record(checked.map_err(in_table("slow_start")));
        }
        problems.record(self.validate_protocol());
        problems.record(self.tcp.validate().map_err(in_table("tcp")));
        problems.record(self.udp.validate().map_err(in_table("udp")));
        if let Some(persistence) = &self.persistence {
            problems.record(persistence.validate().map_err(in_table("persistence")));
        }
        if let Some(discovery) = &self.discovery {
            problems.record(discovery.build_source().map(drop).map_err(in_table("discovery")));
        }
        problems.record(self.health_plan().map(drop));
        problems
    }

    /// Returns the engines to try, in this order.
    pub(crate) fn engines(&self) -> &[EngineKind] {
        match &self.engine {
            Some(OneOrMany(engines)) => engines,
            None => &[EngineKind::Proxy],
        }
    }

    /// Returns the keys with commands.
    pub(super) fn notify_commands(
        &self,
    ) -> impl Iterator<Item = (&'static str, &NotifyCommandList)> {
        let commands = [("quorum_up", &self.quorum_up), ("quorum_down", &self.quorum_down)];
        commands.into_iter().filter_map(|(key, commands)| Some((key, commands.as_ref()?)))
    }

    fn validate_servers(&self, problems: &mut ConfigProblems) {
        let mut addresses = BTreeSet::new();
        for (n, server) in self.servers.iter().enumerate() {
            let path = [KeyPathSegment::Key("server"), KeyPathSegment::Index(n)];
            let checked = match addresses.insert(server.address) {
                true => server.validate(),
                false => {
                    let reason = format!("another server of the service has {}", server.address);
                    Err(ConfigProblem::at_key("address", reason))
                }
            };
            problems.record(checked.map_err(|problem| problem.prefixed(&path)));
        }
        if self.discovery.is_some() && !self.servers.is_empty() {
            problems.record(Err(ConfigProblem::at_key(
                "discovery",
                "the service has `server` tables: `discovery` and `server` exclude each other",
            )));
        }
    }

    /// Refuses keys of the other protocol.
    fn validate_protocol(&self) -> Result<(), ConfigProblem> {
        let (key, reason) = match self.protocol {
            ServiceProtocol::Udp if self.on_end.is_some() => {
                ("on_end", "a UDP service has no records of connections")
            }
            ServiceProtocol::Udp if self.tcp != TcpConfig::default() => {
                ("tcp", "`tcp` is for TCP services, and this service has `protocol = \"udp\"`")
            }
            ServiceProtocol::Tcp if self.udp != UdpConfig::default() => {
                ("udp", "`udp` is for UDP services, and this service has `protocol = \"tcp\"`")
            }
            ServiceProtocol::Udp if self.has_unix_listener() => {
                ("listen", "a UDP service cannot listen on a Unix socket")
            }
            _ => return Ok(()),
        };
        Err(ConfigProblem::at_key(key, reason))
    }

    /// Returns the protocol for people: `any` for a service of firewall marks alone.
    pub(crate) fn protocol_name(&self) -> &'static str {
        let is_mark = |listen: &ListenAddress| matches!(listen, ListenAddress::Mark(_));
        match self.protocol {
            _ if !self.listen.0.is_empty() && self.listen.0.iter().all(is_mark) => "any",
            ServiceProtocol::Tcp => "tcp",
            ServiceProtocol::Udp => "udp",
        }
    }

    fn has_unix_listener(&self) -> bool {
        self.listen.0.iter().any(|listen| matches!(listen, ListenAddress::Unix(_)))
    }

    /// Builds the checks of a key `health`.
    fn build_checks(
        &self,
        OneOrMany(checks): &OneOrMany<CheckConfig>,
    ) -> Result<Vec<TimedCheck>, ConfigProblem> {
        let header = self.tcp.check_proxy_header();
        let build = |(n, config): (usize, &CheckConfig)| {
            let path = [KeyPathSegment::Key("health"), KeyPathSegment::Index(n)];
            let check = config.to_checks(header).map_err(|problem| problem.prefixed(&path))?;
            check.validate().map_err(|error| ConfigProblem::new(path, error.to_string()))?;
            Ok(match config.virtual_address {
                Some(true) => check.virtual_addresses(self.virtual_addresses()),
                Some(false) | None => check,
            })
        };
        checks.iter().enumerate().map(build).collect()
    }

    /// Returns the checks of each `health` key, with the path to it.
    pub(super) fn check_keys(
        &self,
    ) -> impl Iterator<Item = (Vec<KeyPathSegment>, &OneOrMany<CheckConfig>)> {
        let of_service = std::iter::once((Vec::new(), &self.health));
        of_service.chain(self.servers.iter().enumerate().filter_map(|(n, server)| {
            let path = vec![KeyPathSegment::Key("server"), KeyPathSegment::Index(n)];
            Some((path, server.health.as_ref()?))
        }))
    }

    /// Refuses programs of checks that this machine cannot start.
    pub(super) fn validate_programs(&self) -> ConfigProblems {
        let mut problems = ConfigProblems::default();
        for (path, OneOrMany(checks)) in self.check_keys() {
            for (n, check) in checks.iter().enumerate() {
                let key = [KeyPathSegment::Key("health"), KeyPathSegment::Index(n)];
                let checked = check.validate_program();
                problems.record(checked.map_err(|problem| problem.prefixed(&key).prefixed(&path)));
            }
        }
        problems
    }

    /// Refuses source addresses of checks that are not of the family of a server that they check.
    fn validate_check_sources(&self) -> Result<(), ConfigProblem> {
        for (n, server) in self.servers.iter().enumerate() {
            let (path, OneOrMany(checks)) = match &server.health {
                Some(checks) => {
                    (vec![KeyPathSegment::Key("server"), KeyPathSegment::Index(n)], checks)
                }
                None => (Vec::new(), &self.health),
            };
            for (n, check) in checks.iter().enumerate() {
                let key = [KeyPathSegment::Key("health"), KeyPathSegment::Index(n)];
                check
                    .validate_source(server.address.ip())
                    .map_err(|problem| problem.prefixed(&key).prefixed(&path))?;
            }
        }
        Ok(())
    }

    /// Returns the health of servers that no check has a result of.
    pub(crate) fn initial_health_rule(&self) -> InitialHealthRule {
        let own = self.servers.iter().filter_map(|server| {
            Some((server.address, CheckConfig::initial_health_of(server.health.as_ref()?)))
        });
        InitialHealthRule {
            default: CheckConfig::initial_health_of(&self.health),
            by_address: own.collect(),
        }
    }

    /// Returns whether `server_names` lead each connection to another service, so that servers of this
    /// one would get none.
    pub(crate) fn only_routes(&self) -> bool {
        let mut names = self.tcp.services_by_name().map(|(_, service)| service).peekable();
        names.peek().is_some()
            && names.chain(self.tcp.service_without_tls()).all(|service| *service != self.name)
    }

    /// Returns the keys that have no effect because no listener of the service uses them.
    pub(super) fn unused_listener_keys(&self) -> Vec<&'static str> {
        if !self.listen.0.is_empty() {
            return Vec::new();
        }
        [
            ("freebind", self.freebind.is_some()),
            ("workers", self.workers.is_some()),
            ("persistence", self.persistence.is_some()),
            ("sorry_server", self.sorry_server.is_some()),
            ("sorry_server_method", self.sorry_server_method.is_some()),
            ("tcp", !self.tcp.affects_only_checks()),
        ]
        .into_iter()
        .filter_map(|(key, is_set)| is_set.then_some(key))
        .collect()
    }

    /// Returns the health checks and ejection rules of the service.
    ///
    /// The plan is needed without any check too: it moves slow starts and ejections on.
    pub(crate) fn health_plan(&self) -> Result<HealthPlan, ConfigProblem> {
        let mut plan = HealthPlan::new(&*self.name);
        for check in self.build_checks(&self.health)? {
            plan = plan.check(check);
        }
        for (n, server) in self.servers.iter().enumerate() {
            let Some(checks) = &server.health else { continue };
            let path = [KeyPathSegment::Key("server"), KeyPathSegment::Index(n)];
            let checks = self.build_checks(checks).map_err(|problem| problem.prefixed(&path))?;
            plan = plan.backend_checks(server.address, checks);
        }
        self.validate_check_sources()?;
        if let Some(ejection) = &self.ejection {
            let path = [KeyPathSegment::Key("ejection")];
            let policy = ejection.to_ejection().map_err(|problem| problem.prefixed(&path))?;
            plan = plan.ejection(policy);
        }
        Ok(plan)
    }
}
