//! What carries a service at one address, and the sockets that outlive it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::{Domain, SockRef, Type};
use tokio::task::JoinHandle;

use super::config::{Listen, Protocol, ServiceConfig};
use super::error::ServiceError;
use super::status::Totals;
use crate::Balancer;
use crate::balancer::Persistence;
use crate::forward::handover::{HandoverError, from_environment};
use crate::forward::{
    Connection, Counters, Drained, ForwardError, Forwarder, Handle, UdpCounters, UdpForwarder,
    UdpHandle,
};

/// Sockets that are open already: those that a service manager opened, or a director before this one.
/// Each is for the service that listens on its address.
#[derive(Debug, Default)]
pub struct Sockets {
    open: Vec<(Protocol, Listen, OwnedFd)>,
}

impl Sockets {
    /// Sorts sockets out by what they are bound to; what is no listener is closed.
    pub(super) fn new(descriptors: impl IntoIterator<Item = OwnedFd>) -> Self {
        let known = |descriptor: OwnedFd| {
            let socket = SockRef::from(&descriptor);
            let address = socket.local_addr().ok()?;
            let listen = match socket.domain().ok()? {
                Domain::UNIX => Listen::Unix(address.as_pathname()?.to_owned()),
                _ => Listen::Address(address.as_socket()?),
            };
            let protocol = match socket.r#type().ok()? {
                Type::STREAM if socket.is_listener().ok()? => Protocol::Tcp,
                Type::DGRAM => Protocol::Udp,
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
        Ok(Self::new(from_environment()?.into_iter().map(|(_, descriptor)| descriptor)))
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.open.extend(others.open);
    }

    /// All of them, whatever they are for.
    pub(super) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.open.iter().map(|(_, _, descriptor)| descriptor)
    }

    /// Takes those of an address.
    pub(super) fn take(&mut self, protocol: Protocol, listen: &Listen) -> Vec<OwnedFd> {
        let is_it = |it: &mut (Protocol, Listen, OwnedFd)| (it.0, &it.1) == (protocol, listen);
        self.open.extract_if(.., is_it).map(|(_, _, descriptor)| descriptor).collect()
    }

    /// Tells what nobody has taken.
    pub(super) fn left(&self) -> impl Iterator<Item = String> {
        self.open.iter().map(|(_, listen, _)| listen.to_string())
    }
}

/// What a carrier carries for.
pub(super) struct Load<'a> {
    pub(super) config: &'a ServiceConfig,
    pub(super) balancer: &'a Balancer<SocketAddr>,
    pub(super) persistence: Option<&'a Arc<Persistence<SocketAddr>>>,
    pub(super) workers: Option<usize>,
    /// A virtual address, which may come later.
    pub(super) ahead: bool,
    /// A line of the log for each connection.
    pub(super) log: bool,
    /// Balancers of other services.
    pub(super) others: &'a dyn Fn(&str) -> Option<Balancer<SocketAddr>>,
}

/// What is about to carry.
#[derive(Debug)]
pub(super) struct Ready {
    listen: Listen,
    forwarder: Either,
}

#[derive(Debug)]
enum Either {
    Tcp(Box<Forwarder>),
    Udp(Box<UdpForwarder>),
}

impl Ready {
    /// Takes the sockets of an address, or opens them.
    pub(super) fn new(
        listen: &Listen,
        load: &Load<'_>,
        sockets: &mut Sockets,
    ) -> Result<Self, ServiceError> {
        let open = sockets.take(load.config.protocol, listen);
        let balancer = load.balancer.clone();
        let forwarder = match (load.config.protocol, listen) {
            (Protocol::Tcp, Listen::Address(address)) => {
                let forwarder = match (open.is_empty(), load.ahead) {
                    (false, _) => Forwarder::from_listeners(
                        open.into_iter().map(TcpListener::from),
                        balancer,
                    )?,
                    (true, true) => Forwarder::bind_ahead(*address, balancer)?,
                    (true, false) => Forwarder::bind(*address, balancer)?,
                };
                Either::Tcp(Box::new(load.tcp(forwarder)))
            }
            (Protocol::Tcp, Listen::Unix(path)) => {
                let listener = match open.into_iter().next() {
                    Some(open) => UnixListener::from(open),
                    None => bind_unix(path)?,
                };
                Either::Tcp(Box::new(load.tcp(Forwarder::unix(listener, balancer)?)))
            }
            (Protocol::Udp, Listen::Address(address)) => {
                let forwarder = match (open.is_empty(), load.ahead) {
                    (false, _) => {
                        UdpForwarder::from_sockets(open.into_iter().map(UdpSocket::from), balancer)?
                    }
                    (true, true) => UdpForwarder::bind_ahead(*address, balancer)?,
                    (true, false) => UdpForwarder::bind(*address, balancer)?,
                };
                Either::Udp(Box::new(load.udp(forwarder)))
            }
            // The configuration was checked.
            (Protocol::Udp, Listen::Unix(_)) => unreachable!("services of UDP have addresses"),
        };
        Ok(Self { listen: listen.clone(), forwarder })
    }

    /// Begins: it serves when this returns.
    pub(super) fn run(self, service: &str) -> Result<Carrier, ServiceError> {
        let (hold, task) = match self.forwarder {
            Either::Tcp(forwarder) => {
                (Hold::Tcp(forwarder.handle()), begin(service, forwarder.run()))
            }
            Either::Udp(forwarder) => {
                (Hold::Udp(forwarder.handle()), begin(service, forwarder.run()))
            }
        };
        Ok(Carrier { listen: self.listen, hold, task: task? })
    }
}

/// Takes the first step here, in which threads and sockets are made: that they cannot be is told, and
/// whoever asks for the sockets finds them.
fn begin(
    service: &str,
    run: impl Future<Output = Result<Drained, ForwardError>> + Send + 'static,
) -> Result<JoinHandle<Drained>, ServiceError> {
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
                Drained::default()
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

impl Load<'_> {
    fn tcp(&self, forwarder: Forwarder) -> Forwarder {
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
        if self.log {
            it = it.on_end(
                |record| tracing::info!(target: "lvs::connection", "{}", record.key_values()),
            );
        }
        self.config.tcp.set_up(it, self.others)
    }

    fn udp(&self, forwarder: UdpForwarder) -> UdpForwarder {
        let mut it = forwarder;
        if let Some(workers) = self.workers {
            it = it.workers(workers);
        }
        if let Some(persistence) = self.persistence {
            it = it.persistence(Arc::clone(persistence));
        }
        self.config.udp.set_up(it)
    }
}

/// What carries a service at one address.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) listen: Listen,
    pub(super) hold: Hold,
    task: JoinHandle<Drained>,
}

/// The hold on a forwarder that runs.
#[derive(Clone, Debug)]
pub(super) enum Hold {
    Tcp(Handle),
    Udp(UdpHandle),
}

/// What a forwarder has counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counted {
    Tcp(Counters),
    Udp(UdpCounters),
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // Ended, it is not: what it carries is cut.
        self.task.abort();
    }
}

impl Carrier {
    /// Takes no more; what is there has so long.
    pub(super) fn drain(&self, within: Duration) {
        match &self.hold {
            Hold::Tcp(handle) => handle.shutdown(within),
            Hold::Udp(handle) => handle.shutdown(within),
        }
    }

    /// The same, for one whose sockets another serves.
    pub(super) fn hand_over(&self, within: Duration) {
        match &self.hold {
            Hold::Tcp(handle) => handle.shutdown(within),
            Hold::Udp(handle) => handle.hand_over(within),
        }
    }

    /// Waits until all is gone.
    pub(super) async fn ended(&mut self) -> Drained {
        (&mut self.task).await.unwrap_or_default()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Its sockets once more, under the address that was asked for.
    pub(super) fn sockets(&self, protocol: Protocol) -> Sockets {
        let sockets = match &self.hold {
            Hold::Tcp(handle) => handle.listeners(),
            Hold::Udp(handle) => handle.sockets(),
        };
        // Where there are no more descriptors it goes on with what it has, and nobody takes over.
        let open = sockets.unwrap_or_default().into_iter();
        Sockets { open: open.map(|it| (protocol, self.listen.clone(), it)).collect() }
    }

    /// Where it listens, with the real port where 0 was asked for.
    pub(super) fn listens(&self) -> Listen {
        let address = match &self.hold {
            Hold::Tcp(handle) => handle.local_addr(),
            Hold::Udp(handle) => Some(handle.local_addr()),
        };
        address.map_or_else(|| self.listen.clone(), Listen::Address)
    }

    /// Who is carried at this moment.
    pub(super) fn connections(&self, most: usize) -> Vec<Connection> {
        match &self.hold {
            Hold::Tcp(handle) => handle.connections(most),
            Hold::Udp(handle) => handle.flows(most),
        }
    }

    pub(super) fn counted(&self) -> Counted {
        match &self.hold {
            Hold::Tcp(handle) => Counted::Tcp(handle.counters()),
            Hold::Udp(handle) => Counted::Udp(handle.counters()),
        }
    }
}

impl Counted {
    pub(super) fn totals(&self) -> Totals {
        match self {
            Self::Tcp(counters) => Totals {
                accepted: counters.accepted,
                refused: counters.refused.total(),
                bytes_to_servers: counters.bytes_to_servers,
                bytes_to_clients: counters.bytes_to_clients,
            },
            Self::Udp(counters) => Totals {
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
