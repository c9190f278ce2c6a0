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

use crate::backend::{Advice, BackendId};

/// One way to find out whether a backend can serve.
///
/// The built-in ones are in [`health`](crate::health); your own is a type with one async method.
/// The future is dropped when the check's timeout has passed: it must not block, and must hold
/// nothing that dropping does not free.
///
/// # Examples
/// ```
/// use lvs::health::{Check, Failure, FailureKind, Probe, Report};
/// use tokio::io::AsyncReadExt;
///
/// /// Up while the backend's first byte is a `+`.
/// #[derive(Debug)]
/// struct Plus;
///
/// impl Check for Plus {
///     async fn check(&self, probe: &Probe) -> Result<Report, Failure> {
///         let mut stream = probe.connect().await?;
///         probe.stage("waiting for the first byte");
///         match stream.read_u8().await.map_err(|error| probe.io_failure(&error))? {
///             b'+' => Ok(Report::up()),
///             byte => Err(Failure::new(FailureKind::Mismatch, format!("got {byte:#04x}, not +"))),
///         }
///     }
/// }
/// ```
pub trait Check: fmt::Debug + Send + Sync + 'static {
    /// Asks once.
    ///
    /// # Errors
    /// [`Failure`] says what was wrong; the backend counts as failing this once.
    fn check(&self, probe: &Probe) -> impl Future<Output = Result<Report, Failure>> + Send;

    /// The short name in events, logs and metrics. Default: the name of the type.
    fn name(&self) -> &str {
        let path = std::any::type_name::<Self>();
        path.rsplit("::").next().unwrap_or(path)
    }
}

/// A [`Check`] of any type.
pub(super) trait AnyCheck: fmt::Debug + Send + Sync {
    fn run<'a>(&'a self, probe: &'a Probe) -> Answer<'a>;
    fn name(&self) -> &str;
}

/// What a check comes to.
pub(super) type Answer<'a> = Pin<Box<dyn Future<Output = Result<Report, Failure>> + Send + 'a>>;

impl<C: Check> AnyCheck for C {
    fn run<'a>(&'a self, probe: &'a Probe) -> Answer<'a> {
        Box::pin(self.check(probe))
    }

    fn name(&self) -> &str {
        Check::name(self)
    }
}

/// Whom to ask, and from where.
#[derive(Debug)]
pub struct Probe {
    id: BackendId,
    address: SocketAddr,
    source: Option<IpAddr>,
    stage: Mutex<&'static str>,
}

impl Probe {
    /// For asking a backend at an address; what [`Checks`](super::Checks) make for each check, and
    /// your tests may.
    #[must_use]
    pub fn new(id: BackendId, address: SocketAddr) -> Self {
        Self { id, address, source: None, stage: Mutex::new("starting") }
    }

    /// Binds what the check opens to an address of this machine. Default: the system's choice.
    #[must_use]
    pub fn from_source(self, source: IpAddr) -> Self {
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
    pub fn stage(&self, waiting_for: &'static str) {
        *self.stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = waiting_for;
    }

    /// What was [said](Self::stage) last.
    #[must_use]
    pub fn waits_for(&self) -> &'static str {
        *self.stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Connects by TCP.
    ///
    /// The connection is reset when dropped, so that a thousand checks a second leave no ports
    /// behind in TIME_WAIT. A check that has ended a conversation in order may
    /// [shut it down](tokio::io::AsyncWriteExt::shutdown) first.
    ///
    /// # Errors
    /// [`Failure`] names what became of the attempt.
    pub async fn connect(&self) -> Result<TcpStream, Failure> {
        self.stage("connecting");
        let failed = |error: io::Error| Failure::io("connecting", &error);
        let local = |error: io::Error| Failure::local("opening a socket", &error);
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
    /// [`Failure`] says what this machine or the way to the backend lacks.
    pub async fn udp(&self) -> Result<UdpSocket, Failure> {
        let local = |error: io::Error| Failure::local("opening a socket", &error);
        let any: IpAddr = match self.address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let source = SocketAddr::new(self.source.unwrap_or(any), 0);
        let socket = UdpSocket::bind(source).await.map_err(local)?;
        socket.connect(self.address).await.map_err(|error| Failure::io("connecting", &error))?;
        Ok(socket)
    }

    /// A failure of input or output at the present [stage](Self::stage).
    #[must_use]
    pub fn io_failure(&self, error: &io::Error) -> Failure {
        Failure::io(self.waits_for(), error)
    }
}

/// A backend answered as it should, and perhaps said more.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Report {
    pub(super) advice: Advice,
    pub(super) warning: Option<String>,
}

impl Report {
    /// It can serve.
    pub fn up() -> Self {
        Self::default()
    }

    /// It can serve, and says with which weight, how many connections, or that it wants to drain.
    pub fn with_advice(self, advice: Advice) -> Self {
        Self { advice, ..self }
    }

    /// It can serve, and there is something that the operator should see to (a certificate that
    /// expires soon).
    pub fn with_warning(self, warning: impl Into<String>) -> Self {
        Self { warning: Some(warning.into()), ..self }
    }

    /// What it said of weight, limit and state.
    #[must_use]
    pub fn advice(&self) -> Advice {
        self.advice
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
pub struct Failure {
    kind: FailureKind,
    reason: String,
    advice: Advice,
}

impl Failure {
    /// A failure of some kind, and a reason that names what was wrong: what came, and what should
    /// have.
    #[must_use]
    pub fn new(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), advice: Advice::default() }
    }

    /// What an operation on the way to the backend said; `doing` is what was tried.
    #[must_use]
    pub fn io(doing: &str, error: &io::Error) -> Self {
        Self::new(FailureKind::of(error), format!("{doing}: {error}"))
    }

    /// What this machine lacked: not the backend's fault, and [not counted](FailureKind::Local).
    #[must_use]
    pub fn local(doing: &str, error: &io::Error) -> Self {
        Self::new(FailureKind::Local, format!("{doing}: {error}"))
    }

    /// It cannot serve, and says more about it.
    #[must_use]
    pub fn with_advice(self, advice: Advice) -> Self {
        Self { advice, ..self }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// What was wrong.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What it said of weight, limit and state.
    #[must_use]
    pub fn advice(&self) -> Advice {
        self.advice
    }
}

/// The kinds of failure, as metrics count them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum FailureKind {
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

impl FailureKind {
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
    pub fn of(error: &io::Error) -> Self {
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

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
