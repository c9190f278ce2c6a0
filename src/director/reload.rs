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

use super::admin::AdminServer;
use super::config::{DirectorConfig, ListenAddress, ServiceConfig, ServiceProtocol};
use super::diff::{ReloadPlan, ServiceDiff, ServiceStep};
use super::error::{DirectorError, ServiceError};
use super::frontend::ListeningSockets;
use super::handle::{Director, spawn_abort_on_drop};
use super::handover::HandoverListener;
use super::overrides::ServiceOverrides;
use super::service::{CommonServiceOptions, DrainPolicy, PreparedService, VirtualService};
use super::sync::{self, StateSync};
use super::vrrp::{self, VrrpDriver};
use crate::sync::lock;

/// What a reload has changed; shown, a line for each thing.
#[derive(Clone, Debug)]
pub struct ReloadSummary(ReloadPlan);

impl ReloadSummary {
    /// Was there nothing to be changed?
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.0 == ReloadPlan::default()
    }
}

impl fmt::Display for ReloadSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is ready to be carried out.
struct PreparedReload {
    /// `None` is taken away.
    services: Vec<(Arc<VirtualService>, Option<PreparedService>)>,
    all: Vec<Arc<VirtualService>>,
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
    pub async fn reload(&self, config: DirectorConfig) -> Result<ReloadSummary, DirectorError> {
        self.apply_config(config, ListeningSockets::default()).await
    }

    pub(super) async fn apply_config(
        &self,
        config: DirectorConfig,
        sockets: ListeningSockets,
    ) -> Result<ReloadSummary, DirectorError> {
        let mut current = self.shared.config.lock().await;
        let plan = ReloadPlan::new(&current, &config);
        let prepared = self.prepare(&current, &config, &plan, sockets).await?;
        if plan.vrrp {
            self.restart_vrrp(&current, &config).await?;
        }
        let result = self.commit(&config, &plan, prepared);
        *current = config;
        result.map(|()| ReloadSummary(plan))
    }

    /// Everything that can fail.
    async fn prepare(
        &self,
        before: &DirectorConfig,
        config: &DirectorConfig,
        plan: &ReloadPlan,
        mut sockets: ListeningSockets,
    ) -> Result<PreparedReload, DirectorError> {
        let at = |name: &str| {
            let service = name.to_owned();
            move |source: ServiceError| DirectorError::Service { service, source }
        };
        let running = self.shared.services();
        let find = |config: &ServiceConfig| {
            let is_it = |it: &&Arc<VirtualService>| {
                (&it.name, it.protocol) == (&config.name, config.protocol)
            };
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
                    let new = VirtualService::new(asked, ServiceOverrides::default());
                    Arc::new(new.map_err(at(&asked.name))?)
                }
                Some(service) => {
                    if steps.contains_key(&*asked.name) {
                        service.validate(asked).map_err(at(&asked.name))?;
                    }
                    service
                }
            });
        }
        let mut services = Vec::new();
        // Those that go first: an address may go from one to another.
        for gone in running.iter().filter(|it| !all.iter().any(|other| Arc::ptr_eq(it, other))) {
            sockets.extend(gone.duplicate_sockets());
            services.push((Arc::clone(gone), None));
        }
        for (service, asked) in all.iter().zip(&config.services) {
            if let Some(ServiceStep::Change(change)) = steps.get(&*asked.name)
                && (change.listen || change.needs_new_frontends())
            {
                sockets.extend(service.duplicate_sockets());
            }
        }
        let others = |name: &str| {
            all.iter().find(|it| it.name == name).map(|service| service.balancer.clone())
        };
        let common = CommonServiceOptions {
            workers: config.workers,
            freebind: !config.vrrp.is_empty(),
            log_connections: config.log.connections,
        };
        for (service, asked) in all.iter().zip(&config.services) {
            let change = match steps.get(&*asked.name) {
                None | Some(ServiceStep::Remove) => continue,
                Some(ServiceStep::Add) => ServiceDiff::ALL_OF_NEW_SERVICE,
                Some(ServiceStep::Change(change)) => *change,
            };
            let next = service.prepare(asked, change, common, &mut sockets, &others);
            services.push((Arc::clone(service), Some(next.map_err(at(&asked.name))?)));
        }
        let inner = &self.shared;
        let was = before.admin.as_ref().map(|it| it.listen);
        let open = lock(&inner.admin_server).as_ref().map(AdminServer::listener);
        let is = config.admin.as_ref().map(|it| it.listen);
        let admin = open_listener("admin", (was, open), is, &mut sockets).await?;
        let was = before.sync.as_ref().map(|it| it.listen);
        let open = inner.state_sync().map(|it| it.listener());
        let is = config.sync.as_ref().map(|it| it.listen);
        let sync = open_listener("sync", (was, open), is, &mut sockets).await?;
        for left in sockets.unclaimed_addresses() {
            tracing::debug!("nobody listens on {left} any more");
        }
        Ok(PreparedReload { services, all, admin, sync })
    }

    /// Another part in the election.
    pub(super) async fn restart_vrrp(
        &self,
        before: &DirectorConfig,
        config: &DirectorConfig,
    ) -> Result<(), DirectorError> {
        let inner = &self.shared;
        lock(&inner.tasks).vrrp = None;
        let old = lock(&inner.vrrp_driver).take();
        if let Some(old) = old {
            old.stop().await;
        }
        let begin = |config: &DirectorConfig| -> Result<(), DirectorError> {
            if config.vrrp.is_empty() {
                return Ok(());
            }
            let pair = Arc::new(VrrpDriver::start(&config.vrrp, &inner.monitor)?);
            *lock(&inner.vrrp_driver) = Some(Arc::clone(&pair));
            lock(&inner.tasks).vrrp =
                Some(spawn_abort_on_drop(vrrp::run_vrrp_driver(Arc::clone(inner), pair)));
            Ok(())
        };
        begin(config).inspect_err(|_| {
            if let Err(error) = begin(before) {
                tracing::error!("the election that was cannot be begun again: {error}");
            }
        })
    }

    /// What was made ready. What fails all the same is said, and the rest is carried out.
    fn commit(
        &self,
        config: &DirectorConfig,
        plan: &ReloadPlan,
        prepared: PreparedReload,
    ) -> Result<(), DirectorError> {
        let inner = &self.shared;
        let PreparedReload { services, all, admin, sync } = prepared;
        let mut result = Ok(());
        let leaving = DrainPolicy {
            drain_timeout: config.drain_timeout(),
            configured_listeners: config.listen_addresses(),
        };
        for (service, next) in services {
            let Some(next) = next else {
                service.retire(&leaving);
                inner.drain_in_background(service);
                continue;
            };
            let done = service.apply(next, &inner.monitor, &leaving);
            if let Err(source) = done {
                let error = DirectorError::Service { service: service.name.clone(), source };
                tracing::error!("{error}");
                result = Err(error);
            }
        }
        inner.publish_services(all);
        if plan.admin {
            let asked = config.admin.as_ref().zip(admin);
            let admin = asked.map(|(asked, listener)| AdminServer::new(asked, listener));
            let serving = admin.clone().map(|admin| admin.start(self.clone())).transpose();
            *lock(&inner.admin_server) = admin;
            match serving {
                Ok(serving) => lock(&inner.tasks).admin = serving,
                Err(source) => result = Err(DirectorError::AdminThread { source }),
            }
        }
        if plan.sync {
            let asked = config.sync.clone().zip(sync);
            let sync = asked.map(|(asked, listener)| Arc::new(StateSync::new(asked, listener)));
            let tasks = sync.iter().flat_map(|it| {
                let tell = spawn_abort_on_drop(sync::publish(Arc::clone(it), Arc::clone(inner)));
                [tell, spawn_abort_on_drop(sync::run_standby(Arc::clone(it), Arc::clone(inner)))]
            });
            let tasks = tasks.collect();
            *lock(&inner.state_sync) = sync.clone();
            lock(&inner.tasks).sync = tasks;
        }
        if plan.handover {
            let offer = config.handover().map(HandoverListener::bind).transpose();
            let task = offer
                .map(|offer| offer.map(|offer| spawn_abort_on_drop(offer.serve(self.clone()))));
            match task {
                Ok(task) => lock(&inner.tasks).handover = task,
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// All sockets that clients come to, once more.
    pub(super) fn duplicate_sockets(&self) -> ListeningSockets {
        let inner = &self.shared;
        let mut all = ListeningSockets::default();
        inner.services().iter().for_each(|service| all.extend(service.duplicate_sockets()));
        let admin = lock(&inner.admin_server).as_ref().map(AdminServer::listener);
        let others = admin.into_iter().chain(inner.state_sync().map(|it| it.listener()));
        let again = others.filter_map(|listener| listener.as_fd().try_clone_to_owned().ok());
        all.extend(ListeningSockets::from_descriptors(again));
        all
    }
}

/// The listener that is open, if it is that which is asked for; another one otherwise.
async fn open_listener(
    table: &'static str,
    (was, open): (Option<SocketAddr>, Option<Arc<TcpListener>>),
    is: Option<SocketAddr>,
    sockets: &mut ListeningSockets,
) -> Result<Option<Arc<TcpListener>>, DirectorError> {
    let Some(address) = is else { return Ok(None) };
    if was == is && open.is_some() {
        return Ok(open);
    }
    let given =
        sockets.take_for(ServiceProtocol::Tcp, &ListenAddress::Address(address)).into_iter().next();
    let listener = match given.map(std::net::TcpListener::from) {
        Some(given) => given.set_nonblocking(true).and_then(|()| TcpListener::from_std(given)),
        None => TcpListener::bind(address).await,
    };
    let listener = listener.map(|listener| Some(Arc::new(listener)));
    listener.map_err(|source| DirectorError::Listen { table, address, source })
}
