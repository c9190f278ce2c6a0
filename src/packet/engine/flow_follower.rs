//! An engine that is told of the flows of this one.

use super::flow_walk::FlowWalk;
use crate::packet::flow_sync::{FlowBatch, FlowFeedSender, SyncedFlow};

/// An engine that is told of the flows.
#[derive(Debug)]
pub(super) struct FlowFollower {
    pub(super) feed: FlowFeedSender,
    /// Where all flows are told; `None` when they have been told.
    pub(super) walk: Option<FlowWalk>,
    /// Whether the walk has begun.
    pub(super) has_begun: bool,
}

impl FlowFollower {
    pub(super) fn new(feed: FlowFeedSender) -> Self {
        Self { feed, walk: Some(FlowWalk::default()), has_begun: false }
    }

    /// Has all flows told, from the first one on.
    pub(super) fn begin_all(&mut self) {
        (self.walk, self.has_begun) = (Some(FlowWalk::default()), false);
    }

    /// Sends changes. If there is no room for them, all flows are told when there is.
    pub(super) fn send_changes(&mut self, flows: &[SyncedFlow]) {
        for flows in flows.chunks(FlowBatch::MAX_FLOWS) {
            // Before the first batch of all flows, changes are of use to nobody.
            let is_waiting = self.walk.is_some() && !self.has_begun;
            if !is_waiting && !self.feed.send(FlowBatch::changes(flows.to_vec())) {
                self.begin_all();
            }
        }
    }
}
