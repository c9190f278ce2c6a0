//! The state of a virtual service, and its counters.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::BackendId;
use crate::backend::{BackendState, Snapshot};
use crate::balancer::{Balancer, Persistence};
use crate::director::check_paths::CheckPaths;
use crate::director::config::{
    EngineKind, NotifyCommandList, RealServer, ServiceConfig, ServiceProtocol,
};
use crate::director::counters::{CountedSince, CounterBaseline};
use crate::director::frontend::Frontend;
use crate::director::overrides::{DesiredServer, ServiceOverrides};
use crate::director::sockets::ListeningSockets;
use crate::director::state_ages::ServiceState;
use crate::engine::{EngineService, ForwardingMethods};
use crate::forward::ConnectionInfo;
use crate::health::{HealthEventKind, WatchHandle};
use crate::metrics::{ServiceCounters, ServiceTotals};
use crate::sync::{Mutex, MutexGuard, lock};
use crate::vrrp::NotifyCommand;

/// A virtual service. Its servers, their health, its counters and connections outlive a reload.
#[derive(Debug)]
pub(in crate::director) struct VirtualService {
    pub(in crate::director) name: String,
    pub(in crate::director) protocol: ServiceProtocol,
    pub(in crate::director) balancer: Balancer<SocketAddr>,
    state: Mutex<VirtualServiceState>,
}

/// What a reload or an operator may change. Its lock orders the two.
#[derive(Debug)]
pub(super) struct VirtualServiceState {
    /// What runs: the servers and the scheduler are those that were applied, also where those of the
    /// newest configuration could not be.
    pub(super) config: ServiceConfig,
    pub(super) overrides: ServiceOverrides,
    pub(super) persistence: SharedPersistence,
    /// The engine that serves.
    pub(super) engine: EngineKind,
    /// How packets reach the servers, for engines of the kernel.
    pub(super) methods: ForwardingMethods,
    /// How checks reach the servers at the virtual addresses.
    pub(super) check_paths: CheckPaths,
    pub(super) health_watch: Option<WatchHandle>,
    pub(super) feed: Option<AbortOnDropHandle<()>>,
    pub(super) frontends: Vec<Frontend>,
    /// Frontends that were replaced and still have connections, the oldest first.
    pub(super) retired: Vec<Frontend>,
    /// The counters of frontends that have ended.
    retired_counters: ServiceCounters,
    retired_worker_restarts: u64,
    /// The totals of the directors that were active before this one.
    inherited_totals: ServiceTotals,
    counter_baseline: CounterBaseline,
}

/// The persistence table, if the service has persistence.
pub(super) type SharedPersistence = Option<Arc<Persistence<SocketAddr>>>;

impl VirtualService {
    /// Returns a service without servers, health checks and frontends.
    pub(super) fn without_servers(config: &ServiceConfig, balancer: Balancer<SocketAddr>) -> Self {
        let methods = ForwardingMethods::default();
        Self {
            name: config.name.clone(),
            protocol: config.protocol,
            balancer,
            state: Mutex::new(VirtualServiceState {
                config: ServiceConfig { servers: Vec::new(), ..config.clone() },
                overrides: ServiceOverrides::default(),
                persistence: None,
                engine: EngineKind::default(),
                check_paths: CheckPaths::new(methods.clone()),
                methods,
                health_watch: None,
                feed: None,
                frontends: Vec::new(),
                retired: Vec::new(),
                retired_counters: ServiceCounters::default(),
                retired_worker_restarts: 0,
                inherited_totals: ServiceTotals::default(),
                counter_baseline: CounterBaseline::default(),
            }),
        }
    }

    pub(super) fn lock_state(&self) -> MutexGuard<'_, VirtualServiceState> {
        lock(&self.state)
    }

    /// Returns the name of the scheduler in use.
    pub(in crate::director) fn scheduler(&self) -> String {
        self.lock_state().config.scheduler.to_string()
    }

    /// Returns how packets reach the servers.
    pub(in crate::director) fn forwarding_methods(&self) -> ForwardingMethods {
        self.lock_state().methods.clone()
    }

    /// Returns the transport protocol for people: `tcp`, `udp`, or `any` of firewall marks.
    pub(in crate::director) fn protocol_name(&self) -> &'static str {
        self.lock_state().config.protocol_name()
    }

    /// Returns the engine that serves.
    pub(in crate::director) fn engine(&self) -> EngineKind {
        self.lock_state().engine
    }

    /// Returns the addresses that clients connect to, with real ports where the configuration has 0.
    pub(in crate::director) fn local_addresses(&self) -> Vec<String> {
        let state = self.lock_state();
        state.frontends.iter().map(|frontend| frontend.local_address().to_string()).collect()
    }

    /// Returns the limit of each listener's open connections or UDP flows.
    pub(in crate::director) fn listener_limit(&self) -> usize {
        let config = &self.lock_state().config;
        match self.protocol {
            ServiceProtocol::Tcp => config.tcp.connection_limit(),
            ServiceProtocol::Udp => config.udp.options().max_flows,
        }
    }

    /// Returns the handle of the service's health checks.
    pub(in crate::director) fn health_watch(&self) -> Option<WatchHandle> {
        self.lock_state().health_watch.clone()
    }

    pub(in crate::director) fn persistence(&self) -> SharedPersistence {
        self.lock_state().persistence.clone()
    }

    /// Returns the operator's changes.
    pub(in crate::director) fn overrides(&self) -> ServiceOverrides {
        self.lock_state().overrides.clone()
    }

    /// Returns the configured servers with the operator's changes applied, without those that
    /// discovery found.
    pub(in crate::director) fn desired_servers(&self) -> Vec<DesiredServer> {
        let state = self.lock_state();
        state.overrides.apply_to(&state.config.servers)
    }

    /// Returns whether every check of the service has had a first result.
    pub(in crate::director) fn has_first_verdicts(&self) -> bool {
        let backends = self.balancer.snapshot().members().len();
        self.export_health().is_some_and(|health| health.has_all_verdicts(backends))
    }

    /// Returns the programs to run for a change of the set.
    pub(in crate::director) fn notify_commands(
        &self,
        change: &HealthEventKind,
    ) -> Vec<NotifyCommand> {
        let state = self.lock_state();
        let config = &state.config;
        let commands = match change {
            HealthEventKind::Quorum { met, quorum: Some(_), .. } => match met {
                true => &config.quorum_up,
                false => &config.quorum_down,
            },
            HealthEventKind::State { id, from, to: Some(to), .. } => {
                let was_down = from.is_some_and(BackendState::is_unhealthy);
                let servers = &config.servers;
                let is_this = |server: &&RealServer| server.address.to_string() == id.as_str();
                let Some(server) = servers.iter().find(is_this) else { return Vec::new() };
                match (was_down, to.is_unhealthy()) {
                    (false, true) => &server.notify_down,
                    (true, false) => &server.notify_up,
                    _ => return Vec::new(),
                }
            }
            _ => return Vec::new(),
        };
        commands.iter().flat_map(NotifyCommandList::to_commands).collect()
    }

    /// Returns whether connections go to other services alone, by the server name.
    pub(in crate::director) fn only_routes(&self) -> bool {
        self.lock_state().config.only_routes()
    }

    /// Returns the state of the service with its servers as in `snapshot`.
    pub(in crate::director) fn state(&self, snapshot: &Snapshot<SocketAddr>) -> ServiceState {
        if self.only_routes() { ServiceState::Up } else { ServiceState::of(snapshot) }
    }

    /// Returns whether a server can be chosen, or none is needed.
    pub(in crate::director) fn can_serve(&self) -> bool {
        let snapshot = self.balancer.snapshot();
        snapshot.members().iter().any(|member| member.state() == BackendState::Eligible)
            || self.only_routes()
    }

    /// Returns whether the healthy servers meet the quorum, health is not ignored, or no server is needed.
    pub(in crate::director) fn has_healthy_quorum(&self) -> bool {
        let snapshot = self.balancer.snapshot();
        self.state(&snapshot) != ServiceState::Down && !snapshot.is_panicking()
    }

    /// Returns whether clients connect to this address, or to all of its family.
    pub(in crate::director) fn listens_on(&self, address: IpAddr) -> bool {
        self.lock_state().config.listens_on(address)
    }

    /// Returns the names of the services that connections are led to, by the server name or without TLS.
    pub(in crate::director) fn led_services(&self) -> Vec<String> {
        let state = self.lock_state();
        let tcp = &state.config.tcp;
        let by_name = tcp.services_by_name().map(|(_, service)| service);
        by_name.chain(tcp.service_without_tls()).cloned().collect()
    }

    /// Returns duplicates of the frontends' sockets.
    pub(in crate::director) fn duplicate_sockets(&self) -> ListeningSockets {
        let mut sockets = ListeningSockets::default();
        for frontend in &self.lock_state().frontends {
            frontend.duplicate_sockets(self.protocol, &mut sockets);
        }
        sockets
    }

    /// Returns connections or flows of this moment that forwarders of this crate have, `limit` at most,
    /// those of draining frontends included.
    pub(in crate::director) fn connections(&self, limit: usize) -> Vec<ConnectionInfo> {
        let state = self.lock_state();
        state.all_frontends().fold(Vec::new(), |mut connections, frontend| {
            connections.extend(frontend.connections(limit - connections.len()));
            connections
        })
    }

    /// Returns the services of engines of the kernel, those of draining frontends included.
    pub(in crate::director) fn engine_services(&self) -> Vec<Arc<dyn EngineService>> {
        let state = self.lock_state();
        state.all_frontends().filter_map(Frontend::engine_service).map(Arc::clone).collect()
    }

    /// Returns how often a worker of the forwarders has panicked and started again.
    pub(in crate::director) fn worker_restarts(&self) -> u64 {
        let state = self.lock_state();
        let running = state.all_frontends().map(Frontend::worker_restarts).sum::<u64>();
        state.retired_worker_restarts + running
    }

    /// Returns the totals of all directors.
    pub(in crate::director) fn totals(&self) -> ServiceTotals {
        let mut state = self.lock_state();
        state.reap_finished();
        state.inherited_totals.saturating_add(state.own_totals())
    }

    /// Returns this director's counters in detail.
    pub(in crate::director) fn counters(&self) -> ServiceCounters {
        let mut state = self.lock_state();
        state.reap_finished();
        let snapshot = self.balancer.snapshot();
        let has_server = |name: &str| snapshot.find(&BackendId::from(name)).is_some();
        state.retired_counters.servers.retain(|name, _| has_server(name));
        let mut sum = ServiceCounters::default();
        sum.merge(&state.retired_counters);
        state.all_frontends().for_each(|frontend| frontend.add_counters(&mut sum));
        sum
    }

    /// Returns the totals of all directors and this director's counters, counted from a start.
    pub(in crate::director) fn counters_since(
        &self,
        since: CountedSince,
    ) -> (ServiceTotals, ServiceCounters) {
        let (mut totals, mut counters) = (self.totals(), self.counters());
        if since == CountedSince::LastZeroed {
            self.lock_state().counter_baseline.subtract_from(&mut totals, &mut counters);
        }
        (totals, counters)
    }

    /// Makes the status count from 0 again; metrics go on.
    pub(in crate::director) fn zero_counters(&self) {
        let baseline = CounterBaseline::new(self.totals(), &self.counters());
        self.lock_state().counter_baseline = baseline;
    }

    /// Continues the totals of the active director, which include this director's own.
    pub(in crate::director) fn adopt_totals(&self, totals: ServiceTotals) {
        let mut state = self.lock_state();
        state.inherited_totals = totals.saturating_sub(state.own_totals());
    }
}

impl VirtualServiceState {
    /// Returns what another configuration leaves of the operator's changes.
    pub(super) fn rebased_overrides(&self, config: &ServiceConfig) -> ServiceOverrides {
        let mut overrides = self.overrides.clone();
        overrides.rebase(&self.config.servers, &config.servers);
        overrides
    }

    /// Iterates over the frontends, those that drain included.
    pub(super) fn all_frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.frontends.iter().chain(&self.retired)
    }

    /// Removes retired frontends that have ended, and keeps their counters.
    pub(super) fn reap_finished(&mut self) {
        for ended in self.retired.extract_if(.., |frontend| frontend.is_finished()) {
            ended.add_counters(&mut self.retired_counters);
            self.retired_worker_restarts += ended.worker_restarts();
        }
        self.retired_counters.active = 0;
    }

    fn own_totals(&self) -> ServiceTotals {
        self.all_frontends().fold(self.retired_counters.totals, |sum, frontend| {
            sum.saturating_add(frontend.totals())
        })
    }

    /// Ends health checks and discovery.
    pub(super) fn stop_watching(&mut self) {
        if let Some(watch) = self.health_watch.take() {
            watch.stop();
        }
        self.feed = None;
    }
}

impl Drop for VirtualServiceState {
    fn drop(&mut self) {
        self.stop_watching();
    }
}
