//! What the owner of a service holds: the claim, and the service that runs.

use std::sync::Arc;
use std::sync::mpsc::{Sender, sync_channel};
use std::task::{Context, Poll};
use std::time::Duration;

use super::command::{ENGINE, EngineCommand};
use super::connection_list::ConnectionList;
use super::found_entries::FoundEntries;
use crate::engine::{
    EngineClaim, EngineCounters, EngineDrainReport, EngineEntry, EngineEntryKind, EngineError,
    EngineRequest, EngineService, NewConnections, SharedService,
};
use crate::ipvs::service::{IpvsService, IpvsServiceKey};

/// A request that the kernel can serve.
#[derive(Debug)]
pub(super) struct IpvsClaim {
    pub(super) commands: Sender<EngineCommand>,
    pub(super) connections: Arc<ConnectionList>,
    pub(super) request: EngineRequest,
    pub(super) service: IpvsService,
}

impl EngineClaim for IpvsClaim {
    fn begin(self: Box<Self>) -> Result<Box<dyn EngineService>, EngineError> {
        let Self { commands, connections, request, service } = *self;
        let (key, address) = (service.key, request.address);
        let kernel_error = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Kernel {
            engine: ENGINE,
            address,
            source,
        };
        let shared = Arc::new(SharedService::default());
        let owner = Arc::clone(&shared);
        let (reply, answer) = sync_channel(1);
        let request = Box::new(request);
        let command = EngineCommand::Begin { request: request.clone(), service, owner, reply };
        let has_ended = || kernel_error("the thread of the engine has ended".into());
        commands.send(command).map_err(|_| has_ended())?;
        match answer.recv() {
            Ok(Ok(())) => {
                Ok(Box::new(IpvsEngineService { commands, connections, request, key, shared }))
            }
            Ok(Err(error)) => Err(kernel_error(error.into())),
            Err(_) => Err(has_ended()),
        }
    }
}

/// A service that the kernel serves for its owner.
#[derive(Debug)]
struct IpvsEngineService {
    commands: Sender<EngineCommand>,
    connections: Arc<ConnectionList>,
    request: Box<EngineRequest>,
    key: IpvsServiceKey,
    shared: Arc<SharedService>,
}

impl EngineService for IpvsEngineService {
    fn drain(&self, within: Duration, new_connections: NewConnections) {
        let (key, owner) = (self.key, Arc::clone(&self.shared));
        self.end(EngineCommand::Drain { key, owner, within, new_connections });
    }

    fn hand_over(&self) {
        self.end(EngineCommand::HandOver(self.key, Arc::clone(&self.shared)));
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
        // The claim that replaced a service lists its entries.
        if self.shared.is_finished() || limit == 0 {
            return Ok(Vec::new());
        }
        let mut found = FoundEntries::new(&self.request, self.key, kind, limit);
        let result = self.connections.visit(|connection| found.add(connection));
        let is_longer = result.map_err(|source| EngineError::Entries {
            engine: ENGINE,
            address: self.request.address,
            source: source.into(),
        })?;
        if is_longer {
            let service = &self.request.service;
            tracing::warn!(
                "service {service}: the kernel has too many connections to look through all of them; \
                 some of the service may be missing in its list"
            );
        }
        Ok(found.entries)
    }
}

impl IpvsEngineService {
    fn end(&self, command: EngineCommand) {
        if self.commands.send(command).is_err() {
            self.shared.finish(EngineDrainReport::default());
        }
    }
}

impl Drop for IpvsEngineService {
    fn drop(&mut self) {
        if !self.shared.is_finished() {
            self.drain(Duration::ZERO, NewConnections::Refused);
        }
    }
}
