//! A virtual service that runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::carrier::{Carrier, Load, Ready, Sockets};
use super::config::{DiscoveryConfig, Listen, Origin, Protocol, RealServer, ServiceConfig, Time};
use super::diff::{self, ServerStep, ServiceChange};
use super::error::{DirectorError, ServiceError};
use super::status::{Measured, Totals, Zero};
use super::wanted::{Changes, Edit};
use crate::backend::{BackendSet, State};
use crate::balancer::{Balancer, Persistence};
use crate::discovery::{Feed, Removal, Source};
use crate::forward::{Connection, Drained};
use crate::health::{Monitor, Saved, Watch};
use crate::scheduler::Registry;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::{BackendId, SetError};

/// A virtual service. Its servers, what is known of them, and what it carries outlive a reload.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) balancer: Balancer<SocketAddr>,
    parts: Mutex<Parts>,
}

/// What of a service a reload may change.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) config: ServiceConfig,
    pub(super) changes: Changes,
    pub(super) persistence: Memory,
    watch: Option<Watch>,
    feed: Option<JoinHandle<()>>,
    pub(super) carriers: Vec<Carrier>,
    /// Those that another has taken over from, while they carry anything.
    retired: Vec<Carrier>,
    /// What those have done that are gone.
    ended: Measured,
    /// What other directors did before.
    before: Totals,
    /// Counts that an operator wants to begin at 0.
    pub(super) zero: Zero,
}

/// What remembers clients.
type Memory = Option<Arc<Persistence<SocketAddr>>>;

/// What a service is to be, made ready.
pub(super) struct Next {
    config: ServiceConfig,
    change: ServiceChange,
    memory: Memory,
    ready: Vec<Ready>,
}

/// How what is no longer asked for ends.
pub(super) struct Leaving {
    pub(super) within: Duration,
    /// Addresses that services have now: if it is not this one, another has its sockets.
    pub(super) taken: BTreeSet<(Protocol, Listen)>,
}

impl Leaving {
    fn end(&self, carrier: &Carrier, protocol: Protocol) {
        match self.taken.contains(&(protocol, carrier.listen.clone())) {
            true => carrier.hand_over(self.within),
            false => carrier.drain(self.within),
        }
    }
}

/// How many forwarders of earlier configurations may go on without an end while they carry anything;
/// the oldest of more have the time of those that leave.
const RETIRED: usize = 16;

/// What is the same for all services.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common {
    pub(super) workers: Option<NonZeroUsize>,
    /// Addresses may come later.
    pub(super) ahead: bool,
    /// A line of the log for each connection.
    pub(super) log: bool,
}

impl Service {
    /// The service without anything that asks, listens or carries.
    pub(super) fn new(config: &ServiceConfig, changes: Changes) -> Result<Self, ServiceError> {
        let set = BackendSet::new();
        let balancer = Balancer::new(&set, Registry::default().parse(&config.scheduler)?)?;
        let service = Self {
            name: config.name.clone(),
            protocol: config.protocol,
            balancer,
            parts: Mutex::new(Parts {
                config: ServiceConfig { servers: Vec::new(), ..config.clone() },
                changes: Changes::default(),
                persistence: None,
                watch: None,
                feed: None,
                carriers: Vec::new(),
                retired: Vec::new(),
                ended: Measured::default(),
                before: Totals::default(),
                zero: Zero::default(),
            }),
        };
        service.follow_rules(config)?;
        {
            let mut parts = service.parts();
            parts.persistence = service.memory(&parts, config);
            service.move_to(&mut parts, config.servers.clone(), changes)?;
        }
        Ok(service)
    }

    /// What it could be.
    pub(super) fn could_be(&self, config: &ServiceConfig) -> Result<(), ServiceError> {
        Self::new(config, self.parts().followed(config)).map(drop)
    }

    pub(super) fn parts(&self) -> MutexGuard<'_, Parts> {
        lock(&self.parts)
    }

    fn follow_rules(&self, config: &ServiceConfig) -> Result<(), SetError> {
        let set = self.balancer.set();
        set.set_slow_start(config.slow_start.as_ref().map(|it| it.rule()));
        set.set_fail_mode(config.fail_mode.0)?;
        set.set_quorum(config.quorum.map(|it| it.rule()))
    }

    /// What remembers clients by another rule, and knows those who are known.
    fn memory(&self, parts: &Parts, config: &ServiceConfig) -> Memory {
        let asked = config.persistence.as_ref()?;
        let persistence = asked.rule().over(self.balancer.clone());
        if let Some(known) = &parts.persistence {
            persistence.restore(known.export(now(), None), now());
        }
        Some(Arc::new(persistence))
    }

    /// Makes the servers what a configuration and changes by hand say, in one publication. If that
    /// cannot be, nothing is changed.
    fn move_to(
        &self,
        parts: &mut Parts,
        servers: Vec<RealServer>,
        changes: Changes,
    ) -> Result<(), SetError> {
        let after = changes.over(&servers);
        let steps = diff::servers(&parts.changes.over(&parts.config.servers), &after);
        let id = |address: &SocketAddr| BackendId::from(&*address.to_string());
        self.balancer.set().edit(|edit| {
            for step in &steps {
                match step {
                    ServerStep::Add(server) => {
                        edit.insert(server.is.spec().admin(server.state.into())).map(drop)?;
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
            let is_ours = |name: &str| after.iter().any(|it| it.is.address.to_string() == name);
            for (server, change) in changes.servers().filter(|(name, _)| !is_ours(name)) {
                let id = BackendId::from(server);
                if change == parts.changes.change(server)
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
        parts.changes = changes;
        Ok(())
    }

    /// Begins to look after the servers.
    pub(super) fn watch(&self, monitor: &Monitor) -> Result<(), ServiceError> {
        let mut parts = self.parts();
        let plan = parts.config.plan().map_err(|fault| ServiceError::Config(fault.what))?;
        let known = parts.watch.take().map(|watch| {
            let known = watch.export();
            watch.stop();
            known
        });
        let watch = monitor.watch(self.balancer.set(), plan)?;
        if let Some(known) = known {
            watch.restore(&known)?;
        }
        parts.watch = Some(watch);
        Ok(())
    }

    /// Begins to follow the source of its servers, if it has one.
    pub(super) fn discover(&self) -> Result<(), ServiceError> {
        let mut parts = self.parts();
        if let Some(feed) = parts.feed.take() {
            feed.abort();
        }
        let Some(asked) = parts.config.discovery.clone() else {
            // What another source has named goes with it.
            let stay = parts.changes.over(&parts.config.servers);
            let stays =
                |id: &BackendId| stay.iter().any(|it| it.is.address.to_string() == id.as_str());
            self.balancer.set().edit(|edit| {
                let all: Vec<_> = edit.backends().map(|(it, _)| it.id().clone()).collect();
                all.iter().filter(|id| !stays(id)).try_for_each(|id| edit.remove(id).map(drop))
            })?;
            return Ok(());
        };
        let origin = asked.origin().map_err(|fault| ServiceError::Config(fault.what))?;
        parts.feed = Some(match origin {
            Origin::File(source) => self.feed(&parts, source, &asked),
            Origin::Dns(source) => self.feed(&parts, source, &asked),
        });
        Ok(())
    }

    fn feed<S: Source<SocketAddr> + 'static>(
        &self,
        parts: &Parts,
        source: S,
        asked: &DiscoveryConfig,
    ) -> JoinHandle<()> {
        let ours = parts.changes.over(&parts.config.servers);
        let is_ours =
            |id: &BackendId| ours.iter().any(|it| it.is.address.to_string() == id.as_str());
        let snapshot = self.balancer.snapshot();
        let left = snapshot.backends().iter().map(|it| it.id().clone()).filter(|id| !is_ours(id));
        let mut feed = Feed::new(self.balancer.set(), source).adopt(left);
        if asked.allow_empty {
            feed = feed.allow_empty();
        }
        if let Some(Time(deadline)) = asked.drain {
            feed = feed.removal(Removal::Drain { deadline });
        }
        let name = self.name.clone();
        tokio::spawn(async move {
            let status = feed.run().await;
            tracing::warn!("service {name}: discovery has ended: {}", status.state);
        })
    }

    /// Makes ready what another configuration asks for: takes sockets or opens them.
    pub(super) fn ready(
        &self,
        config: &ServiceConfig,
        change: ServiceChange,
        common: Common,
        sockets: &mut Sockets,
        others: &dyn Fn(&str) -> Option<Balancer<SocketAddr>>,
    ) -> Result<Next, ServiceError> {
        let parts = self.parts();
        let memory = match change.persistence {
            true => self.memory(&parts, config),
            false => parts.persistence.clone(),
        };
        let load = Load {
            config,
            balancer: &self.balancer,
            persistence: memory.as_ref(),
            workers: config.workers(common.workers),
            ahead: common.ahead,
            log: common.log,
            others,
        };
        // Those that stay as they are go on.
        let stays = |listen: &Listen| {
            !change.is_carried_anew() && parts.carriers.iter().any(|it| it.listen == *listen)
        };
        let listens = config.listen.0.iter().filter(|listen| !stays(listen));
        let ready =
            listens.map(|listen| Ready::new(listen, &load, sockets)).collect::<Result<_, _>>()?;
        Ok(Next { config: config.clone(), change, memory, ready })
    }

    /// Becomes what was made ready. What carried the same addresses until now ends what it has;
    /// addresses that are not asked for any more are no longer served, and connections to them have
    /// so long.
    pub(super) fn become_that(
        &self,
        next: Next,
        monitor: &Monitor,
        leaving: &Leaving,
    ) -> Result<(), ServiceError> {
        let Next { config, change, memory, ready } = next;
        let became = self.move_on(&config, change);
        {
            let mut parts = self.parts();
            parts.persistence = memory;
            // The servers are those that are there, also where others could not be.
            let servers = std::mem::take(&mut parts.config.servers);
            parts.config = ServiceConfig { servers, ..config };
        }
        // Whatever else cannot be: clients are served.
        let carried = self.carry(ready, leaving);
        became.and(carried)?;
        if change.rules {
            let config = self.parts().config.clone();
            self.follow_rules(&config)?;
        }
        if change.health {
            self.watch(monitor)?;
        }
        if change.discovery {
            self.discover()?;
        }
        Ok(())
    }

    /// Other servers, and another rule for them.
    fn move_on(&self, config: &ServiceConfig, change: ServiceChange) -> Result<(), ServiceError> {
        let mut parts = self.parts();
        let changes = parts.followed(config);
        let rule = || Registry::default().parse(&config.scheduler);
        // The new rule may be needed for the new servers, or the other way round.
        let early = change.scheduler && self.balancer.set_scheduler(rule()?).is_ok();
        self.move_to(&mut parts, config.servers.clone(), changes)?;
        if change.scheduler && !early {
            self.balancer.set_scheduler(rule()?)?;
        }
        Ok(())
    }

    fn carry(&self, ready: Vec<Ready>, leaving: &Leaving) -> Result<(), ServiceError> {
        let mut parts = self.parts();
        let mut result = Ok(());
        let begun = ready.into_iter().map(|ready| ready.run(&self.name));
        let begun = begun.filter_map(|it| it.map_err(|error| result = Err(error)).ok());
        let new: Vec<_> = begun.collect();
        for old in std::mem::take(&mut parts.carriers) {
            if new.iter().any(|it| it.listen == old.listen) {
                old.hand_over(Duration::MAX);
                parts.retired.push(old);
            } else if parts.config.listen.0.contains(&old.listen) {
                parts.carriers.push(old);
            } else {
                leaving.end(&old, self.protocol);
                parts.retired.push(old);
            }
        }
        parts.carriers.extend(new);
        parts.bury();
        // Each has threads, as long as it has connections.
        let many = parts.retired.len().saturating_sub(RETIRED);
        parts.retired.iter().take(many).for_each(|it| it.hand_over(leaving.within));
        result
    }

    /// The sockets of what carries it.
    pub(super) fn sockets(&self) -> Sockets {
        let mut all = Sockets::default();
        self.parts().carriers.iter().for_each(|it| all.extend(it.sockets(self.protocol)));
        all
    }

    /// Takes no more connections, which come to a successor or to nobody; those that are there have
    /// so long.
    pub(super) fn end(&self, within: Duration, is_succeeded: bool) {
        self.parts().all().for_each(|it| match is_succeeded {
            true => it.hand_over(within),
            false => it.drain(within),
        });
    }

    /// The same, where each address may have gone to another service, or to none.
    pub(super) fn leave(&self, leaving: &Leaving) {
        self.parts().all().for_each(|it| leaving.end(it, self.protocol));
    }

    /// Looks after nothing any more, and waits until nothing is carried.
    pub(super) async fn ended(&self) -> Drained {
        let carriers = {
            let mut parts = self.parts();
            if let Some(watch) = parts.watch.take() {
                watch.stop();
            }
            if let Some(feed) = parts.feed.take() {
                feed.abort();
            }
            let mut carriers = std::mem::take(&mut parts.carriers);
            carriers.append(&mut parts.retired);
            carriers
        };
        let mut sum = Drained::default();
        for mut carrier in carriers {
            let drained = carrier.ended().await;
            sum.finished += drained.finished;
            sum.cut += drained.cut;
        }
        sum
    }

    /// Is there a server that could serve?
    pub(super) fn is_up(&self) -> bool {
        let snapshot = self.balancer.snapshot();
        snapshot.members().iter().any(|member| member.state() == State::Eligible)
    }

    /// Does something by hand, all of it or nothing.
    pub(super) fn edit(&self, edits: &[Edit]) -> Result<(), DirectorError> {
        let mut parts = self.parts();
        let snapshot = self.balancer.snapshot();
        let has = |server: &str| snapshot.find(&BackendId::from(server)).is_some();
        let mut changes = parts.changes.clone();
        for edit in edits {
            let service = || self.name.clone();
            match edit {
                Edit::Change(server, _) | Edit::Remove(server) if !has(server) => {
                    let server = server.clone();
                    return Err(DirectorError::NoServer { service: service(), server });
                }
                Edit::Add(server) if has(&server.address.to_string()) => {
                    let server = server.address;
                    return Err(DirectorError::ServerExists { service: service(), server });
                }
                _ => changes.note(edit),
            }
        }
        changes.prune(&parts.config.servers);
        let servers = parts.config.servers.clone();
        self.move_to(&mut parts, servers, changes).map_err(|source| DirectorError::Service {
            service: self.name.clone(),
            source: source.into(),
        })
    }

    /// Takes over what was done by hand at another director.
    pub(super) fn merge(&self, others: &Changes) -> Result<(), SetError> {
        let mut parts = self.parts();
        let mut changes = parts.changes.clone();
        if !changes.merge(others) {
            return Ok(());
        }
        let servers = parts.config.servers.clone();
        self.move_to(&mut parts, servers, changes)
    }

    /// What checks and traffic have taught, without counts.
    pub(super) fn learned(&self) -> Option<Saved> {
        self.parts().watch.as_ref().map(|watch| watch.export().without_outcomes())
    }

    /// Takes up what another director has learned; its own checks go before that.
    pub(super) fn learn(&self, saved: &Saved) -> Result<(), SetError> {
        self.parts().watch.as_ref().map_or(Ok(()), |watch| watch.restore(saved))
    }

    /// Who is carried at this moment, by those that are to end also.
    pub(super) fn connections(&self, most: usize) -> Vec<Connection> {
        let parts = self.parts();
        parts.all().fold(Vec::new(), |mut all, carrier| {
            all.extend(carrier.connections(most - all.len()));
            all
        })
    }

    /// What all directors have done.
    pub(super) fn totals(&self) -> Totals {
        let mut parts = self.parts();
        parts.bury();
        parts.before.plus(parts.own())
    }

    /// What this director has done, in detail.
    pub(super) fn measured(&self) -> Measured {
        let mut parts = self.parts();
        parts.bury();
        let snapshot = self.balancer.snapshot();
        let is_there = |name: &str| snapshot.find(&BackendId::from(name)).is_some();
        parts.ended.servers.retain(|name, _| is_there(name));
        let mut sum = Measured::default();
        sum.merge(&parts.ended);
        parts.all().for_each(|it| sum.add(&it.hold));
        sum
    }

    /// Takes over what all have done, as another knows it: totals go on, and never back.
    pub(super) fn take_totals(&self, totals: Totals) {
        let mut parts = self.parts();
        parts.before = totals.minus(parts.own());
    }
}

impl Parts {
    /// What is left of changes by hand under another configuration.
    fn followed(&self, config: &ServiceConfig) -> Changes {
        let mut changes = self.changes.clone();
        changes.follow(&self.config.servers, &config.servers);
        changes
    }

    /// All that carry something.
    pub(super) fn all(&self) -> impl Iterator<Item = &Carrier> {
        self.carriers.iter().chain(&self.retired)
    }

    /// Forgets carriers that are gone, but for what they did.
    fn bury(&mut self) {
        for gone in self.retired.extract_if(.., |it| it.has_ended()) {
            self.ended.add(&gone.hold);
        }
        self.ended.active = 0;
    }

    fn own(&self) -> Totals {
        self.all().fold(self.ended.totals, |sum, it| sum.plus(it.counted().totals()))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.stop();
        }
        if let Some(feed) = self.feed.take() {
            feed.abort();
        }
    }
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
