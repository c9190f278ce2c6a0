//! What carries a service at one address, and the sockets that outlive it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::{Domain, SockRef, Type};
use tokio::task::JoinHandle;

use super::config::{ListenAddress, ServiceConfig, ServiceProtocol};
use super::error::ServiceError;
use super::status::ServiceTotals;
use crate::Balancer;
use crate::balancer::Persistence;
use crate::forward::handover::{HandoverError, from_environment};
use crate::forward::{
    ConnectionInfo, DrainReport, ForwardError, Forwarder, TcpCounters, TcpHandle, UdpCounters,
    UdpForwarder, UdpHandle,
};

/// Sockets that are open already: those that a service manager opened, or a director before this one.
/// Each is for the service that listens on its address.
#[derive(Debug, Default)]
pub struct ListeningSockets {
    open: Vec<(ServiceProtocol, ListenAddress, OwnedFd)>,
}

impl ListeningSockets {
    /// Sorts sockets out by what they are bound to; what is no listener is closed.
    pub(super) fn from_descriptors(descriptors: impl IntoIterator<Item = OwnedFd>) -> Self {
        let known = |descriptor: OwnedFd| {
            let socket = SockRef::from(&descriptor);
            let address = socket.local_addr().ok()?;
            let listen = match socket.domain().ok()? {
                Domain::UNIX => ListenAddress::Unix(address.as_pathname()?.to_owned()),
                _ => ListenAddress::Address(address.as_socket()?),
            };
            let protocol = match socket.r#type().ok()? {
                Type::STREAM if socket.is_listener().ok()? => ServiceProtocol::Tcp,
                Type::DGRAM => ServiceProtocol::Udp,
                _ => return None,
            };
            Some((protocol, listen, descriptor))
        };
        Self { open: descriptors.into_iter().filter_map(known).collect() }
    }

    /// Those that a service manager has opened ahead of the start: systemd's socket units.
    ///
    /// # Errors
    /// [`HandoverError`] if the environment says what cannot be.
    pub fn from_environment() -> Result<Self, HandoverError> {
        Ok(Self::from_descriptors(
            from_environment()?.into_iter().map(|(_, descriptor)| descriptor),
        ))
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.open.extend(others.open);
    }

    /// All of them, whatever they are for.
    pub(super) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.open.iter().map(|(_, _, descriptor)| descriptor)
    }

    /// Takes those of an address.
    pub(super) fn take_for(
        &mut self,
        protocol: ServiceProtocol,
        listen: &ListenAddress,
    ) -> Vec<OwnedFd> {
        let is_it = |it: &mut (ServiceProtocol, ListenAddress, OwnedFd)| {
            (it.0, &it.1) == (protocol, listen)
        };
        self.open.extract_if(.., is_it).map(|(_, _, descriptor)| descriptor).collect()
    }

    /// Tells what nobody has taken.
    pub(super) fn unclaimed_addresses(&self) -> impl Iterator<Item = String> {
        self.open.iter().map(|(_, listen, _)| listen.to_string())
    }
}

/// What a carrier carries for.
pub(super) struct FrontendSpec<'a> {
    pub(super) config: &'a ServiceConfig,
    pub(super) balancer: &'a Balancer<SocketAddr>,
    pub(super) persistence: Option<&'a Arc<Persistence<SocketAddr>>>,
    pub(super) workers: Option<usize>,
    /// A virtual address, which may come later.
    pub(super) freebind: bool,
    /// A line of the log for each connection.
    pub(super) log_connections: bool,
    /// Balancers of other services.
    pub(super) find_balancer: &'a dyn Fn(&str) -> Option<Balancer<SocketAddr>>,
}

/// What is about to carry.
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
    /// Takes the sockets of an address, or opens them.
    pub(super) fn prepare(
        listen: &ListenAddress,
        load: &FrontendSpec<'_>,
        sockets: &mut ListeningSockets,
    ) -> Result<Self, ServiceError> {
        let open = sockets.take_for(load.config.protocol, listen);
        let balancer = load.balancer.clone();
        let forwarder = match (load.config.protocol, listen) {
            (ServiceProtocol::Tcp, ListenAddress::Address(address)) => {
                let forwarder = match (open.is_empty(), load.freebind) {
                    (false, _) => Forwarder::from_listeners(
                        open.into_iter().map(TcpListener::from),
                        balancer,
                    )?,
                    (true, true) => Forwarder::bind_nonlocal(*address, balancer)?,
                    (true, false) => Forwarder::bind(*address, balancer)?,
                };
                AnyForwarder::Tcp(Box::new(load.configure_tcp(forwarder)))
            }
            (ServiceProtocol::Tcp, ListenAddress::Unix(path)) => {
                let listener = match open.into_iter().next() {
                    Some(open) => UnixListener::from(open),
                    None => bind_unix(path)?,
                };
                AnyForwarder::Tcp(Box::new(
                    load.configure_tcp(Forwarder::from_unix_listener(listener, balancer)?),
                ))
            }
            (ServiceProtocol::Udp, ListenAddress::Address(address)) => {
                let forwarder = match (open.is_empty(), load.freebind) {
                    (false, _) => {
                        UdpForwarder::from_sockets(open.into_iter().map(UdpSocket::from), balancer)?
                    }
                    (true, true) => UdpForwarder::bind_nonlocal(*address, balancer)?,
                    (true, false) => UdpForwarder::bind(*address, balancer)?,
                };
                AnyForwarder::Udp(Box::new(load.configure_udp(forwarder)))
            }
            // The configuration was checked.
            (ServiceProtocol::Udp, ListenAddress::Unix(_)) => {
                unreachable!("services of UDP have addresses")
            }
        };
        Ok(Self { listen: listen.clone(), forwarder })
    }

    /// Begins: it serves when this returns.
    pub(super) fn start(self, service: &str) -> Result<Frontend, ServiceError> {
        let (hold, task) = match self.forwarder {
            AnyForwarder::Tcp(forwarder) => (
                AnyForwarderHandle::Tcp(forwarder.handle()),
                spawn_forwarder(service, forwarder.run()),
            ),
            AnyForwarder::Udp(forwarder) => (
                AnyForwarderHandle::Udp(forwarder.handle()),
                spawn_forwarder(service, forwarder.run()),
            ),
        };
        Ok(Frontend { listen: self.listen, handle: hold, task: task? })
    }
}

/// Takes the first step here, in which threads and sockets are made: that they cannot be is told, and
/// whoever asks for the sockets finds them.
fn spawn_forwarder(
    service: &str,
    run: impl Future<Output = Result<DrainReport, ForwardError>> + Send + 'static,
) -> Result<JoinHandle<DrainReport>, ServiceError> {
    let mut run = Box::pin(run);
    let first = run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let service = service.to_owned();
    Ok(match first {
        Poll::Ready(ended) => {
            let drained = ended?;
            tokio::spawn(async move { drained })
        }
        Poll::Pending => tokio::spawn(async move {
            run.await.unwrap_or_else(|error| {
                tracing::error!("service {service} is served no longer: {error}");
                DrainReport::default()
            })
        }),
    })
}

/// Binds to a path. A socket that somebody left there is in the way of everybody.
fn bind_unix(path: &std::path::Path) -> Result<UnixListener, ServiceError> {
    let wrong = |source| ServiceError::Unix { path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        // If it is another kind of file, or cannot be removed, binding says so.
        use std::os::unix::fs::FileTypeExt;
        if std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket()) {
            let _ = std::fs::remove_file(path);
        }
    }
    UnixListener::bind(path).map_err(wrong)
}

impl FrontendSpec<'_> {
    fn configure_tcp(&self, forwarder: Forwarder) -> Forwarder {
        let mut it = forwarder.name(&self.config.name);
        if let Some(workers) = self.workers {
            it = it.workers(workers);
        }
        if let Some(sorry) = self.config.sorry_server {
            it = it.sorry_server(sorry);
        }
        if let Some(persistence) = self.persistence {
            it = it.persistence(Arc::clone(persistence));
        }
        if self.log_connections {
            it = it.on_end(
                |record| tracing::info!(target: "lvs::connection", "{}", record.key_values()),
            );
        }
        self.config.tcp.configure(it, self.find_balancer)
    }

    fn configure_udp(&self, forwarder: UdpForwarder) -> UdpForwarder {
        let mut it = forwarder;
        if let Some(workers) = self.workers {
            it = it.workers(workers);
        }
        if let Some(persistence) = self.persistence {
            it = it.persistence(Arc::clone(persistence));
        }
        self.config.udp.configure(it)
    }
}

/// What carries a service at one address.
#[derive(Debug)]
pub(super) struct Frontend {
    pub(super) listen: ListenAddress,
    pub(super) handle: AnyForwarderHandle,
    task: JoinHandle<DrainReport>,
}

/// The hold on a forwarder that runs.
#[derive(Clone, Debug)]
pub(super) enum AnyForwarderHandle {
    Tcp(TcpHandle),
    Udp(UdpHandle),
}

/// What a forwarder has counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum FrontendCounters {
    Tcp(TcpCounters),
    Udp(UdpCounters),
}

impl Drop for Frontend {
    fn drop(&mut self) {
        // Ended, it is not: what it carries is cut.
        self.task.abort();
    }
}

impl Frontend {
    /// Takes no more; what is there has so long.
    pub(super) fn drain(&self, within: Duration) {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.shutdown(within),
            AnyForwarderHandle::Udp(handle) => handle.shutdown(within),
        }
    }

    /// The same, for one whose sockets another serves.
    pub(super) fn hand_over(&self, within: Duration) {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.shutdown(within),
            AnyForwarderHandle::Udp(handle) => handle.hand_over(within),
        }
    }

    /// Waits until all is gone.
    pub(super) async fn wait_drained(&mut self) -> DrainReport {
        (&mut self.task).await.unwrap_or_default()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Its sockets once more, under the address that was asked for.
    pub(super) fn duplicate_sockets(&self, protocol: ServiceProtocol) -> ListeningSockets {
        let sockets = match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.listeners(),
            AnyForwarderHandle::Udp(handle) => handle.sockets(),
        };
        // Where there are no more descriptors it goes on with what it has, and nobody takes over.
        let open = sockets.unwrap_or_default().into_iter();
        ListeningSockets { open: open.map(|it| (protocol, self.listen.clone(), it)).collect() }
    }

    /// Where it listens, with the real port where 0 was asked for.
    pub(super) fn local_address(&self) -> ListenAddress {
        let address = match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.local_addr(),
            AnyForwarderHandle::Udp(handle) => Some(handle.local_addr()),
        };
        address.map_or_else(|| self.listen.clone(), ListenAddress::Address)
    }

    /// Who is carried at this moment.
    pub(super) fn connections(&self, most: usize) -> Vec<ConnectionInfo> {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => handle.connections(most),
            AnyForwarderHandle::Udp(handle) => handle.flows(most),
        }
    }

    pub(super) fn counters(&self) -> FrontendCounters {
        match &self.handle {
            AnyForwarderHandle::Tcp(handle) => FrontendCounters::Tcp(handle.counters()),
            AnyForwarderHandle::Udp(handle) => FrontendCounters::Udp(handle.counters()),
        }
    }
}

impl FrontendCounters {
    pub(super) fn totals(&self) -> ServiceTotals {
        match self {
            Self::Tcp(counters) => ServiceTotals {
                accepted: counters.accepted,
                refused: counters.refused.sum(),
                bytes_to_servers: counters.bytes_to_backends,
                bytes_to_clients: counters.bytes_to_clients,
            },
            Self::Udp(counters) => ServiceTotals {
                accepted: counters.flows_started,
                refused: counters.shed.total(),
                bytes_to_servers: counters.to_servers.bytes,
                bytes_to_clients: counters.to_clients.bytes,
            },
        }
    }

    /// Connections or flows that are carried now.
    pub(super) fn active(&self) -> u64 {
        match self {
            Self::Tcp(counters) => counters.active,
            Self::Udp(counters) => counters.flows_active,
        }
    }
}
