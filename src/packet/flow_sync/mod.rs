//! Flows that the engine of another machine is told of.
//!
//! The engine that carries flows tells of them by a [`FlowFeed`], in batches ([`FlowBatch`]) that have an encoding for
//! the wire. The other engine restores them.

mod encoding;
mod flow_batch;
mod flow_feed;

pub use self::encoding::FlowBatchError;
pub use self::flow_batch::{FlowBatch, RestoredFlows, SyncedFlow};
pub use self::flow_feed::FlowFeed;
pub(super) use self::flow_feed::{FlowFeedSender, flow_feed};
