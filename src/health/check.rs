//! The interface of a check: its context, its report, and its failure with a reason.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::Instant;

use super::check_ports::CheckPorts;
use super::proxy_header::CheckProxyHeader;
use crate::backend::{AgentOverride, BackendId};

/// A way to find out whether a backend can serve.
///
/// The built-in checks are in [`health`](crate::health); a check of your own is a type with one async
/// method. The monitor drops its future when the timeout of the check has passed: it must not block,
/// and dropping it must free all that it holds.
///
/// # Examples
/// ```
/// use lvs::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};
/// use tokio::io::AsyncReadExt;
///
/// /// Passes if the first byte of the backend is a `+`.
/// #[derive(Debug)]
/// struct PlusCheck;
///
/// impl Check for PlusCheck {
///     async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
///         let mut stream = context.connect().await?;
///         context.set_stage("waiting for the first byte");
///         match stream.read_u8().await.map_err(|error| context.io_failure(&error))? {
///             b'+' => Ok(CheckReport::up()),
///             byte => {
///                 let reason = format!("first byte is {byte:#04x}, expected +");
///                 Err(CheckFailure::new(CheckFailureKind::Mismatch, reason))
///             }
///         }
///     }
/// }
/// ```
pub trait Check: fmt::Debug + Send + Sync + 'static {
    /// Checks a backend once.
    ///
    /// # Errors
    /// [`CheckFailure`] holds the reason; it counts towards [`fall`](super::TimedCheck::fall).
    fn check(
        &self,
        context: &CheckContext,
    ) -> impl Future<Output = Result<CheckReport, CheckFailure>> + Send;

    /// Returns the short name for events, logs and metrics. Default: the name of the type.
    fn name(&self) -> &str {
        let path = std::any::type_name::<Self>();
        path.rsplit("::").next().unwrap_or(path)
    }
}

/// A [`Check`] as a trait object.
pub(super) trait AnyCheck: fmt::Debug + Send + Sync {
    fn run<'a>(&'a self, context: &'a CheckContext) -> CheckFuture<'a>;
    fn name(&self) -> &str;
}

/// The future of a check.
pub(super) type CheckFuture<'a> =
    Pin<Box<dyn Future<Output = Result<CheckReport, CheckFailure>> + Send + 'a>>;

impl<C: Check> AnyCheck for C {
    fn run<'a>(&'a self, context: &'a CheckContext) -> CheckFuture<'a> {
        Box::pin(self.check(context))
    }

    fn name(&self) -> &str {
        Check::name(self)
    }
}

/// The backend that a check is made of, the addresses to use, and the stage of the check.
#[derive(Debug)]
pub struct CheckContext {
    id: BackendId,
    address: SocketAddr,
    source: Option<IpAddr>,
    stage: Mutex<&'static str>,
    report: Mutex<Option<CheckReport>>,
    proxy_header: Option<CheckProxyHeader>,
    mark: Option<u32>,
    /// The local ports of checks by mark.
    ports: Option<CheckPorts>,
}

/// How often a check asks for another local port.
const MAX_PORT_ATTEMPTS: u32 = 32;

impl CheckContext {
    /// Creates the context of one check of a backend. A [`Monitor`](super::Monitor) does so for each
    /// check; tests of your own checks may too.
    #[must_use]
    pub fn new(id: BackendId, address: SocketAddr) -> Self {
        let (stage, report) = (Mutex::new("starting"), Mutex::new(None));
        let (source, proxy_header, mark, ports) = (None, None, None, None);
        Self { id, address, source, stage, report, proxy_header, mark, ports }
    }

    /// Returns the context with a local address that the sockets of the check bind to. Default: the
    /// choice of the operating system.
    #[must_use]
    pub fn with_source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Returns the context with a PROXY header that [`connect`](Self::connect) sends first. Default:
    /// none.
    #[must_use]
    pub fn with_proxy_header(self, header: CheckProxyHeader) -> Self {
        Self { proxy_header: Some(header), ..self }
    }

    /// Returns the context with a firewall mark of the packets of [`connect`](Self::connect) and
    /// [`connect_udp`](Self::connect_udp), which needs the capability `CAP_NET_ADMIN`. Default: none. For
    /// Linux only.
    #[must_use]
    pub fn with_mark(self, mark: u32) -> Self {
        Self { mark: Some(mark), ..self }
    }

    /// Returns the context of a check of the same backend at a virtual address, by a mark, in its first stage.
    pub(super) fn for_virtual_address(
        &self,
        address: SocketAddr,
        mark: u32,
        ports: &CheckPorts,
    ) -> Self {
        let (source, proxy_header) = (self.source, self.proxy_header);
        let (mark, ports) = (Some(mark), Some(ports.clone()));
        Self { source, proxy_header, mark, ports, ..Self::new(self.id.clone(), address) }
    }

    /// Returns the name of the backend.
    #[must_use]
    pub fn id(&self) -> &BackendId {
        &self.id
    }

    /// Returns the address to check: that of the backend, with the port of the check if it has one; or the
    /// virtual address, for a check that takes the clients' way.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the local address to check from, if one is set.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Returns the firewall mark of the check's packets, if there is one.
    #[must_use]
    pub fn mark(&self) -> Option<u32> {
        self.mark
    }

    /// Sets the stage that the check is in: the failure names it if the timeout passes. A stage is a
    /// present participle, such as `"waiting for the answer"`.
    pub fn set_stage(&self, stage: &'static str) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Returns the [stage](Self::set_stage) that the check is in.
    #[must_use]
    pub fn stage(&self) -> &'static str {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the report of a check that has passed and only ends its session with the backend: the report
    /// stands if the timeout passes meanwhile.
    pub fn set_report(&self, report: CheckReport) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    /// Returns the [report](Self::set_report) of a check that has passed and has not ended yet.
    #[must_use]
    pub fn report(&self) -> Option<CheckReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects by TCP, and sends the [PROXY header](Self::with_proxy_header), if there is one.
    ///
    /// Dropping the connection resets it, so that a thousand checks a second leave no ports in
    /// TIME_WAIT. A check that has finished its protocol may
    /// [shut the connection down](tokio::io::AsyncWriteExt::shutdown) first.
    ///
    /// # Errors
    /// [`CheckFailure`] if the connection fails, or if this machine cannot open a socket.
    pub async fn connect(&self) -> Result<TcpStream, CheckFailure> {
        self.set_stage("connecting");
        let failed = |error: io::Error| CheckFailure::io("connecting", &error);
        let socket = self.open_socket()?;
        let mut stream = socket.connect(self.address).await.map_err(failed)?;
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        if let Some(header) = self.proxy_header {
            self.set_stage("sending the PROXY header");
            let local = stream.local_addr().map_err(|error| self.io_failure(&error))?;
            let bytes = header.encode(local, self.address);
            stream.write_all(&bytes).await.map_err(|error| self.io_failure(&error))?;
        }
        Ok(stream)
    }

    /// Opens a TCP socket with the mark, and binds it.
    fn open_socket(&self) -> Result<TcpSocket, CheckFailure> {
        let local = |error: io::Error| CheckFailure::local("opening a socket", &error);
        for _ in 0..MAX_PORT_ATTEMPTS {
            let socket = match self.address {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            };
            let socket = socket.map_err(local)?;
            self.set_mark(&SockRef::from(&socket))?;
            let Some(source) = self.local_source()? else { return Ok(socket) };
            let bound = socket.bind(SocketAddr::new(source, 0));
            bound.map_err(|error| CheckFailure::of_source(source, &error))?;
            let (Some(mark), Some(ports)) = (self.mark, &self.ports) else { return Ok(socket) };
            let port = socket.local_addr().map_err(local)?;
            if ports.claim(port, self.address, mark, Instant::now()) {
                return Ok(socket);
            }
        }
        let reason = "every local port was used by a check of another server a short time ago";
        Err(CheckFailure::new(CheckFailureKind::Local, reason))
    }

    /// Opens a UDP socket that is connected to the backend: it receives only from there, and reports
    /// ICMP errors such as port unreachable.
    ///
    /// # Errors
    /// [`CheckFailure`] if this machine cannot open a socket, or has no route to the backend.
    pub async fn connect_udp(&self) -> Result<UdpSocket, CheckFailure> {
        let any: IpAddr = match self.address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let source = self.local_source()?;
        let bound = UdpSocket::bind(SocketAddr::new(source.unwrap_or(any), 0)).await;
        let socket = bound.map_err(|error| match source {
            Some(source) => CheckFailure::of_source(source, &error),
            None => CheckFailure::local("opening a socket", &error),
        })?;
        self.set_mark(&SockRef::from(&socket))?;
        socket
            .connect(self.address)
            .await
            .map_err(|error| CheckFailure::io("connecting", &error))?;
        Ok(socket)
    }

    /// Sets the firewall mark of a socket, which must be done before it connects.
    fn set_mark(&self, socket: &SockRef<'_>) -> Result<(), CheckFailure> {
        let Some(mark) = self.mark else { return Ok(()) };
        #[cfg(target_os = "linux")]
        let result = socket.set_mark(mark);
        #[cfg(not(target_os = "linux"))]
        let result = Err(io::Error::from(ErrorKind::Unsupported));
        let _ = socket;
        result
            .map_err(|error| CheckFailure::local(&format!("setting firewall mark {mark}"), &error))
    }

    /// Returns the local address to check from, which must be of the family of the backend's address.
    pub(super) fn local_source(&self) -> Result<Option<IpAddr>, CheckFailure> {
        match self.source {
            Some(source) if source.is_ipv4() != self.address.is_ipv4() => {
                let address = self.address.ip();
                let reason = format!("source address {source} is not of the family of {address}");
                Err(CheckFailure::new(CheckFailureKind::Local, reason))
            }
            source => Ok(source),
        }
    }

    /// Returns the failure for an I/O error at the current [stage](Self::set_stage).
    #[must_use]
    pub fn io_failure(&self, error: &io::Error) -> CheckFailure {
        CheckFailure::io(self.stage(), error)
    }
}

/// The result of a check that passed, or that says nothing of the health.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct CheckReport {
    /// Whether the health stays as it is.
    pub(super) leaves_health: bool,
    pub(super) agent_override: AgentOverride,
    pub(super) warning: Option<String>,
}

impl CheckReport {
    /// Creates a report that the backend can serve.
    pub fn up() -> Self {
        Self::default()
    }

    /// Creates a report that says nothing of the health: it stays as it is, and neither `rise` nor `fall`
    /// counts the check. Other checks of the backend do not wait for a result of this one.
    pub fn unchanged() -> Self {
        Self { leaves_health: true, ..Self::default() }
    }

    /// Returns the report with the weight, connection limit or state that the backend asks for.
    pub fn with_agent_override(self, agent_override: AgentOverride) -> Self {
        Self { agent_override, ..self }
    }

    /// Returns the report with a problem for the operator, such as a certificate that expires soon.
    pub fn with_warning(self, warning: impl Into<String>) -> Self {
        Self { warning: Some(warning.into()), ..self }
    }

    /// Returns the weight, connection limit and state that the backend asks for.
    #[must_use]
    pub fn agent_override(&self) -> AgentOverride {
        self.agent_override
    }

    /// Returns the problem for the operator, if there is one.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

/// Why a check failed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{reason}")]
pub struct CheckFailure {
    kind: CheckFailureKind,
    reason: String,
    agent_override: AgentOverride,
}

impl CheckFailure {
    /// Creates a failure. The reason should state what was received and what was expected.
    #[must_use]
    pub fn new(kind: CheckFailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), agent_override: AgentOverride::default() }
    }

    /// Creates a failure from an I/O error; `stage` is the operation that failed.
    #[must_use]
    pub fn io(stage: &str, error: &io::Error) -> Self {
        Self::new(CheckFailureKind::from_io_error(error), format!("{stage}: {error}"))
    }

    /// Creates a failure of this machine, which [does not count](CheckFailureKind::Local) against the
    /// backend; `stage` is the operation that failed.
    #[must_use]
    pub fn local(stage: &str, error: &io::Error) -> Self {
        Self::new(CheckFailureKind::Local, format!("{stage}: {error}"))
    }

    /// Creates the failure of a socket that cannot use the local address of the check.
    pub(super) fn of_source(source: IpAddr, error: &io::Error) -> Self {
        Self::local(&format!("using source address {source}"), error)
    }

    /// Returns the failure of a check of a virtual address, which the reason names.
    pub(super) fn at_virtual_address(mut self, address: SocketAddr) -> Self {
        self.reason = format!("virtual address {address}: {}", self.reason);
        self
    }

    /// Returns the failure with the weight, connection limit or state that the backend asks for.
    #[must_use]
    pub fn with_agent_override(self, agent_override: AgentOverride) -> Self {
        Self { agent_override, ..self }
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> CheckFailureKind {
        self.kind
    }

    /// Returns the reason of the failure.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the weight, connection limit and state that the backend asks for.
    #[must_use]
    pub fn agent_override(&self) -> AgentOverride {
        self.agent_override
    }
}

/// The kind of a [`CheckFailure`], as metrics count it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum CheckFailureKind {
    /// Nothing listens at the address: a refused connection, an ICMP port unreachable.
    Refused,
    /// There is no route to the backend.
    Unreachable,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the end of the answer.
    Closed,
    /// The timeout passed.
    Timeout,
    /// The answer violates the protocol.
    Protocol,
    /// The answer is valid, but not the expected one.
    Mismatch,
    /// The answer exceeds the length limit.
    TooLong,
    /// The TLS handshake failed.
    Tls,
    /// This machine lacked something (a descriptor, a port, the program to run). The failure shows
    /// nothing about the backend, so neither rise nor fall counts it once the check has had a result;
    /// before, `fall` of them take the backend down.
    Local,
}

impl CheckFailureKind {
    /// Returns the short name used in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Mismatch => "mismatch",
            Self::TooLong => "too_long",
            Self::Tls => "tls",
            Self::Local => "local",
        }
    }

    /// Returns the kind of an I/O error.
    #[must_use]
    pub fn from_io_error(error: &io::Error) -> Self {
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        if let Some(ENFILE | EMFILE) = error.raw_os_error() {
            return Self::Local;
        }
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionAborted => Self::Closed,
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::InvalidData | ErrorKind::InvalidInput => Self::Protocol,
            ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory | ErrorKind::PermissionDenied => {
                Self::Local
            }
            _ => Self::Unreachable,
        }
    }
}

impl fmt::Display for CheckFailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
