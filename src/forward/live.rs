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
pub struct Connection {
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
const AT_ONCE: usize = 256;

/// The list of one worker, who alone writes it: its lock is free but for the moments in which
/// somebody reads.
#[derive(Debug, Default)]
pub(super) struct Live {
    list: Mutex<Slab<Entry>>,
}

/// One that is carried.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) client: Option<SocketAddr>,
    /// Where it is not the listener's; in a box, since few have one and all pay for the room.
    pub(super) local: Option<Box<SocketAddr>>,
    pub(super) backend: Option<Arc<Backend<SocketAddr>>>,
    pub(super) begun: Instant,
}

/// Where an entry stands in its list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed(u32);

impl Live {
    pub(super) fn enter(&self, entry: Entry) -> Listed {
        // As many as 2^32 would need more descriptors than there are.
        Listed(lock(&self.list).insert(entry) as u32)
    }

    /// The entry goes to another backend.
    pub(super) fn turn(&self, Listed(key): Listed, backend: &Arc<Backend<SocketAddr>>) {
        if let Some(entry) = lock(&self.list).get_mut(key as usize) {
            entry.backend = Some(Arc::clone(backend));
        }
    }

    pub(super) fn leave(&self, Listed(key): Listed) {
        lock(&self.list).try_remove(key as usize);
    }

    /// Copies the list until there are `most`, with the address of the listener for those that have
    /// no other.
    pub(super) fn read(
        &self,
        listener: Option<SocketAddr>,
        most: usize,
        connections: &mut Vec<Connection>,
    ) {
        let now = now();
        let mut from = 0;
        while connections.len() < most {
            let list = lock(&self.list);
            let until = list.capacity().min(from + AT_ONCE);
            connections.extend((from..until).filter_map(|key| list.get(key)).map(|entry| {
                let backend = entry.backend.as_ref();
                Connection {
                    client: entry.client,
                    local: entry.local.as_deref().copied().or(listener),
                    backend: backend.map(|backend| backend.id().clone()),
                    backend_address: backend.map(|backend| *backend.target()),
                    age: now.saturating_duration_since(entry.begun),
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
