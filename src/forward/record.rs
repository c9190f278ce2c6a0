//! The record of a connection that has ended, for an access log.

mod termination;

use std::fmt::{self, Display, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use self::termination::{ConnectionPhase, Termination, TerminationReason};
use crate::BackendId;

/// The record of a TCP connection that has ended, for an access log.
///
/// # Format
/// Displayed, a record is one line without a line feed: seventeen fields, separated by one space,
/// always all of them in this order. A field that does not apply is `-`.
///
/// | | key | value |
/// |---|---|---|
/// | 1 | `time` | the time of the accept: RFC 3339, UTC, milliseconds |
/// | 2 | `service` | the name of the service |
/// | 3 | `end` | how the connection ended: the [code](Termination::code) |
/// | 4 | `client` | the peer address; `-` on a Unix socket |
/// | 5 | `proxied_client` | the client that a PROXY header named |
/// | 6 | `local` | the address the client connected to, by a PROXY header if there was one; `-` on a Unix socket |
/// | 7 | `backend` | the identifier of the last backend tried |
/// | 8 | `address` | the address of that backend |
/// | 9 | `queue_ms` | the wait for a backend below its limit, in milliseconds |
/// | 10 | `connect_ms` | how long the successful attempt to connect took; `-` if none succeeded |
/// | 11 | `total_ms` | from the accept to the end |
/// | 12 | `sent` | bytes sent to the backend |
/// | 13 | `received` | bytes sent to the client |
/// | 14 | `attempts` | attempts to connect; all but the first are retries |
/// | 15 | `on_listener` | open connections of the listener at the end, this connection included |
/// | 16 | `on_backend` | open connections of the backend at the end, this connection included |
/// | 17 | `refusal` | why the connection was refused; `-` if it was forwarded, to the sorry server too |
///
/// In names, spaces, control characters, `"`, `\`, `=` and bytes outside ASCII are written `\xNN`. An
/// empty name is `""`, and the name `-` is `\x2d`. So every line splits at its spaces into seventeen
/// fields, whatever the names are.
///
/// Programs read the fields of the struct, or [`fields`](ConnectionRecord::fields) for structured
/// logs.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConnectionRecord {
    /// The time of the accept.
    pub accepted_at: SystemTime,
    /// The name of the service.
    pub service: Arc<str>,
    /// The peer address; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// The client that a PROXY header named.
    pub proxied_client: Option<SocketAddr>,
    /// The address that the client connected to: that which a PROXY header named, or else that of the
    /// connection; `None` on a Unix socket.
    pub local: Option<SocketAddr>,
    /// The backend of the connection, or the last backend tried.
    pub backend: Option<BackendId>,
    /// The address of that backend.
    pub backend_address: Option<SocketAddr>,
    /// How long the connection waited for a backend below its limit.
    pub queue_time: Duration,
    /// How long the successful attempt to connect took; `None` if none succeeded.
    pub connect_time: Option<Duration>,
    /// The time from the accept to the end.
    pub total_time: Duration,
    /// Bytes sent to the backend.
    pub bytes_to_backend: u64,
    /// Bytes sent to the client.
    pub bytes_to_client: u64,
    /// The attempts to connect to backends.
    pub attempts: u32,
    /// Open connections of the listener at the end, this connection included.
    pub listener_connections: u64,
    /// Open connections of the backend at the end, this connection included.
    pub backend_connections: Option<u64>,
    /// Which side ended the connection, and in which phase.
    pub termination: Termination,
    /// Why the connection was refused, by the name that
    /// [`RefusalCounters::by_reason`](super::RefusalCounters::by_reason) has for the reason, such as
    /// `client_limit`; `None` if the connection was forwarded.
    pub refusal: Option<&'static str>,
}

impl ConnectionRecord {
    /// Returns the client that a PROXY header named, or else the peer address.
    #[must_use]
    pub fn effective_client(&self) -> Option<SocketAddr> {
        self.proxied_client.or(self.client)
    }

    /// Returns how many attempts to connect followed the first.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }

    /// Returns the fields of the line by key, in order. Allocates nothing.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, RecordValue<'_>)> {
        use RecordValue as V;
        [
            ("time", V(RecordValueKind::Time(self.accepted_at))),
            ("service", V(RecordValueKind::Name(&self.service))),
            ("end", V(RecordValueKind::Code(self.termination.code()))),
            ("client", V(self.client.into())),
            ("proxied_client", V(self.proxied_client.into())),
            ("local", V(self.local.into())),
            (
                "backend",
                V(self
                    .backend
                    .as_ref()
                    .map_or(RecordValueKind::None, |id| RecordValueKind::Name(id.as_str()))),
            ),
            ("address", V(self.backend_address.into())),
            ("queue_ms", V(RecordValueKind::Millis(self.queue_time))),
            (
                "connect_ms",
                V(self.connect_time.map_or(RecordValueKind::None, RecordValueKind::Millis)),
            ),
            ("total_ms", V(RecordValueKind::Millis(self.total_time))),
            ("sent", V(RecordValueKind::Number(self.bytes_to_backend))),
            ("received", V(RecordValueKind::Number(self.bytes_to_client))),
            ("attempts", V(RecordValueKind::Number(self.attempts.into()))),
            ("on_listener", V(RecordValueKind::Number(self.listener_connections))),
            (
                "on_backend",
                V(self.backend_connections.map_or(RecordValueKind::None, RecordValueKind::Number)),
            ),
            ("refusal", V(self.refusal.map_or(RecordValueKind::None, RecordValueKind::Code))),
        ]
        .into_iter()
    }

    /// Returns the line with keys: `time=... service=... end=...`.
    pub fn key_values(&self) -> impl Display + '_ {
        RecordLine { record: self, with_keys: true }
    }
}

impl Display for ConnectionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RecordLine { record: self, with_keys: false }.fmt(f)
    }
}

struct RecordLine<'a> {
    record: &'a ConnectionRecord,
    with_keys: bool,
}

impl Display for RecordLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (key, value)) in self.record.fields().enumerate() {
            if position > 0 {
                f.write_char(' ')?;
            }
            if self.with_keys {
                write!(f, "{key}=")?;
            }
            value.fmt(f)?;
        }
        Ok(())
    }
}

/// The value of a field of a [`ConnectionRecord`], displayed as in the line.
#[derive(Clone, Copy, Debug)]
pub struct RecordValue<'a>(RecordValueKind<'a>);

#[derive(Clone, Copy, Debug)]
enum RecordValueKind<'a> {
    None,
    Time(SystemTime),
    Name(&'a str),
    Code(&'static str),
    Address(SocketAddr),
    Millis(Duration),
    Number(u64),
}

impl From<Option<SocketAddr>> for RecordValueKind<'_> {
    fn from(address: Option<SocketAddr>) -> Self {
        address.map_or(Self::None, Self::Address)
    }
}

impl Display for RecordValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RecordValueKind::None => f.write_char('-'),
            RecordValueKind::Time(time) => write_time(f, time),
            RecordValueKind::Name(name) => write_name(f, name),
            RecordValueKind::Code(code) => f.write_str(code),
            RecordValueKind::Address(address) => write!(f, "{address}"),
            RecordValueKind::Millis(duration) => {
                write!(f, "{}.{:03}", duration.as_millis(), duration.subsec_micros() % 1000)
            }
            RecordValueKind::Number(number) => write!(f, "{number}"),
        }
    }
}

fn write_time(f: &mut fmt::Formatter<'_>, time: SystemTime) -> fmt::Result {
    /// The first second of a year with five digits.
    const YEAR_10000: u64 = 253_402_300_800;
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since.as_secs() < YEAR_10000 => {
            write!(f, "{}", humantime::format_rfc3339_millis(time))
        }
        // The clock was not set, or set to a time before 1970.
        _ => f.write_char('-'),
    }
}

fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    match name {
        "" => return f.write_str("\"\""),
        "-" => return f.write_str("\\x2d"),
        _ => {}
    }
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' | b'=' => write!(f, "\\x{byte:02x}")?,
            b'!'..=b'~' => f.write_char(byte.into())?,
            _ => write!(f, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
