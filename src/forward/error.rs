//! Why a forwarder cannot work.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// Why a forwarder could not be made or started.
///
/// Nothing that happens to a single connection is one of these; see
/// [`Counters`](super::Counters).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The address cannot be listened on: it is in use, not of this machine, or not permitted.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The listener cannot be used: it is no listening TCP socket.
    #[error("cannot use the listener")]
    Listener {
        /// What the system said.
        source: io::Error,
    },
    /// The system starts no thread for a worker.
    #[error("cannot start a worker")]
    Worker {
        /// What the system said.
        source: io::Error,
    },
}
