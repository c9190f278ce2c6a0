//! The standby is told what the active director knows.

mod active;
mod channel;
mod message;
mod standby;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

pub(super) use self::active::publish;
pub(super) use self::standby::run_standby;
use super::config::SyncConfig;
use super::service::{VirtualService, tokio_now};
use super::status::{SyncStatus, saturating_millis};
use crate::health::SavedHealth;
use crate::sync::{Mutex, lock};

/// How often persistence is told.
const SYNC_INTERVAL: Duration = Duration::from_millis(250);
/// Every so many of them, everything else is.
const SLOW_UPDATE_TICKS: u64 = 4;
/// Whoever has heard nothing for so long tries another connection.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// What this director tells, or has been told.
#[derive(Debug)]
pub(super) struct StateSync {
    config: SyncConfig,
    listener: Arc<TcpListener>,
    progress: Mutex<SyncProgress>,
}

#[derive(Debug, Default)]
struct SyncProgress {
    status: SyncStatus,
    last_received: Option<Instant>,
    /// How often this director became active: what was told before is spent.
    takeovers: u64,
    /// What the active director had learned of each service, until it is needed.
    learned_health: BTreeMap<String, SavedHealth>,
}

impl StateSync {
    pub(super) fn new(config: SyncConfig, listener: Arc<TcpListener>) -> Self {
        Self { config, listener, progress: Mutex::default() }
    }

    /// Where the other director comes.
    pub(super) fn listener(&self) -> Arc<TcpListener> {
        Arc::clone(&self.listener)
    }

    pub(super) fn status(&self) -> SyncStatus {
        let state = lock(&self.progress);
        let silent = state.last_received.map(|heard| tokio_now().saturating_duration_since(heard));
        SyncStatus { silent_ms: silent.map(saturating_millis), ..state.status.clone() }
    }

    /// This director is active from now on: it takes up what the other had learned.
    pub(super) fn handle_takeover(&self, services: &[Arc<VirtualService>]) {
        let learned = {
            let mut state = lock(&self.progress);
            state.status.in_sync = false;
            state.last_received = None;
            state.takeovers += 1;
            std::mem::take(&mut state.learned_health)
        };
        for service in services {
            if let Some(Err(error)) =
                learned.get(&service.name).map(|it| service.restore_health(it))
            {
                tracing::warn!("sync: service {}: {error}", service.name);
            }
        }
    }
}
