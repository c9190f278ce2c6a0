//! What the owner of a service holds: the claim, and the service that runs.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::{Context, Poll};
use std::time::Duration;

use super::command::{CommandSender, ENGINE, PacketCommand, THREAD_ENDED};
use crate::engine::{
    EngineAddress, EngineClaim, EngineCounters, EngineDrainReport, EngineEntry, EngineEntryKind,
    EngineError, EngineRequest, EngineService, NewConnections, SharedService,
};
use crate::packet::layout::RawServiceKey;

/// A request that the engine can serve.
#[derive(Debug)]
pub(super) struct PacketClaim {
    pub(super) commands: CommandSender,
    pub(super) request: EngineRequest,
    pub(super) key: RawServiceKey,
}

impl EngineClaim for PacketClaim {
    fn begin(self: Box<Self>) -> Result<Box<dyn EngineService>, EngineError> {
        let Self { commands, request, key } = *self;
        let address = request.address;
        let kernel_error = |source| EngineError::Kernel { engine: ENGINE, address, source };
        let shared = Arc::new(SharedService::default());
        let owner = Arc::clone(&shared);
        let (reply, answer) = sync_channel(1);
        let command = PacketCommand::Begin { key, request: Box::new(request), owner, reply };
        if !commands.send(command) {
            return Err(kernel_error(THREAD_ENDED.into()));
        }
        match answer.recv() {
            Ok(Ok(())) => Ok(Box::new(PacketService { commands, address, key, shared })),
            Ok(Err(error)) => Err(kernel_error(error.into())),
            Err(_) => Err(kernel_error(THREAD_ENDED.into())),
        }
    }
}

/// A service that the engine serves for its owner.
#[derive(Debug)]
struct PacketService {
    commands: CommandSender,
    address: EngineAddress,
    key: RawServiceKey,
    shared: Arc<SharedService>,
}

impl EngineService for PacketService {
    /// New flows are left to the stack in any case, which refuses those that no socket of this machine is for.
    fn drain(&self, within: Duration, _new_connections: NewConnections) {
        let (key, owner) = (self.key, Arc::clone(&self.shared));
        self.end(PacketCommand::Drain { key, owner, within });
    }

    fn hand_over(&self) {
        self.end(PacketCommand::HandOver(self.key, Arc::clone(&self.shared)));
    }

    fn poll_finished(&self, context: &mut Context<'_>) -> Poll<EngineDrainReport> {
        self.shared.poll_finished(context)
    }

    fn counters(&self) -> EngineCounters {
        self.shared.counters()
    }

    fn entries(
        &self,
        kind: EngineEntryKind,
        limit: usize,
    ) -> Result<Vec<EngineEntry>, EngineError> {
        if self.shared.is_finished() || limit == 0 {
            return Ok(Vec::new());
        }
        let (reply, answer) = sync_channel(1);
        self.commands.send(PacketCommand::Entries { key: self.key, kind, limit, reply });
        answer.recv().map_err(|_| EngineError::Entries {
            engine: ENGINE,
            address: self.address,
            source: THREAD_ENDED.into(),
        })
    }
}

impl PacketService {
    fn end(&self, command: PacketCommand) {
        if !self.commands.send(command) {
            self.shared.finish(EngineDrainReport::default());
        }
    }
}

impl Drop for PacketService {
    fn drop(&mut self) {
        if !self.shared.is_finished() {
            self.drain(Duration::ZERO, NewConnections::Refused);
        }
    }
}
