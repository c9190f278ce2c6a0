//! What readers see of a set: an immutable, numbered snapshot.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::account::{BackendAccount, SetContext};
use super::{BackendId, Load, Member, Members, OutcomeCounts, Quorum, TrafficEstimate};

/// A backend: its stable name, its target, and the account of its work.
///
/// Another target under the same name is a new `Backend` with the same account: counters and estimates
/// go on, and leases that were made before keep their target.
pub struct Backend<T> {
    pub(super) account: Arc<BackendAccount>,
    pub(super) target: T,
}

impl<T> Backend<T> {
    /// Returns the stable name.
    #[must_use]
    pub fn id(&self) -> &BackendId {
        self.account.id()
    }

    /// Returns a number that no other backend of the set has or had: a backend that is removed and
    /// inserted again under its name has another one. [`Member::serial`] is the same number.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.account.serial()
    }

    /// Returns what the caller balances over: an address, a service, a real server.
    #[must_use]
    pub fn target(&self) -> &T {
        &self.target
    }

    /// Returns the connections of this moment.
    #[must_use]
    pub fn load(&self) -> Load {
        self.account.load()
    }

    /// Returns the outcomes of its leases.
    #[must_use]
    pub fn outcomes(&self) -> OutcomeCounts {
        self.account.outcomes()
    }

    /// Returns the traffic estimate, projected to `now`.
    #[must_use]
    pub fn estimate(&self, now: Instant) -> TrafficEstimate {
        self.account.estimate(Some(now))
    }

    /// Overwrites the connection counts.
    ///
    /// For mirrors of counters that are kept elsewhere: by the kernel's IPVS, or by the active director
    /// for its standby. Leases that are still held would count down from a number that does not
    /// include them: [detach](crate::Lease::detach) them first.
    pub fn set_load(&self, active: u32, inactive: u32) {
        self.account.set_load(Load { active, inactive });
    }

    pub(crate) fn account(&self) -> &BackendAccount {
        &self.account
    }
}

impl<T> fmt::Debug for Backend<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("id", self.id())
            .field("load", &self.load())
            .field("outcomes", &self.outcomes())
            .finish_non_exhaustive()
    }
}

/// The reference of a lease to its backend: one for each lane, so that workers do not share its count.
pub(crate) struct LeaseHandle<T> {
    backend: Arc<Backend<T>>,
    account: Arc<BackendAccount>,
    /// Makes the allocation, with the counts of `Arc`, a cache line long: no two counts share a line.
    _padding: [u64; 4],
}

impl<T> LeaseHandle<T> {
    /// Makes the handles for all lanes of a backend, with the shared lane first.
    pub(super) fn one_per_lane(backend: &Arc<Backend<T>>, workers: u8) -> Arc<[Arc<Self>]> {
        let handle = |_| {
            let (backend, account) = (Arc::clone(backend), Arc::clone(&backend.account));
            Arc::new(Self { backend, account, _padding: [0; 4] })
        };
        (0..=workers).map(handle).collect()
    }

    #[inline]
    pub(crate) fn backend(&self) -> &Arc<Backend<T>> {
        &self.backend
    }

    #[inline]
    pub(crate) fn account(&self) -> &BackendAccount {
        &self.account
    }
}

impl<T> fmt::Debug for LeaseHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LeaseHandle").field(self.backend.id()).finish()
    }
}

/// A set as it was published: members for the scheduler and backends for the caller, at the same
/// positions.
pub struct Snapshot<T> {
    pub(super) generation: u64,
    pub(super) context: Arc<SetContext>,
    pub(super) members: Members,
    pub(super) backends: Box<[Arc<Backend<T>>]>,
    /// Lane by lane, at the same positions.
    pub(super) lease_handles: Box<[Arc<LeaseHandle<T>>]>,
    /// At the same positions.
    pub(super) reasons: Box<[Option<Arc<str>>]>,
    pub(super) panicking: bool,
    pub(super) health_counts: (usize, usize),
    pub(super) has_quorum: bool,
    pub(super) quorum: Option<Quorum>,
    pub(super) healthy_weight: u64,
}

impl<T> Snapshot<T> {
    /// Returns the number of this publication; a later snapshot has a higher one.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the list that schedulers read, newest first.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Returns the backends, at the same positions as [`Snapshot::members`].
    #[must_use]
    pub fn backends(&self) -> &[Arc<Backend<T>>] {
        &self.backends
    }

    /// Returns the reason for the state of the backend at a position, if a check or outlier detection
    /// gave one.
    #[must_use]
    pub fn reason(&self, position: usize) -> Option<&Arc<str>> {
        self.reasons.get(position)?.as_ref()
    }

    /// Tells whether the set is in panic and ignores health, because too few backends are healthy: see
    /// [`FailMode`](super::FailMode).
    #[must_use]
    pub fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// Returns the number of healthy backends, and the number of backends in service, as
    /// [`FailMode`](super::FailMode) counts them. A backend on trial counts as healthy.
    #[must_use]
    pub fn health_counts(&self) -> (usize, usize) {
        self.health_counts
    }

    /// Tells whether the set meets its [`Quorum`]; `true` for a set without one.
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        self.has_quorum
    }

    /// Returns the quorum of the set, if it has one.
    #[must_use]
    pub fn quorum(&self) -> Option<Quorum> {
        self.quorum
    }

    /// Returns the sum of the effective weights of the healthy backends, which the quorum compares.
    #[must_use]
    pub fn healthy_weight(&self) -> u64 {
        self.healthy_weight
    }

    /// Returns what all backends of the set share.
    #[cfg(feature = "health")]
    pub(crate) fn context(&self) -> &Arc<SetContext> {
        &self.context
    }

    /// Returns the account at a position.
    #[inline]
    pub(crate) fn account(&self, position: usize) -> Option<&BackendAccount> {
        self.members.account(position)
    }

    /// Returns the lease handle of a lane at a position.
    #[inline]
    pub(crate) fn lease_handle(&self, lane: u8, position: usize) -> Option<&Arc<LeaseHandle<T>>> {
        self.lease_handles.get(usize::from(lane) * self.members.len() + position)
    }

    /// Returns the lane for one more worker.
    pub(crate) fn assign_lane(&self) -> u8 {
        self.context.assign_lane()
    }

    /// Iterates over backends with their members, newest first.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<Backend<T>>, &Member)> {
        self.backends.iter().zip(self.members.iter())
    }

    /// Finds a backend by name, by a linear search.
    #[must_use]
    pub fn find(&self, id: &BackendId) -> Option<&Arc<Backend<T>>> {
        self.backends.iter().find(|backend| backend.id() == id)
    }
}

impl<T> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("generation", &self.generation)
            .field("backends", &self.backends)
            .finish_non_exhaustive()
    }
}
