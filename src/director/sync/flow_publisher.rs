//! The flows of the packet engine, for one standby.

use std::future::pending;
use std::time::Instant;

use super::state::LAST_FLOWS_TIME;
use crate::director::engines::EngineSet;
use crate::packet::{FlowBatch, FlowFeed};

/// Reads the flows of the packet engine while there is one, and this director is active.
#[derive(Debug)]
pub(super) struct FlowPublisher {
    engines: EngineSet,
    feed: Option<FlowFeed>,
    has_told_all: bool,
    /// When this director was active last, as long as it has something to tell of that time.
    active_at: Option<Instant>,
}

impl FlowPublisher {
    pub(super) fn new(engines: EngineSet) -> Self {
        Self { engines, feed: None, has_told_all: false, active_at: None }
    }

    /// Begins to read all flows, or ends it.
    pub(super) async fn follow(&mut self, is_active: bool, now: Instant) {
        if is_active {
            self.active_at = Some(now);
        } else if self.active_at.is_none_or(|at| now - at > LAST_FLOWS_TIME) {
            self.feed = None;
        }
        if !is_active || self.feed.is_some() {
            return;
        }
        let Some(engine) = self.engines.packet() else { return };
        self.has_told_all = false;
        match tokio::task::spawn_blocking(move || engine.flow_feed()).await {
            Ok(Ok(feed)) => self.feed = Some(feed),
            // The engine has logged why its thread has ended.
            Ok(Err(error)) => tracing::debug!("sync: {error}"),
            Err(error) => tracing::debug!("sync: {error}"),
        }
    }

    pub(super) const fn is_running(&self) -> bool {
        self.feed.is_some()
    }

    /// Returns whether the standby was told all flows, or there are none to tell.
    pub(super) const fn has_told_all(&self) -> bool {
        self.feed.is_none() || self.has_told_all
    }

    /// Waits for the next batch, for ever without an engine.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no batch.
    pub(super) async fn next(&mut self) -> FlowBatch {
        loop {
            let Some(feed) = &mut self.feed else { return pending().await };
            match feed.next().await {
                Some(batch) => {
                    self.has_told_all = batch.ends_all || (self.has_told_all && !batch.begins_all);
                    return batch;
                }
                None => self.feed = None,
            }
        }
    }
}
