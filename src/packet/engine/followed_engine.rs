//! The engine of another machine that tells this one of its flows.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::engine::EngineProtocol;
use crate::packet::flow_sync::SyncedFlow;

/// What another machine has told so far.
#[derive(Debug, Default)]
pub(super) struct FollowedEngine {
    /// Counts how often it began to tell all flows.
    pub(super) round: u32,
    /// Flows of services or servers that this engine does not have yet, by protocol, client and virtual address.
    pub(super) unknown: HashMap<(EngineProtocol, SocketAddr, SocketAddr), SyncedFlow>,
    /// The devices of the routes to clients, which are forgotten every second.
    pub(super) devices: HashMap<IpAddr, Option<u32>>,
}
