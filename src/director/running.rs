//! A director that runs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::admin::{Admin, Serving};
use super::carrier::Sockets;
use super::config::{Config, RealServer};
use super::error::DirectorError;
use super::history::History;
use super::pair::Pair;
use super::service::Service;
use super::succession::Predecessor;
use super::sync::Sync;
use super::wanted::{Edit, ServerChange};
use crate::forward::Drained;
use crate::health::Monitor;
use crate::sync::{Mutex, lock};
use crate::vrrp::Vrrp;

/// A director that runs; a cheap clone. It ends with [`stop`](Self::stop), or with its runtime.
#[derive(Clone, Debug)]
pub struct Director {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// What it was told last, and who tells it something next.
    pub(super) config: tokio::sync::Mutex<Config>,
    services: ArcSwap<Vec<Arc<Service>>>,
    pub(super) monitor: Monitor,
    pub(super) pair: Mutex<Option<Arc<Pair>>>,
    pub(super) sync: Mutex<Option<Arc<Sync>>>,
    pub(super) admin: Mutex<Option<Admin>>,
    pub(super) tasks: Mutex<Tasks>,
    /// Services that were taken away, while they carry anything.
    leaving: Mutex<Vec<JoinHandle<Drained>>>,
    pub(super) history: Mutex<History>,
    pub(super) since: Instant,
    pub(super) succeeded: watch::Sender<bool>,
}

/// What runs beside.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    pub(super) always: Vec<AbortOnDropHandle<()>>,
    pub(super) admin: Option<Serving>,
    pub(super) pair: Option<AbortOnDropHandle<()>>,
    pub(super) sync: Vec<AbortOnDropHandle<()>>,
    pub(super) handover: Option<AbortOnDropHandle<()>>,
}

/// A task that ends with who holds it.
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
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
    pub async fn start(config: Config) -> Result<Self, DirectorError> {
        Self::start_with(config, Sockets::default()).await
    }

    /// As [`start`](Self::start), with sockets that are open already: those of its addresses are
    /// taken, the others closed.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(config: Config, sockets: Sockets) -> Result<Self, DirectorError> {
        let mut sockets = sockets;
        let mut predecessor = None;
        if let Some(path) = config.handover() {
            let found = Predecessor::find(path).await.map_err(|source| {
                DirectorError::Handover { path: path.to_owned(), source: io::Error::other(source) }
            })?;
            if let Some((found, taken)) = found {
                sockets.extend(taken);
                predecessor = Some(found);
            }
        }
        let monitor = Monitor::new();
        let run = spawn(monitor.run());
        let inner = Inner {
            config: tokio::sync::Mutex::default(),
            services: ArcSwap::default(),
            monitor,
            pair: Mutex::default(),
            sync: Mutex::default(),
            admin: Mutex::default(),
            tasks: Mutex::new(Tasks { always: vec![run], ..Tasks::default() }),
            leaving: Mutex::default(),
            history: Mutex::default(),
            since: super::service::now(),
            succeeded: watch::Sender::new(false),
        };
        let director = Self { inner: Arc::new(inner) };
        let keep = spawn(super::history::keep(Arc::clone(&director.inner)));
        lock(&director.inner.tasks).always.push(keep);
        // From nothing to something is a change as any other.
        if let Err(error) = director.change_to(config, sockets).await {
            director.stop(Duration::ZERO).await;
            return Err(error);
        }
        if let Some(Err(error)) = predecessor.map(Predecessor::dismiss) {
            tracing::warn!("the director before this one has gone early: {error}");
        }
        Ok(director)
    }

    /// What has the virtual addresses; `None` without a `[vrrp]` table. A reload that changes the
    /// table has another one after it.
    #[must_use]
    pub fn vrrp(&self) -> Option<Arc<Vrrp>> {
        self.inner.pair().map(|pair| Arc::clone(pair.vrrp()))
    }

    /// What checks and traffic say of servers, from now on.
    #[must_use]
    pub fn health(&self) -> crate::health::Events {
        self.inner.monitor.events()
    }

    /// Where the admin pages are, with the real port where 0 was asked for.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        lock(&self.inner.admin).as_ref().map(Admin::address)
    }

    /// Changes a server by hand. It stays so, whatever is reloaded, until the configuration says
    /// something else of it than before; and the standby is told.
    ///
    /// # Errors
    /// [`DirectorError::NoService`], [`DirectorError::NoServer`], or that the scheduler cannot use
    /// the weight. Nothing is changed then.
    pub fn change(
        &self,
        service: &str,
        server: &str,
        change: ServerChange,
    ) -> Result<(), DirectorError> {
        self.edit(service, &[Edit::Change(server.to_owned(), change)])
    }

    /// Adds a server by hand, as [`change`](Self::change) changes one.
    ///
    /// # Errors
    /// [`DirectorError::NoService`], [`DirectorError::ServerExists`], or that the scheduler cannot
    /// use it.
    pub fn add(&self, service: &str, server: RealServer) -> Result<(), DirectorError> {
        self.edit(service, &[Edit::Add(server)])
    }

    /// Takes a server out by hand. Connections that it has go on.
    ///
    /// # Errors
    /// [`DirectorError::NoService`], [`DirectorError::NoServer`].
    pub fn remove(&self, service: &str, server: &str) -> Result<(), DirectorError> {
        self.edit(service, &[Edit::Remove(server.to_owned())])
    }

    /// Does several things by hand, in one publication or not at all.
    pub(super) fn edit(&self, service: &str, edits: &[Edit]) -> Result<(), DirectorError> {
        self.inner.service(service)?.edit(edits)
    }

    /// Ends it: hands the virtual addresses over, serving until another has them, which takes a part
    /// of an advertisement's interval; then takes no more connections, and gives those that are there
    /// so long to end by themselves. Tells what became of them.
    ///
    /// Connections to a virtual address end with it; time is for those to addresses that stay.
    ///
    /// # Cancel safety
    /// Dropped, it has handed over, and what is left of connections is cut.
    pub async fn stop(&self, within: Duration) -> Drained {
        if let Some(pair) = self.inner.pair() {
            pair.stop().await;
        }
        let services = self.inner.services();
        let is_succeeded = *self.inner.succeeded.borrow();
        services.iter().for_each(|service| service.end(within, is_succeeded));
        let mut sum = Drained::default();
        for service in services.iter() {
            let drained = service.ended().await;
            sum.finished += drained.finished;
            sum.cut += drained.cut;
        }
        self.inner.monitor.shutdown();
        *lock(&self.inner.tasks) = Tasks::default();
        // They have been given their time.
        std::mem::take(&mut *lock(&self.inner.leaving)).iter().for_each(JoinHandle::abort);
        sum
    }
}

impl Inner {
    /// The services as they are now.
    pub(super) fn services(&self) -> Arc<Vec<Arc<Service>>> {
        self.services.load_full()
    }

    pub(super) fn service(&self, name: &str) -> Result<Arc<Service>, DirectorError> {
        let found = self.services().iter().find(|it| it.name == name).cloned();
        found.ok_or_else(|| DirectorError::NoService(name.to_owned()))
    }

    pub(super) fn publish(&self, services: Vec<Arc<Service>>) {
        self.services.store(Arc::new(services));
    }

    pub(super) fn pair(&self) -> Option<Arc<Pair>> {
        lock(&self.pair).clone()
    }

    pub(super) fn sync(&self) -> Option<Arc<Sync>> {
        lock(&self.sync).clone()
    }

    /// Does it serve the virtual addresses?
    pub(super) fn is_active(&self) -> bool {
        self.pair().is_none_or(|pair| pair.vrrp().is_master())
    }

    /// Lets go of a service that has been drained, once it carries nothing.
    pub(super) fn let_go(&self, service: Arc<Service>) {
        let mut leaving = lock(&self.leaving);
        leaving.retain(|it| !it.is_finished());
        leaving.push(tokio::spawn(async move { service.ended().await }));
    }
}
