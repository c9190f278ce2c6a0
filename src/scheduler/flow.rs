//! The flow that a pick is for: [`Flow`], which callers fill in, and [`FlowView`], which schedulers
//! read.

use std::net::SocketAddr;
use std::time::Instant;

use crate::backend::Backend;
use crate::scheduler::hashing::{fold_ip, hash_bytes, hash_ip};

/// A connection or request for which a backend is picked.
///
/// Every part is optional; each scheduler documents the parts that it reads. A flow made from the
/// client's address is enough for nearly all schedulers. [`Flow::view`] reads the parts.
///
/// | part | read by |
/// |---|---|
/// | source | `sh`, `mh`; all other hash schedulers if the flow has no key |
/// | destination | `dh`, `lblc`, `lblcr` |
/// | key | `ring`, `rendezvous`, `maglev`, which fall back to the source; other hash schedulers if their address is missing |
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

/// The serials of backends that were tried already.
///
/// Boxed in [`Flow`]: most flows have no such backend and every pick makes a flow, so that one word
/// instead of the three of a `Vec` is measurable.
#[derive(Clone, Debug, Default)]
struct TriedBackends(Vec<u64>);

impl Flow {
    /// Creates a flow without any part.
    #[inline]
    pub const fn new() -> Self {
        Self { source: None, destination: None, key: None, time: None, tried: None }
    }

    /// Sets the client's address.
    #[inline]
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Sets the address that the client connected to.
    #[inline]
    pub fn destination(mut self, destination: SocketAddr) -> Self {
        self.destination = Some(destination);
        self
    }

    /// Sets the key: flows of one key go to the same backend under a hash scheduler. Keys need not
    /// be evenly distributed.
    #[inline]
    pub fn key(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the key to a [hash](hash_bytes) of bytes: a cookie, a path, a user's name.
    pub fn key_bytes(self, key: &[u8]) -> Self {
        self.key(hash_bytes(key, 0))
    }

    /// Sets the time of the pick, for schedulers that go by latencies or ages.
    #[inline]
    pub fn time(mut self, time: Instant) -> Self {
        self.time = Some(time);
        self
    }

    /// Excludes a backend that was tried and failed.
    pub fn excluding<T>(mut self, backend: &Backend<T>) -> Self {
        self.exclude(backend);
        self
    }

    /// Excludes a backend in place, as [`Flow::excluding`].
    pub fn exclude<T>(&mut self, backend: &Backend<T>) {
        self.tried.get_or_insert_default().0.push(backend.account().serial());
    }

    /// Returns a view of the flow, which schedulers read.
    #[inline]
    #[must_use]
    pub const fn view(&self) -> FlowView<'_> {
        FlowView(self)
    }
}

/// What a scheduler reads of a [`Flow`]: a copy of a reference, which costs nothing.
///
/// # Examples
/// ```
/// use lvs::Flow;
///
/// let flow = Flow::new().key(7);
/// assert_eq!((flow.view().key(), flow.view().source()), (Some(7), None));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FlowView<'a>(&'a Flow);

impl FlowView<'_> {
    /// Returns the client's address, if known.
    #[must_use]
    pub fn source(self) -> Option<SocketAddr> {
        self.0.source
    }

    /// Returns the address that the client connected to, if known.
    #[must_use]
    pub fn destination(self) -> Option<SocketAddr> {
        self.0.destination
    }

    /// Returns the time of the pick, if known.
    #[must_use]
    pub fn time(self) -> Option<Instant> {
        self.0.time
    }

    /// Returns the key or, without a key, a hash of the client's address without its port.
    #[inline]
    #[must_use]
    pub fn key(self) -> Option<u64> {
        self.0.key.or_else(|| self.0.source.map(|source| hash_ip(source.ip())))
    }

    /// Returns whether the backend of this serial was tried already.
    #[inline]
    #[must_use]
    pub fn has_tried(self, serial: u64) -> bool {
        self.0.tried.as_ref().is_some_and(|tried| tried.0.contains(&serial))
    }

    /// Returns whether any backend was tried already.
    #[inline]
    #[must_use]
    pub fn is_retry(self) -> bool {
        self.0.tried.is_some()
    }

    /// Returns the number of excluded backends.
    #[cfg(feature = "tower")]
    pub(crate) fn tried_count(self) -> usize {
        self.0.tried.as_ref().map_or(0, |tried| tried.0.len())
    }

    /// Returns the kernel's fold of the client's address or, without an address, of the key.
    pub(super) fn folded_source(self) -> Option<u32> {
        self.0.source.map(|source| fold_ip(source.ip())).or(self.0.key.map(fold_key))
    }

    /// Returns the kernel's fold of the destination or, without a destination, of the key.
    pub(super) fn folded_destination(self) -> Option<u32> {
        self.0.destination.map(|to| fold_ip(to.ip())).or(self.0.key.map(fold_key))
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
