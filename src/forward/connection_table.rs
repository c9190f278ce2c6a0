//! Who is carried at this moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::clock::now;
use crate::backend::{Backend, BackendId};
use crate::sync::{Mutex, lock};

/// A TCP connection or a UDP flow that a backend, or the sorry server, has at this moment.
///
/// Those that wait for a backend are not among them:
/// [`Counters::active`](super::Counters::active) counts these, too.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Who asks: whom a PROXY header named, or else the address it came from; `None` on a Unix
    /// socket.
    pub client: Option<SocketAddr>,
    /// The address that the client used; `None` on a Unix socket.
    pub local: Option<SocketAddr>,
    /// The backend; `None` for the sorry server.
    pub backend: Option<BackendId>,
    /// The backend's address.
    pub backend_address: Option<SocketAddr>,
    /// How long ago it began: was accepted, or sent its first datagram.
    pub age: Duration,
}

/// How many are copied before whoever carries them has its turn again.
const MAX_COPIED_AT_ONCE: usize = 256;

/// The list of one worker, who alone writes it: its lock is free but for the moments in which
/// somebody reads.
#[derive(Debug, Default)]
pub(super) struct ConnectionTable {
    connections: Mutex<Slab<ConnectionEntry>>,
}

/// One that is carried.
#[derive(Debug)]
pub(super) struct ConnectionEntry {
    pub(super) client: Option<SocketAddr>,
    /// Where it is not the listener's; in a box, since few have one and all pay for the room.
    pub(super) local: Option<Box<SocketAddr>>,
    pub(super) backend: Option<Arc<Backend<SocketAddr>>>,
    pub(super) started_at: Instant,
}

/// Where an entry stands in its list.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionKey(u32);

impl ConnectionTable {
    pub(super) fn insert(&self, entry: ConnectionEntry) -> ConnectionKey {
        // As many as 2^32 would need more descriptors than there are.
        ConnectionKey(lock(&self.connections).insert(entry) as u32)
    }

    /// The entry goes to another backend.
    pub(super) fn set_backend(
        &self,
        ConnectionKey(key): ConnectionKey,
        backend: &Arc<Backend<SocketAddr>>,
    ) {
        if let Some(entry) = lock(&self.connections).get_mut(key as usize) {
            entry.backend = Some(Arc::clone(backend));
        }
    }

    pub(super) fn remove(&self, ConnectionKey(key): ConnectionKey) {
        lock(&self.connections).try_remove(key as usize);
    }

    /// Copies the list until there are `most`, with the address of the listener for those that have
    /// no other.
    pub(super) fn collect_into(
        &self,
        listener: Option<SocketAddr>,
        most: usize,
        connections: &mut Vec<ConnectionInfo>,
    ) {
        let now = now();
        let mut from = 0;
        while connections.len() < most {
            let list = lock(&self.connections);
            let until = list.capacity().min(from + MAX_COPIED_AT_ONCE);
            connections.extend((from..until).filter_map(|key| list.get(key)).map(|entry| {
                let backend = entry.backend.as_ref();
                ConnectionInfo {
                    client: entry.client,
                    local: entry.local.as_deref().copied().or(listener),
                    backend: backend.map(|backend| backend.id().clone()),
                    backend_address: backend.map(|backend| *backend.target()),
                    age: now.saturating_duration_since(entry.started_at),
                }
            }));
            if until == list.capacity() {
                break;
            }
            from = until;
        }
        connections.truncate(most);
    }
}
