//! The standby is told what the active director knows.

mod active;
mod channel;
mod standby;
mod word;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

pub(super) use self::active::tell;
pub(super) use self::standby::follow;
use super::config::SyncConfig;
use super::service::{Service, now};
use super::status::{SyncStatus, millis};
use crate::health::Saved;
use crate::sync::{Mutex, lock};

/// How often persistence is told.
const TICK: Duration = Duration::from_millis(250);
/// Every so many of them, everything else is.
const SLOW: u64 = 4;
/// Whoever has heard nothing for so long tries another connection.
const SILENCE: Duration = Duration::from_secs(2);

/// What this director tells, or has been told.
#[derive(Debug)]
pub(super) struct Sync {
    config: SyncConfig,
    listener: Arc<TcpListener>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    status: SyncStatus,
    heard: Option<Instant>,
    /// How often this director became active: what was told before is spent.
    takeovers: u64,
    /// What the active director had learned of each service, until it is needed.
    learned: BTreeMap<String, Saved>,
}

impl Sync {
    pub(super) fn new(config: SyncConfig, listener: Arc<TcpListener>) -> Self {
        Self { config, listener, state: Mutex::default() }
    }

    /// Where the other director comes.
    pub(super) fn listener(&self) -> Arc<TcpListener> {
        Arc::clone(&self.listener)
    }

    pub(super) fn status(&self) -> SyncStatus {
        let state = lock(&self.state);
        let silent = state.heard.map(|heard| now().saturating_duration_since(heard));
        SyncStatus { silent_ms: silent.map(millis), ..state.status.clone() }
    }

    /// This director is active from now on: it takes up what the other had learned.
    pub(super) fn take_over(&self, services: &[Arc<Service>]) {
        let learned = {
            let mut state = lock(&self.state);
            state.status.in_sync = false;
            state.heard = None;
            state.takeovers += 1;
            std::mem::take(&mut state.learned)
        };
        for service in services {
            if let Some(Err(error)) = learned.get(&service.name).map(|it| service.learn(it)) {
                tracing::warn!("sync: service {}: {error}", service.name);
            }
        }
    }
}
