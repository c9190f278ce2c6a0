//! What the owner of a service holds: the claim, and the service that runs.

use std::sync::Arc;
use std::sync::mpsc::{Sender, sync_channel};
use std::task::{Context, Poll};
use std::time::Duration;

use super::command::{ENGINE, EngineCommand, ServiceShared};
use crate::engine::{
    EngineClaim, EngineCounters, EngineDrainReport, EngineError, EngineRequest, EngineService,
    NewConnections,
};
use crate::ipvs::service::{IpvsService, IpvsServiceKey};

/// A request that the kernel can serve.
#[derive(Debug)]
pub(super) struct IpvsClaim {
    commands: Sender<EngineCommand>,
    request: EngineRequest,
    service: IpvsService,
}

impl IpvsClaim {
    pub(super) fn new(
        commands: Sender<EngineCommand>,
        request: EngineRequest,
        service: IpvsService,
    ) -> Self {
        Self { commands, request, service }
    }
}

impl EngineClaim for IpvsClaim {
    fn begin(self: Box<Self>) -> Result<Box<dyn EngineService>, EngineError> {
        let Self { commands, request, service } = *self;
        let (key, address) = (service.key, request.address);
        let kernel_error = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Kernel {
            engine: ENGINE,
            address,
            source,
        };
        let shared = Arc::new(ServiceShared::default());
        let owner = Arc::clone(&shared);
        let (reply, answer) = sync_channel(1);
        let command = EngineCommand::Begin { request: Box::new(request), service, owner, reply };
        let has_ended = || kernel_error("the thread of the engine has ended".into());
        commands.send(command).map_err(|_| has_ended())?;
        match answer.recv() {
            Ok(Ok(())) => Ok(Box::new(IpvsEngineService { commands, key, shared })),
            Ok(Err(error)) => Err(kernel_error(error.into())),
            Err(_) => Err(has_ended()),
        }
    }
}

/// A service that the kernel serves for its owner.
#[derive(Debug)]
struct IpvsEngineService {
    commands: Sender<EngineCommand>,
    key: IpvsServiceKey,
    shared: Arc<ServiceShared>,
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
