//! What an engine is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::address::EngineAddress;
use super::check_marks::CheckMarks;
use super::flow_record::EngineFlowCallback;
use crate::BackendId;
use crate::balancer::{Balancer, Persistence};
use crate::sync::ArcSwap;

/// A virtual service at one address or for one mark, as a director asks an engine for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineRequest {
    /// The name of the service, for errors and logs.
    pub service: String,
    /// The packets that the service is for.
    pub address: EngineAddress,
    /// The balancer with the service's set, which the engine follows.
    pub balancer: Balancer<SocketAddr>,
    /// The scheduler's expression, such as `"wlc"` or `"mh(mh-port)"`.
    pub scheduler: String,
    /// Persistence; `None` for none.
    pub persistence: Option<EnginePersistence>,
    /// The table of the clients that return to a server, for engines that decide in this process; `None` if
    /// such an engine shall keep a table of its own by [`persistence`](Self::persistence).
    pub persistence_table: Option<Arc<Persistence<SocketAddr>>>,
    /// What is called with the record of each flow that has ended, by engines that see the ends of flows.
    pub on_flow_end: Option<EngineFlowCallback>,
    /// Whether each datagram is scheduled by itself.
    pub one_packet: bool,
    /// Whether connections of a backend that is down or disabled end at once.
    pub cut_on_down: bool,
    /// The forwarding methods of the backends.
    pub methods: ForwardingMethods,
    /// The server that gets the connections while no backend can.
    pub sorry_server: Option<SocketAddr>,
    /// The forwarding method of the sorry server.
    pub sorry_server_method: ForwardingMethod,
    /// Where the engine puts the marks for health checks by the backends' own methods; `None` if there are no
    /// such checks.
    pub check_marks: Option<CheckMarks>,
}

impl EngineRequest {
    /// Returns a request without persistence, sorry server, forwarding methods and marks for checks.
    #[must_use]
    pub fn new(
        service: impl Into<String>,
        address: EngineAddress,
        balancer: Balancer<SocketAddr>,
        scheduler: impl Into<String>,
    ) -> Self {
        Self {
            service: service.into(),
            address,
            balancer,
            scheduler: scheduler.into(),
            persistence: None,
            persistence_table: None,
            on_flow_end: None,
            one_packet: false,
            cut_on_down: false,
            methods: ForwardingMethods::default(),
            sorry_server: None,
            sorry_server_method: ForwardingMethod::default(),
            check_marks: None,
        }
    }

    /// Returns the address of a backend, with the service's port if it has none of its own. A service by
    /// mark has no port: with 0 a packet's own stays.
    #[must_use]
    pub fn destination_address(&self, backend: SocketAddr) -> SocketAddr {
        match (backend.port(), self.address) {
            (0, EngineAddress::Socket { address, .. }) => {
                SocketAddr::new(backend.ip(), address.port())
            }
            _ => backend,
        }
    }
}

/// The forwarding methods of a service's backends, which the owner of a service may change while an
/// engine serves it; [`ForwardingMethod::Nat`] for a backend without one. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct ForwardingMethods(Arc<ArcSwap<BTreeMap<BackendId, ForwardingMethod>>>);

impl ForwardingMethods {
    /// Replaces the methods. An engine reads them at the set's next publication; change them before.
    pub fn replace(&self, methods: BTreeMap<BackendId, ForwardingMethod>) {
        self.0.store(Arc::new(methods));
    }

    /// Returns the method of a backend.
    #[must_use]
    pub fn get(&self, backend: &BackendId) -> ForwardingMethod {
        self.0.load().get(backend).copied().unwrap_or_default()
    }
}

/// Persistence of a request: a client's address returns to the server that it had before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EnginePersistence {
    /// How long a client is remembered after its last connection.
    pub timeout: Duration,
    /// The leading bits of the client's address that identify it, of the family of the virtual address.
    pub prefix: u8,
}

impl EnginePersistence {
    /// Returns persistence by the leading bits of the client's address.
    #[must_use]
    pub const fn new(timeout: Duration, prefix: u8) -> Self {
        Self { timeout, prefix }
    }
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ForwardingMethod {
    /// Network address translation: the director rewrites addresses and ports, and the server's answers
    /// return through it.
    #[default]
    Nat,
    /// Direct routing: the frame goes to the server on the same network, which has the virtual address
    /// too and answers the client by itself.
    DirectRouting,
    /// The packet goes to the server in another one; the server has the virtual address too and answers
    /// the client by itself.
    Tunnel(TunnelKind),
}

impl ForwardingMethod {
    /// Returns the name in a configuration: `nat`, `dr` or `tunnel`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::DirectRouting => "dr",
            Self::Tunnel(_) => "tunnel",
        }
    }
}

impl fmt::Display for ForwardingMethod {
    /// Writes the name, and the kind of a tunnel: `tunnel (gue, port 6080)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Tunnel(TunnelKind::Ipip) => f.write_str(" (ipip)"),
            Self::Tunnel(TunnelKind::Gue { port, .. }) => write!(f, " (gue, port {port})"),
            Self::Tunnel(TunnelKind::Gre { .. }) => f.write_str(" (gre)"),
            Self::Nat | Self::DirectRouting => Ok(()),
        }
    }
}

/// The encapsulation of a tunnel.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum TunnelKind {
    /// IP in IP (RFC 2003, RFC 2473).
    #[default]
    Ipip,
    /// Generic UDP Encapsulation.
    Gue {
        /// The UDP port of the server.
        port: u16,
        /// The checksum of the outer packet.
        checksum: TunnelChecksum,
    },
    /// Generic Routing Encapsulation (RFC 2784).
    Gre {
        /// The checksum of the outer packet.
        checksum: TunnelChecksum,
    },
}

/// The checksum of a tunnel's outer packet.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum TunnelChecksum {
    /// None.
    #[default]
    None,
    /// Over the whole packet.
    Full,
    /// Remote checksum offload, for GUE.
    Remote,
}
