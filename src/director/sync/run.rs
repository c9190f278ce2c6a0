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
use crate::director::registry::ServiceRegistry;
use crate::director::role::RoleWatch;

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
        registry: &ServiceRegistry,
        role: &RoleWatch,
        slot: &SyncStatusSlot,
    ) -> Self {
        let state = Arc::new(StateSync::new(config));
        slot.set(Some(Arc::clone(&state)));
        let parts = || (Arc::clone(&state), registry.clone(), role.clone());
        let (sync, services, watch) = parts();
        let publisher = tokio::spawn(publish(Arc::clone(&listener), sync, services, watch));
        let (sync, services, watch) = parts();
        let standby = tokio::spawn(run_standby(sync, services, watch));
        let (sync, services, watch) = parts();
        let takeover = tokio::spawn(run_takeover(sync, services, watch));
        let tasks = [publisher, standby, takeover].map(AbortOnDropHandle::new);
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
