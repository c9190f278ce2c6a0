//! The UDP forwarder: construction, settings, and running.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::flow_record::{FlowEndCallback, FlowRecord};
use super::handle::UdpHandle;
use super::metrics::UdpWorkerMetrics;
use super::options::{Coalesce, UdpOptions};
use super::settings::{UdpContext, UdpSettings};
use super::socket;
use super::worker::run_worker;
use crate::forward::clock::now;
use crate::forward::freebind::BindOptions;
use crate::forward::limits::ClientPrefixes;
use crate::forward::route::Route;
use crate::forward::running::{RunningForwarder, run_supervised};
use crate::forward::worker_pool::{WorkerChoice, WorkerPool};
use crate::forward::{DrainReport, ForwardError};
use crate::sync::lock;
use crate::sys::mmsg::enable_pktinfo;
use crate::sys::shared_fd::SharedFd;

/// Forwards the datagrams that arrive at a UDP address to the backends that a balancer picks, and
/// their replies to the clients.
///
/// # Flows
/// A flow is identified by the client's address and port and the local address that the client sent
/// to. The first datagram of a flow picks a backend, and all following datagrams go to this
/// backend. Replies are sent from the address that the client sent to, also if the socket is bound
/// to the wildcard address of a machine with several addresses. A flow ends after the
/// [idle timeout](Self::idle_timeout) without a datagram in either direction.
///
/// As in IPVS, a flow counts as an *inactive* connection of its backend: `wlc`, `lc` and limits
/// count it; `sed`, `nq` and other schedulers that use active connections alone do not.
///
/// # When a backend fails
/// Each flow has its own connected socket, so that the kernel reports ICMP errors of the flow. When
/// a backend refuses a datagram (the host is up, the port is closed), the outcome of the lease is
/// [`ConnectError`](crate::Outcome::ConnectError), and the flow moves to another backend at once,
/// up to [`attempts`](Self::attempts) backends in a row. The datagrams of the flow in the batch
/// that was received last are sent again, to the new backend; if the backend runs on this machine,
/// these are all refused datagrams. For a remote backend, datagrams sent before the ICMP error
/// arrives are lost. A host that is down sends no ICMP errors: use health checks to detect it.
///
/// Flows of a backend that becomes [down or disabled](crate::backend::BackendState) or leaves the
/// set move within 100 ms, or with their next datagram. Flows of a quiesced (weight 0) or draining
/// backend stay until they end; new flows use other backends.
///
/// # Full tables
/// At [`max_flows`](Self::max_flows) a new flow evicts the flow that has been idle longest *among
/// those that no backend has answered*: a flood of spoofed source addresses evicts its own flows,
/// and flows in use stay. If all flows have been answered, the datagram is dropped and counted as
/// shed.
///
/// # Outcomes of leases
/// | event | [`Outcome`](crate::Outcome) |
/// |---|---|
/// | idle or total timeout of the flow | `Ok` |
/// | idle or total timeout, with fewer than the expected [`replies`](Self::replies) | `Timeout` |
/// | all expected replies arrived | `Ok` |
/// | an ICMP error, or no route | `ConnectError` |
/// | the flow was moved, evicted or cut, or this machine had no free descriptor or port | `Cancelled` |
///
/// The latency that `peak_ewma` and `hot_cold` use is the time from the first datagram of a flow to
/// the first reply.
///
/// # Cost
/// Each worker has its own socket (`SO_REUSEPORT`) and its own flows. A flow costs one descriptor, one
/// kernel socket and about 500 bytes of user memory. A worker with flows has one more descriptor, and
/// reserves 8 MiB of address space for buffers, of which only used pages occupy memory; ten seconds
/// after the last flow has ended it has nothing but its socket.
/// Datagrams are received and sent in batches and are not copied within this process.
///
/// # Examples
/// ```no_run
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::forward::UdpForwarder;
/// use lvs::scheduler::SourceHash;
/// use lvs::{BackendSet, Balancer};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let set = BackendSet::<SocketAddr>::new();
/// set.insert("10.0.0.1:53".parse::<SocketAddr>()?)?;
/// set.insert("10.0.0.2:53".parse::<SocketAddr>()?)?;
///
/// let balancer = Balancer::new(&set, SourceHash::new())?;
/// let forwarder = UdpForwarder::bind("0.0.0.0:53".parse()?, balancer)?.replies(1);
/// let handle = forwarder.handle();
/// let running = tokio::spawn(forwarder.run());
///
/// // Later: no new flows, ten seconds for the existing flows to end.
/// handle.shutdown(Duration::from_secs(10));
/// let drained = running.await??;
/// println!("{} finished, {} cut", drained.finished, drained.cut);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a forwarder does nothing until `run` is called"]
pub struct UdpForwarder {
    sockets: Vec<UdpSocket>,
    /// Whether `bind` opened the socket.
    owns_port: bool,
    workers: WorkerChoice,
    settings: UdpSettings,
    handle: UdpHandle,
    earlier: Option<UdpHandle>,
}

impl UdpForwarder {
    /// Binds a socket to an address; port 0 selects a free port, which [`UdpForwarder::local_addr`]
    /// returns.
    ///
    /// `[::]` accepts both address families if the system's default (`net.ipv6.bindv6only`) does.
    /// Default: one worker for each core.
    ///
    /// # Errors
    /// [`ForwardError::Bind`] if the system refuses to bind the address.
    pub fn bind(address: SocketAddr, route: impl Into<Route>) -> Result<Self, ForwardError> {
        Self::bind_with(address, BindOptions::default(), route.into())
    }

    /// Binds a socket as [`bind`](Self::bind) does, also to an address that this machine does not
    /// have yet (`IP_FREEBIND`), such as a VRRP virtual address. Clients are served while the
    /// machine has the address.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_nonlocal(
        address: SocketAddr,
        route: impl Into<Route>,
    ) -> Result<Self, ForwardError> {
        let options = BindOptions { is_nonlocal: true, is_shared: false };
        Self::bind_with(address, options, route.into())
    }

    pub(crate) fn bind_with(
        address: SocketAddr,
        options: BindOptions,
        route: Route,
    ) -> Result<Self, ForwardError> {
        let socket = socket::bind_listener(address, options);
        let socket = socket.map_err(|source| ForwardError::Bind { address, source })?;
        let workers = WorkerChoice::default();
        Ok(Self { owns_port: true, workers, ..Self::new(socket, route)? })
    }

    /// Uses an existing bound socket: inherited, or created with special options.
    ///
    /// Default: one worker. For more workers, further sockets are bound to the same address
    /// (`SO_REUSEPORT`); these do not inherit other options of the socket.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if the socket is not usable.
    pub fn new(socket: UdpSocket, route: impl Into<Route>) -> Result<Self, ForwardError> {
        Self::from_sockets([socket], route)
    }

    /// Uses several existing sockets, those of a forwarder that this forwarder
    /// [replaces](UdpHandle::sockets). There is at least one worker for each socket.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if there are no sockets, or a socket is not usable.
    pub fn from_sockets(
        sockets: impl IntoIterator<Item = UdpSocket>,
        route: impl Into<Route>,
    ) -> Result<Self, ForwardError> {
        let sockets: Vec<UdpSocket> = sockets.into_iter().collect();
        let no_sockets = || io::Error::new(io::ErrorKind::InvalidInput, "no sockets");
        let address = sockets.first().ok_or_else(no_sockets).and_then(UdpSocket::local_addr);
        let address = address.map_err(|source| ForwardError::Listener { source })?;
        let workers = WorkerChoice::Own(sockets.len());
        let options = UdpOptions::default();
        let (name, on_end) = ("udp".into(), None);
        let settings = UdpSettings { name, route: route.into(), options, on_end };
        let handle = UdpHandle {
            address,
            control: Arc::default(),
            metrics: Arc::default(),
            earlier_flows: Arc::default(),
        };
        Ok(Self { sockets, owns_port: false, workers, settings, handle, earlier: None })
    }

    /// Sets a callback for the record of each flow that has ended.
    ///
    /// Called on the worker thread, which forwards no datagrams meanwhile: move slow work to another
    /// thread. A panic of the callback is caught and logged.
    pub fn on_end(mut self, callback: impl Fn(&FlowRecord) + Send + Sync + 'static) -> Self {
        self.settings.on_end = Some(FlowEndCallback::new(callback));
        self
    }

    /// Lets clients that have a flow at an earlier forwarder, whose [sockets](UdpHandle::sockets) this
    /// one uses, stay at their backend: their next datagram starts a flow there, if the backend is
    /// eligible. The flows are read when this forwarder [starts](Self::start).
    ///
    /// Default: the scheduler picks a backend. Without effect with persistence, which has its own memory,
    /// and with one-packet scheduling.
    pub fn keep_flows_of(self, earlier: &UdpHandle) -> Self {
        Self { earlier: Some(earlier.clone()), ..self }
    }

    /// Sets the name of the service in logs. Default: `udp`.
    pub fn name(mut self, name: &str) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Sets the number of worker threads that the forwarder starts, from 1 to 1024, each with its own socket on the
    /// address. The kernel distributes clients over them by a hash of their address and port. Default:
    /// one for each core if the forwarder bound the address, else one for each socket.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = WorkerChoice::Own(workers);
        self
    }

    /// Runs the forwarder on the threads of a pool, which other forwarders share, instead of threads of
    /// its own. Existing sockets that the forwarder was given are distributed over the threads.
    pub fn worker_pool(mut self, pool: &WorkerPool) -> Self {
        self.workers = WorkerChoice::Shared(pool.clone());
        self
    }

    /// Sets the time after the last datagram in either direction after which a flow ends. Default:
    /// 60 s.
    ///
    /// With [one-packet scheduling](Self::one_packet) this is the time for which replies are
    /// forwarded to the client: at most 5 s, which is the default then.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.options.idle_timeout = Some(timeout);
        self
    }

    /// Sets the maximum duration of a flow, also of a busy flow; the client's next datagram starts
    /// a new flow. Default: no maximum.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.settings.options.total_timeout = Some(timeout);
        self
    }

    /// Sets the maximum number of concurrent flows, from 1 to 16 777 216, divided equally among the
    /// workers. Each flow uses a descriptor. Default: 10 000. See [full
    /// tables](Self#full-tables).
    pub fn max_flows(mut self, flows: usize) -> Self {
        self.settings.options.max_flows = flows;
        self
    }

    /// Sets the maximum number of concurrent flows of one client address (of a /64 for IPv6, unless
    /// [configured](Self::client_prefixes)), over all workers; at least 1. Default: no maximum.
    pub fn max_flows_per_client(mut self, flows: u32) -> Self {
        self.settings.options.max_flows_per_client = Some(flows);
        self
    }

    /// Sets how many leading bits of an address identify a client for
    /// [`max_flows_per_client`](Self::max_flows_per_client), so that a network can count as a client:
    /// from 0 to 32 for IPv4 and from 0 to 128 for IPv6. Default: 32 and 64.
    pub fn client_prefixes(mut self, ipv4: u8, ipv6: u8) -> Self {
        self.settings.options.client_prefixes = ClientPrefixes { ipv4, ipv6 };
        self
    }

    /// Sets how many backends are tried for a flow until a backend replies, including the first; at
    /// least 1. Default: 3.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.settings.options.attempts = attempts;
        self
    }

    /// Sets the number of replies expected for each datagram of a client, such as 1 for DNS: a flow
    /// ends when all expected replies have arrived. At least 1. Default: flows end by their
    /// timeouts alone.
    pub fn replies(mut self, replies: u32) -> Self {
        self.settings.options.replies = Some(replies);
        self
    }

    /// Enables one-packet scheduling, as `ipvsadm --ops` does: each datagram picks a backend.
    /// Default: off.
    ///
    /// Flows hold no leases: the lease of a datagram ends as [`Ok`](crate::Outcome::Ok) once the
    /// datagram is sent, and a later refusal is reported by a lease of its own. For replies, each
    /// pair of client and backend has a socket for the [idle timeout](Self::idle_timeout), which may
    /// be at most 5 s; limits and counters count these pairs as flows.
    pub fn one_packet(mut self, on: bool) -> Self {
        self.settings.options.one_packet = on;
        self
    }

    /// Sets whether datagrams are coalesced. Default: [`Coalesce::Auto`].
    pub fn coalesce(mut self, coalesce: Coalesce) -> Self {
        self.settings.options.coalesce = coalesce;
        self
    }

    /// Replaces all options.
    #[cfg(feature = "director")]
    pub(crate) fn options(mut self, options: UdpOptions) -> Self {
        self.settings.options = options;
        self
    }

    /// Returns the address of the listening socket.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.address
    }

    /// Returns a handle to observe the forwarder and to shut it down.
    #[must_use]
    pub fn handle(&self) -> UdpHandle {
        self.handle.clone()
    }

    /// Starts to serve: datagrams are received when this returns. The forwarder serves until
    /// [`UdpHandle::shutdown`], then starts no new flows and waits for the existing flows to end, up to
    /// the deadline of the shutdown.
    ///
    /// Needs no runtime: the worker threads have their own.
    ///
    /// # Errors
    /// [`ForwardError::Setting`] if a setting is out of its range, before a datagram is received;
    /// [`ForwardError::Listener`] if the sockets of the workers cannot be created or polled;
    /// [`ForwardError::Worker`] if a thread cannot be started. No errors after the start.
    pub fn start(self) -> Result<RunningForwarder, ForwardError> {
        let listener_error = |source| ForwardError::Listener { source };
        let Self { sockets, owns_port, workers, settings, handle, earlier } = self;
        settings.options.validate()?;
        let can_open = owns_port || matches!(workers, WorkerChoice::Own(_));
        let pool = workers.pool()?;
        let reservation = pool.reserve_listeners(sockets.len(), can_open);
        let sockets = socket::add_reuseport_listeners(sockets, reservation.count);
        let sockets = sockets.map_err(listener_error)?;
        for socket in &sockets {
            socket.set_nonblocking(true).map_err(listener_error)?;
            if handle.address.ip().is_unspecified() {
                enable_pktinfo(socket.as_fd(), handle.address.is_ipv6()).map_err(listener_error)?;
            }
        }
        if let Some(earlier) = &earlier {
            let (max, idle) = (settings.options.max_flows, settings.options.idle_timeout());
            let (flows, remembered) = (earlier.flows(max), &earlier.earlier_flows);
            handle.earlier_flows.remember(flows, remembered, idle, now());
        }
        let earlier_flows = Arc::clone(&handle.earlier_flows);
        let context = UdpContext::new(settings, handle.address, sockets.len(), earlier_flows);
        let sockets: Vec<SharedFd> = sockets.into_iter().map(SharedFd::from).collect();
        let mut workers = Vec::with_capacity(sockets.len());
        for (number, socket) in sockets.iter().enumerate() {
            let runtime = pool.runtime(reservation.first_worker + number);
            let _guard = runtime.enter();
            let listener = socket.register_readable().map_err(listener_error)?;
            workers.push((runtime, (number, listener)));
        }
        handle.control.set_sockets(sockets);
        let spawn = |(runtime, listener): (&Handle, _)| {
            let metrics = Arc::new(UdpWorkerMetrics::default());
            lock(&handle.metrics).push(Arc::clone(&metrics));
            let control = Arc::clone(&handle.control);
            let context = Arc::clone(&context);
            runtime.spawn(async move {
                let register = |socket: SharedFd| socket.register_readable();
                let run = |listener| {
                    let (context, metrics) = (Arc::clone(&context), Arc::clone(&metrics));
                    run_worker(context, metrics, listener, Arc::clone(&control))
                };
                let name = &context.settings.name;
                run_supervised(name, &control, listener, register, run).await
            })
        };
        let tasks = workers.into_iter().map(spawn).collect();
        Ok(RunningForwarder::new(tasks, Arc::clone(&handle.control), reservation))
    }

    /// [Starts](Self::start), and serves until the forwarder has drained after a shutdown.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`RunningForwarder`].
    ///
    /// # Cancel safety
    /// As [`RunningForwarder`].
    pub async fn run(self) -> Result<DrainReport, ForwardError> {
        self.start()?.await
    }
}
