//! What a check is: a question to one backend, a bounded answer, and a reason where it failed.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Mutex;

use socket2::SockRef;
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::backend::{AgentOverride, BackendId};

/// One way to find out whether a backend can serve.
///
/// The built-in ones are in [`health`](crate::health); your own is a type with one async method.
/// The future is dropped when the check's timeout has passed: it must not block, and must hold
/// nothing that dropping does not free.
///
/// # Examples
/// ```
/// use lvs::health::{Check, CheckFailure, CheckFailureKind, CheckContext, CheckReport};
/// use tokio::io::AsyncReadExt;
///
/// /// Up while the backend's first byte is a `+`.
/// #[derive(Debug)]
/// struct Plus;
///
/// impl Check for Plus {
///     async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
///         let mut stream = probe.connect().await?;
///         probe.set_stage("waiting for the first byte");
///         match stream.read_u8().await.map_err(|error| probe.io_failure(&error))? {
///             b'+' => Ok(CheckReport::up()),
///             byte => Err(CheckFailure::new(CheckFailureKind::Mismatch, format!("got {byte:#04x}, not +"))),
///         }
///     }
/// }
/// ```
pub trait Check: fmt::Debug + Send + Sync + 'static {
    /// Asks once.
    ///
    /// # Errors
    /// [`CheckFailure`] says what was wrong; the backend counts as failing this once.
    fn check(
        &self,
        probe: &CheckContext,
    ) -> impl Future<Output = Result<CheckReport, CheckFailure>> + Send;

    /// The short name in events, logs and metrics. Default: the name of the type.
    fn name(&self) -> &str {
        let path = std::any::type_name::<Self>();
        path.rsplit("::").next().unwrap_or(path)
    }
}

/// A [`Check`] of any type.
pub(super) trait AnyCheck: fmt::Debug + Send + Sync {
    fn run<'a>(&'a self, probe: &'a CheckContext) -> CheckFuture<'a>;
    fn name(&self) -> &str;
}

/// What a check comes to.
pub(super) type CheckFuture<'a> =
    Pin<Box<dyn Future<Output = Result<CheckReport, CheckFailure>> + Send + 'a>>;

impl<C: Check> AnyCheck for C {
    fn run<'a>(&'a self, probe: &'a CheckContext) -> CheckFuture<'a> {
        Box::pin(self.check(probe))
    }

    fn name(&self) -> &str {
        Check::name(self)
    }
}

/// Whom to ask, and from where.
#[derive(Debug)]
pub struct CheckContext {
    id: BackendId,
    address: SocketAddr,
    source: Option<IpAddr>,
    stage: Mutex<&'static str>,
}

impl CheckContext {
    /// For asking a backend at an address; what [`Checks`](super::Checks) make for each check, and
    /// your tests may.
    #[must_use]
    pub fn new(id: BackendId, address: SocketAddr) -> Self {
        Self { id, address, source: None, stage: Mutex::new("starting") }
    }

    /// Binds what the check opens to an address of this machine. Default: the system's choice.
    #[must_use]
    pub fn with_source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The backend's name.
    #[must_use]
    pub fn id(&self) -> &BackendId {
        &self.id
    }

    /// Where to ask: the backend's address, with the check's port if it has one of its own.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of this machine to ask from, if it matters.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Says what the check waits for from now on: the reason that is given if its time runs out.
    pub fn set_stage(&self, waiting_for: &'static str) {
        *self.stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = waiting_for;
    }

    /// What was [said](Self::set_stage) last.
    #[must_use]
    pub fn stage(&self) -> &'static str {
        *self.stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Connects by TCP.
    ///
    /// The connection is reset when dropped, so that a thousand checks a second leave no ports
    /// behind in TIME_WAIT. A check that has ended a conversation in order may
    /// [shut it down](tokio::io::AsyncWriteExt::shutdown) first.
    ///
    /// # Errors
    /// [`CheckFailure`] names what became of the attempt.
    pub async fn connect(&self) -> Result<TcpStream, CheckFailure> {
        self.set_stage("connecting");
        let failed = |error: io::Error| CheckFailure::io("connecting", &error);
        let local = |error: io::Error| CheckFailure::local("opening a socket", &error);
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.map_err(local)?;
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0)).map_err(local)?;
        }
        let stream = socket.connect(self.address).await.map_err(failed)?;
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
        Ok(stream)
    }

    /// Opens a UDP socket that only hears the backend, and is told by it that nobody listens.
    ///
    /// # Errors
    /// [`CheckFailure`] says what this machine or the way to the backend lacks.
    pub async fn connect_udp(&self) -> Result<UdpSocket, CheckFailure> {
        let local = |error: io::Error| CheckFailure::local("opening a socket", &error);
        let any: IpAddr = match self.address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let source = SocketAddr::new(self.source.unwrap_or(any), 0);
        let socket = UdpSocket::bind(source).await.map_err(local)?;
        socket
            .connect(self.address)
            .await
            .map_err(|error| CheckFailure::io("connecting", &error))?;
        Ok(socket)
    }

    /// A failure of input or output at the present [stage](Self::set_stage).
    #[must_use]
    pub fn io_failure(&self, error: &io::Error) -> CheckFailure {
        CheckFailure::io(self.stage(), error)
    }
}

/// A backend answered as it should, and perhaps said more.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct CheckReport {
    pub(super) agent_override: AgentOverride,
    pub(super) warning: Option<String>,
}

impl CheckReport {
    /// It can serve.
    pub fn up() -> Self {
        Self::default()
    }

    /// It can serve, and says with which weight, how many connections, or that it wants to drain.
    pub fn with_agent_override(self, advice: AgentOverride) -> Self {
        Self { agent_override: advice, ..self }
    }

    /// It can serve, and there is something that the operator should see to (a certificate that
    /// expires soon).
    pub fn with_warning(self, warning: impl Into<String>) -> Self {
        Self { warning: Some(warning.into()), ..self }
    }

    /// What it said of weight, limit and state.
    #[must_use]
    pub fn agent_override(&self) -> AgentOverride {
        self.agent_override
    }

    /// What the operator should see to.
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
    /// A failure of some kind, and a reason that names what was wrong: what came, and what should
    /// have.
    #[must_use]
    pub fn new(kind: CheckFailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), agent_override: AgentOverride::default() }
    }

    /// What an operation on the way to the backend said; `doing` is what was tried.
    #[must_use]
    pub fn io(doing: &str, error: &io::Error) -> Self {
        Self::new(CheckFailureKind::from_io_error(error), format!("{doing}: {error}"))
    }

    /// What this machine lacked: not the backend's fault, and [not counted](CheckFailureKind::Local).
    #[must_use]
    pub fn local(doing: &str, error: &io::Error) -> Self {
        Self::new(CheckFailureKind::Local, format!("{doing}: {error}"))
    }

    /// It cannot serve, and says more about it.
    #[must_use]
    pub fn with_agent_override(self, advice: AgentOverride) -> Self {
        Self { agent_override: advice, ..self }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> CheckFailureKind {
        self.kind
    }

    /// What was wrong.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What it said of weight, limit and state.
    #[must_use]
    pub fn agent_override(&self) -> AgentOverride {
        self.agent_override
    }
}

/// The kinds of failure, as metrics count them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum CheckFailureKind {
    /// Nobody listens: a refused connection, an ICMP port unreachable.
    Refused,
    /// There is no way to it.
    Unreachable,
    /// The connection was reset.
    Reset,
    /// The connection was closed ahead of the answer's end.
    Closed,
    /// Time ran out.
    Timeout,
    /// The answer is none in the protocol spoken.
    Protocol,
    /// The answer is not the one expected.
    Mismatch,
    /// The answer was longer than what is read of one.
    TooLong,
    /// The TLS handshake failed.
    Tls,
    /// This machine lacked something (a descriptor, a port, the program to run). Says nothing about
    /// the backend: neither rise nor fall counts it.
    Local,
}

impl CheckFailureKind {
    /// The short name in metrics and logs.
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

    /// The kind that an error of input or output is.
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
