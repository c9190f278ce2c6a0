//! How a director stands: everything, as JSON by serde.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::Outcomes;
use crate::vrrp::View;

/// Everything.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Serves the virtual addresses: it is master, or has no standby.
    pub active: bool,
    /// Each service.
    pub services: Vec<ServiceStatus>,
    /// The virtual addresses and the election.
    pub vrrp: Option<View>,
    /// What the standby is told, or this one as a standby.
    pub sync: Option<SyncStatus>,
}

/// A service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The virtual address.
    pub listen: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The rule.
    pub scheduler: String,
    /// What was done, by both directors.
    pub totals: Totals,
    /// Connections or flows that this director carries now.
    pub active: u64,
    /// Clients whose server is remembered.
    pub persistent: usize,
    /// Each server.
    pub servers: Vec<ServerStatus>,
}

/// A real server.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Its address, which is its name.
    pub address: String,
    /// What becomes of new connections: `eligible`, `down`, `draining`, ...
    pub state: &'static str,
    /// Why, where that is known.
    pub why: Option<String>,
    /// The weight that is set.
    pub weight: u32,
    /// Connections that it has now from this director.
    pub active: u32,
    /// How those before ended.
    pub outcomes: Outcomes,
}

/// What a service has done since it was begun, by whichever director was active.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Connections taken, or flows begun.
    pub accepted: u64,
    /// Connections or flows that no server took.
    pub refused: u64,
    /// Bytes to servers.
    pub bytes_to_servers: u64,
    /// Bytes to clients.
    pub bytes_to_clients: u64,
}

impl Totals {
    pub(super) fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// What is left of these without the others; nothing is less than 0.
    pub(super) fn minus(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    fn with(self, other: Self, by: fn(u64, u64) -> u64) -> Self {
        Self {
            accepted: by(self.accepted, other.accepted),
            refused: by(self.refused, other.refused),
            bytes_to_servers: by(self.bytes_to_servers, other.bytes_to_servers),
            bytes_to_clients: by(self.bytes_to_clients, other.bytes_to_clients),
        }
    }
}

/// How the standby is kept up.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SyncStatus {
    /// Standbys that are being told, by this director when it is active.
    pub followers: usize,
    /// It follows an active director, and was told everything.
    pub in_sync: bool,
    /// For how long it has heard nothing from the director that it follows, in milliseconds.
    pub silent_ms: Option<u64>,
    /// Bytes sent to standbys.
    pub sent: u64,
    /// Bytes received from the active director.
    pub received: u64,
    /// Why it could not follow, the last time.
    pub error: Option<String>,
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
