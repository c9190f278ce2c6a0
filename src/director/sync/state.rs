//! The progress of state synchronization, and its status.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::table_difference::TableDifferences;
use crate::director::config::SyncConfig;
use crate::director::service::ServiceOutline;
use crate::director::time::{saturating_millis, tokio_now};
use crate::health::SavedHealth;
use crate::sync::{Mutex, MutexGuard, lock};

/// How often changes of persistence are sent.
pub(super) const SYNC_INTERVAL: Duration = Duration::from_millis(250);
/// How often a refused connection is logged.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// A standby that receives nothing for this long opens another connection.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a director that is active no more tells of its last flows, and one that has taken over receives them.
pub(super) const LAST_FLOWS_TIME: Duration = Duration::from_secs(1);

/// The state of synchronization with the other director.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SyncStatus {
    /// Standbys that are connected to this director.
    pub followers: usize,
    /// The standby has the active director's whole state: this director is the standby, or a standby
    /// that is connected to this one has it.
    pub in_sync: bool,
    /// Time since the last message from the active director, in milliseconds.
    pub silent_ms: Option<u64>,
    /// Bytes sent to standbys.
    pub sent: u64,
    /// Bytes received from the active director.
    pub received: u64,
    /// Flows of the packet engine that standbys were told of.
    pub flows_sent: u64,
    /// Flows of the active director's packet engine that this one has too, or that have ended, as told.
    pub flows_restored: u64,
    /// Flows that this director was told of and does not keep: they are of a service or a server that it does not have.
    pub flows_unknown: u64,
    /// The reason for which this director could not follow the other one, if the last attempt failed.
    pub error: Option<String>,
    /// How the services of this director's configuration differ from the active one's, if this director
    /// is standby: both must have the same services, schedulers and servers. At most 32.
    pub differences: Vec<String>,
    /// The services of which this director, a standby, decides by another table than the active one for longer than ten
    /// seconds: their fingerprints differ.
    pub different_tables: Vec<String>,
}

/// What the tasks of one `[sync]` table share.
#[derive(Debug)]
pub(super) struct StateSync {
    pub(super) config: SyncConfig,
    progress: Mutex<SyncProgress>,
}

#[derive(Debug, Default)]
pub(super) struct SyncProgress {
    pub(super) status: SyncStatus,
    pub(super) last_received: Option<Instant>,
    /// Standbys that have this director's whole state.
    pub(super) synchronized_followers: usize,
    /// The services of the active director.
    pub(super) outlines: Vec<ServiceOutline>,
    pub(super) tables: TableDifferences,
    /// The error that was logged last.
    pub(super) logged_error: Option<String>,
    logged_flow_error: Option<String>,
    /// When a refused connection was logged last.
    last_refusal: Option<Instant>,
    /// What the active director has found out about each service's servers, and when it said so, for a
    /// takeover.
    pub(super) learned_health: BTreeMap<String, (Instant, SavedHealth)>,
}

impl SyncProgress {
    /// Logs why flows are not restored, once for as long as it is the same.
    pub(super) fn log_flow_error(&mut self, error: String) {
        if self.logged_flow_error.as_ref() != Some(&error) {
            tracing::error!("sync: flows of the active director are not restored: {error}");
            self.logged_flow_error = Some(error);
        }
    }
}

impl StateSync {
    pub(super) fn new(config: SyncConfig) -> Self {
        Self { config, progress: Mutex::default() }
    }

    /// Locks the progress. A lock on a service's state may be taken while this one is held, never the
    /// other way round.
    pub(super) fn lock_progress(&self) -> MutexGuard<'_, SyncProgress> {
        lock(&self.progress)
    }

    /// Logs that a connection is refused, at most once a minute.
    pub(super) fn report_refusal(&self, from: SocketAddr, reason: &str) {
        let now = tokio_now();
        let mut progress = self.lock_progress();
        let is_due = progress
            .last_refusal
            .is_none_or(|last| now.saturating_duration_since(last) >= REFUSAL_LOG_INTERVAL);
        if is_due {
            progress.last_refusal = Some(now);
            tracing::warn!("sync: the connection from {from} is refused: {reason}");
        }
    }

    fn status(&self) -> SyncStatus {
        let progress = self.lock_progress();
        let silent = progress.last_received.map(|last| tokio_now().saturating_duration_since(last));
        let in_sync = progress.status.in_sync || progress.synchronized_followers > 0;
        SyncStatus { in_sync, silent_ms: silent.map(saturating_millis), ..progress.status.clone() }
    }
}

/// Reads the status of synchronization, whichever `[sync]` table is in use. A clone reads the same.
#[derive(Clone, Debug, Default)]
pub(in crate::director) struct SyncStatusSlot(Arc<Mutex<Option<Arc<StateSync>>>>);

impl SyncStatusSlot {
    /// Returns the status, or `None` without a `[sync]` table.
    pub(in crate::director) fn status(&self) -> Option<SyncStatus> {
        let current = lock(&self.0).clone();
        current.map(|state| state.status())
    }

    /// Returns the address of the active director while this one, a standby, follows it.
    pub(in crate::director) fn followed_peer(&self) -> Option<SocketAddr> {
        let current = lock(&self.0).clone()?;
        let in_sync = current.lock_progress().status.in_sync;
        in_sync.then_some(current.config.peer)
    }

    pub(super) fn set(&self, state: Option<Arc<StateSync>>) {
        *lock(&self.0) = state;
    }

    /// Removes a state, unless another one has taken its place.
    pub(super) fn clear(&self, state: &Arc<StateSync>) {
        let mut current = lock(&self.0);
        current.take_if(|current| Arc::ptr_eq(current, state));
    }
}
