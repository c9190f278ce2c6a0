//! The standby that is told what the active director knows.

use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;

use super::value::HexSecret;

/// `[sync]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct SyncConfig {
    /// Where the other director comes when this one is active.
    pub(crate) listen: SocketAddr,
    /// Where this one goes when it is not.
    pub(crate) peer: SocketAddr,
    key: SyncKey,
}

#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(try_from = "HexSecret")]
struct SyncKey([u8; 32]);

impl fmt::Debug for SyncKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SyncKey")
    }
}

impl TryFrom<HexSecret> for SyncKey {
    type Error = &'static str;

    fn try_from(HexSecret(bytes): HexSecret) -> Result<Self, &'static str> {
        let bytes = bytes.try_into().map_err(|_| "a key of 32 bytes, which are 64 digits")?;
        Ok(Self(bytes))
    }
}

impl SyncConfig {
    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.key.0
    }
}
