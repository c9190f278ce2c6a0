//! The `[sync]` table.

use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;

use super::table::config_table;
use super::value::{HexSecret, deserialize_address};

config_table! {
/// A builder of a [`SyncConfig`].
builder SyncConfigBuilder;

/// State synchronization from the active director to the standby, over an encrypted TCP connection.
///
/// The active director sends persistence, counters, health, and what operators have set by hand.
/// The standby connects to the active director. The table requires `[vrrp]`. Without it, nothing is
/// synchronized. A reload that changes the table restarts the synchronization.
///
/// Of services with `engine = "packet"` it also sends each flow that is older than half a second, and whose client is
/// known to be there, whatever the scheduler: connections go on at the other director when this one dies. A director
/// that gives the addresses away while it is alive sends the younger ones, too. Both need the same services and
/// servers. By `nat`, the servers' gateway has to be a virtual address, of a `[[vrrp]]` table of its own. Connections of
/// a service of the forwarder are not synchronized: they end with the director.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct SyncConfig {
    /// The address on which this director accepts the other one while it is active.
    #[serde(deserialize_with = "deserialize_address")]
    pub(crate) listen: SocketAddr,
    /// The address of the other director (its `listen`), to which this one connects while it is
    /// standby.
    #[serde(deserialize_with = "deserialize_address")]
    pub(crate) peer: SocketAddr,
    /// The key that both directors share, of 32 bytes: 64 hexadecimal digits, as printed by
    /// `openssl rand -hex 32`.
    key: SyncKey,
}
}

/// A key of 32 bytes, in 64 hexadecimal digits.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(try_from = "HexSecret")]
struct SyncKey([u8; 32]);

impl From<[u8; 32]> for SyncKey {
    fn from(key: [u8; 32]) -> Self {
        Self(key)
    }
}

impl fmt::Debug for SyncKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SyncKey")
    }
}

impl TryFrom<HexSecret> for SyncKey {
    type Error = String;

    fn try_from(HexSecret(bytes): HexSecret) -> Result<Self, String> {
        let length = bytes.len();
        let bytes = bytes.try_into().map_err(|_| {
            format!("the key has {length} bytes, and must have 32, which are 64 digits")
        })?;
        Ok(Self(bytes))
    }
}

impl SyncConfig {
    /// Returns a builder of the connection to the director at `peer`, with the key of both.
    pub fn builder(listen: SocketAddr, peer: SocketAddr, key: [u8; 32]) -> SyncConfigBuilder {
        SyncConfigBuilder { table: Self { listen, peer, key: SyncKey(key) } }
    }

    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.key.0
    }
}
