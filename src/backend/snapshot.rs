//! What readers see of a set: immutable, whole, and numbered.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::account::{BackendAccount, SetContext};
use super::{BackendId, Load, Member, Members, OutcomeCounts, TrafficEstimate};

/// A backend: its stable name, what it stands for, and its account of work done.
///
/// Changing the target under a name makes a new `Backend` with the same account, so counters and
/// estimates go on while leases that were made before keep the target they were given.
pub struct Backend<T> {
    pub(super) account: Arc<BackendAccount>,
    pub(super) target: T,
}

impl<T> Backend<T> {
    /// The stable name.
    #[must_use]
    pub fn id(&self) -> &BackendId {
        self.account.id()
    }

    /// What the caller balances over: an address, a service, a real server.
    #[must_use]
    pub fn target(&self) -> &T {
        &self.target
    }

    /// The connections it carries this moment.
    #[must_use]
    pub fn load(&self) -> Load {
        self.account.load()
    }

    /// How its finished leases ended.
    #[must_use]
    pub fn outcomes(&self) -> OutcomeCounts {
        self.account.outcomes()
    }

    /// What traffic says of it, projected to `now`.
    #[must_use]
    pub fn estimate(&self, now: Instant) -> TrafficEstimate {
        self.account.estimate(Some(now))
    }

    /// Overwrites the counts of connections.
    ///
    /// For mirrors of counters that somebody else keeps: a kernel's IPVS, or the active director
    /// seen from the standby. Not for use beside leases that are still held: they would count down
    /// from a number they are not part of. [Detach](crate::Lease::detach) those.
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

/// What a lease holds of its backend: a reference count for each lane, so that workers do not share
/// that either.
pub(crate) struct LeaseHandle<T> {
    backend: Arc<Backend<T>>,
    account: Arc<BackendAccount>,
    /// With the counts of `Arc` a cache line, wherever it begins: no two counts share one.
    _padding: [u64; 4],
}

impl<T> LeaseHandle<T> {
    /// The seats for all lanes of a backend, that of everybody first.
    pub(super) fn one_per_lane(backend: &Arc<Backend<T>>, workers: u8) -> Arc<[Arc<Self>]> {
        let seat = |_| {
            let (backend, account) = (Arc::clone(backend), Arc::clone(&backend.account));
            Arc::new(Self { backend, account, _padding: [0; 4] })
        };
        (0..=workers).map(seat).collect()
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
        f.debug_tuple("Seat").field(self.backend.id()).finish()
    }
}

/// The set as it was published: members for the scheduler, backends for the caller, at the same
/// positions.
pub struct Snapshot<T> {
    pub(super) generation: u64,
    pub(super) context: Arc<SetContext>,
    pub(super) members: Members,
    pub(super) backends: Box<[Arc<Backend<T>>]>,
    /// For one lane after the other, at the same positions.
    pub(super) lease_handles: Box<[Arc<LeaseHandle<T>>]>,
    /// At the same positions.
    pub(super) reasons: Box<[Option<Arc<str>>]>,
    pub(super) panicking: bool,
    pub(super) health_counts: (usize, usize),
    pub(super) has_quorum: bool,
}

impl<T> Snapshot<T> {
    /// Counts the publications of the set; a later snapshot has a higher number.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The list that schedulers work on, newest first.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The backends, at the same positions as [`Snapshot::members`].
    #[must_use]
    pub fn backends(&self) -> &[Arc<Backend<T>>] {
        &self.backends
    }

    /// Why the backend at a position is in its state, where a checker or its traffic has said so.
    #[must_use]
    pub fn reason(&self, position: usize) -> Option<&Arc<str>> {
        self.reasons.get(position)?.as_ref()
    }

    /// Tells whether health is ignored, because too few are healthy: see
    /// [`FailMode`](super::FailMode).
    #[must_use]
    pub fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// How many of the backends that the operator wants to serve are healthy, and how many those
    /// are. Who is on trial counts as healthy.
    #[must_use]
    pub fn health_counts(&self) -> (usize, usize) {
        self.health_counts
    }

    /// Tells whether enough weight is up; `true` for a set without a [`Quorum`](super::Quorum).
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        self.has_quorum
    }

    /// What all backends share.
    #[cfg(feature = "health")]
    pub(crate) fn context(&self) -> &Arc<SetContext> {
        &self.context
    }

    /// The account at a position.
    #[inline]
    pub(crate) fn account(&self, position: usize) -> Option<&BackendAccount> {
        self.members.account(position)
    }

    /// The seat of a lane at a position.
    #[inline]
    pub(crate) fn lease_handle(&self, lane: u8, position: usize) -> Option<&Arc<LeaseHandle<T>>> {
        self.lease_handles.get(usize::from(lane) * self.members.len() + position)
    }

    /// The lane for one more worker.
    pub(crate) fn assign_lane(&self) -> u8 {
        self.context.assign_lane()
    }

    /// Goes through backends and members side by side, newest first.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<Backend<T>>, &Member)> {
        self.backends.iter().zip(self.members.iter())
    }

    /// Finds a backend by name; a linear search.
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
