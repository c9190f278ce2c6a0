//! What serves a service at one address, a forwarder or an engine of the kernel: prepared, running, and
//! draining.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::check_paths::CheckPaths;
use super::config::{EngineKind, ListenAddress, LogFormat, ServiceConfig, ServiceProtocol};
use super::connection_log::{log_connection, log_engine_flow, log_flow};
use super::engines::ChosenEngine;
use super::error::ServiceError;
use super::sockets::ListeningSockets;
use crate::Balancer;
use crate::balancer::Persistence;
use crate::engine::{
    EngineAddress, EngineClaim, EngineFlowCallback, EngineFlowRecord, EngineProtocol,
    EngineRequest, EngineService, ForwardingMethods, NewConnections,
};
use crate::forward::{
    BindOptions, ConnectionInfo, DrainReport, Forwarder, Route, TcpHandle, UdpForwarder, UdpHandle,
    WorkerPool,
};
use crate::metrics::{ServiceCounters, ServiceTotals};

/// What a frontend is made from.
pub(super) struct FrontendSpec<'a> {
    pub(super) config: &'a ServiceConfig,
    pub(super) balancer: &'a Balancer<SocketAddr>,
    /// The persistence around the balancer.
    pub(super) persistence: Option<&'a Arc<Persistence<SocketAddr>>>,
    /// The worker threads of all services that have none of their own.
    pub(super) pool: &'a WorkerPool,
    /// Whether to bind addresses that this machine may not have yet (virtual addresses).
    pub(super) freebind: bool,
    /// The format of the log line of each connection or flow that ends; `None` for no line.
    pub(super) log_connections: Option<LogFormat>,
    pub(super) engine: &'a ChosenEngine,
    pub(super) methods: &'a ForwardingMethods,
    pub(super) check_paths: &'a CheckPaths,
    /// Finds the balancer of another service by name.
    pub(super) find_balancer: &'a dyn Fn(&str) -> Option<Balancer<SocketAddr>>,
}

/// A forwarder whose sockets are open and which does not accept yet, or what an engine has claimed.
#[derive(Debug)]
pub(super) struct PreparedFrontend {
    listen: ListenAddress,
    engine: EngineKind,
    forwarder: AnyForwarder,
}

#[derive(Debug)]
enum AnyForwarder {
    Tcp(Box<Forwarder>),
    Udp(Box<UdpForwarder>),
    Kernel(Box<dyn EngineClaim>),
}

impl PreparedFrontend {
    /// Takes the open sockets of an address, or opens new ones. UDP clients of the frontend that is
    /// replaced keep their servers.
    pub(super) fn prepare(
        listen: &ListenAddress,
        spec: &FrontendSpec<'_>,
        sockets: &mut ListeningSockets,
        replaced: Option<&Frontend>,
    ) -> Result<Self, ServiceError> {
        let ChosenEngine { kind, engine: of_kernel } = spec.engine;
        let (listen, engine) = (listen.clone(), *kind);
        if let (Some(of_kernel), Some(address)) = (of_kernel, spec.engine_address(&listen)) {
            let claim = of_kernel.claim(spec.engine_request(address))?;
            return Ok(Self { listen, engine, forwarder: AnyForwarder::Kernel(claim) });
        }
        let open = sockets.take_for(spec.config.protocol, &listen);
        let options = BindOptions {
            is_nonlocal: spec.freebind,
            is_shared: open.is_empty() && sockets.share_port(spec.config.protocol, &listen),
        };
        let route = spec.route();
        let forwarder = match (spec.config.protocol, &listen) {
            (ServiceProtocol::Tcp, ListenAddress::Address(address)) => {
                let forwarder = match open.is_empty() {
                    false => {
                        Forwarder::from_listeners(open.into_iter().map(TcpListener::from), route)?
                    }
                    true => Forwarder::bind_with(*address, options, route)?,
                };
                AnyForwarder::Tcp(Box::new(spec.configure_tcp(forwarder)))
            }
            (ServiceProtocol::Tcp, ListenAddress::Unix(path)) => {
                let listener = match open.into_iter().next() {
                    Some(open) => UnixListener::from(open),
                    None => bind_unix(path)?,
                };
                AnyForwarder::Tcp(Box::new(
                    spec.configure_tcp(Forwarder::from_unix_listener(listener, route)?),
                ))
            }
            (ServiceProtocol::Udp, ListenAddress::Address(address)) => {
                let forwarder = match open.is_empty() {
                    false => {
                        UdpForwarder::from_sockets(open.into_iter().map(UdpSocket::from), route)?
                    }
                    true => UdpForwarder::bind_with(*address, options, route)?,
                };
                let forwarder = match replaced.map(|replaced| &replaced.handle) {
                    Some(AnyForwarderHandle::Udp(earlier)) => forwarder.keep_flows_of(earlier),
                    _ => forwarder,
                };
                AnyForwarder::Udp(Box::new(spec.configure_udp(forwarder)))
            }
            (ServiceProtocol::Udp, ListenAddress::Unix(_)) => {
                unreachable!("the configuration refuses a path for a UDP service")
            }
            (_, ListenAddress::Mark(_)) => {
                unreachable!("the configuration refuses a mark for the engine `proxy`")
            }
        };
        Ok(Self { listen, engine, forwarder })
    }

    /// Starts the forwarder, which accepts connections when this returns.
    pub(super) fn start(self, service: &str) -> Result<Frontend, ServiceError> {
        let Self { listen, engine, forwarder } = self;
        let (handle, running) = match forwarder {
            AnyForwarder::Tcp(forwarder) => {
                (AnyForwarderHandle::Tcp(forwarder.handle()), forwarder.start()?)
            }
            AnyForwarder::Udp(forwarder) => {
                (AnyForwarderHandle::Udp(forwarder.handle()), forwarder.start()?)
            }
            AnyForwarder::Kernel(claim) => {
                return Ok(Frontend::of_engine(listen, engine, claim.begin()?));
            }
        };
        let service = service.to_owned();
        let task = tokio::spawn(async move {
            running.await.unwrap_or_else(|error| {
                tracing::error!("service {service}: the forwarder ended: {error}");
                DrainReport::default()
            })
        });
        Ok(Frontend { listen, engine, handle, task })
    }
}

/// Binds a Unix listener, and first removes a socket file that no process listens on any more.
fn bind_unix(path: &Path) -> Result<UnixListener, ServiceError> {
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        // A file of another kind, or one that cannot be removed, makes the bind below fail.
        use std::os::unix::fs::FileTypeExt;
        if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            let _ = std::fs::remove_file(path);
        }
    }
    UnixListener::bind(path).map_err(|source| ServiceError::Unix { path: path.to_owned(), source })
}

impl FrontendSpec<'_> {
    /// Returns the packets that an engine of the kernel takes; `None` for a path.
    fn engine_address(&self, listen: &ListenAddress) -> Option<EngineAddress> {
        let protocol = match self.config.protocol {
            ServiceProtocol::Tcp => EngineProtocol::Tcp,
            ServiceProtocol::Udp => EngineProtocol::Udp,
        };
        match *listen {
            ListenAddress::Address(address) => Some(EngineAddress::Socket { protocol, address }),
            ListenAddress::Mark(mark) => Some(EngineAddress::Mark(mark)),
            ListenAddress::Unix(_) => None,
        }
    }

    fn engine_request(&self, address: EngineAddress) -> EngineRequest {
        let config = self.config;
        let scheduler = config.scheduler.to_string();
        let balancer = self.balancer.clone();
        let mut request = EngineRequest::new(&config.name, address, balancer, scheduler);
        let persistence = config.persistence.as_ref();
        request.persistence =
            persistence.and_then(|persistence| persistence.engine_persistence(address.is_ipv6()));
        request.persistence_table = self.persistence.map(Arc::clone);
        if let Some(format) = self.log_connections {
            let callback = move |record: &EngineFlowRecord| log_engine_flow(record, format);
            request.on_flow_end = Some(EngineFlowCallback::new(callback));
        }
        request.one_packet = config.udp.options().one_packet;
        request.cut_on_down = config.tcp.cuts_on_down();
        request.methods = self.methods.clone();
        request.sorry_server = config.sorry_server;
        request.sorry_server_method = config.sorry_server_method();
        if let EngineAddress::Socket { address, .. } = address
            && config.has_virtual_address_checks()
        {
            request.check_marks = Some(self.check_paths.marks(address));
        }
        request
    }

    fn route(&self) -> Route {
        let mut route = match self.persistence {
            Some(persistence) => Route::persistent(Arc::clone(persistence)),
            None => Route::new(self.balancer.clone()),
        };
        if let Some((capacity, timeout)) = self.config.tcp.queue_limits() {
            route = route.queue(capacity, timeout);
        }
        if let Some(sorry_server) = self.config.sorry_server {
            route = route.sorry_server(sorry_server);
        }
        route
    }

    fn configure_tcp(&self, forwarder: Forwarder) -> Forwarder {
        let mut forwarder = forwarder.name(&self.config.name);
        forwarder = match self.config.workers {
            Some(workers) => forwarder.workers(workers),
            None => forwarder.worker_pool(self.pool),
        };
        let (on_end, logs) = (self.config.on_end.clone(), self.log_connections);
        if logs.is_some() || on_end.is_some() {
            forwarder = forwarder.on_end(move |record| {
                if let Some(format) = logs {
                    log_connection(record, format);
                }
                if let Some(on_end) = &on_end {
                    on_end.call(record);
                }
            });
        }
        self.config.tcp.configure(forwarder, self.find_balancer)
    }

    fn configure_udp(&self, forwarder: UdpForwarder) -> UdpForwarder {
        let mut forwarder = forwarder.name(&self.config.name);
        forwarder = match self.config.workers {
            Some(workers) => forwarder.workers(workers),
            None => forwarder.worker_pool(self.pool),
        };
        if let Some(format) = self.log_connections {
            forwarder = forwarder.on_end(move |record| log_flow(record, format));
        }
        forwarder.options(self.config.udp.options())
    }
}

/// A forwarder that serves one address of a service, or drains. Dropped, it cuts its connections.
#[derive(Debug)]
pub(super) struct Frontend {
    /// The configured address, where the port may be 0.
    pub(super) listen: ListenAddress,
    pub(super) engine: EngineKind,
    handle: AnyForwarderHandle,
    task: JoinHandle<DrainReport>,
}

#[derive(Clone, Debug)]
enum AnyForwarderHandle {
    Tcp(TcpHandle),
    Udp(UdpHandle),
    Kernel(Arc<dyn EngineService>),
}

impl Drop for Frontend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Frontend {
    fn of_engine(
        listen: ListenAddress,
        engine: EngineKind,
        service: Box<dyn EngineService>,
    ) -> Self {
        let service: Arc<dyn EngineService> = service.into();
        let handle = AnyForwarderHandle::Kernel(Arc::clone(&service));
        let task = tokio::spawn(async move {
            let report = poll_fn(|context| service.poll_finished(context)).await;
            let mut sum = DrainReport::default();
            (sum.finished, sum.cut) = (report.finished, report.cut);
            sum
        });
        Self { listen, engine, handle, task }
    }

    /// Stops accepting, closes the listener, and cuts what is left after `timeout`.
    pub(super) fn drain(&self, timeout: Duration) {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.shutdown(timeout),
            AnyForwarderHandle::Udp(handle) => handle.shutdown(timeout),
            AnyForwarderHandle::Kernel(service) => service.drain(timeout, NewConnections::Refused),
        }
    }

    /// Drains a frontend whose address another kind of engine serves, without a time limit.
    pub(super) fn give_way(&self) {
        match &self.handle {
            AnyForwarderHandle::Kernel(service) => {
                service.drain(Duration::MAX, NewConnections::Local);
            }
            AnyForwarderHandle::Tcp(_) | AnyForwarderHandle::Udp(_) => self.drain(Duration::MAX),
        }
    }

    /// Drains a frontend whose sockets are served by another forwarder.
    pub(super) fn hand_over(&self, timeout: Duration) {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.shutdown(timeout),
            AnyForwarderHandle::Udp(handle) => handle.hand_over(timeout),
            AnyForwarderHandle::Kernel(service) => service.hand_over(),
        }
    }

    /// Waits until the last connection has ended.
    pub(super) async fn wait_drained(&mut self) -> DrainReport {
        (&mut self.task).await.unwrap_or_default()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Adds duplicates of the open sockets, under the configured address.
    pub(super) fn duplicate_sockets(
        &self,
        protocol: ServiceProtocol,
        sockets: &mut ListeningSockets,
    ) {
        let open = match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.sockets(),
            AnyForwarderHandle::Udp(handle) => handle.sockets(),
            AnyForwarderHandle::Kernel(_) => return,
        };
        // Out of descriptors: this frontend keeps its sockets, and the next one opens its own.
        sockets.add(protocol, &self.listen, open.unwrap_or_default());
    }

    /// Returns the bound address, with the real port where the configuration has 0.
    pub(super) fn local_address(&self) -> ListenAddress {
        let address = match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.local_addr(),
            AnyForwarderHandle::Udp(handle) => Some(handle.local_addr()),
            AnyForwarderHandle::Kernel(_) => None,
        };
        address.map_or_else(|| self.listen.clone(), ListenAddress::Address)
    }

    /// Returns the service of an engine of the kernel, if one serves.
    pub(super) fn engine_service(&self) -> Option<&Arc<dyn EngineService>> {
        match &self.handle {
            AnyForwarderHandle::Kernel(service) => Some(service),
            AnyForwarderHandle::Tcp(_) | AnyForwarderHandle::Udp(_) => None,
        }
    }

    /// Returns connections or flows of this moment, `limit` at most; none of an engine of the kernel.
    pub(super) fn connections(&self, limit: usize) -> Vec<ConnectionInfo> {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.connections(limit),
            AnyForwarderHandle::Udp(handle) => handle.flows(limit),
            AnyForwarderHandle::Kernel(_) => Vec::new(),
        }
    }

    /// Returns how often a worker has panicked and started again.
    pub(super) fn worker_restarts(&self) -> u64 {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.worker_restarts(),
            AnyForwarderHandle::Udp(handle) => handle.worker_restarts(),
            AnyForwarderHandle::Kernel(_) => 0,
        }
    }

    pub(super) fn totals(&self) -> ServiceTotals {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => ServiceTotals::of_tcp(&handle.counters()),
            AnyForwarderHandle::Udp(handle) => ServiceTotals::of_udp(&handle.counters()),
            AnyForwarderHandle::Kernel(service) => ServiceTotals::of_engine(&service.counters()),
        }
    }

    /// Adds everything that the forwarder has counted to a service's sums.
    pub(super) fn add_counters(&self, sum: &mut ServiceCounters) {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => sum.add_tcp(handle),
            AnyForwarderHandle::Udp(handle) => sum.add_udp(handle),
            AnyForwarderHandle::Kernel(service) => sum.add_engine(&service.counters()),
        }
    }
}
