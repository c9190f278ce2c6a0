//! The counters of a service that an engine serves.

use std::collections::BTreeMap;

use crate::BackendId;

/// The counters of a service at one address. What the engine cannot know is `None`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct EngineCounters {
    /// Connections scheduled, or UDP flows, since the service was there.
    pub connections: u64,
    /// Bytes received from clients.
    pub bytes_to_servers: u64,
    /// Bytes sent to clients; unknown where servers answer clients by themselves.
    pub bytes_to_clients: Option<u64>,
    /// The counters of each server that the engine knows now.
    pub servers: BTreeMap<BackendId, EngineServerCounters>,
}

/// The counters of one server of a service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct EngineServerCounters {
    /// Connections scheduled to the server, or UDP flows.
    pub connections: u64,
    /// Bytes sent to the server.
    pub bytes_in: u64,
    /// Bytes received from the server; unknown where it answers clients by itself.
    pub bytes_out: Option<u64>,
    /// Established connections at this moment.
    pub active: u32,
    /// Connections that begin or end at this moment, and UDP flows.
    pub inactive: u32,
}
