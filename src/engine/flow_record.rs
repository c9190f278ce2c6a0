//! The record of a flow that an engine has carried, for a log.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::EngineProtocol;
use crate::BackendId;

/// The record of a flow that has ended: a TCP connection, or the datagrams between a client and a server.
///
/// New flows that were refused have no record; the engine counts them.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EngineFlowRecord {
    /// The name of the service.
    pub service: String,
    /// The protocol.
    pub protocol: EngineProtocol,
    /// The client.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// The backend; `None` for the sorry server and for a server that has left the set.
    pub backend: Option<BackendId>,
    /// The address of the server.
    pub destination: SocketAddr,
    /// The time from the first packet to the end. An engine that has taken the flow over from another process
    /// knows the time since then.
    pub total_time: Duration,
    /// Octets of the packets to the server, with the headers of IP; `None` where the engine has forgotten them.
    pub bytes_to_server: Option<u64>,
    /// Octets of the packets to the client, with the headers of IP; `None` where the engine has forgotten them, or the
    /// server answers the client by itself.
    pub bytes_to_client: Option<u64>,
    /// Why the flow ended.
    pub end: EngineFlowEnd,
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EngineFlowEnd {
    /// Both ends have closed the connection; the client alone, where the server answers it by itself.
    Closed,
    /// The client has reset the connection.
    ClientReset,
    /// The server has reset the connection, or refused it.
    ServerReset,
    /// No packet was seen for too long.
    Idle,
    /// The server has not answered.
    NoAnswer,
    /// The client has begun another flow with the same port.
    Replaced,
    /// The engine has ended it: the service was drained, or the server went down.
    Cut,
    /// The engine's table was full, or had no room for more flows whose clients may not be there.
    Forgotten,
}

impl EngineFlowEnd {
    /// Returns the name in a log, such as `client_reset`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientReset => "client_reset",
            Self::ServerReset => "server_reset",
            Self::Idle => "idle",
            Self::NoAnswer => "no_answer",
            Self::Replaced => "replaced",
            Self::Cut => "cut",
            Self::Forgotten => "forgotten",
        }
    }
}

impl fmt::Display for EngineFlowRecord {
    /// Writes one line of keys with values: `service=web end=closed protocol=tcp client=...`. What is not known
    /// is `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = self.backend.as_ref().map_or("-", BackendId::as_str);
        let number = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| bytes.to_string());
        write!(
            f,
            "service={} end={} protocol={} client={} local={} backend={backend} address={} \
             total_ms={}.{:03} sent={} received={}",
            self.service,
            self.end.name(),
            self.protocol.name(),
            self.client,
            self.local,
            self.destination,
            self.total_time.as_millis(),
            self.total_time.subsec_micros() % 1000,
            number(self.bytes_to_server),
            number(self.bytes_to_client),
        )
    }
}

/// What is called with the record of each flow that has ended, on the engine's thread: it must not block.
#[derive(Clone)]
pub struct EngineFlowCallback(Arc<dyn Fn(&EngineFlowRecord) + Send + Sync>);

impl EngineFlowCallback {
    /// Wraps a function.
    pub fn new(call: impl Fn(&EngineFlowRecord) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    /// Calls the function. A panic is caught: it must not end the engine.
    pub fn call(&self, record: &EngineFlowRecord) {
        if catch_unwind(AssertUnwindSafe(|| (self.0)(record))).is_err() {
            tracing::error!("the callback for ends of flows panicked; the record: {record}");
        }
    }
}

impl fmt::Debug for EngineFlowCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineFlowCallback")
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line() {
        let record = EngineFlowRecord {
            service: "web".to_owned(),
            protocol: EngineProtocol::Tcp,
            client: "192.0.2.7:5000".parse().expect("an address"),
            local: "198.51.100.1:80".parse().expect("an address"),
            backend: None,
            destination: "10.0.0.2:8080".parse().expect("an address"),
            total_time: Duration::from_micros(1_234_567),
            bytes_to_server: Some(300),
            bytes_to_client: None,
            end: EngineFlowEnd::ServerReset,
        };
        assert_eq!(
            record.to_string(),
            "service=web end=server_reset protocol=tcp client=192.0.2.7:5000 local=198.51.100.1:80 \
             backend=- address=10.0.0.2:8080 total_ms=1234.567 sent=300 received=-"
        );
    }
}
