//! The error of a forwarder that cannot be made or started.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::setting::SettingError;

/// The error of a forwarder that cannot be made or started.
///
/// The failure of a single connection is not a `ForwardError`; see
/// [`TcpCounters`](super::TcpCounters).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The address cannot be listened on: it is in use, not an address of this machine, or not
    /// permitted.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The requested address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The listener cannot be used: it is not a listening socket, or refuses an option.
    #[error("cannot use the listening socket: {source}")]
    Listener {
        /// The error of the system.
        source: io::Error,
    },
    /// A setting is out of its range.
    #[error("{0}")]
    Setting(#[from] SettingError),
    /// A worker thread cannot be started, for lack of threads or of descriptors for its runtime, or has
    /// panicked.
    #[error("cannot run a worker thread: {source}")]
    Worker {
        /// The error of the system.
        source: io::Error,
    },
}
