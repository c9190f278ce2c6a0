//! From one configuration to another, without what stays noticing.
//!
//! First everything is made ready that can fail: services that are new, schedulers and weights of
//! those that change, sockets. Nothing has changed until then. What follows is carried out: servers
//! in one publication a service, then whoever carries it. Sockets go from one forwarder to the next,
//! so that clients who wait in them are served; connections stay with the forwarder that took them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::admin::Admin;
use super::carrier::Sockets;
use super::config::{Config, Listen, Protocol, ServiceConfig};
use super::diff::{Plan, ServiceChange, ServiceStep};
use super::error::{DirectorError, ServiceError};
use super::pair::{self, Pair};
use super::running::{Director, spawn};
use super::service::{Common, Leaving, Next, Service};
use super::succession::Offer;
use super::sync::{self, Sync};
use super::wanted::Changes;
use crate::sync::lock;

/// What a reload has changed; shown, a line for each thing.
#[derive(Clone, Debug)]
pub struct Reloaded(Plan);

impl Reloaded {
    /// Was there nothing to be changed?
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.0 == Plan::default()
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is ready to be carried out.
struct Prepared {
    /// `None` is taken away.
    services: Vec<(Arc<Service>, Option<Next>)>,
    all: Vec<Arc<Service>>,
    admin: Option<Arc<TcpListener>>,
    sync: Option<Arc<TcpListener>>,
}

impl Director {
    /// Becomes what another configuration says. What is the same in both is not touched: listeners,
    /// servers, their health and counts, connections, flows. What was changed by hand stays where
    /// the configuration says nothing new.
    ///
    /// - Other servers, weights, limits, rules and checks are taken up in place.
    /// - Other options of a service (limits, timeouts, threads, PROXY headers, persistence) are for
    ///   connections that come: the same sockets are served by another forwarder, and no client is
    ///   refused. Flows of UDP begin anew with their next datagram.
    /// - A listener that is taken away is closed, and connections to it have the `drain_timeout`.
    /// - Another `[vrrp]` table ends this director's part in the election, in which the other takes
    ///   over, and begins another.
    ///
    /// # Errors
    /// [`DirectorError`] names what cannot be, and nothing has changed. A `[vrrp]` table is the
    /// exception: that it cannot be is seen when the old one has ended, which is then begun again.
    pub async fn reload(&self, config: Config) -> Result<Reloaded, DirectorError> {
        self.change_to(config, Sockets::default()).await
    }

    pub(super) async fn change_to(
        &self,
        config: Config,
        sockets: Sockets,
    ) -> Result<Reloaded, DirectorError> {
        let mut current = self.inner.config.lock().await;
        let plan = Plan::new(&current, &config);
        let prepared = self.prepare(&current, &config, &plan, sockets).await?;
        if plan.vrrp {
            self.change_vrrp(&current, &config).await?;
        }
        let result = self.carry_out(&config, &plan, prepared);
        *current = config;
        result.map(|()| Reloaded(plan))
    }

    /// Everything that can fail.
    async fn prepare(
        &self,
        before: &Config,
        config: &Config,
        plan: &Plan,
        mut sockets: Sockets,
    ) -> Result<Prepared, DirectorError> {
        let at = |name: &str| {
            let service = name.to_owned();
            move |source: ServiceError| DirectorError::Service { service, source }
        };
        let running = self.inner.services();
        let find = |config: &ServiceConfig| {
            let is_it =
                |it: &&Arc<Service>| (&it.name, it.protocol) == (&config.name, config.protocol);
            running.iter().find(is_it).cloned()
        };
        let steps: BTreeMap<&str, &ServiceStep> = plan
            .services
            .iter()
            .filter(|(_, step)| *step != ServiceStep::Remove)
            .map(|(name, step)| (&**name, step))
            .collect();
        let mut all = Vec::new();
        for asked in &config.services {
            all.push(match find(asked) {
                None => {
                    let new = Service::new(asked, Changes::default());
                    Arc::new(new.map_err(at(&asked.name))?)
                }
                Some(service) => {
                    if steps.contains_key(&*asked.name) {
                        service.could_be(asked).map_err(at(&asked.name))?;
                    }
                    service
                }
            });
        }
        let mut services = Vec::new();
        // Those that go first: an address may go from one to another.
        for gone in running.iter().filter(|it| !all.iter().any(|other| Arc::ptr_eq(it, other))) {
            sockets.extend(gone.sockets());
            services.push((Arc::clone(gone), None));
        }
        for (service, asked) in all.iter().zip(&config.services) {
            if let Some(ServiceStep::Change(change)) = steps.get(&*asked.name)
                && (change.listen || change.is_carried_anew())
            {
                sockets.extend(service.sockets());
            }
        }
        let others = |name: &str| {
            all.iter().find(|it| it.name == name).map(|service| service.balancer.clone())
        };
        let common = Common {
            workers: config.workers,
            ahead: !config.vrrp.is_empty(),
            log: config.log.connections,
        };
        for (service, asked) in all.iter().zip(&config.services) {
            let change = match steps.get(&*asked.name) {
                None | Some(ServiceStep::Remove) => continue,
                Some(ServiceStep::Add) => ServiceChange::NEW,
                Some(ServiceStep::Change(change)) => *change,
            };
            let next = service.ready(asked, change, common, &mut sockets, &others);
            services.push((Arc::clone(service), Some(next.map_err(at(&asked.name))?)));
        }
        let inner = &self.inner;
        let was = before.admin.as_ref().map(|it| it.listen);
        let open = lock(&inner.admin).as_ref().map(Admin::listener);
        let is = config.admin.as_ref().map(|it| it.listen);
        let admin = listen("admin", (was, open), is, &mut sockets).await?;
        let was = before.sync.as_ref().map(|it| it.listen);
        let open = inner.sync().map(|it| it.listener());
        let is = config.sync.as_ref().map(|it| it.listen);
        let sync = listen("sync", (was, open), is, &mut sockets).await?;
        for left in sockets.left() {
            tracing::debug!("nobody listens on {left} any more");
        }
        Ok(Prepared { services, all, admin, sync })
    }

    /// Another part in the election.
    pub(super) async fn change_vrrp(
        &self,
        before: &Config,
        config: &Config,
    ) -> Result<(), DirectorError> {
        let inner = &self.inner;
        lock(&inner.tasks).pair = None;
        let old = lock(&inner.pair).take();
        if let Some(old) = old {
            old.stop().await;
        }
        let begin = |config: &Config| -> Result<(), DirectorError> {
            if config.vrrp.is_empty() {
                return Ok(());
            }
            let pair = Arc::new(Pair::start(&config.vrrp, &inner.monitor)?);
            *lock(&inner.pair) = Some(Arc::clone(&pair));
            lock(&inner.tasks).pair = Some(spawn(pair::follow(Arc::clone(inner), pair)));
            Ok(())
        };
        begin(config).inspect_err(|_| {
            if let Err(error) = begin(before) {
                tracing::error!("the election that was cannot be begun again: {error}");
            }
        })
    }

    /// What was made ready. What fails all the same is said, and the rest is carried out.
    fn carry_out(
        &self,
        config: &Config,
        plan: &Plan,
        prepared: Prepared,
    ) -> Result<(), DirectorError> {
        let inner = &self.inner;
        let Prepared { services, all, admin, sync } = prepared;
        let mut result = Ok(());
        let leaving = Leaving { within: config.drain_timeout(), taken: config.listens() };
        for (service, next) in services {
            let Some(next) = next else {
                service.leave(&leaving);
                inner.let_go(service);
                continue;
            };
            let done = service.become_that(next, &inner.monitor, &leaving);
            if let Err(source) = done {
                let error = DirectorError::Service { service: service.name.clone(), source };
                tracing::error!("{error}");
                result = Err(error);
            }
        }
        inner.publish(all);
        if plan.admin {
            let asked = config.admin.as_ref().zip(admin);
            let admin = asked.map(|(asked, listener)| Admin::new(asked, listener));
            let serving = admin.clone().map(|admin| admin.start(self.clone())).transpose();
            *lock(&inner.admin) = admin;
            match serving {
                Ok(serving) => lock(&inner.tasks).admin = serving,
                Err(source) => result = Err(DirectorError::Thread { source }),
            }
        }
        if plan.sync {
            let asked = config.sync.clone().zip(sync);
            let sync = asked.map(|(asked, listener)| Arc::new(Sync::new(asked, listener)));
            let tasks = sync.iter().flat_map(|it| {
                let tell = spawn(sync::tell(Arc::clone(it), Arc::clone(inner)));
                [tell, spawn(sync::follow(Arc::clone(it), Arc::clone(inner)))]
            });
            let tasks = tasks.collect();
            *lock(&inner.sync) = sync.clone();
            lock(&inner.tasks).sync = tasks;
        }
        if plan.handover {
            let offer = config.handover().map(Offer::new).transpose();
            let task = offer.map(|offer| offer.map(|offer| spawn(offer.wait(self.clone()))));
            match task {
                Ok(task) => lock(&inner.tasks).handover = task,
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// All sockets that clients come to, once more.
    pub(super) fn sockets(&self) -> Sockets {
        let inner = &self.inner;
        let mut all = Sockets::default();
        inner.services().iter().for_each(|service| all.extend(service.sockets()));
        let admin = lock(&inner.admin).as_ref().map(Admin::listener);
        let others = admin.into_iter().chain(inner.sync().map(|it| it.listener()));
        let again = others.filter_map(|listener| listener.as_fd().try_clone_to_owned().ok());
        all.extend(Sockets::new(again));
        all
    }
}

/// The listener that is open, if it is that which is asked for; another one otherwise.
async fn listen(
    table: &'static str,
    (was, open): (Option<SocketAddr>, Option<Arc<TcpListener>>),
    is: Option<SocketAddr>,
    sockets: &mut Sockets,
) -> Result<Option<Arc<TcpListener>>, DirectorError> {
    let Some(address) = is else { return Ok(None) };
    if was == is && open.is_some() {
        return Ok(open);
    }
    let given = sockets.take(Protocol::Tcp, &Listen::Address(address)).into_iter().next();
    let listener = match given.map(std::net::TcpListener::from) {
        Some(given) => given.set_nonblocking(true).and_then(|()| TcpListener::from_std(given)),
        None => TcpListener::bind(address).await,
    };
    let listener = listener.map(|listener| Some(Arc::new(listener)));
    listener.map_err(|source| DirectorError::Listen { table, address, source })
}
