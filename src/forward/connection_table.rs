//! The table of the open connections and flows of a worker thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::clock::now;
use crate::backend::{Backend, BackendId};
use crate::sync::{Mutex, lock};

/// An open TCP connection or UDP flow that a backend or the sorry server has.
///
/// Connections that wait for a backend are not listed, but counted in
/// [`TcpCounters::active`](super::TcpCounters::active).
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The client that a PROXY header named, or else the peer address; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// The address that the client connected to: that which a PROXY header named, or else that of the
    /// connection; `None` on a Unix socket.
    pub local: Option<SocketAddr>,
    /// The backend; `None` for the sorry server.
    pub backend: Option<BackendId>,
    /// The backend's address.
    pub backend_address: Option<SocketAddr>,
    /// The time since the accept, or since the first datagram of the flow.
    pub age: Duration,
}

/// How many entries are copied under one lock, for which the worker thread may have to wait.
const MAX_COPIED_AT_ONCE: usize = 256;

/// The table of a worker thread, which alone writes to it: its lock is contended only while the table
/// is read.
#[derive(Debug, Default)]
pub(super) struct ConnectionTable {
    connections: Mutex<Slab<ConnectionEntry>>,
}

/// An open connection or flow.
#[derive(Debug)]
pub(super) struct ConnectionEntry {
    pub(super) client: Option<SocketAddr>,
    /// The address that the client connected to, if it differs from the listener's; boxed, since few
    /// entries have one and every entry pays for the space.
    pub(super) local: Option<Box<SocketAddr>>,
    pub(super) backend: Option<Arc<Backend<SocketAddr>>>,
    pub(super) started_at: Instant,
}

/// The key of an entry in its table.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionKey(u32);

impl ConnectionTable {
    pub(super) fn insert(&self, entry: ConnectionEntry) -> ConnectionKey {
        // 2^32 entries would need more descriptors than a process can have.
        ConnectionKey(lock(&self.connections).insert(entry) as u32)
    }

    /// Sets the backend of an entry; `None` for the sorry server.
    pub(super) fn set_backend(
        &self,
        ConnectionKey(key): ConnectionKey,
        backend: Option<&Arc<Backend<SocketAddr>>>,
    ) {
        if let Some(entry) = lock(&self.connections).get_mut(key as usize) {
            entry.backend = backend.map(Arc::clone);
        }
    }

    pub(super) fn remove(&self, ConnectionKey(key): ConnectionKey) {
        lock(&self.connections).try_remove(key as usize);
    }

    /// Copies entries until `connections` has `limit`; an entry without a local address gets the
    /// listener's.
    pub(super) fn collect_into(
        &self,
        listener: Option<SocketAddr>,
        limit: usize,
        connections: &mut Vec<ConnectionInfo>,
    ) {
        let now = now();
        let mut start = 0;
        while connections.len() < limit {
            let table = lock(&self.connections);
            let end = table.capacity().min(start + MAX_COPIED_AT_ONCE);
            connections.extend((start..end).filter_map(|key| table.get(key)).map(|entry| {
                let backend = entry.backend.as_ref();
                ConnectionInfo {
                    client: entry.client,
                    local: entry.local.as_deref().copied().or(listener),
                    backend: backend.map(|backend| backend.id().clone()),
                    backend_address: backend.map(|backend| *backend.target()),
                    age: now.saturating_duration_since(entry.started_at),
                }
            }));
            if end == table.capacity() {
                break;
            }
            start = end;
        }
        connections.truncate(limit);
    }
}
