//! How a connection ended: by which side, and in which phase.

use std::fmt;

/// How a connection ended: the reason, and the phase that the connection had reached.
///
/// Displayed as the two letters of HAProxy's TCP log wherever HAProxy has the case, so that scripts
/// can be reused.
///
/// # The codes
/// | code | what happened | what to check |
/// |---|---|---|
/// | `--` | Both sides closed in order. | Nothing. |
/// | `CR` | The client closed before its PROXY header or ClientHello was complete. | Port scans, and TCP health checks of the load balancer in front. |
/// | `cR` | The PROXY header or ClientHello did not arrive in time. | Does the load balancer in front send a PROXY header? Does a client speak another protocol? |
/// | `PR` | The forwarder refused the connection: the client is at its connection limit, the header or ClientHello is invalid, or no service has that server name. | The field `refusal`: `client_limit`, `bad_preamble` or `no_service`. One client in many lines: abuse, or a proxy with many users behind one address. |
/// | `KR` | A shutdown cut the connection before its header was complete. | Expected at a restart. |
/// | `CQ` | The client left while it waited in the queue. | Clients wait too long: as `sQ`. |
/// | `sQ` | The connection timed out in the queue. | Every backend is at its connection limit. Are backends down? Does a slow backend hold connections? Otherwise add backends, or raise the limits. |
/// | `PQ` | Every backend was at its limit, and the queue was full or there is none. | As `sQ`; connections are refused at once. |
/// | `KQ` | A shutdown cut the connection while it waited in the queue. | Expected at a restart under load. |
/// | `CC` | The client left while the forwarder connected to a backend. | Slow connects (field 10 of other lines), or an impatient client. |
/// | `SC` | The last backend tried refused the connection or was unreachable; without a backend in the line no backend was eligible. | The backend in the line: does its process run and listen, is there a route? Without a backend: all are down, drained or quiesced. |
/// | `sC` | The attempt to connect to the last backend tried timed out. | The backend in the line: host down, firewall that drops packets, accept queue full. |
/// | `PC` | The scheduler refused the connection. | `sh`, `dh` or `mh` without fallback while the client's backend is unavailable, or `ovf` with all backends overloaded. |
/// | `RC` | This machine had no port, descriptor or memory for the connection to the backend. | `ulimit -n`; ports: connections in TIME_WAIT to this backend, `net.ipv4.ip_local_port_range`. |
/// | `KC` | A shutdown cut the connection while the forwarder connected to a backend. | Expected at a restart. |
/// | `CD` | The client broke the connection during the data phase. | Users that leave, mobile networks. Suspicious only when many clients do so at once. |
/// | `SD` | The backend broke the connection during the data phase. | The backend in the line: did its process crash or restart? Is its idle timeout shorter than this forwarder's? |
/// | `cD` | The idle timeout expired, and the client was to send: the backend sent the last bytes, or no side has sent any. | Mostly idle keep-alive connections: harmless. Otherwise a client that does not read. |
/// | `sD` | The idle timeout expired, and the backend was to send: the client sent the last bytes, or closed its side. | The backend hangs, or takes longer than the timeout to answer. |
/// | `PD` | The total timeout expired. | The configured total timeout. |
/// | `DD` | The backend went down, and the forwarder [cuts](crate::forward::Forwarder::cut_on_down) the connections of such backends. | The checks of the backend in the line. |
/// | `KD` | The connection was cut during the data phase: by the deadline of a shutdown or drain, or by an operator. | Expected at a restart; many such lines mean that the deadline is short. |
/// | `CL` | The backend had closed, and the client broke the connection before it received all bytes. | As `CD`; the client may have a truncated answer. |
/// | `SL` | The backend had closed and then broke the connection while the client still sent. | A backend that does not read all of its input: the client may not notice. |
/// | `cL` | The backend had closed, and the client neither read the remaining bytes nor closed in time. | A client that does not read, or never closes its side. |
/// | `PL` | As `PD`, after the backend had closed. | As `PD`. |
/// | `DL` | As `DD`, after the backend had closed. | As `DD`. |
/// | `KL` | As `KD`, after the backend had closed. | As `KD`. |
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Termination {
    /// Why the connection ended: the first letter of the code.
    pub reason: TerminationReason,
    /// The phase that the connection had reached: the second letter of the code.
    pub phase: ConnectionPhase,
}

/// Why a connection ended: the first letter of the code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum TerminationReason {
    /// `-` Both sides closed in order.
    Normal,
    /// `C` The client broke the connection.
    Client,
    /// `S` The backend broke or refused the connection, or no backend was eligible.
    Backend,
    /// `c` A timeout expired while the forwarder waited for the client.
    ClientTimeout,
    /// `s` A timeout expired while the forwarder waited for the backend.
    BackendTimeout,
    /// `P` The forwarder ended the connection, by a limit or a timeout of its configuration.
    Proxy,
    /// `R` The forwarder lacked memory, descriptors or ports.
    Resources,
    /// `D` The forwarder cut the connection because the backend was down.
    BackendDown,
    /// `K` A shutdown, a drain or a command of the operator cut the connection.
    Killed,
}

/// The phase that a connection had reached when it ended: the second letter of the code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ConnectionPhase {
    /// `R` Being admitted, or sending its PROXY header or ClientHello.
    Request,
    /// `Q` Waiting in the queue for a backend below its limit.
    Queue,
    /// `C` Picking a backend and connecting to it.
    Connect,
    /// `D` Relaying bytes.
    Data,
    /// `L` The backend had closed, the client had not.
    Last,
    /// `-` Both sides had closed.
    End,
}

impl Termination {
    /// The termination of a connection that both sides closed in order.
    pub const NORMAL: Self = Self::new(TerminationReason::Normal, ConnectionPhase::End);

    /// Makes a termination of a reason and a phase.
    #[must_use]
    pub const fn new(reason: TerminationReason, phase: ConnectionPhase) -> Self {
        Self { reason, phase }
    }

    /// Returns the two letters of the code.
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
