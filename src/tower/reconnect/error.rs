//! Errors of connecting.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

/// The last attempt to connect failed, and there is no connection yet.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
#[error("no connection after {failures} failed attempts: {source}")]
pub struct ConnectError {
    /// The number of attempts that failed since a connection was last ready.
    pub failures: u32,
    /// The error of the last attempt.
    pub source: Arc<dyn std::error::Error + Send + Sync>,
}

/// An attempt to connect took longer than the
/// [connect timeout](super::ReconnectConfig::connect_timeout).
#[derive(Clone, Copy, Debug, Error)]
#[error("connection attempt timed out after {0:?}")]
pub struct ConnectTimeout(pub(super) Duration);
