//! What an engine's thread and the owner of a service share.

use std::task::{Context, Poll, Waker};

use super::{EngineCounters, EngineDrainReport};
use crate::sync::{Mutex, lock};

/// What the thread of an engine and the owner of a service share: the counters, and the end.
#[derive(Debug, Default)]
pub(crate) struct SharedService(Mutex<SharedState>);

#[derive(Debug, Default)]
struct SharedState {
    counters: EngineCounters,
    finished: Option<EngineDrainReport>,
    waker: Option<Waker>,
}

impl SharedService {
    pub(crate) fn publish(&self, counters: EngineCounters) {
        lock(&self.0).counters = counters;
    }

    pub(crate) fn counters(&self) -> EngineCounters {
        lock(&self.0).counters.clone()
    }

    pub(crate) fn is_finished(&self) -> bool {
        lock(&self.0).finished.is_some()
    }

    /// Says that the service has ended. Nothing is open any more.
    pub(crate) fn finish(&self, report: EngineDrainReport) {
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

    pub(crate) fn poll_finished(&self, context: &mut Context<'_>) -> Poll<EngineDrainReport> {
        let mut state = lock(&self.0);
        if let Some(report) = state.finished {
            return Poll::Ready(report);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
