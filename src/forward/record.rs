//! A connection that has ended: what is known of it, and why it ended.

mod termination;

use std::fmt::{self, Display, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use self::termination::{ConnectionPhase, Termination, TerminationReason};
use crate::BackendId;

/// One TCP connection that has ended, for an access log.
///
/// # The line
/// Displayed, a record is one line without its end: sixteen fields, one space between each two,
/// always all of them and always in this order. A field that does not apply is `-`.
///
/// | | key | what it is |
/// |---|---|---|
/// | 1 | `time` | when it was accepted, RFC 3339, UTC, milliseconds |
/// | 2 | `service` | the service's name |
/// | 3 | `end` | how it ended: the [code](Termination::code) |
/// | 4 | `client` | the address it came from; `-` on a Unix socket |
/// | 5 | `told` | the client that a PROXY header named |
/// | 6 | `local` | the address the client connected to; `-` on a Unix socket |
/// | 7 | `backend` | the backend's name: the last one tried |
/// | 8 | `address` | that backend's address |
/// | 9 | `queue_ms` | the wait for a backend with a free place, in milliseconds |
/// | 10 | `connect_ms` | from the first attempt to the connection; `-` if there never was one |
/// | 11 | `total_ms` | from the accept to the end |
/// | 12 | `sent` | bytes handed to the backend |
/// | 13 | `received` | bytes handed to the client |
/// | 14 | `attempts` | backends tried; each but the last was a retry |
/// | 15 | `on_listener` | connections of the listener at the end, this one included |
/// | 16 | `on_backend` | connections of the backend at the end, this one included |
///
/// Names are written as they are, but for spaces, control characters, `"`, `\`, `=` and whatever is
/// not ASCII: those bytes are written `\xNN`. An empty name is `""`, and a name of `-` is `\x2d`. So
/// a line always splits at its spaces into sixteen fields, whatever the names are.
///
/// A program reads the fields of the struct, or [`fields`](ConnectionRecord::fields) for logs by key.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionRecord {
    /// When it was accepted.
    pub accepted_at: SystemTime,
    /// The name of the service.
    pub service: Arc<str>,
    /// The address it came from; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// The client that a PROXY header named.
    pub proxied_client: Option<SocketAddr>,
    /// The address that the client connected to; `None` on a Unix socket.
    pub local: Option<SocketAddr>,
    /// The backend that carried it, or the last one that was tried.
    pub backend: Option<BackendId>,
    /// That backend's address.
    pub backend_address: Option<SocketAddr>,
    /// How long it waited for a backend with a free place.
    pub queue_time: Duration,
    /// From the first attempt to the connection; `None` if there never was one.
    pub connect_time: Option<Duration>,
    /// From the accept to the end.
    pub total_time: Duration,
    /// Bytes handed to the backend.
    pub bytes_to_backend: u64,
    /// Bytes handed to the client.
    pub bytes_to_client: u64,
    /// How many backends were tried.
    pub attempts: u32,
    /// Connections of the listener at the end, this one included.
    pub listener_connections: u64,
    /// Connections of the backend at the end, this one included.
    pub backend_connections: Option<u64>,
    /// Who ended it, and when in its life.
    pub termination: Termination,
}

impl ConnectionRecord {
    /// The client behind the connection: whom a PROXY header named, or else the address it came
    /// from.
    #[must_use]
    pub fn effective_client(&self) -> Option<SocketAddr> {
        self.proxied_client.or(self.client)
    }

    /// How often a connect failed and another backend was tried.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }

    /// The fields of the line by key, in its order. Allocates nothing.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, RecordValue<'_>)> {
        use RecordValue as V;
        [
            ("time", V(RecordValueKind::Time(self.accepted_at))),
            ("service", V(RecordValueKind::Name(&self.service))),
            ("end", V(RecordValueKind::Code(self.termination.code()))),
            ("client", V(self.client.into())),
            ("told", V(self.proxied_client.into())),
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
        ]
        .into_iter()
    }

    /// The line with keys: `time=... service=... end=...`.
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

/// One field of a [`ConnectionRecord`], displayed as in its line.
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
            RecordValueKind::Time(at) => write_time(f, at),
            RecordValueKind::Name(name) => write_name(f, name),
            RecordValueKind::Code(code) => f.write_str(code),
            RecordValueKind::Address(address) => write!(f, "{address}"),
            RecordValueKind::Millis(took) => {
                write!(f, "{}.{:03}", took.as_millis(), took.subsec_micros() % 1000)
            }
            RecordValueKind::Number(number) => write!(f, "{number}"),
        }
    }
}

fn write_time(f: &mut fmt::Formatter<'_>, at: SystemTime) -> fmt::Result {
    /// The first second that four digits of a year cannot show.
    const YEAR_10000: u64 = 253_402_300_800;
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since.as_secs() < YEAR_10000 => {
            write!(f, "{}", humantime::format_rfc3339_millis(at))
        }
        // A clock that was never set, or set to nonsense.
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
