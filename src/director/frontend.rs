//! A service's forwarder at one address: prepared, running, and draining.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::config::{ListenAddress, LogFormat, ServiceConfig, ServiceProtocol};
use super::connection_log::{log_connection, log_flow};
use super::counters::{ServerTotals, ServiceCounters, ServiceTotals};
use super::error::ServiceError;
use super::sockets::ListeningSockets;
use crate::Balancer;
use crate::balancer::Persistence;
use crate::forward::{
    BindOptions, ConnectionInfo, DrainReport, Forwarder, Route, TcpCounters, TcpHandle,
    UdpCounters, UdpForwarder, UdpHandle, WorkerPool,
};

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
    /// Finds the balancer of another service by name.
    pub(super) find_balancer: &'a dyn Fn(&str) -> Option<Balancer<SocketAddr>>,
}

/// A forwarder whose sockets are open and which does not accept yet.
#[derive(Debug)]
pub(super) struct PreparedFrontend {
    listen: ListenAddress,
    forwarder: AnyForwarder,
}

#[derive(Debug)]
enum AnyForwarder {
    Tcp(Box<Forwarder>),
    Udp(Box<UdpForwarder>),
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
        let open = sockets.take_for(spec.config.protocol, listen);
        let options = BindOptions {
            is_nonlocal: spec.freebind,
            is_shared: open.is_empty() && sockets.share_port(spec.config.protocol, listen),
        };
        let route = spec.route();
        let forwarder = match (spec.config.protocol, listen) {
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
        };
        Ok(Self { listen: listen.clone(), forwarder })
    }

    /// Starts the forwarder, which accepts connections when this returns.
    pub(super) fn start(self, service: &str) -> Result<Frontend, ServiceError> {
        let (handle, running) = match self.forwarder {
            AnyForwarder::Tcp(forwarder) => {
                (AnyForwarderHandle::Tcp(forwarder.handle()), forwarder.start()?)
            }
            AnyForwarder::Udp(forwarder) => {
                (AnyForwarderHandle::Udp(forwarder.handle()), forwarder.start()?)
            }
        };
        let service = service.to_owned();
        let task = tokio::spawn(async move {
            running.await.unwrap_or_else(|error| {
                tracing::error!("service {service}: the forwarder ended: {error}");
                DrainReport::default()
            })
        });
        Ok(Frontend { listen: self.listen, handle, task })
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
    handle: AnyForwarderHandle,
    task: JoinHandle<DrainReport>,
}

#[derive(Clone, Debug)]
enum AnyForwarderHandle {
    Tcp(TcpHandle),
    Udp(UdpHandle),
}

impl Drop for Frontend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Frontend {
    /// Stops accepting, closes the listener, and cuts what is left after `timeout`.
    pub(super) fn drain(&self, timeout: Duration) {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.shutdown(timeout),
            AnyForwarderHandle::Udp(handle) => handle.shutdown(timeout),
        }
    }

    /// Drains a frontend whose sockets are served by another forwarder.
    pub(super) fn hand_over(&self, timeout: Duration) {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.shutdown(timeout),
            AnyForwarderHandle::Udp(handle) => handle.hand_over(timeout),
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
        };
        // Out of descriptors: this frontend keeps its sockets, and the next one opens its own.
        sockets.add(protocol, &self.listen, open.unwrap_or_default());
    }

    /// Returns the bound address, with the real port where the configuration has 0.
    pub(super) fn local_address(&self) -> ListenAddress {
        let address = match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.local_addr(),
            AnyForwarderHandle::Udp(handle) => Some(handle.local_addr()),
        };
        address.map_or_else(|| self.listen.clone(), ListenAddress::Address)
    }

    /// Returns connections or flows of this moment, `limit` at most.
    pub(super) fn connections(&self, limit: usize) -> Vec<ConnectionInfo> {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.connections(limit),
            AnyForwarderHandle::Udp(handle) => handle.flows(limit),
        }
    }

    /// Returns how often a worker has panicked and started again.
    pub(super) fn worker_restarts(&self) -> u64 {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.worker_restarts(),
            AnyForwarderHandle::Udp(handle) => handle.worker_restarts(),
        }
    }

    pub(super) fn totals(&self) -> ServiceTotals {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => tcp_totals(&handle.counters()),
            AnyForwarderHandle::Udp(handle) => udp_totals(&handle.counters()),
        }
    }

    /// Adds everything that the forwarder has counted to a service's sums.
    pub(super) fn add_counters(&self, sum: &mut ServiceCounters) {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => {
                let counters = handle.counters();
                sum.totals = sum.totals.saturating_add(tcp_totals(&counters));
                sum.active += counters.active;
                sum.add_refusals(counters.refused.by_reason());
                for backend in handle.backends() {
                    let server = sum.server_mut(backend.id.to_string());
                    server.totals = server.totals.saturating_add(ServerTotals {
                        connections: backend.connections,
                        failed: backend.failed_connects,
                        bytes_in: backend.bytes_in,
                        bytes_out: backend.bytes_out,
                    });
                    server.connect_time.merge(&backend.connect_time);
                }
            }
            AnyForwarderHandle::Udp(handle) => {
                let counters = handle.counters();
                sum.totals = sum.totals.saturating_add(udp_totals(&counters));
                sum.active += counters.flows_active;
                sum.add_refusals(counters.shed.by_reason());
                for backend in handle.backends() {
                    let server = sum.server_mut(backend.id.to_string());
                    server.totals = server.totals.saturating_add(ServerTotals {
                        connections: backend.flows_started,
                        failed: backend.errors,
                        bytes_in: backend.to_server.bytes,
                        bytes_out: backend.from_server.bytes,
                    });
                }
            }
        }
    }
}

fn tcp_totals(counters: &TcpCounters) -> ServiceTotals {
    ServiceTotals {
        accepted: counters.accepted,
        refused: counters.refused.sum(),
        bytes_to_servers: counters.bytes_to_backends,
        bytes_to_clients: counters.bytes_to_clients,
    }
}

fn udp_totals(counters: &UdpCounters) -> ServiceTotals {
    ServiceTotals {
        accepted: counters.flows_started,
        refused: counters.shed.sum(),
        bytes_to_servers: counters.to_servers.bytes,
        bytes_to_clients: counters.to_clients.bytes,
    }
}
