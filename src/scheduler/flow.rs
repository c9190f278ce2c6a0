//! What is known of a connection or request when its backend is chosen.

use std::net::SocketAddr;
use std::time::Instant;

use crate::backend::Backend;
use crate::scheduler::hashing::{fold_ip, hash_bytes, hash_ip};

/// The connection or request that looks for a backend.
///
/// Everything is optional; each scheduler says in its docs what it reads. Making one from a
/// client's address is enough for nearly all of them.
///
/// | part | read by |
/// |---|---|
/// | source | `sh`, `mh`; the key of all other hash schedulers where no key is given |
/// | destination | `dh`, `lblc`, `lblcr` |
/// | key | `ring`, `rendezvous`, `maglev` before the source; the others where their address is missing |
/// | time | `peak_ewma`, `hot_cold`, `lblc`, `lblcr` |
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use lvs::Flow;
///
/// let client: SocketAddr = "192.0.2.7:50123".parse()?;
/// let by_client = Flow::from(client);
/// let by_session = Flow::new().key_bytes(b"session-42");
/// # let _ = (by_client, by_session);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Flow {
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    key: Option<u64>,
    time: Option<Instant>,
    tried: Option<Box<TriedBackends>>,
}

/// Serials of backends that were tried already.
///
/// Most flows have none, and every pick makes a flow: a word for it, where a `Vec` is three, is felt.
#[derive(Clone, Debug, Default)]
struct TriedBackends(Vec<u64>);

impl Flow {
    /// A flow of which nothing is known.
    #[inline]
    pub const fn new() -> Self {
        Self { source: None, destination: None, key: None, time: None, tried: None }
    }

    /// The client's address.
    #[inline]
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// The address that the client aimed at.
    #[inline]
    pub fn destination(mut self, destination: SocketAddr) -> Self {
        self.destination = Some(destination);
        self
    }

    /// What must go to the same backend each time; any number serves, well spread or not.
    #[inline]
    pub fn key(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// As [`Flow::key`], from bytes: a cookie, a path, a user's name. Costs one
    /// [`hash_bytes`].
    pub fn key_bytes(self, key: &[u8]) -> Self {
        self.key(hash_bytes(key, 0))
    }

    /// The time of the pick, for schedulers that weigh the past.
    #[inline]
    pub fn time(mut self, now: Instant) -> Self {
        self.time = Some(now);
        self
    }

    /// Never choose this backend: it was tried and failed.
    pub fn excluding<T>(mut self, backend: &Backend<T>) -> Self {
        self.exclude(backend);
        self
    }

    /// As [`Flow::excluding`], in place.
    pub fn exclude<T>(&mut self, backend: &Backend<T>) {
        self.tried.get_or_insert_default().0.push(backend.account().serial());
    }

    /// The client's address, if known.
    #[must_use]
    pub fn seen_source(&self) -> Option<SocketAddr> {
        self.source
    }

    /// The address that the client aimed at, if known.
    #[must_use]
    pub fn seen_destination(&self) -> Option<SocketAddr> {
        self.destination
    }

    /// The time of the pick, if known.
    #[must_use]
    pub fn seen_time(&self) -> Option<Instant> {
        self.time
    }

    /// The key, or one made of the client's address without its port.
    #[inline]
    #[must_use]
    pub fn seen_key(&self) -> Option<u64> {
        self.key.or_else(|| self.source.map(|source| hash_ip(source.ip())))
    }

    /// Tells whether a backend was tried already.
    #[inline]
    #[must_use]
    pub fn has_tried(&self, serial: u64) -> bool {
        self.tried.as_ref().is_some_and(|tried| tried.0.contains(&serial))
    }

    /// Tells whether any backend was tried already.
    #[inline]
    #[must_use]
    pub fn is_retry(&self) -> bool {
        self.tried.is_some()
    }

    /// How many backends are excluded.
    #[cfg(feature = "tower")]
    pub(crate) fn tried_count(&self) -> usize {
        self.tried.as_ref().map_or(0, |tried| tried.0.len())
    }

    /// The kernel's fold of the client's address; of the key where there is none.
    pub(in crate::scheduler) fn folded_source(&self) -> Option<u32> {
        self.source.map(|source| fold_ip(source.ip())).or(self.key.map(fold_key))
    }

    /// The kernel's fold of the destination; of the key where there is none.
    pub(in crate::scheduler) fn folded_destination(&self) -> Option<u32> {
        self.destination.map(|to| fold_ip(to.ip())).or(self.key.map(fold_key))
    }
}

impl From<SocketAddr> for Flow {
    #[inline]
    fn from(source: SocketAddr) -> Self {
        Self::new().source(source)
    }
}

fn fold_key(key: u64) -> u32 {
    (key >> 32) as u32 ^ key as u32
}
