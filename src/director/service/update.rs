//! The steps of a reload for one service (validate, prepare, apply), and the end of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::state::{SharedPersistence, VirtualService, VirtualServiceState};
use crate::backend::BackendSet;
use crate::balancer::Balancer;
use crate::director::check_answers::require_check_answers;
use crate::director::config::{
    EngineKind, ListenAddress, LogFormat, PacketConfig, ServiceConfig, ServiceProtocol,
    SlowStartConfig,
};
use crate::director::diff::ServiceDiff;
use crate::director::engines::EngineSet;
use crate::director::error::{DirectorError, ServiceError};
use crate::director::frontend::{Frontend, FrontendSpec, PreparedFrontend};
use crate::director::overrides::ServiceOverrides;
use crate::director::sockets::ListeningSockets;
use crate::director::supervisor::TaskSupervisor;
use crate::director::time::tokio_now;
use crate::forward::DrainReport;
use crate::forward::WorkerPool;
use crate::health::Monitor;
use crate::setting::SettingError;

/// A service's new configuration, with everything opened that may fail to open.
pub(in crate::director) struct PreparedService {
    config: ServiceConfig,
    diff: ServiceDiff,
    persistence: SharedPersistence,
    frontends: Vec<PreparedFrontend>,
    /// The engine of the new frontends; `None` if there are none.
    engine: Option<EngineKind>,
}

/// How frontends end whose address the new configuration gives to no service, or to another one.
pub(in crate::director) struct DrainPolicy {
    pub(in crate::director) drain_timeout: Duration,
    /// The addresses of the new configuration. Another frontend has the sockets of these.
    pub(in crate::director) configured_listeners: BTreeSet<(ServiceProtocol, ListenAddress)>,
}

impl DrainPolicy {
    fn drain_frontend(&self, frontend: &Frontend, protocol: ServiceProtocol) {
        match self.configured_listeners.contains(&frontend.listen.with_protocol(protocol)) {
            true => frontend.hand_over(self.drain_timeout),
            false => frontend.drain(self.drain_timeout),
        }
    }
}

/// How the services of a director end that stops.
#[derive(Clone, Copy, Debug)]
pub(in crate::director) struct DrainMode {
    /// How long connections may go on.
    pub(in crate::director) timeout: Duration,
    /// Another process serves the same sockets.
    pub(in crate::director) has_successor: bool,
    /// Services of the engine `ipvs` stay in the kernel.
    pub(in crate::director) keeps_ipvs: bool,
    /// Services of the engine `packet` stay in the kernel.
    pub(in crate::director) keeps_packet: bool,
}

/// Frontends of earlier configurations that keep their connections without a time limit; more of
/// them, the oldest first, get the drain timeout.
const MAX_RETIRED_FRONTENDS: usize = 16;

/// Options that all services share.
#[derive(Clone, Copy, Debug)]
pub(in crate::director) struct CommonServiceOptions<'a> {
    pub(in crate::director) pool: &'a WorkerPool,
    pub(in crate::director) engines: &'a EngineSet,
    /// The settings of a packet engine that does not run yet.
    pub(in crate::director) packet: &'a PacketConfig,
    /// Whether to bind addresses that this machine may not have yet, if the service does not say.
    pub(in crate::director) freebind: bool,
    /// The format of the log line of each connection or flow that ends; `None` for no line.
    pub(in crate::director) log_connections: Option<LogFormat>,
    /// The interfaces of the virtual addresses of `[vrrp]`.
    pub(in crate::director) virtual_interfaces: &'a BTreeMap<IpAddr, String>,
}

/// Checks that a service of this configuration can run, but for its sockets.
pub(in crate::director) fn check_service(config: &ServiceConfig) -> Result<(), DirectorError> {
    let service = VirtualService::new(config, ServiceOverrides::default());
    let checked = service.and_then(|service| service.validate_checks(config));
    checked.map_err(|source| DirectorError::Service { service: config.name.clone(), source })
}

impl VirtualService {
    /// Returns a service with its servers, without health checks, discovery and frontends.
    pub(in crate::director) fn new(
        config: &ServiceConfig,
        overrides: ServiceOverrides,
    ) -> Result<Self, ServiceError> {
        let set = BackendSet::new();
        let balancer = Balancer::new(&set, config.scheduler.build()?)?;
        let service = Self::without_servers(config, balancer);
        service.apply_set_rules(config)?;
        {
            let mut state = service.lock_state();
            state.persistence = service.build_persistence(&state, config)?;
            service.set_initial_health(config);
            service.apply_servers(&mut state, config.servers.clone(), overrides)?;
        }
        Ok(service)
    }

    /// Checks that another configuration, with the operator's changes, is possible.
    pub(in crate::director) fn validate(&self, config: &ServiceConfig) -> Result<(), ServiceError> {
        let overrides = self.lock_state().rebased_overrides(config);
        Self::new(config, overrides)?.validate_checks(config)
    }

    /// Checks that the health checks of another configuration can check its servers.
    fn validate_checks(&self, config: &ServiceConfig) -> Result<(), ServiceError> {
        let plan = config.health_plan().map_err(|problem| ServiceError::Config(problem.reason))?;
        // A monitor that does not run checks nothing, and refuses what the running one refuses.
        Monitor::new().watch(self.balancer.backend_set(), plan)?;
        Ok(())
    }

    /// Sets the health of the servers that are added next: no client must reach one that is to be checked
    /// first.
    fn set_initial_health(&self, config: &ServiceConfig) {
        self.balancer.backend_set().set_initial_health_rule(config.initial_health_rule());
    }

    fn apply_set_rules(&self, config: &ServiceConfig) -> Result<(), ServiceError> {
        let set = self.balancer.backend_set();
        let slow_start = config.slow_start.as_ref().map(SlowStartConfig::to_slow_start);
        set.set_slow_start(slow_start.transpose()?);
        set.set_fail_mode(config.fail_mode.0)?;
        set.set_quorum(config.quorum.map(|quorum| quorum.to_quorum()))?;
        Ok(())
    }

    /// Returns a persistence table by the configuration, with the clients of the table in use.
    fn build_persistence(
        &self,
        state: &VirtualServiceState,
        config: &ServiceConfig,
    ) -> Result<SharedPersistence, SettingError> {
        let Some(asked) = &config.persistence else { return Ok(None) };
        let persistence = asked.persistence_builder().build(self.balancer.clone())?;
        if let Some(known) = &state.persistence {
            persistence.restore(known.export(tokio_now(), None), tokio_now());
        }
        Ok(Some(Arc::new(persistence)))
    }

    /// Claims or opens the sockets that another configuration needs. Nothing of the service changes.
    pub(in crate::director) fn prepare(
        &self,
        config: &ServiceConfig,
        diff: ServiceDiff,
        common: CommonServiceOptions<'_>,
        sockets: &mut ListeningSockets,
        find_balancer: &dyn Fn(&str) -> Option<Balancer<SocketAddr>>,
    ) -> Result<PreparedService, ServiceError> {
        let state = self.lock_state();
        let virtual_interfaces = common.virtual_interfaces;
        let require_answers = |engine: EngineKind| match engine {
            EngineKind::Ipvs => require_check_answers(config, virtual_interfaces),
            // Their checks connect to the servers' own addresses.
            EngineKind::Proxy | EngineKind::Packet => Ok(()),
        };
        let persistence = match diff.persistence {
            true => self.build_persistence(&state, config)?,
            false => state.persistence.clone(),
        };
        let keeps_frontend = |listen: &ListenAddress| {
            !diff.needs_new_frontends()
                && state.frontends.iter().any(|frontend| frontend.listen == *listen)
        };
        let replaced = config.listen.0.iter().filter(|listen| !keeps_frontend(listen));
        let replaced: Vec<_> = replaced.collect();
        if replaced.is_empty() {
            require_answers(state.engine)?;
            let (config, frontends, engine) = (config.clone(), Vec::new(), None);
            return Ok(PreparedService { config, diff, persistence, frontends, engine });
        }
        let chosen = common.engines.choose(config, common.packet)?;
        require_answers(chosen.kind)?;
        let spec = FrontendSpec {
            config,
            balancer: &self.balancer,
            persistence: persistence.as_ref(),
            pool: common.pool,
            freebind: config.freebind.unwrap_or(common.freebind),
            log_connections: common.log_connections,
            engine: &chosen,
            methods: &state.methods,
            check_paths: &state.check_paths,
            find_balancer,
        };
        let frontends = replaced
            .into_iter()
            .map(|listen| {
                let mut frontends = state.frontends.iter();
                let old = frontends.find(|frontend| frontend.listen == *listen);
                PreparedFrontend::prepare(listen, &spec, sockets, old)
            })
            .collect::<Result<_, _>>()?;
        let engine = Some(chosen.kind);
        Ok(PreparedService { config: config.clone(), diff, persistence, frontends, engine })
    }

    /// Applies a prepared configuration. A frontend that is replaced keeps its connections; one whose
    /// address is gone drains.
    ///
    /// Returns the aspects that could not be applied, with the reasons; everything else is applied.
    pub(in crate::director) fn apply(
        &self,
        next: PreparedService,
        monitor: &Monitor,
        supervisor: &TaskSupervisor,
        policy: &DrainPolicy,
    ) -> Vec<(ServiceDiff, ServiceError)> {
        let PreparedService { config, diff, persistence, frontends, engine } = next;
        let none = ServiceDiff::default();
        let mut failures = Vec::new();
        let mut record = |aspects: ServiceDiff, result: Result<(), ServiceError>| {
            failures.extend(result.err().map(|error| (aspects, error)));
        };
        let aspects = ServiceDiff { servers: true, scheduler: diff.scheduler, ..none };
        record(aspects, self.apply_scheduler_and_servers(&config, diff));
        {
            let mut state = self.lock_state();
            state.persistence = persistence;
            state.engine = engine.unwrap_or(state.engine);
            let servers = std::mem::take(&mut state.config.servers);
            let scheduler = std::mem::take(&mut state.config.scheduler);
            state.config = ServiceConfig { servers, scheduler, ..config.clone() };
        }
        let aspects = ServiceDiff {
            persistence: diff.persistence,
            forwarding: diff.forwarding,
            listen: diff.listen,
            ..none
        };
        record(aspects, self.replace_frontends(frontends, policy));
        if diff.set_rules {
            let aspects = ServiceDiff { set_rules: true, ..none };
            record(aspects, self.apply_set_rules(&config));
        }
        if diff.health {
            let aspects = ServiceDiff { health: true, ..none };
            record(aspects, self.start_health_checks(monitor));
        }
        if diff.discovery {
            let aspects = ServiceDiff { discovery: true, ..none };
            record(aspects, self.start_discovery(supervisor));
        }
        failures
    }

    fn apply_scheduler_and_servers(
        &self,
        config: &ServiceConfig,
        diff: ServiceDiff,
    ) -> Result<(), ServiceError> {
        let mut state = self.lock_state();
        // Anew, under the lock: an operator may have edited servers since `validate`.
        let overrides = state.rebased_overrides(config);
        let scheduler = || config.scheduler.build();
        // The old scheduler may not accept the new servers, or the new one the old servers.
        let is_set_first = diff.scheduler && self.balancer.set_scheduler(scheduler()?).is_ok();
        if is_set_first {
            state.config.scheduler.clone_from(&config.scheduler);
        }
        self.set_initial_health(config);
        self.apply_servers(&mut state, config.servers.clone(), overrides)?;
        if diff.scheduler && !is_set_first {
            self.balancer.set_scheduler(scheduler()?)?;
            state.config.scheduler.clone_from(&config.scheduler);
        }
        Ok(())
    }

    fn replace_frontends(
        &self,
        prepared: Vec<PreparedFrontend>,
        policy: &DrainPolicy,
    ) -> Result<(), ServiceError> {
        let mut state = self.lock_state();
        let mut result = Ok(());
        let mut started = Vec::new();
        for frontend in prepared {
            match frontend.start(&self.name) {
                Ok(frontend) => started.push(frontend),
                Err(error) => result = Err(error),
            }
        }
        for old in std::mem::take(&mut state.frontends) {
            if let Some(new) = started.iter().find(|new| new.listen == old.listen) {
                // Another engine does not go on with what this one has.
                match new.engine == old.engine {
                    true => old.hand_over(Duration::MAX),
                    false => old.give_way(),
                }
                state.retired.push(old);
            } else if state.config.listen.0.contains(&old.listen) {
                state.frontends.push(old);
            } else {
                policy.drain_frontend(&old, self.protocol);
                state.retired.push(old);
            }
        }
        state.frontends.extend(started);
        state.reap_finished();
        let excess = state.retired.len().saturating_sub(MAX_RETIRED_FRONTENDS);
        state.retired.iter().take(excess).for_each(|old| old.hand_over(policy.drain_timeout));
        result
    }

    /// Stops accepting, and cuts connections that are left after the time.
    pub(in crate::director) fn drain(&self, mode: DrainMode) {
        let is_left = |frontend: &Frontend| {
            mode.has_successor
                || match frontend.engine {
                    EngineKind::Proxy => false,
                    EngineKind::Ipvs => mode.keeps_ipvs,
                    EngineKind::Packet => mode.keeps_packet,
                }
        };
        self.lock_state().all_frontends().for_each(|frontend| match is_left(frontend) {
            true => frontend.hand_over(mode.timeout),
            false => frontend.drain(mode.timeout),
        });
    }

    /// Drains a service that a reload removes; another service may have its addresses.
    pub(in crate::director) fn retire(&self, policy: &DrainPolicy) {
        let state = self.lock_state();
        state.all_frontends().for_each(|frontend| policy.drain_frontend(frontend, self.protocol));
    }

    /// Ends health checks and discovery, and waits until the last connection has ended. Dropped, it
    /// cuts the connections that are left.
    pub(in crate::director) async fn wait_drained(&self) -> DrainReport {
        let frontends = {
            let mut state = self.lock_state();
            state.stop_watching();
            let mut frontends = std::mem::take(&mut state.frontends);
            frontends.append(&mut state.retired);
            frontends
        };
        let mut sum = DrainReport::default();
        for mut frontend in frontends {
            let drained = frontend.wait_drained().await;
            sum.finished += drained.finished;
            sum.cut += drained.cut;
        }
        sum
    }
}
