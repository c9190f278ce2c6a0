//! A director that runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::admin;
use super::config::Config;
use super::error::DirectorError;
use super::pair::Pair;
use super::service::{Running, Service};
use super::status::Status;
use super::sync::Sync;
use super::wanted::ServerChange;
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
    pub(super) services: Vec<Service>,
    monitor: Monitor,
    pub(super) pair: Option<Pair>,
    pub(super) sync: Option<Sync>,
    admin: Option<SocketAddr>,
    running: Mutex<Carriers>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What carries the services; dropped, it ends them at once.
#[derive(Debug, Default)]
struct Carriers(Vec<Running>);

impl Drop for Carriers {
    fn drop(&mut self) {
        self.0.iter().for_each(Running::abort);
    }
}

impl Director {
    /// Starts what a configuration asks for, on the runtime that this is called on.
    ///
    /// # Errors
    /// [`DirectorError`] names what cannot be; nothing runs then.
    ///
    /// # Cancel safety
    /// Dropped on the way, what was started ends.
    pub async fn start(config: Config) -> Result<Self, DirectorError> {
        let workers = config.workers.map(usize::from);
        let ahead = config.vrrp.is_some();
        let monitor = Monitor::new();
        let (mut services, mut running) = (Vec::new(), Carriers::default());
        for asked in &config.services {
            let started = Service::start(asked, workers, ahead, &monitor);
            let (service, carries) = started
                .map_err(|source| DirectorError::Service { service: asked.name.clone(), source })?;
            services.push(service);
            running.0.push(carries);
        }
        let admin = listen("admin", config.admin.as_ref().map(|admin| admin.listen)).await?;
        let sync = listen("sync", config.sync.as_ref().map(|sync| sync.listen)).await?;
        let pair = config.vrrp.as_ref().map(|asked| Pair::start(asked, &services)).transpose()?;
        let inner = Arc::new(Inner {
            services,
            monitor,
            pair,
            sync: config.sync.map(Sync::new),
            admin: admin.as_ref().and_then(|listener| listener.local_addr().ok()),
            running: Mutex::new(running),
            tasks: Mutex::new(Vec::new()),
        });
        let director = Self { inner };
        director.spawn(director.inner.monitor.run());
        if let Some(listener) = admin {
            director.spawn(admin::serve(listener, director.clone()));
        }
        if director.inner.pair.is_some() {
            director.spawn(super::pair::follow(Arc::clone(&director.inner)));
        }
        if let Some(listener) = sync {
            director.spawn(super::sync::tell(listener, Arc::clone(&director.inner)));
            director.spawn(super::sync::follow(Arc::clone(&director.inner)));
        }
        Ok(director)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.inner.tasks).push(tokio::spawn(task));
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            active: self.inner.is_active(),
            services: self.inner.services.iter().map(Service::status).collect(),
            vrrp: self.vrrp().and_then(Vrrp::view),
            sync: self.inner.sync.as_ref().map(Sync::status),
        }
    }

    /// What has the virtual addresses; `None` without a `[vrrp]` table.
    #[must_use]
    pub fn vrrp(&self) -> Option<&Vrrp> {
        self.inner.pair.as_ref().map(Pair::vrrp)
    }

    /// Where the admin pages are, with the real port where 0 was asked for.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.inner.admin
    }

    /// Changes a server by hand; it stays so until the process ends, and the standby is told.
    ///
    /// # Errors
    /// [`DirectorError::NoService`], [`DirectorError::NoServer`], or that the scheduler cannot use
    /// the weight.
    pub fn change(
        &self,
        service: &str,
        server: &str,
        change: ServerChange,
    ) -> Result<(), DirectorError> {
        let found = self.inner.services.iter().find(|it| it.name == service);
        let found = found.ok_or_else(|| DirectorError::NoService(service.to_owned()))?;
        if !found.has(server) {
            let (service, server) = (service.to_owned(), server.to_owned());
            return Err(DirectorError::NoServer { service, server });
        }
        found.apply(server, change).map_err(|source| DirectorError::Service {
            service: service.to_owned(),
            source: source.into(),
        })?;
        lock(&found.changes).note(server, change);
        Ok(())
    }

    /// Ends it: hands the virtual addresses over at once, takes no more connections, and gives those
    /// that are there so long to end by themselves. Tells what became of them.
    ///
    /// Connections to a virtual address end with it; time is for those to addresses that stay.
    ///
    /// # Cancel safety
    /// Dropped, it has handed over, and what is left of connections is cut.
    pub async fn stop(&self, within: Duration) -> Drained {
        if let Some(pair) = &self.inner.pair {
            pair.stop();
        }
        for service in &self.inner.services {
            service.drain(within);
        }
        let mut running = std::mem::take(&mut *lock(&self.inner.running));
        let mut sum = Drained::default();
        for carries in &mut running.0 {
            // What a forwarder has to say at its end is how it went; others go on.
            if let Ok(Ok(drained)) = carries.await {
                sum.finished += drained.finished;
                sum.cut += drained.cut;
            }
        }
        self.inner.monitor.shutdown();
        for task in std::mem::take(&mut *lock(&self.inner.tasks)) {
            task.abort();
        }
        sum
    }
}

impl Inner {
    /// Does it serve the virtual addresses?
    pub(super) fn is_active(&self) -> bool {
        self.pair.as_ref().is_none_or(|pair| pair.vrrp().is_master())
    }
}

async fn listen(
    table: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<TcpListener>, DirectorError> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    listener.map(Some).map_err(|source| DirectorError::Listen { table, address, source })
}
