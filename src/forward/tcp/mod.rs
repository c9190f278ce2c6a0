//! The TCP forwarder: its workers, their connections, and how bytes move.

mod backend_connect;
mod config;
mod connection;
mod listener;
mod metrics;
mod pipe;
mod preamble;
mod proxying;
mod relay;
mod session;
mod socket_options;
mod stream;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};

use self::config::{ForwarderConfig, OnEndCallback, QueueLimits};
pub(super) use self::listener::Listener;
pub(super) use self::metrics::TcpMetrics;
pub use self::preamble::ProxyHeaderOptions;
pub use self::socket_options::SourceAddress;
use self::socket_options::{bind_listener, bind_shared_listener};
use self::worker::{ForwarderContext, WorkerContext};
use super::handle::TcpForwarderPhase;
use super::sni::ServerNameTable;
use super::{ConnectionRate, ConnectionRecord, DrainReport, ForwardError, TcpHandle};
use crate::Balancer;
use crate::balancer::Persistence;
use crate::sync::lock;

/// Longer than anything runs, and short enough to be added to any moment.
const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Carries the connections of one listening socket to the backends a balancer chooses.
///
/// It runs on threads of its own, one for each core unless [told otherwise](Self::workers), each
/// with its own listening socket on the same port (`SO_REUSEPORT`): the kernel spreads connections
/// over them by a hash of their addresses, and they share nothing on the way of the bytes.
///
/// # Examples
/// ```no_run
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::forward::Forwarder;
/// use lvs::scheduler::RoundRobin;
/// use lvs::{BackendSet, Balancer};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let set = BackendSet::<SocketAddr>::new();
/// set.insert("10.0.0.1:80".parse::<SocketAddr>()?)?;
/// set.insert("10.0.0.2:80".parse::<SocketAddr>()?)?;
///
/// let balancer = Balancer::new(&set, RoundRobin)?;
/// let forwarder = Forwarder::bind("0.0.0.0:8080".parse()?, balancer)?
///     .max_connections(50_000)
///     .queue(1000, Duration::from_secs(5))
///     .sorry_server("10.0.0.9:80".parse()?);
/// let handle = forwarder.handle();
/// let running = tokio::spawn(forwarder.run());
///
/// // Later: no new connections, ten seconds for those that are there.
/// handle.shutdown(Duration::from_secs(10));
/// let drained = running.await??;
/// println!("{} finished, {} cut", drained.finished, drained.cut);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a forwarder does nothing until it runs"]
pub struct Forwarder {
    /// One at least.
    listeners: Vec<Listener>,
    /// May others listen beside them?
    owns_port: bool,
    workers: usize,
    config: ForwarderConfig,
    handle: TcpHandle,
}

impl Forwarder {
    /// Listens on an address; port 0 takes any free one, which [`Forwarder::local_addr`] names.
    ///
    /// The port is shared among the workers only: if anybody else listens there, this program
    /// included, it is refused.
    ///
    /// # Errors
    /// [`ForwardError::Bind`] if the system does not give out the address.
    pub fn bind(address: SocketAddr, balancer: Balancer<SocketAddr>) -> Result<Self, ForwardError> {
        Self::bind_with(address, false, balancer)
    }

    /// As [`bind`](Self::bind), on an address that this machine need not have yet (`IP_FREEBIND`): a
    /// virtual address, which comes and goes with an election. Clients are served while
    /// the machine has it.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_nonlocal(
        address: SocketAddr,
        balancer: Balancer<SocketAddr>,
    ) -> Result<Self, ForwardError> {
        Self::bind_with(address, true, balancer)
    }

    fn bind_with(
        address: SocketAddr,
        ahead: bool,
        balancer: Balancer<SocketAddr>,
    ) -> Result<Self, ForwardError> {
        let bind = |source| ForwardError::Bind { address, source };
        let listener = bind_listener(address, ahead).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Self::from_parts(vec![Listener::Tcp(listener)], Some(address), true, balancer)
    }

    /// Takes a listener that is there already: inherited, or made with options of its own. All
    /// workers accept from it, and whoever is free takes the next connection.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if it is no usable socket.
    pub fn new(
        listener: TcpListener,
        balancer: Balancer<SocketAddr>,
    ) -> Result<Self, ForwardError> {
        Self::from_listeners([listener], balancer)
    }

    /// Takes several listeners at once, such as those of a forwarder that this one
    /// [succeeds](TcpHandle::listeners): there is a worker for each at the least. Connections that wait
    /// in them to be accepted are served.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if there is none, or one is no usable socket.
    pub fn from_listeners(
        listeners: impl IntoIterator<Item = TcpListener>,
        balancer: Balancer<SocketAddr>,
    ) -> Result<Self, ForwardError> {
        let listeners: Vec<TcpListener> = listeners.into_iter().collect();
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "no listener was given");
        let address = listeners.first().ok_or_else(none).and_then(TcpListener::local_addr);
        let address = address.map_err(|source| ForwardError::Listener { source })?;
        let listeners = listeners.into_iter().map(Listener::Tcp).collect();
        Self::from_parts(listeners, Some(address), false, balancer)
    }

    /// Takes a listening Unix socket. Its clients have no address: rules that hash spread them at
    /// random, and limits on clients do not apply.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if it is no usable socket.
    pub fn from_unix_listener(
        listener: UnixListener,
        balancer: Balancer<SocketAddr>,
    ) -> Result<Self, ForwardError> {
        Self::from_parts(vec![Listener::Unix(listener)], None, false, balancer)
    }

    fn from_parts(
        listeners: Vec<Listener>,
        address: Option<SocketAddr>,
        is_ours: bool,
        balancer: Balancer<SocketAddr>,
    ) -> Result<Self, ForwardError> {
        let handle = TcpHandle {
            address,
            phase: Arc::new(watch::Sender::new(TcpForwarderPhase::Serving)),
            metrics: Arc::default(),
            open_listeners: Arc::default(),
        };
        let workers = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            listeners,
            owns_port: is_ours,
            workers,
            config: ForwarderConfig::new(balancer),
            handle,
        })
    }

    /// What the service is called in logs and records. Default: `tcp`.
    pub fn name(mut self, name: &str) -> Self {
        self.config.name = name.into();
        self
    }

    /// How many threads carry connections; 0 counts as 1. Default: one for each core.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// The most connections carried at once, by all workers together; 0 counts as 1. Clients beyond
    /// it wait: one in the hands of each worker, the others in the kernel's queue. Each connection
    /// takes two descriptors. Default: 10 000.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.config.max_connections = connections.max(1);
        self
    }

    /// The most connections of one client address (of one /64 for IPv6, unless
    /// [told otherwise](Self::client_prefixes)); those beyond it are reset.
    /// 0 counts as 1. Default: no bound.
    pub fn max_connections_per_client(mut self, connections: u32) -> Self {
        self.config.max_connections_per_client = Some(connections.max(1));
        self
    }

    /// How many leading bits of a client's address count for
    /// [`max_connections_per_client`](Self::max_connections_per_client), so that a network can be
    /// one client. More than an address has count as all. Default: 32 for IPv4, 64 for IPv6.
    pub fn client_prefixes(mut self, ipv4: u8, ipv6: u8) -> Self {
        self.config.client_prefixes = [ipv4, ipv6];
        self
    }

    /// How fast new connections are taken, by all workers together; those beyond it wait, as beyond
    /// [`max_connections`](Self::max_connections). Default: no bound.
    pub fn accept_rate(mut self, rate: ConnectionRate) -> Self {
        self.config.accept_rate = Some(rate);
        self
    }

    /// Lets this many clients wait, in their order and for so long, while all backends are at their
    /// [limits](crate::Limits). Without it they are reset, or go to the sorry server.
    pub fn queue(mut self, capacity: usize, patience: Duration) -> Self {
        self.config.queue = Some(QueueLimits { capacity, timeout: patience.min(MAX_TIMEOUT) });
        self
    }

    /// Who serves when no backend does: none is eligible, all are at their limits and the queue did
    /// not help, or none of those tried could be connected to.
    pub fn sorry_server(mut self, address: SocketAddr) -> Self {
        self.config.sorry_server = Some(address);
        self
    }

    /// Keeps clients with their backends. Its balancer should be the forwarder's own; several
    /// forwarders may share one.
    pub fn persistence(mut self, persistence: Arc<Persistence<SocketAddr>>) -> Self {
        self.config.persistence = Some(persistence);
        self
    }

    /// How long a backend may take to answer before the next one is tried. Default: 5 s, which
    /// outlives the loss of the first two SYN packets (sent again after 1 s and 3 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect.attempt_timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// How long all attempts to connect together may take; waiting in [line](Self::queue) does not
    /// count. Default: 15 s.
    pub fn connect_deadline(mut self, total: Duration) -> Self {
        self.config.connect.total_timeout = total.min(MAX_TIMEOUT);
        self
    }

    /// How many backends are tried for one connection, the first included and none twice; 0 counts
    /// as 1. Default: 3.
    pub fn connect_attempts(mut self, attempts: u32) -> Self {
        self.config.connect.max_attempts = attempts.max(1);
        self
    }

    /// Ends connections on which nothing has passed, either way, for so long. Default: 15 minutes,
    /// as IPVS; `None` is never.
    pub fn idle_timeout(mut self, idle: Option<Duration>) -> Self {
        self.config.timeouts.idle = idle;
        self
    }

    /// The same for connections that one side has closed. Default: 2 minutes, as IPVS.
    pub fn half_closed_timeout(mut self, idle: Option<Duration>) -> Self {
        self.config.timeouts.half_closed = idle;
        self
    }

    /// Ends connections so long after they were accepted, whatever passes. Default: never.
    pub fn total_timeout(mut self, total: Option<Duration>) -> Self {
        self.config.timeouts.total = total;
        self
    }

    /// Ends the connections of a backend that a check has found down, or an operator disabled, with a
    /// reset on both sides: a client of a server that hangs then tries again, instead of waiting for
    /// its own timeout. Seen within a tenth of a second. Not those of one that was ejected, drained or
    /// removed, nor of one that serves because the set [panics](crate::backend::FailMode). Default:
    /// off; they live as long as they can. HAProxy's `on-marked-down shutdown-sessions`.
    pub fn cut_on_down(mut self, cut: bool) -> Self {
        self.config.cut_on_down = cut;
        self
    }

    /// Asks peers that were silent for so long whether they are there (`SO_KEEPALIVE`), five times
    /// over as long again. In whole seconds, from 1 to 32 767. On both sides. Default: not asked.
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.config.socket_options.keepalive = Some(idle);
        self
    }

    /// Gives up peers that did not acknowledge what they were sent for so long (`TCP_USER_TIMEOUT`,
    /// RFC 5482). On both sides. Default: the kernel's some 15 minutes.
    pub fn user_timeout(mut self, timeout: Duration) -> Self {
        self.config.socket_options.user_timeout = Some(timeout);
        self
    }

    /// Takes data with a client's SYN (TCP Fast Open, RFC 7413), with so many such requests pending;
    /// 0 is off. Default: off. Only for protocols where a request that arrives twice does no harm.
    pub fn fastopen(mut self, pending: u32) -> Self {
        self.config.socket_options.fastopen = pending;
        self
    }

    /// Sends a client's first bytes with the SYN to the backend (TCP Fast Open). Default: off.
    ///
    /// The price: where the kernel holds the backend's cookie the connect waits for the client's
    /// first byte, so a backend that is gone is noticed too late to try another. Not for protocols
    /// in which the server speaks first: neither would begin.
    pub fn fastopen_backends(mut self, fastopen: bool) -> Self {
        self.config.socket_options.fastopen_connect = fastopen;
        self
    }

    /// The address that backends see connections come from. Default: what the routes say.
    pub fn source(mut self, source: SourceAddress) -> Self {
        self.config.socket_options.source = source;
        self
    }

    /// Expects a PROXY header, of either version, from every client, within this time, and believes
    /// it: for a listener that only other balancers reach. The client is then whom the header names,
    /// for schedulers, limits, affinity, records and the header to the backend.
    ///
    /// A wrong or late header is answered by a reset.
    pub fn accept_proxy(mut self, within: Duration) -> Self {
        self.config.preamble.proxy_header_timeout = Some(within.min(MAX_TIMEOUT));
        self
    }

    /// Sends a PROXY header to backends, which must expect it; to the sorry server, too.
    pub fn send_proxy(mut self, out: ProxyHeaderOptions) -> Self {
        self.config.preamble.send_proxy = Some(out);
        self
    }

    /// Chooses backends by the server name that a TLS client asks for: the name is the key of the
    /// flow, for schedulers that hash. TLS is not ended here; the ClientHello is read, within this
    /// time, and passed on. Whoever does not speak TLS is reset.
    pub fn key_by_server_name(mut self, within: Duration) -> Self {
        self.config.preamble.client_hello_timeout = Some(within.min(MAX_TIMEOUT));
        self.config.preamble.key_by_server_name = true;
        self
    }

    /// Chooses the service by the server name that a TLS client asks for: `services` has a balancer
    /// for each, instead of the forwarder's own. A name that it does not have is answered by a
    /// reset. [Affinity](Self::persistence) and the [line](Self::queue) do not apply. Otherwise as
    /// [`key_by_server_name`](Self::key_by_server_name).
    pub fn services_by_server_name(
        mut self,
        within: Duration,
        services: ServerNameTable<Balancer<SocketAddr>>,
    ) -> Self {
        self.config.preamble.client_hello_timeout = Some(within.min(MAX_TIMEOUT));
        self.config.preamble.services = Some(services);
        self
    }

    /// Tells of each connection that has ended, whatever its end; for an access log.
    ///
    /// Called by the worker that carried it, between others' bytes: hand over what takes time. A
    /// panic in it is caught and logged.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example(forwarder: lvs::forward::Forwarder) -> lvs::forward::Forwarder {
    /// forwarder.on_end(|record| println!("{record}"))
    /// # }
    /// ```
    pub fn on_end(mut self, tell: impl Fn(&ConnectionRecord) + Send + Sync + 'static) -> Self {
        self.config.on_end = Some(OnEndCallback::new(tell));
        self
    }

    /// The address it listens on; `None` for a Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.handle.local_addr()
    }

    /// A hold on the forwarder for when it runs.
    #[must_use]
    pub fn handle(&self) -> TcpHandle {
        self.handle.clone()
    }

    /// Carries connections until [`TcpHandle::shutdown`], then closes the listener and waits for the
    /// connections that run, up to the deadline given there.
    ///
    /// Clients that the kernel has queued but nobody has accepted are reset with the listener. A
    /// failed accept never ends it: shortages (no descriptor, no memory) are waited out, from 10 ms
    /// doubling to 1 s.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if the system does not take an option of the listener,
    /// [`ForwardError::Worker`] if it does not give the threads that were asked for. Nothing after
    /// that.
    ///
    /// # Cancel safety
    /// Dropping the future tells the workers to close the listener and to cut all connections, at
    /// once. Their leases end as [`Cancelled`](crate::Outcome::Cancelled), and the counters stay
    /// exact.
    pub async fn run(self) -> Result<DrainReport, ForwardError> {
        let Self { mut listeners, owns_port: is_ours, workers, config, handle } = self;
        let listener_error = |source| ForwardError::Listener { source };
        while listeners.len() < workers {
            let beside = match (is_ours, handle.address) {
                (true, Some(address)) => bind_shared_listener(address).map(Listener::Tcp),
                _ => listeners[0].try_clone(),
            };
            listeners.push(beside.map_err(listener_error)?);
        }
        for listener in &listeners {
            listener.set_nonblocking().map_err(listener_error)?;
            if let Listener::Tcp(listener) = listener {
                config.socket_options.apply_to_listener(listener).map_err(listener_error)?;
            }
        }
        let again = listeners.iter().map(Listener::try_clone).collect::<io::Result<Vec<_>>>();
        *lock(&handle.open_listeners) = again.map_err(listener_error)?;
        // From here on, whoever drops the future stops the workers.
        let stop = ShutdownOnDrop(handle.clone());
        let shared = ForwarderContext::new(config, &handle);
        // All of them before any worker begins: its connections might take the last descriptors.
        let runtimes = listeners.iter().map(|_| Builder::new_current_thread().enable_all().build());
        let runtimes = runtimes.collect::<io::Result<Vec<_>>>();
        let runtimes = runtimes.map_err(|source| ForwardError::Worker { source })?;
        let mut ends = Vec::new();
        for (i, (listener, runtime)) in listeners.into_iter().zip(runtimes).enumerate() {
            let crew = WorkerContext::new(Arc::clone(&shared));
            ends.push(spawn_worker_thread(i, runtime, crew, listener, handle.clone())?);
        }
        let mut drained = DrainReport::default();
        let mut failed = None;
        for end in ends {
            match end.await {
                Ok(Ok(part)) => drained += part,
                Ok(Err(error)) => failed = Some(error),
                // Its thread panicked; the others go on and end in their time.
                Err(_) => failed = Some(io::Error::other("a worker panicked")),
            }
        }
        drop(stop);
        failed.map_or(Ok(drained), |source| Err(ForwardError::Worker { source }))
    }
}

/// Starts the thread of a worker.
fn spawn_worker_thread(
    number: usize,
    runtime: Runtime,
    crew: Arc<WorkerContext>,
    listener: Listener,
    handle: TcpHandle,
) -> Result<oneshot::Receiver<io::Result<DrainReport>>, ForwardError> {
    let (tell, end) = oneshot::channel();
    let carry = move || {
        // In a task: the future that a runtime blocks on is woken by a system call.
        let run = async { tokio::spawn(crew.run(listener, handle.clone())).await };
        let drained = runtime.block_on(run).unwrap_or_else(|error| Err(error.into()));
        if drained.is_err() {
            // Nobody accepts from its socket any more: the kernel must not queue clients there.
            handle.close_listeners();
        }
        // Nobody listens where `run` was dropped.
        let _ = tell.send(drained);
    };
    thread::Builder::new()
        .name(format!("lvs-tcp-{number}"))
        .spawn(carry)
        .map_err(|source| ForwardError::Worker { source })?;
    Ok(end)
}

/// Ends all workers when dropped; those that have ended do not mind.
struct ShutdownOnDrop(TcpHandle);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        self.0.shutdown(Duration::ZERO);
    }
}
