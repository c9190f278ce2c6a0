//! [`Forwarder`]: the listeners and the settings of a TCP forwarder.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use super::config::{ForwarderConfig, OnEndCallback};
use super::handle::TcpHandle;
use super::listener::Listener;
#[cfg(feature = "director")]
use super::options::TcpOptions;
use super::preamble::ProxyHeaderOptions;
use super::socket_options::{SourceAddress, bind_listener};
use crate::Balancer;
use crate::forward::error::ForwardError;
use crate::forward::freebind::BindOptions;
use crate::forward::limits::{ClientPrefixes, ConnectionRate};
use crate::forward::record::ConnectionRecord;
use crate::forward::route::{MAX_TIMEOUT, Route};
use crate::forward::sni::ServerNameTable;
use crate::forward::worker_pool::{WorkerChoice, WorkerPool};

/// Forwards the TCP connections of a listener to the backends that a balancer picks.
///
/// Runs on worker threads of its own, one for each core unless [configured](Self::workers), each with
/// its own listening socket on the same port (`SO_REUSEPORT`): the kernel distributes connections
/// over the sockets by a hash of their addresses, and the threads share nothing while they relay
/// bytes.
///
/// # Examples
/// ```no_run
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::forward::{Forwarder, Route};
/// use lvs::scheduler::RoundRobin;
/// use lvs::{BackendSet, Balancer};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let set = BackendSet::<SocketAddr>::new();
/// set.insert("10.0.0.1:80".parse::<SocketAddr>()?)?;
/// set.insert("10.0.0.2:80".parse::<SocketAddr>()?)?;
///
/// let balancer = Balancer::new(&set, RoundRobin::new())?;
/// let route = Route::new(balancer)
///     .queue(1000, Duration::from_secs(5))
///     .sorry_server("10.0.0.9:80".parse()?);
/// let forwarder = Forwarder::bind("0.0.0.0:8080".parse()?, route)?.max_connections(50_000);
/// let handle = forwarder.handle();
/// let running = tokio::spawn(forwarder.run());
///
/// // Later: accept no more connections, and give the open ones ten seconds.
/// handle.shutdown(Duration::from_secs(10));
/// let report = running.await??;
/// println!("{} finished, {} cut", report.finished, report.cut);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a forwarder does nothing until it runs"]
pub struct Forwarder {
    /// At least one.
    pub(super) listeners: Vec<Listener>,
    /// Whether `bind` opened the listener, so that more can be opened on its port.
    pub(super) owns_port: bool,
    pub(super) workers: WorkerChoice,
    pub(super) config: ForwarderConfig,
    pub(super) handle: TcpHandle,
}

impl Forwarder {
    /// Listens on an address; with port 0 on any free port, which [`Forwarder::local_addr`] returns.
    ///
    /// Only the worker threads share the port: a port that another socket listens on, in this process
    /// or another, is refused.
    ///
    /// # Errors
    /// [`ForwardError::Bind`] if the system refuses the address.
    pub fn bind(address: SocketAddr, route: impl Into<Route>) -> Result<Self, ForwardError> {
        Self::bind_with(address, BindOptions::default(), route.into())
    }

    /// Listens, as [`bind`](Self::bind) does, on an address that this machine need not have yet
    /// (`IP_FREEBIND`), such as a virtual address that VRRP adds and removes. Clients are served while
    /// the machine has the address.
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
        let bind_error = |source| ForwardError::Bind { address, source };
        let listener = bind_listener(address, options).map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        Self::from_parts(vec![Listener::Tcp(listener)], Some(address), true, route)
    }

    /// Makes a forwarder for an existing listener, inherited or with socket options of its own. All
    /// worker threads accept from it, and an idle thread accepts the next connection.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if the listener is not a usable socket.
    pub fn new(listener: TcpListener, route: impl Into<Route>) -> Result<Self, ForwardError> {
        Self::from_listeners([listener], route)
    }

    /// Makes a forwarder for several listeners, such as those of its
    /// [predecessor](TcpHandle::sockets), with at least one worker thread for each. Connections in
    /// the accept queues of the listeners are served.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if there is no listener, or a listener is not a usable socket.
    pub fn from_listeners(
        listeners: impl IntoIterator<Item = TcpListener>,
        route: impl Into<Route>,
    ) -> Result<Self, ForwardError> {
        let listeners: Vec<TcpListener> = listeners.into_iter().collect();
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "the list of listeners is empty");
        let address = listeners.first().ok_or_else(none).and_then(TcpListener::local_addr);
        let address = address.map_err(|source| ForwardError::Listener { source })?;
        let listeners = listeners.into_iter().map(Listener::Tcp).collect();
        Self::from_parts(listeners, Some(address), false, route.into())
    }

    /// Makes a forwarder for a listening Unix socket. Its clients have no address: schedulers that hash
    /// the address distribute them at random, and limits per client do not apply.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if the listener is not a usable socket.
    pub fn from_unix_listener(
        listener: UnixListener,
        route: impl Into<Route>,
    ) -> Result<Self, ForwardError> {
        Self::from_parts(vec![Listener::Unix(listener)], None, false, route.into())
    }

    fn from_parts(
        listeners: Vec<Listener>,
        address: Option<SocketAddr>,
        owns_port: bool,
        route: Route,
    ) -> Result<Self, ForwardError> {
        let handle = TcpHandle { address, control: Arc::default(), metrics: Arc::default() };
        let (workers, config) = (WorkerChoice::default(), ForwarderConfig::new(route));
        Ok(Self { listeners, owns_port, workers, config, handle })
    }

    /// Sets the name of the service in logs and records. Default: `tcp`.
    pub fn name(mut self, name: &str) -> Self {
        self.config.name = name.into();
        self
    }

    /// Sets the number of worker threads that the forwarder starts, from 1 to 1024. Default: one for each core.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = WorkerChoice::Own(workers);
        self
    }

    /// Runs the forwarder on the threads of a pool, which other forwarders share, instead of threads of
    /// its own.
    pub fn worker_pool(mut self, pool: &WorkerPool) -> Self {
        self.workers = WorkerChoice::Shared(pool.clone());
        self
    }

    /// Limits the open connections of all worker threads together, at least 1. Further clients wait:
    /// one for each worker thread is accepted and waits, the others wait in the kernel's accept queue.
    /// Each connection takes two descriptors. Default: 10 000. [`usize::MAX`] is no limit.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.config.options.max_connections = connections;
        self
    }

    /// Limits the open connections of a client address (of a /64 for IPv6, unless
    /// [configured](Self::client_prefixes)), at least 1; further connections are reset. Default: no
    /// limit.
    pub fn max_connections_per_client(mut self, connections: u32) -> Self {
        self.config.options.max_connections_per_client = Some(connections);
        self
    }

    /// Sets how many leading bits of an address identify a client for
    /// [`max_connections_per_client`](Self::max_connections_per_client), so that a network can count
    /// as a client: up to 32 for IPv4, up to 128 for IPv6. Default: 32 for IPv4, 64 for IPv6.
    pub fn client_prefixes(mut self, ipv4: u8, ipv6: u8) -> Self {
        self.config.options.client_prefixes = ClientPrefixes { ipv4, ipv6 };
        self
    }

    /// Limits the rate of new connections of all worker threads together; further connections wait, as
    /// with [`max_connections`](Self::max_connections). Default: no limit.
    pub fn accept_rate(mut self, rate: ConnectionRate) -> Self {
        self.config.accept_rate = Some(rate);
        self
    }

    /// Sets how long one attempt to connect may take before the next backend is tried. Default: 5 s,
    /// long enough for the loss of the first two SYN packets (sent again after 1 s and 3 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect.attempt_timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// Sets how long all attempts to connect together may take; the time in the [queue](Route::queue)
    /// does not count. Default: 15 s.
    pub fn connect_deadline(mut self, timeout: Duration) -> Self {
        self.config.connect.total_timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// Sets how many backends are tried for a connection, the first included and each at most once; at
    /// least 1. Default: 3.
    pub fn connect_attempts(mut self, attempts: u32) -> Self {
        self.config.options.connect_attempts = attempts;
        self
    }

    /// Ends connections that have relayed no byte in either direction for this long. Default: 15
    /// minutes, as IPVS; `None` is never.
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.config.timeouts.idle = timeout;
        self
    }

    /// Ends connections that one side has closed and that have relayed no byte for this long. Default:
    /// 2 minutes, as IPVS; `None` is never.
    pub fn half_closed_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.config.timeouts.half_closed = timeout;
        self
    }

    /// Ends connections this long after they were accepted, whether or not they are idle. Default:
    /// never.
    pub fn total_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.config.timeouts.total = timeout;
        self
    }

    /// Ends the connections of a backend that a check marked down or an operator disabled, with a reset
    /// on both sides: the client of a hanging server then retries at once, instead of waiting for its
    /// own timeout. Takes effect within 100 ms. Does not apply to backends that are ejected, drained or
    /// removed, nor to backends that serve because the set [panics](crate::backend::FailMode).
    /// Default: off. HAProxy's `on-marked-down shutdown-sessions`.
    pub fn cut_on_down(mut self, cut: bool) -> Self {
        self.config.cut_on_down = cut;
        self
    }

    /// Sends TCP keepalive probes to peers that were silent for this long (`SO_KEEPALIVE`), five probes
    /// within the same time again. Whole seconds, from 1 to 32 767. On both sides. Default: off.
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.config.options.socket_options.keepalive = Some(idle);
        self
    }

    /// Ends connections to peers that have not acknowledged sent data for this long
    /// (`TCP_USER_TIMEOUT`, RFC 5482), from 1 ms to 2 147 483 647 ms. On both sides. Default: the
    /// kernel's, about 15 minutes.
    pub fn user_timeout(mut self, timeout: Duration) -> Self {
        self.config.options.socket_options.user_timeout = Some(timeout);
        self
    }

    /// Accepts data in a client's SYN (TCP Fast Open, RFC 7413), with up to this many pending requests, at
    /// most 2 147 483 647; 0 is off. Default: off. Only for protocols in which a request may safely arrive twice.
    pub fn fastopen(mut self, pending: u32) -> Self {
        self.config.options.socket_options.fastopen = pending;
        self
    }

    /// Sends a client's first bytes with the SYN to the backend (TCP Fast Open). Default: off.
    ///
    /// If the kernel holds the backend's cookie, the connect waits for the client's first byte, so a
    /// failed backend is noticed too late to try another. Not for protocols in which the server sends
    /// first: both sides would wait for ever.
    pub fn fastopen_backends(mut self, fastopen: bool) -> Self {
        self.config.options.socket_options.fastopen_connect = fastopen;
        self
    }

    /// Sets the source address of connections to backends. Default: chosen by the routing table.
    pub fn source(mut self, source: SourceAddress) -> Self {
        self.config.options.socket_options.source = source;
        self
    }

    /// Requires a PROXY header, version 1 or 2, from every client within this time, and trusts it: for
    /// a listener that only other proxies can reach. The client that the header names is then the
    /// client for schedulers, limits, persistence, records and the header to the backend.
    ///
    /// A connection with an invalid or late header is reset.
    pub fn accept_proxy(mut self, timeout: Duration) -> Self {
        self.config.preamble.proxy_header_timeout = Some(timeout.min(MAX_TIMEOUT));
        self
    }

    /// Sends a PROXY header to backends and to the sorry server, which must expect one.
    pub fn send_proxy(mut self, options: ProxyHeaderOptions) -> Self {
        self.config.preamble.send_proxy = Some(options);
        self
    }

    /// Makes the server name (SNI) of a TLS client the key of the flow, for schedulers that hash. TLS
    /// is not terminated: the ClientHello is read, within this time, and sent on. A connection that
    /// does not begin with a ClientHello is reset. A client that asks for no name, or for one that is no
    /// host name, such as an IP address, has the key that it would have without this option.
    pub fn key_by_server_name(mut self, timeout: Duration) -> Self {
        self.config.preamble.client_hello_timeout = Some(timeout.min(MAX_TIMEOUT));
        self.config.preamble.key_by_server_name = true;
        self
    }

    /// Selects the balancer by the server name (SNI) of a TLS client: `services` has a balancer for
    /// each name, used instead of the forwarder's own. A connection with a name that is not in the
    /// table is reset, unless the table has a default; so is one without a name, or with one that is no
    /// host name, such as an IP address. Persistence and queue of the forwarder's own [route](Route) do
    /// not apply. The ClientHello is read as with [`key_by_server_name`](Self::key_by_server_name).
    pub fn services_by_server_name(
        mut self,
        timeout: Duration,
        services: ServerNameTable<Balancer<SocketAddr>>,
    ) -> Self {
        self.config.preamble.client_hello_timeout = Some(timeout.min(MAX_TIMEOUT));
        self.config.preamble.services = Some(services);
        self
    }

    /// Sets the balancer of clients that do not begin with TLS where a ClientHello is read, as with
    /// [`services_by_server_name`](Self::services_by_server_name) and
    /// [`key_by_server_name`](Self::key_by_server_name); without them it has no effect. For one port that
    /// also serves another protocol, such as SSH. The first byte decides: a client that waits for the
    /// server to begin is reset when the time for the ClientHello is over. Default: none, such clients are
    /// reset.
    pub fn service_without_tls(mut self, service: Balancer<SocketAddr>) -> Self {
        self.config.preamble.service_without_tls = Some(service);
        self
    }

    /// Sets a callback for the record of each connection that has ended, refused connections included;
    /// for an access log.
    ///
    /// Called on the worker thread, which relays no bytes meanwhile: move slow work to another thread.
    /// A panic of the callback is caught and logged.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example(forwarder: lvs::forward::Forwarder) -> lvs::forward::Forwarder {
    /// forwarder.on_end(|record| println!("{record}"))
    /// # }
    /// ```
    pub fn on_end(mut self, callback: impl Fn(&ConnectionRecord) + Send + Sync + 'static) -> Self {
        self.config.on_end = Some(OnEndCallback::new(callback));
        self
    }

    /// Replaces all options whose values have a range.
    #[cfg(feature = "director")]
    pub(crate) fn options(mut self, options: TcpOptions) -> Self {
        self.config.options = options;
        self
    }

    /// Returns the address that the forwarder listens on; `None` for a Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.handle.local_addr()
    }

    /// Returns a handle to watch the forwarder and to shut it down.
    #[must_use]
    pub fn handle(&self) -> TcpHandle {
        self.handle.clone()
    }
}
