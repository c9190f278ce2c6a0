//! The right to use a backend, counted exactly.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Backend, BackendAccount, BackendId, LeaseHandle, Outcome};

/// A backend that was picked, for as long as the work lasts.
///
/// The backend's count goes up when the lease is made and down when it is dropped, on every path,
/// cancellation and panics included. A lease that is dropped without a word ends as
/// [`Outcome::Cancelled`].
///
/// A lease keeps its backend alive, though not configured: a removed backend finishes what it has.
#[must_use = "dropping a lease ends it"]
pub struct Lease<T> {
    handle: Arc<LeaseHandle<T>>,
    count_slot: LeaseCountSlot,
}

/// Where and as what a connection is counted.
///
/// One number, not a field for each: a processor is slow to read as a whole what was just written in
/// parts, and a lease that was just made is about to be moved.
#[derive(Clone, Copy, Eq, PartialEq)]
struct LeaseCountSlot(u32);

impl LeaseCountSlot {
    /// Nowhere: the lease has ended, or somebody else keeps the count.
    const NONE: Self = Self(u32::MAX);
    const INACTIVE_BIT: u32 = 1 << 8;

    #[inline]
    fn new(lane: u8, active: bool) -> Self {
        Self(u32::from(lane) | if active { 0 } else { Self::INACTIVE_BIT })
    }

    #[inline]
    fn lane(self) -> u8 {
        self.0 as u8
    }

    #[inline]
    fn is_active(self) -> bool {
        self.0 & Self::INACTIVE_BIT == 0
    }
}

impl<T> Lease<T> {
    /// Takes charge of a connection that was just counted.
    #[inline]
    pub(super) fn new(seat: Arc<LeaseHandle<T>>, lane: u8) -> Self {
        Self { handle: seat, count_slot: LeaseCountSlot::new(lane, true) }
    }

    /// The name of the backend.
    #[must_use]
    pub fn id(&self) -> &BackendId {
        self.backend().id()
    }

    /// What to talk to.
    #[must_use]
    pub fn target(&self) -> &T {
        self.backend().target()
    }

    /// The backend, with its counters.
    #[must_use]
    pub fn backend(&self) -> &Arc<Backend<T>> {
        self.handle.backend()
    }

    /// Moves the connection between the active and the inactive count.
    ///
    /// What IPVS does when a TCP connection begins to close. Least-connection schedulers hardly
    /// count inactive connections, `sed` and `nq` not at all; limits count both.
    pub fn set_active(&mut self, active: bool) {
        if self.count_slot.is_active() != active {
            let lane = self.account().move_off_lane(self.count_slot.lane());
            self.account().set_active(active);
            self.count_slot = LeaseCountSlot::new(lane, active);
        }
    }

    /// Ends the lease.
    pub fn complete(self, outcome: Outcome) {
        self.finish(outcome, None);
    }

    /// Ends the lease and says how long the work took and what time it is, which `peak_ewma` and
    /// `hot_cold` learn from.
    pub fn complete_with_latency(self, outcome: Outcome, latency: Duration, now: Instant) {
        self.finish(outcome, Some((latency, now)));
    }

    /// Feeds the latency estimate while the work goes on.
    ///
    /// For long work whose speed is known early: what a connection took to be made says something
    /// now, and nothing by the time it ends. Such a lease ends with [`Lease::complete`].
    pub fn observe_latency(&self, latency: Duration, now: Instant) {
        self.account().observe_latency(latency, now);
    }

    /// Lets go of the backend and leaves its counts as they are, to be kept by whoever
    /// [mirrors](Backend::mirror_load) them from elsewhere.
    pub fn detach(mut self) -> Arc<Backend<T>> {
        self.count_slot = LeaseCountSlot::NONE;
        Arc::clone(self.backend())
    }

    fn finish(mut self, outcome: Outcome, timing: Option<(Duration, Instant)>) {
        self.account().observe_outcome(outcome, timing);
        self.unbind(outcome);
        self.count_slot = LeaseCountSlot::NONE;
    }

    #[inline]
    fn unbind(&self, outcome: Outcome) {
        if self.count_slot != LeaseCountSlot::NONE {
            self.account().unbind(self.count_slot.lane(), self.count_slot.is_active(), outcome);
        }
    }

    #[inline]
    fn account(&self) -> &BackendAccount {
        self.handle.account()
    }
}

impl<T> Drop for Lease<T> {
    #[inline]
    fn drop(&mut self) {
        self.unbind(Outcome::Cancelled);
    }
}

impl<T> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", self.id())
            .field("active", &self.count_slot.is_active())
            .finish()
    }
}
