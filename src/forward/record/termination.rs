//! Who ended a connection, and when in its life.

use std::fmt;

/// Why a connection ended: who did it, and how far it had come.
///
/// Displayed as two letters, those of HAProxy's TCP log wherever HAProxy has the case, so that
/// scripts and habits carry over.
///
/// # The codes
/// | code | what happened | where to look |
/// |---|---|---|
/// | `--` | Both sides closed in order. | Nowhere. |
/// | `CR` | The client left before its PROXY header or ClientHello was whole. | Port scans and TCP health checks of the balancer in front look like this. |
/// | `cR` | The PROXY header or ClientHello did not come in time. | Does the balancer in front send the PROXY header at all? Is a client speaking something else? |
/// | `PR` | Turned away at the door: the client has its number of connections, the header or ClientHello is wrong, or no service has that name. | The refusals among the counters say which. One client in many lines: abuse, or a proxy with many users behind one address. |
/// | `KR` | A shutdown cut it before its header was whole. | Expected at a restart. |
/// | `CQ` | The client left while it waited for a backend with a free place. | Clients wait too long: as `sQ`. |
/// | `sQ` | No backend had a free place in time. | Every backend is at its connection limit. Are some down? Is one slow and holding connections? Else more backends, or higher limits. |
/// | `PQ` | Every backend was at its limit, and the line was full or there is none. | As `sQ`, and worse: refused at once. |
/// | `KQ` | A shutdown cut it while it waited. | Expected at a restart under load. |
/// | `CC` | The client left while a backend was being connected to. | Slow connects (field 10 of other lines) or an impatient client. |
/// | `SC` | The last backend tried refused or could not be reached; without a backend in the line: there was nobody to try. | The backend in the line: does its process run and listen, is there a route? Without one: all are down, drained or quiesced. |
/// | `sC` | The last backend tried did not answer in time. | The backend in the line: host gone, firewall that drops, accept queue full. |
/// | `PC` | The scheduler's rule gave the connection to nobody. | `sh`, `dh` or `mh` without fallback and the client's backend out, or `ovf` with all overflowing. |
/// | `RC` | This machine had no port, descriptor or memory for the connection to the backend. | `ulimit -n`; ports: connections in TIME_WAIT to this backend, `net.ipv4.ip_local_port_range`. |
/// | `KC` | A shutdown cut it while a backend was being connected to. | Expected at a restart. |
/// | `CD` | The client broke off while data flowed. | Users that leave, mobile networks. Only suspicious when it comes suddenly and for all. |
/// | `SD` | The backend broke off while data flowed. | The backend in the line: did its process crash or restart? Does its own idle timeout end before this one? |
/// | `cD` | Nothing came for the idle timeout, and it was the client's turn: the backend had spoken last, or nobody yet. | Mostly idle keep-alive connections: harmless. Else a client that does not read. |
/// | `sD` | Nothing came for the idle timeout, and it was the backend's turn: the client had spoken last, or had closed its side. | The backend hangs, or needs longer than the timeout to answer. |
/// | `PD` | It reached the longest time a connection may last. | The configured total timeout. |
/// | `DD` | The backend went down, and the forwarder [cuts](crate::forward::Forwarder::cut_on_down) what such backends have. | The backend in the line: what did its checks say? |
/// | `KD` | It was cut while data flowed: the deadline of a shutdown or drain, or an operator. | Expected at a restart; many of them say that the deadline is short. |
/// | `CL` | The backend had finished, and the client broke off before it had all. | As `CD`; the client may have got less than all. |
/// | `SL` | The backend had finished and then broke off, while the client still sent. | A backend that does not read all it is sent: the client may hear nothing of it. |
/// | `cL` | The backend had finished, and the client neither took the rest nor closed in time. | A client that does not read, or never closes its side. |
/// | `PL` | As `PD`, after the backend had finished. | As `PD`. |
/// | `DL` | As `DD`, after the backend had finished. | As `DD`. |
/// | `KL` | As `KD`, after the backend had finished. | As `KD`. |
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Termination {
    /// Who ended it.
    pub reason: TerminationReason,
    /// How far it had come.
    pub phase: ConnectionPhase,
}

/// Who ended a connection: the first letter of the code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum TerminationReason {
    /// `-` Nobody: it was over.
    Normal,
    /// `C` The client broke off.
    Client,
    /// `S` The backend broke off or refused; or there was none.
    Backend,
    /// `c` The client was waited for, and did not act in time.
    ClientTimeout,
    /// `s` The backend was waited for, and did not act in time.
    BackendTimeout,
    /// `P` The forwarder, by one of its rules.
    Proxy,
    /// `R` The forwarder, for lack of memory, descriptors or ports.
    Resources,
    /// `D` The forwarder, because the backend was down.
    BackendDown,
    /// `K` The operator: a shutdown, a drain, a command.
    Killed,
}

/// How far a connection had come when it ended: the second letter of the code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ConnectionPhase {
    /// `R` Before it was known whom it is for: being admitted, or its first bytes awaited.
    Request,
    /// `Q` In line for a backend with a free place.
    Queue,
    /// `C` A backend was being chosen and connected to.
    Connect,
    /// `D` Data flowed.
    Data,
    /// `L` The backend had finished, the client had not.
    Last,
    /// `-` It was over.
    End,
}

impl Termination {
    /// Both sides closed in order.
    pub const NORMAL: Self = Self::new(TerminationReason::Normal, ConnectionPhase::End);

    /// Who, and when.
    #[must_use]
    pub const fn new(cause: TerminationReason, phase: ConnectionPhase) -> Self {
        Self { reason: cause, phase }
    }

    /// The two letters.
    #[must_use]
    pub fn code(self) -> &'static str {
        let by_phase = match self.reason {
            TerminationReason::Normal => "-R-Q-C-D-L--",
            TerminationReason::Client => "CRCQCCCDCLC-",
            TerminationReason::Backend => "SRSQSCSDSLS-",
            TerminationReason::ClientTimeout => "cRcQcCcDcLc-",
            TerminationReason::BackendTimeout => "sRsQsCsDsLs-",
            TerminationReason::Proxy => "PRPQPCPDPLP-",
            TerminationReason::Resources => "RRRQRCRDRLR-",
            TerminationReason::BackendDown => "DRDQDCDDDLD-",
            TerminationReason::Killed => "KRKQKCKDKLK-",
        };
        let start = 2 * self.phase as usize;
        &by_phase[start..start + 2]
    }

    /// Tells whether both sides closed in order.
    #[must_use]
    pub fn is_normal(self) -> bool {
        self.reason == TerminationReason::Normal
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}
