//! What the owner of a service and the thread of the engine say to each other.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::task::Wake;
use std::time::Duration;

use crate::engine::{EngineEntry, EngineEntryKind, EngineRequest, SharedService};
use crate::packet::error::PacketError;
use crate::packet::flow_sync::{FlowBatch, FlowFeed, RestoredFlows};
use crate::packet::layout::RawServiceKey;

/// The engine's name in a configuration.
pub(super) const ENGINE: &str = "packet";
/// Why nothing is answered any more.
pub(super) const THREAD_ENDED: &str = "the thread of the engine has ended";

/// A function of the thread's worker, whose type this file does not import: that imports this one.
#[cfg(test)]
type FunctionOfWorker = Box<dyn FnOnce(&mut dyn std::any::Any) + Send>;

/// What the owners of services ask of the thread.
pub(super) enum PacketCommand {
    /// Serves a request, in place of the service that has the same key.
    Begin {
        key: RawServiceKey,
        request: Box<EngineRequest>,
        owner: Arc<SharedService>,
        reply: SyncSender<Result<(), PacketError>>,
    },
    /// Drains a service and removes it, if it is still this owner's.
    Drain { key: RawServiceKey, owner: Arc<SharedService>, within: Duration },
    /// Forgets a service, and leaves it in the kernel.
    HandOver(RawServiceKey, Arc<SharedService>),
    /// Lists entries of a service.
    Entries {
        key: RawServiceKey,
        kind: EngineEntryKind,
        limit: usize,
        reply: SyncSender<Vec<EngineEntry>>,
    },
    /// Tells another engine of the flows.
    FeedFlows { reply: SyncSender<FlowFeed> },
    /// Makes flows what another engine says of them.
    RestoreFlows { batch: FlowBatch, reply: SyncSender<Result<RestoredFlows, PacketError>> },
    /// Runs a function in the thread.
    #[cfg(test)]
    Run(FunctionOfWorker),
    /// Ends the thread.
    Stop,
}

/// The way to the thread: commands, and what wakes it.
#[derive(Clone, Debug)]
pub(super) struct CommandSender {
    commands: Sender<PacketCommand>,
    wake: Arc<EngineWaker>,
}

/// Wakes the thread.
#[derive(Debug)]
pub(super) struct EngineWaker {
    event: OwnedFd,
    /// Whether a set has changed since the thread looked.
    has_changed: AtomicBool,
}

impl CommandSender {
    pub(super) fn new(commands: Sender<PacketCommand>, event: OwnedFd) -> Self {
        let wake = Arc::new(EngineWaker { event, has_changed: AtomicBool::new(false) });
        Self { commands, wake }
    }

    /// Returns false if the thread has ended.
    pub(super) fn send(&self, command: PacketCommand) -> bool {
        let is_sent = self.commands.send(command).is_ok();
        self.wake.signal();
        is_sent
    }

    pub(super) fn waker(&self) -> &Arc<EngineWaker> {
        &self.wake
    }
}

impl EngineWaker {
    pub(super) fn event(&self) -> &OwnedFd {
        &self.event
    }

    /// Clears the event.
    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    /// Returns whether a set has changed since the last call.
    pub(super) fn take_change(&self) -> bool {
        self.has_changed.swap(false, Ordering::AcqRel)
    }

    fn signal(&self) {
        // Full, the event is set already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

impl Wake for EngineWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.has_changed.swap(true, Ordering::AcqRel) {
            self.signal();
        }
    }
}
