//! A director that runs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::admin::{AdminServer, AdminServerGuard};
use super::config::{DirectorConfig, RealServer};
use super::error::DirectorError;
use super::frontend::ListeningSockets;
use super::handover::Predecessor;
use super::history::TrafficHistory;
use super::overrides::{ServerChange, ServerEdit};
use super::service::VirtualService;
use super::sync::StateSync;
use super::vrrp::VrrpDriver;
use crate::forward::DrainReport;
use crate::health::Monitor;
use crate::sync::{Mutex, lock};
use crate::vrrp::Vrrp;

/// A director that runs; a cheap clone. It ends with [`stop`](Self::stop), or with its runtime.
#[derive(Clone, Debug)]
pub struct Director {
    pub(super) shared: Arc<DirectorShared>,
}

#[derive(Debug)]
pub(super) struct DirectorShared {
    /// What it was told last, and who tells it something next.
    pub(super) config: tokio::sync::Mutex<DirectorConfig>,
    services: ArcSwap<Vec<Arc<VirtualService>>>,
    pub(super) monitor: Monitor,
    pub(super) vrrp_driver: Mutex<Option<Arc<VrrpDriver>>>,
    pub(super) state_sync: Mutex<Option<Arc<StateSync>>>,
    pub(super) admin_server: Mutex<Option<AdminServer>>,
    pub(super) tasks: Mutex<DirectorTasks>,
    /// Services that were taken away, while they carry anything.
    draining: Mutex<Vec<JoinHandle<DrainReport>>>,
    pub(super) history: Mutex<TrafficHistory>,
    pub(super) started_at: Instant,
    pub(super) has_successor: watch::Sender<bool>,
}

/// What runs beside.
#[derive(Debug, Default)]
pub(super) struct DirectorTasks {
    pub(super) permanent: Vec<AbortOnDropHandle<()>>,
    pub(super) admin: Option<AdminServerGuard>,
    pub(super) vrrp: Option<AbortOnDropHandle<()>>,
    pub(super) sync: Vec<AbortOnDropHandle<()>>,
    pub(super) handover: Option<AbortOnDropHandle<()>>,
}

/// A task that ends with who holds it.
pub(super) fn spawn_abort_on_drop(
    task: impl Future<Output = ()> + Send + 'static,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

impl Director {
    /// Starts what a configuration asks for, on the runtime that this is called on. If it has a
    /// `handover` and a director runs there, this one takes its place: no client is refused.
    ///
    /// # Errors
    /// [`DirectorError`] names what cannot be; nothing runs then.
    ///
    /// # Cancel safety
    /// Dropped on the way, what was started ends.
    pub async fn start(config: DirectorConfig) -> Result<Self, DirectorError> {
        Self::start_with(config, ListeningSockets::default()).await
    }

    /// As [`start`](Self::start), with sockets that are open already: those of its addresses are
    /// taken, the others closed.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        config: DirectorConfig,
        sockets: ListeningSockets,
    ) -> Result<Self, DirectorError> {
        let mut sockets = sockets;
        let mut predecessor = None;
        if let Some(path) = config.handover() {
            let found = Predecessor::connect(path).await.map_err(|source| {
                DirectorError::Handover { path: path.to_owned(), source: io::Error::other(source) }
            })?;
            if let Some((found, taken)) = found {
                sockets.extend(taken);
                predecessor = Some(found);
            }
        }
        let monitor = Monitor::new();
        let run = spawn_abort_on_drop(monitor.run());
        let inner = DirectorShared {
            config: tokio::sync::Mutex::default(),
            services: ArcSwap::default(),
            monitor,
            vrrp_driver: Mutex::default(),
            state_sync: Mutex::default(),
            admin_server: Mutex::default(),
            tasks: Mutex::new(DirectorTasks { permanent: vec![run], ..DirectorTasks::default() }),
            draining: Mutex::default(),
            history: Mutex::default(),
            started_at: super::service::tokio_now(),
            has_successor: watch::Sender::new(false),
        };
        let director = Self { shared: Arc::new(inner) };
        let keep = spawn_abort_on_drop(super::history::run_sampler(Arc::clone(&director.shared)));
        lock(&director.shared.tasks).permanent.push(keep);
        // From nothing to something is a change as any other.
        if let Err(error) = director.apply_config(config, sockets).await {
            director.stop(Duration::ZERO).await;
            return Err(error);
        }
        if let Some(Err(error)) = predecessor.map(Predecessor::confirm_takeover) {
            tracing::warn!("the director before this one has gone early: {error}");
        }
        Ok(director)
    }

    /// What has the virtual addresses; `None` without a `[vrrp]` table. A reload that changes the
    /// table has another one after it.
    #[must_use]
    pub fn vrrp(&self) -> Option<Arc<Vrrp>> {
        self.shared.vrrp_driver().map(|pair| Arc::clone(pair.vrrp()))
    }

    /// What checks and traffic say of servers, from now on.
    #[must_use]
    pub fn health_events(&self) -> crate::health::HealthEvents {
        self.shared.monitor.events()
    }

    /// Where the admin pages are, with the real port where 0 was asked for.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        lock(&self.shared.admin_server).as_ref().map(AdminServer::address)
    }

    /// Changes a server by hand. It stays so, whatever is reloaded, until the configuration says
    /// something else of it than before; and the standby is told.
    ///
    /// # Errors
    /// [`DirectorError::NoService`], [`DirectorError::NoServer`], or that the scheduler cannot use
    /// the weight. Nothing is changed then.
    pub fn change_server(
        &self,
        service: &str,
        server: &str,
        change: ServerChange,
    ) -> Result<(), DirectorError> {
        self.edit_servers(service, &[ServerEdit::Change(server.to_owned(), change)])
    }

    /// Adds a server by hand, as [`change_server`](Self::change_server) changes one.
    ///
    /// # Errors
    /// [`DirectorError::NoService`], [`DirectorError::ServerExists`], or that the scheduler cannot
    /// use it.
    pub fn add_server(&self, service: &str, server: RealServer) -> Result<(), DirectorError> {
        self.edit_servers(service, &[ServerEdit::Add(server)])
    }

    /// Takes a server out by hand. Connections that it has go on.
    ///
    /// # Errors
    /// [`DirectorError::NoService`], [`DirectorError::NoServer`].
    pub fn remove_server(&self, service: &str, server: &str) -> Result<(), DirectorError> {
        self.edit_servers(service, &[ServerEdit::Remove(server.to_owned())])
    }

    /// Does several things by hand, in one publication or not at all.
    pub(super) fn edit_servers(
        &self,
        service: &str,
        edits: &[ServerEdit],
    ) -> Result<(), DirectorError> {
        self.shared.find_service(service)?.edit_servers(edits)
    }

    /// Ends it: hands the virtual addresses over, serving until another has them, which takes a part
    /// of an advertisement's interval; then takes no more connections, and gives those that are there
    /// so long to end by themselves. Tells what became of them.
    ///
    /// Connections to a virtual address end with it; time is for those to addresses that stay.
    ///
    /// # Cancel safety
    /// Dropped, it has handed over, and what is left of connections is cut.
    pub async fn stop(&self, within: Duration) -> DrainReport {
        if let Some(pair) = self.shared.vrrp_driver() {
            pair.stop().await;
        }
        let services = self.shared.services();
        let is_succeeded = *self.shared.has_successor.borrow();
        services.iter().for_each(|service| service.drain(within, is_succeeded));
        let mut sum = DrainReport::default();
        for service in services.iter() {
            let drained = service.wait_drained().await;
            sum.finished += drained.finished;
            sum.cut += drained.cut;
        }
        self.shared.monitor.shutdown();
        *lock(&self.shared.tasks) = DirectorTasks::default();
        // They have been given their time.
        std::mem::take(&mut *lock(&self.shared.draining)).iter().for_each(JoinHandle::abort);
        sum
    }
}

impl DirectorShared {
    /// The services as they are now.
    pub(super) fn services(&self) -> Arc<Vec<Arc<VirtualService>>> {
        self.services.load_full()
    }

    pub(super) fn find_service(&self, name: &str) -> Result<Arc<VirtualService>, DirectorError> {
        let found = self.services().iter().find(|it| it.name == name).cloned();
        found.ok_or_else(|| DirectorError::NoService(name.to_owned()))
    }

    pub(super) fn publish_services(&self, services: Vec<Arc<VirtualService>>) {
        self.services.store(Arc::new(services));
    }

    pub(super) fn vrrp_driver(&self) -> Option<Arc<VrrpDriver>> {
        lock(&self.vrrp_driver).clone()
    }

    pub(super) fn state_sync(&self) -> Option<Arc<StateSync>> {
        lock(&self.state_sync).clone()
    }

    /// Does it serve the virtual addresses?
    pub(super) fn is_active(&self) -> bool {
        self.vrrp_driver().is_none_or(|pair| pair.vrrp().is_master())
    }

    /// Lets go of a service that has been drained, once it carries nothing.
    pub(super) fn drain_in_background(&self, service: Arc<VirtualService>) {
        let mut leaving = lock(&self.draining);
        leaving.retain(|it| !it.is_finished());
        leaving.push(tokio::spawn(async move { service.wait_drained().await }));
    }
}
