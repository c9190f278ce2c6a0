//! The backends of the flows that an earlier forwarder has, so that its clients stay where they are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::BackendId;
use crate::forward::connection_table::ConnectionInfo;
use crate::sync::{Mutex, lock};

/// The backend of each client that has had a flow at an earlier forwarder, and none here yet.
#[derive(Debug, Default)]
pub(super) struct EarlierFlows(Mutex<KnownBackends>);

#[derive(Debug, Default)]
struct KnownBackends {
    /// By the address of the client and that which it sends to.
    by_addresses: HashMap<(SocketAddr, SocketAddr), BackendId>,
    /// When the earlier flows have ended.
    forget_at: Option<Instant>,
}

impl EarlierFlows {
    /// Remembers the flows of an earlier forwarder, and those that it remembers itself, for as long as a
    /// flow may be idle.
    pub(super) fn remember(
        &self,
        flows: Vec<ConnectionInfo>,
        remembered: &Self,
        idle_timeout: Duration,
        now: Instant,
    ) {
        let flows = flows.into_iter();
        let backends = flows.filter_map(|flow| Some(((flow.client?, flow.local?), flow.backend?)));
        let mut by_addresses = lock(&remembered.0).by_addresses.clone();
        by_addresses.extend(backends);
        let forget_at = now.checked_add(idle_timeout);
        *lock(&self.0) = KnownBackends { by_addresses, forget_at };
    }

    /// Removes and returns the backend of a client.
    pub(super) fn take_backend(
        &self,
        client: SocketAddr,
        local: SocketAddr,
        now: Instant,
    ) -> Option<BackendId> {
        let mut known = lock(&self.0);
        if known.forget_at.is_some_and(|at| at <= now) {
            *known = KnownBackends::default();
        }
        known.by_addresses.remove(&(client, local))
    }
}
