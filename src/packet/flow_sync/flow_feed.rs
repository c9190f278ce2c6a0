//! The way from the engine's thread to who tells the other machine.

use std::fmt;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::flow_batch::FlowBatch;

/// The batches that wait to be read.
const ROOM: usize = 64;

/// The flows of an engine, for the engine of another machine: all of them first, and then what changes.
///
/// [`PacketEngine::flow_feed`](crate::packet::PacketEngine::flow_feed) makes one. While nobody reads it, at most 64
/// batches wait (some 20 MB); what does not fit is left out, and all flows follow again when those that wait were read.
/// It ends with the engine.
pub struct FlowFeed {
    batches: Receiver<FlowBatch>,
}

impl fmt::Debug for FlowFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowFeed").finish_non_exhaustive()
    }
}

impl FlowFeed {
    /// Waits for the next batch, which comes within 200 ms; `None` if the engine has ended. It needs no runtime.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no batch.
    pub async fn next(&mut self) -> Option<FlowBatch> {
        self.batches.recv().await
    }
}

/// The engine's end of a feed.
pub(in crate::packet) struct FlowFeedSender {
    batches: Sender<FlowBatch>,
}

impl fmt::Debug for FlowFeedSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowFeedSender").finish_non_exhaustive()
    }
}

impl FlowFeedSender {
    pub(in crate::packet) fn is_closed(&self) -> bool {
        self.batches.is_closed()
    }

    pub(in crate::packet) fn has_room(&self) -> bool {
        self.batches.capacity() > 0
    }

    /// Returns whether all that was sent was read.
    pub(in crate::packet) fn is_read(&self) -> bool {
        self.batches.capacity() == ROOM
    }

    /// Sends a batch. Returns whether there was room for it.
    pub(in crate::packet) fn send(&self, batch: FlowBatch) -> bool {
        // Who does not read any more misses nothing.
        !matches!(self.batches.try_send(batch), Err(TrySendError::Full(_)))
    }
}

/// Returns both ends of a feed.
pub(in crate::packet) fn flow_feed() -> (FlowFeedSender, FlowFeed) {
    let (sender, batches) = channel(ROOM);
    (FlowFeedSender { batches: sender }, FlowFeed { batches })
}
