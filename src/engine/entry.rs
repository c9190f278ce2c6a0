//! What an engine knows of the clients of a service.

use std::net::SocketAddr;
use std::time::Duration;

use crate::BackendId;

/// Which entries of an engine's table are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EngineEntryKind {
    /// Connections and UDP flows.
    Connection,
    /// Clients, or networks of clients, that return to a server by persistence.
    PersistentClient,
}

/// A connection, a UDP flow or a persistent client that an engine knows.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EngineEntry {
    /// The client. The port of a persistent client is 0, and its address that of its network.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// The server's address.
    pub destination: SocketAddr,
    /// The backend; `None` for the sorry server and for a server that has left the set.
    pub backend: Option<BackendId>,
    /// The engine's name of the state, such as `ESTABLISHED`.
    pub state: String,
    /// After this time without a packet the engine forgets the entry.
    pub expires_in: Duration,
    /// How the engine came to know it.
    pub origin: EngineEntryOrigin,
}

impl EngineEntry {
    /// Returns an entry of this machine, which expires at once and has no state and no backend.
    #[must_use]
    pub const fn new(client: SocketAddr, local: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            client,
            local,
            destination,
            backend: None,
            state: String::new(),
            expires_in: Duration::ZERO,
            origin: EngineEntryOrigin::Local,
        }
    }
}

/// How an engine came to know an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EngineEntryOrigin {
    /// The packets passed this machine.
    Local,
    /// The active director's machine told this one.
    Sync,
}

impl EngineEntryOrigin {
    /// Returns the name in the admin API: `local` or `sync`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Sync => "sync",
        }
    }
}
