//! What the owner of a service and the thread of the engine say to each other.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::settings::IpvsSettings;
use crate::engine::{EngineCounters, EngineDrainReport, EngineRequest, NewConnections};
use crate::ipvs::daemon::IpvsDaemon;
use crate::ipvs::error::IpvsError;
use crate::ipvs::service::{IpvsService, IpvsServiceKey};
use crate::sync::{Mutex, lock};

/// The engine's name in a configuration.
pub(super) const ENGINE: &str = "ipvs";

/// What the owners of services ask of the thread.
pub(super) enum EngineCommand {
    /// Serves a request, in place of the service that has the same key.
    Begin {
        request: Box<EngineRequest>,
        service: IpvsService,
        owner: Arc<ServiceShared>,
        reply: SyncSender<Result<(), IpvsError>>,
    },
    /// Drains a service and removes it, if it is still this owner's.
    Drain {
        key: IpvsServiceKey,
        owner: Arc<ServiceShared>,
        within: Duration,
        new_connections: NewConnections,
    },
    /// Forgets a service, and leaves it in the kernel.
    HandOver(IpvsServiceKey, Arc<ServiceShared>),
    /// Changes the settings.
    Configure(IpvsSettings),
    /// Runs this synchronization daemon and no other.
    RunDaemon(Option<IpvsDaemon>),
    /// A set has changed.
    SetChanged,
    /// Ends the thread, and leaves everything in the kernel.
    Stop,
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

    pub(super) fn counters(&self) -> EngineCounters {
        lock(&self.0).counters.clone()
    }

    pub(super) fn is_finished(&self) -> bool {
        lock(&self.0).finished.is_some()
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

    pub(super) fn poll_finished(&self, context: &mut Context<'_>) -> Poll<EngineDrainReport> {
        let mut state = lock(&self.0);
        if let Some(report) = state.finished {
            return Poll::Ready(report);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
