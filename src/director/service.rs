//! A virtual service that runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::config::{
    ConfiguredSource, DiscoveryConfig, HumanDuration, ListenAddress, RealServer, ServiceConfig,
    ServiceProtocol,
};
use super::diff::{self, ServerStep, ServiceDiff};
use super::error::{DirectorError, ServiceError};
use super::frontend::{Frontend, FrontendSpec, ListeningSockets, PreparedFrontend};
use super::overrides::{ServerEdit, ServiceOverrides};
use super::status::{CounterBaseline, ServiceCounters, ServiceTotals};
use crate::backend::{BackendSet, BackendState};
use crate::balancer::{Balancer, Persistence};
use crate::discovery::{Feed, MemberSource, RemovalPolicy};
use crate::forward::{ConnectionInfo, DrainReport};
use crate::health::{Monitor, SavedHealth, WatchHandle};
use crate::scheduler::SchedulerRegistry;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::{BackendId, SetError};

/// A virtual service. Its servers, what is known of them, and what it carries outlive a reload.
#[derive(Debug)]
pub(super) struct VirtualService {
    pub(super) name: String,
    pub(super) protocol: ServiceProtocol,
    pub(super) balancer: Balancer<SocketAddr>,
    state: Mutex<VirtualServiceState>,
}

/// What of a service a reload may change.
#[derive(Debug)]
pub(super) struct VirtualServiceState {
    pub(super) config: ServiceConfig,
    pub(super) overrides: ServiceOverrides,
    pub(super) persistence: SharedPersistence,
    health_watch: Option<WatchHandle>,
    feed: Option<JoinHandle<()>>,
    pub(super) frontends: Vec<Frontend>,
    /// Those that another has taken over from, while they carry anything.
    retired: Vec<Frontend>,
    /// What those have done that are gone.
    retired_counters: ServiceCounters,
    /// What other directors did before.
    inherited_totals: ServiceTotals,
    /// Counts that an operator wants to begin at 0.
    pub(super) counter_baseline: CounterBaseline,
}

/// What remembers clients.
type SharedPersistence = Option<Arc<Persistence<SocketAddr>>>;

/// What a service is to be, made ready.
pub(super) struct PreparedService {
    config: ServiceConfig,
    diff: ServiceDiff,
    persistence: SharedPersistence,
    frontends: Vec<PreparedFrontend>,
}

/// How what is no longer asked for ends.
pub(super) struct DrainPolicy {
    pub(super) drain_timeout: Duration,
    /// Addresses that services have now: if it is not this one, another has its sockets.
    pub(super) configured_listeners: BTreeSet<(ServiceProtocol, ListenAddress)>,
}

impl DrainPolicy {
    fn drain_frontend(&self, carrier: &Frontend, protocol: ServiceProtocol) {
        match self.configured_listeners.contains(&(protocol, carrier.listen.clone())) {
            true => carrier.hand_over(self.drain_timeout),
            false => carrier.drain(self.drain_timeout),
        }
    }
}

/// How many forwarders of earlier configurations may go on without an end while they carry anything;
/// the oldest of more have the time of those that leave.
const MAX_RETIRED_FRONTENDS: usize = 16;

/// What is the same for all services.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommonServiceOptions {
    pub(super) workers: Option<NonZeroUsize>,
    /// Addresses may come later.
    pub(super) freebind: bool,
    /// A line of the log for each connection.
    pub(super) log_connections: bool,
}

impl VirtualService {
    /// The service without anything that asks, listens or carries.
    pub(super) fn new(
        config: &ServiceConfig,
        changes: ServiceOverrides,
    ) -> Result<Self, ServiceError> {
        let set = BackendSet::new();
        let balancer = Balancer::new(&set, SchedulerRegistry::default().parse(&config.scheduler)?)?;
        let service = Self {
            name: config.name.clone(),
            protocol: config.protocol,
            balancer,
            state: Mutex::new(VirtualServiceState {
                config: ServiceConfig { servers: Vec::new(), ..config.clone() },
                overrides: ServiceOverrides::default(),
                persistence: None,
                health_watch: None,
                feed: None,
                frontends: Vec::new(),
                retired: Vec::new(),
                retired_counters: ServiceCounters::default(),
                inherited_totals: ServiceTotals::default(),
                counter_baseline: CounterBaseline::default(),
            }),
        };
        service.apply_set_rules(config)?;
        {
            let mut parts = service.lock_state();
            parts.persistence = service.build_persistence(&parts, config);
            service.apply_servers(&mut parts, config.servers.clone(), changes)?;
        }
        Ok(service)
    }

    /// What it could be.
    pub(super) fn validate(&self, config: &ServiceConfig) -> Result<(), ServiceError> {
        Self::new(config, self.lock_state().rebased_overrides(config)).map(drop)
    }

    pub(super) fn lock_state(&self) -> MutexGuard<'_, VirtualServiceState> {
        lock(&self.state)
    }

    fn apply_set_rules(&self, config: &ServiceConfig) -> Result<(), SetError> {
        let set = self.balancer.backend_set();
        set.set_slow_start(config.slow_start.as_ref().map(|it| it.to_slow_start()));
        set.set_fail_mode(config.fail_mode.0)?;
        set.set_quorum(config.quorum.map(|it| it.to_quorum()))
    }

    /// What remembers clients by another rule, and knows those who are known.
    fn build_persistence(
        &self,
        parts: &VirtualServiceState,
        config: &ServiceConfig,
    ) -> SharedPersistence {
        let asked = config.persistence.as_ref()?;
        let persistence = asked.persistence_builder().build(self.balancer.clone());
        if let Some(known) = &parts.persistence {
            persistence.restore(known.export(tokio_now(), None), tokio_now());
        }
        Some(Arc::new(persistence))
    }

    /// Makes the servers what a configuration and changes by hand say, in one publication. If that
    /// cannot be, nothing is changed.
    fn apply_servers(
        &self,
        parts: &mut VirtualServiceState,
        servers: Vec<RealServer>,
        changes: ServiceOverrides,
    ) -> Result<(), SetError> {
        let after = changes.apply_to(&servers);
        let steps = diff::diff_servers(&parts.overrides.apply_to(&parts.config.servers), &after);
        let id = |address: &SocketAddr| BackendId::from(&*address.to_string());
        self.balancer.backend_set().edit(|edit| {
            for step in &steps {
                match step {
                    ServerStep::Add(server) => {
                        edit.insert(server.config.backend_spec().admin(server.state.into()))
                            .map(drop)?;
                    }
                    ServerStep::Remove(address) => edit.remove(&id(address)).map(drop)?,
                    ServerStep::Weight(address, weight) => {
                        edit.set_weight(&id(address), *weight)?
                    }
                    ServerStep::Limits(address, limits) => {
                        edit.set_limits(&id(address), *limits)?
                    }
                    ServerStep::Tier(address, tier) => edit.set_tier(&id(address), *tier)?,
                    ServerStep::State(address, state) => {
                        edit.set_admin(&id(address), (*state).into())?;
                    }
                }
            }
            // Servers that a source names are nobody's of those.
            let is_ours = |name: &str| after.iter().any(|it| it.config.address.to_string() == name);
            for (server, change) in changes.iter().filter(|(name, _)| !is_ours(name)) {
                let id = BackendId::from(server);
                if change == parts.overrides.server_change(server)
                    || !edit.backends().any(|(backend, _)| *backend.id() == id)
                {
                    continue;
                }
                if let Some(weight) = change.weight {
                    edit.set_weight(&id, weight)?;
                }
                if let Some(state) = change.state {
                    edit.set_admin(&id, state.into())?;
                }
            }
            Ok(())
        })?;
        parts.config.servers = servers;
        parts.overrides = changes;
        Ok(())
    }

    /// Begins to look after the servers.
    pub(super) fn start_health_checks(&self, monitor: &Monitor) -> Result<(), ServiceError> {
        let mut parts = self.lock_state();
        let plan =
            parts.config.health_plan().map_err(|fault| ServiceError::Config(fault.reason))?;
        let known = parts.health_watch.take().map(|watch| {
            let known = watch.export();
            watch.stop();
            known
        });
        let watch = monitor.watch(self.balancer.backend_set(), plan)?;
        if let Some(known) = known {
            watch.restore(&known)?;
        }
        parts.health_watch = Some(watch);
        Ok(())
    }

    /// Begins to follow the source of its servers, if it has one.
    pub(super) fn start_discovery(&self) -> Result<(), ServiceError> {
        let mut parts = self.lock_state();
        if let Some(feed) = parts.feed.take() {
            feed.abort();
        }
        let Some(asked) = parts.config.discovery.clone() else {
            // What another source has named goes with it.
            let stay = parts.overrides.apply_to(&parts.config.servers);
            let stays =
                |id: &BackendId| stay.iter().any(|it| it.config.address.to_string() == id.as_str());
            self.balancer.backend_set().edit(|edit| {
                let all: Vec<_> = edit.backends().map(|(it, _)| it.id().clone()).collect();
                all.iter().filter(|id| !stays(id)).try_for_each(|id| edit.remove(id).map(drop))
            })?;
            return Ok(());
        };
        let origin = asked.build_source().map_err(|fault| ServiceError::Config(fault.reason))?;
        parts.feed = Some(match origin {
            ConfiguredSource::File(source) => self.spawn_feed(&parts, source, &asked),
            ConfiguredSource::Dns(source) => self.spawn_feed(&parts, source, &asked),
        });
        Ok(())
    }

    fn spawn_feed<S: MemberSource<SocketAddr> + 'static>(
        &self,
        parts: &VirtualServiceState,
        source: S,
        asked: &DiscoveryConfig,
    ) -> JoinHandle<()> {
        let ours = parts.overrides.apply_to(&parts.config.servers);
        let is_ours =
            |id: &BackendId| ours.iter().any(|it| it.config.address.to_string() == id.as_str());
        let snapshot = self.balancer.snapshot();
        let left = snapshot.backends().iter().map(|it| it.id().clone()).filter(|id| !is_ours(id));
        let mut feed = Feed::new(self.balancer.backend_set(), source).adopt(left);
        if asked.allow_empty {
            feed = feed.allow_empty();
        }
        if let Some(HumanDuration(deadline)) = asked.drain {
            feed = feed.removal(RemovalPolicy::Drain { deadline });
        }
        let name = self.name.clone();
        tokio::spawn(async move {
            let status = feed.run().await;
            tracing::warn!("service {name}: discovery has ended: {}", status.state);
        })
    }

    /// Makes ready what another configuration asks for: takes sockets or opens them.
    pub(super) fn prepare(
        &self,
        config: &ServiceConfig,
        change: ServiceDiff,
        common: CommonServiceOptions,
        sockets: &mut ListeningSockets,
        others: &dyn Fn(&str) -> Option<Balancer<SocketAddr>>,
    ) -> Result<PreparedService, ServiceError> {
        let parts = self.lock_state();
        let memory = match change.persistence {
            true => self.build_persistence(&parts, config),
            false => parts.persistence.clone(),
        };
        let load = FrontendSpec {
            config,
            balancer: &self.balancer,
            persistence: memory.as_ref(),
            workers: config.effective_workers(common.workers),
            freebind: common.freebind,
            log_connections: common.log_connections,
            find_balancer: others,
        };
        // Those that stay as they are go on.
        let stays = |listen: &ListenAddress| {
            !change.needs_new_frontends() && parts.frontends.iter().any(|it| it.listen == *listen)
        };
        let listens = config.listen.0.iter().filter(|listen| !stays(listen));
        let ready = listens
            .map(|listen| PreparedFrontend::prepare(listen, &load, sockets))
            .collect::<Result<_, _>>()?;
        Ok(PreparedService {
            config: config.clone(),
            diff: change,
            persistence: memory,
            frontends: ready,
        })
    }

    /// Becomes what was made ready. What carried the same addresses until now ends what it has;
    /// addresses that are not asked for any more are no longer served, and connections to them have
    /// so long.
    pub(super) fn apply(
        &self,
        next: PreparedService,
        monitor: &Monitor,
        leaving: &DrainPolicy,
    ) -> Result<(), ServiceError> {
        let PreparedService { config, diff: change, persistence: memory, frontends: ready } = next;
        let became = self.apply_scheduler_and_servers(&config, change);
        {
            let mut parts = self.lock_state();
            parts.persistence = memory;
            // The servers are those that are there, also where others could not be.
            let servers = std::mem::take(&mut parts.config.servers);
            parts.config = ServiceConfig { servers, ..config };
        }
        // Whatever else cannot be: clients are served.
        let carried = self.replace_frontends(ready, leaving);
        became.and(carried)?;
        if change.set_rules {
            let config = self.lock_state().config.clone();
            self.apply_set_rules(&config)?;
        }
        if change.health {
            self.start_health_checks(monitor)?;
        }
        if change.discovery {
            self.start_discovery()?;
        }
        Ok(())
    }

    /// Other servers, and another rule for them.
    fn apply_scheduler_and_servers(
        &self,
        config: &ServiceConfig,
        change: ServiceDiff,
    ) -> Result<(), ServiceError> {
        let mut parts = self.lock_state();
        let changes = parts.rebased_overrides(config);
        let rule = || SchedulerRegistry::default().parse(&config.scheduler);
        // The new rule may be needed for the new servers, or the other way round.
        let early = change.scheduler && self.balancer.set_scheduler(rule()?).is_ok();
        self.apply_servers(&mut parts, config.servers.clone(), changes)?;
        if change.scheduler && !early {
            self.balancer.set_scheduler(rule()?)?;
        }
        Ok(())
    }

    fn replace_frontends(
        &self,
        ready: Vec<PreparedFrontend>,
        leaving: &DrainPolicy,
    ) -> Result<(), ServiceError> {
        let mut parts = self.lock_state();
        let mut result = Ok(());
        let begun = ready.into_iter().map(|ready| ready.start(&self.name));
        let begun = begun.filter_map(|it| it.map_err(|error| result = Err(error)).ok());
        let new: Vec<_> = begun.collect();
        for old in std::mem::take(&mut parts.frontends) {
            if new.iter().any(|it| it.listen == old.listen) {
                old.hand_over(Duration::MAX);
                parts.retired.push(old);
            } else if parts.config.listen.0.contains(&old.listen) {
                parts.frontends.push(old);
            } else {
                leaving.drain_frontend(&old, self.protocol);
                parts.retired.push(old);
            }
        }
        parts.frontends.extend(new);
        parts.reap_finished();
        // Each has threads, as long as it has connections.
        let many = parts.retired.len().saturating_sub(MAX_RETIRED_FRONTENDS);
        parts.retired.iter().take(many).for_each(|it| it.hand_over(leaving.drain_timeout));
        result
    }

    /// The sockets of what carries it.
    pub(super) fn duplicate_sockets(&self) -> ListeningSockets {
        let mut all = ListeningSockets::default();
        self.lock_state()
            .frontends
            .iter()
            .for_each(|it| all.extend(it.duplicate_sockets(self.protocol)));
        all
    }

    /// Takes no more connections, which come to a successor or to nobody; those that are there have
    /// so long.
    pub(super) fn drain(&self, within: Duration, is_succeeded: bool) {
        self.lock_state().all_frontends().for_each(|it| match is_succeeded {
            true => it.hand_over(within),
            false => it.drain(within),
        });
    }

    /// The same, where each address may have gone to another service, or to none.
    pub(super) fn retire(&self, leaving: &DrainPolicy) {
        self.lock_state().all_frontends().for_each(|it| leaving.drain_frontend(it, self.protocol));
    }

    /// Looks after nothing any more, and waits until nothing is carried.
    pub(super) async fn wait_drained(&self) -> DrainReport {
        let carriers = {
            let mut parts = self.lock_state();
            if let Some(watch) = parts.health_watch.take() {
                watch.stop();
            }
            if let Some(feed) = parts.feed.take() {
                feed.abort();
            }
            let mut carriers = std::mem::take(&mut parts.frontends);
            carriers.append(&mut parts.retired);
            carriers
        };
        let mut sum = DrainReport::default();
        for mut carrier in carriers {
            let drained = carrier.wait_drained().await;
            sum.finished += drained.finished;
            sum.cut += drained.cut;
        }
        sum
    }

    /// Is there a server that could serve?
    pub(super) fn has_eligible_server(&self) -> bool {
        let snapshot = self.balancer.snapshot();
        snapshot.members().iter().any(|member| member.state() == BackendState::Eligible)
    }

    /// Does something by hand, all of it or nothing.
    pub(super) fn edit_servers(&self, edits: &[ServerEdit]) -> Result<(), DirectorError> {
        let mut parts = self.lock_state();
        let snapshot = self.balancer.snapshot();
        let has = |server: &str| snapshot.find(&BackendId::from(server)).is_some();
        let mut changes = parts.overrides.clone();
        for edit in edits {
            let service = || self.name.clone();
            match edit {
                ServerEdit::Change(server, _) | ServerEdit::Remove(server) if !has(server) => {
                    let server = server.clone();
                    return Err(DirectorError::NoServer { service: service(), server });
                }
                ServerEdit::Add(server) if has(&server.address.to_string()) => {
                    let server = server.address;
                    return Err(DirectorError::ServerExists { service: service(), server });
                }
                _ => changes.record(edit),
            }
        }
        changes.prune_removed(&parts.config.servers);
        let servers = parts.config.servers.clone();
        self.apply_servers(&mut parts, servers, changes).map_err(|source| DirectorError::Service {
            service: self.name.clone(),
            source: source.into(),
        })
    }

    /// Takes over what was done by hand at another director.
    pub(super) fn merge_overrides(&self, others: &ServiceOverrides) -> Result<(), SetError> {
        let mut parts = self.lock_state();
        let mut changes = parts.overrides.clone();
        if !changes.merge(others) {
            return Ok(());
        }
        let servers = parts.config.servers.clone();
        self.apply_servers(&mut parts, servers, changes)
    }

    /// What checks and traffic have taught, without counts.
    pub(super) fn export_health(&self) -> Option<SavedHealth> {
        self.lock_state().health_watch.as_ref().map(|watch| watch.export().without_outcomes())
    }

    /// Takes up what another director has learned; its own checks go before that.
    pub(super) fn restore_health(&self, saved: &SavedHealth) -> Result<(), SetError> {
        self.lock_state().health_watch.as_ref().map_or(Ok(()), |watch| watch.restore(saved))
    }

    /// Who is carried at this moment, by those that are to end also.
    pub(super) fn connections(&self, most: usize) -> Vec<ConnectionInfo> {
        let parts = self.lock_state();
        parts.all_frontends().fold(Vec::new(), |mut all, carrier| {
            all.extend(carrier.connections(most - all.len()));
            all
        })
    }

    /// What all directors have done.
    pub(super) fn totals(&self) -> ServiceTotals {
        let mut parts = self.lock_state();
        parts.reap_finished();
        parts.inherited_totals.saturating_add(parts.own_totals())
    }

    /// What this director has done, in detail.
    pub(super) fn counters(&self) -> ServiceCounters {
        let mut parts = self.lock_state();
        parts.reap_finished();
        let snapshot = self.balancer.snapshot();
        let is_there = |name: &str| snapshot.find(&BackendId::from(name)).is_some();
        parts.retired_counters.servers.retain(|name, _| is_there(name));
        let mut sum = ServiceCounters::default();
        sum.merge(&parts.retired_counters);
        parts.all_frontends().for_each(|it| sum.add_frontend(&it.handle));
        sum
    }

    /// Takes over what all have done, as another knows it: totals go on, and never back.
    pub(super) fn adopt_totals(&self, totals: ServiceTotals) {
        let mut parts = self.lock_state();
        parts.inherited_totals = totals.saturating_sub(parts.own_totals());
    }
}

impl VirtualServiceState {
    /// What is left of changes by hand under another configuration.
    fn rebased_overrides(&self, config: &ServiceConfig) -> ServiceOverrides {
        let mut changes = self.overrides.clone();
        changes.rebase(&self.config.servers, &config.servers);
        changes
    }

    /// All that carry something.
    pub(super) fn all_frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.frontends.iter().chain(&self.retired)
    }

    /// Forgets carriers that are gone, but for what they did.
    fn reap_finished(&mut self) {
        for gone in self.retired.extract_if(.., |it| it.is_finished()) {
            self.retired_counters.add_frontend(&gone.handle);
        }
        self.retired_counters.active = 0;
    }

    fn own_totals(&self) -> ServiceTotals {
        self.all_frontends().fold(self.retired_counters.totals, |sum, it| {
            sum.saturating_add(it.counters().totals())
        })
    }
}

impl Drop for VirtualServiceState {
    fn drop(&mut self) {
        if let Some(watch) = self.health_watch.take() {
            watch.stop();
        }
        if let Some(feed) = self.feed.take() {
            feed.abort();
        }
    }
}

pub(super) fn tokio_now() -> Instant {
    tokio::time::Instant::now().into_std()
}
