//! What the owner of a service holds: the claim, and the service that runs.

use std::sync::Arc;
use std::sync::mpsc::{Sender, sync_channel};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::ENGINE;
use super::worker::EngineCommand;
use crate::engine::{
    EngineClaim, EngineCounters, EngineDrainReport, EngineError, EngineRequest, EngineService,
    NewConnections,
};
use crate::ipvs::service::{IpvsService, IpvsServiceKey};
use crate::sync::{Mutex, lock};

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
        lock(&self.shared.0).counters.clone()
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
        if lock(&self.shared.0).finished.is_none() {
            self.drain(Duration::ZERO, NewConnections::Refused);
        }
    }
}

/// What the thread of the engine and the owner of a service share.
#[derive(Debug, Default)]
pub(super) struct ServiceShared(Mutex<SharedState>);

#[derive(Debug, Default)]
struct SharedState {
    counters: EngineCounters,
    finished: Option<EngineDrainReport>,
    waker: Option<Waker>,
}

impl ServiceShared {
    pub(super) fn publish(&self, counters: EngineCounters) {
        lock(&self.0).counters = counters;
    }

    /// Says that the service has ended. Nothing is open any more.
    pub(super) fn finish(&self, report: EngineDrainReport) {
        let waker = {
            let mut state = lock(&self.0);
            state.finished = Some(report);
            for server in state.counters.servers.values_mut() {
                (server.active, server.inactive) = (0, 0);
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_finished(&self, context: &mut Context<'_>) -> Poll<EngineDrainReport> {
        let mut state = lock(&self.0);
        if let Some(report) = state.finished {
            return Poll::Ready(report);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
