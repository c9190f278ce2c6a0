//! How far a connection has got on its way to a backend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::Backend;
use crate::balancer::PickError;
use crate::forward::counters::RefusalReason;
use crate::forward::record::ConnectionPhase;

/// How far a connection has got, and how long each step took.
///
/// The session owns it, so that the record is right wherever the search for a backend is dropped.
#[derive(Debug)]
pub(super) struct ConnectProgress {
    pub(super) phase: ConnectionPhase,
    /// The time spent in the queue for a backend.
    pub(super) queue_time: CompactDuration,
    /// The time from the start of the successful attempt to its end.
    pub(super) connect_time: Option<CompactDuration>,
    /// Attempts to connect, the successful attempt included.
    pub(super) attempts: u32,
    /// The backend that accepted the connection, or the last backend tried.
    pub(super) backend: Option<Arc<Backend<SocketAddr>>>,
    /// The backends that could not be connected to.
    #[expect(
        clippy::box_collection,
        reason = "few connections have failed backends, and every connection pays for the space"
    )]
    pub(super) failed_backends: Option<Box<Vec<Arc<Backend<SocketAddr>>>>>,
}

impl ConnectProgress {
    /// Sets the phase for a pick that failed, and returns the reason to refuse the connection.
    pub(super) fn record_pick_error(&mut self, error: PickError) -> RefusalReason {
        self.phase = ConnectionPhase::Connect;
        error.into()
    }
}

impl Default for ConnectProgress {
    fn default() -> Self {
        Self {
            phase: ConnectionPhase::Request,
            queue_time: CompactDuration::default(),
            connect_time: None,
            attempts: 0,
            backend: None,
            failed_backends: None,
        }
    }
}

/// A duration of up to 71 minutes in four bytes; a longer duration saturates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CompactDuration(u32);

impl From<Duration> for CompactDuration {
    fn from(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<CompactDuration> for Duration {
    fn from(CompactDuration(micros): CompactDuration) -> Self {
        Self::from_micros(micros.into())
    }
}
