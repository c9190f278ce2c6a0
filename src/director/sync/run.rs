//! The tasks of state synchronization.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::active::publish;
use super::standby::run_standby;
use super::state::{StateSync, SyncStatusSlot};
use super::takeover::run_takeover;
use crate::director::config::SyncConfig;
use crate::director::engines::EngineSet;
use crate::director::registry::ServiceRegistry;
use crate::director::role::RoleWatch;
use crate::director::supervisor::TaskSupervisor;

/// State synchronization by one `[sync]` table; it ends when this is dropped.
#[derive(Debug)]
pub(in crate::director) struct RunningSync {
    listener: Arc<TcpListener>,
    state: Arc<StateSync>,
    slot: SyncStatusSlot,
    _tasks: [AbortOnDropHandle<()>; 3],
}

impl RunningSync {
    pub(in crate::director) fn start(
        config: SyncConfig,
        listener: Arc<TcpListener>,
        (registry, engines): (&ServiceRegistry, &EngineSet),
        role: &RoleWatch,
        slot: &SyncStatusSlot,
        supervisor: &TaskSupervisor,
    ) -> Self {
        let state = Arc::new(StateSync::new(config));
        slot.set(Some(Arc::clone(&state)));
        let parts = (Arc::clone(&state), registry.clone(), role.clone());
        let (peers, shared, counted) = (Arc::clone(&listener), parts.clone(), supervisor.clone());
        let started = engines.clone();
        let publisher = supervisor.spawn("sync publisher", move || {
            let (state, registry, role) = shared.clone();
            publish(Arc::clone(&peers), state, (registry, started.clone()), role, counted.clone())
        });
        let (shared, started) = (parts.clone(), engines.clone());
        let standby = supervisor.spawn("sync standby", move || {
            let (state, registry, role) = shared.clone();
            run_standby(state, (registry, started.clone()), role)
        });
        let takeover = supervisor.spawn("sync takeover", move || {
            let (state, registry, role) = parts.clone();
            run_takeover(state, registry, role)
        });
        let tasks = [publisher, standby, takeover];
        Self { listener, state, slot: slot.clone(), _tasks: tasks }
    }

    /// Returns the listener with the address that the configuration gives it.
    pub(in crate::director) fn listener(&self) -> (SocketAddr, Arc<TcpListener>) {
        (self.state.config.listen, Arc::clone(&self.listener))
    }
}

impl Drop for RunningSync {
    fn drop(&mut self) {
        self.slot.clear(&self.state);
    }
}
