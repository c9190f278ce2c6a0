//! The right to use a backend, counted exactly.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Account, Backend, BackendId, Outcome, Seat};

/// A backend that was picked, for as long as the work lasts.
///
/// The backend's count goes up when the lease is made and down when it is dropped, on every path,
/// cancellation and panics included. A lease that is dropped without a word ends as
/// [`Outcome::Cancelled`].
///
/// A lease keeps its backend alive, though not configured: a removed backend finishes what it has.
#[must_use = "dropping a lease ends it"]
pub struct Lease<T> {
    seat: Arc<Seat<T>>,
    /// Where the connection is counted.
    lane: u8,
    active: bool,
    /// `false` once detached: somebody else keeps the count.
    counted: bool,
    outcome: Outcome,
}

impl<T> Lease<T> {
    /// Takes charge of a connection that was just counted.
    #[inline]
    pub(super) fn new(seat: Arc<Seat<T>>, lane: u8) -> Self {
        Self { seat, lane, active: true, counted: true, outcome: Outcome::Cancelled }
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
        self.seat.backend()
    }

    /// Moves the connection between the active and the inactive count.
    ///
    /// What IPVS does when a TCP connection begins to close. Least-connection schedulers hardly
    /// count inactive connections, `sed` and `nq` not at all; limits count both.
    pub fn set_active(&mut self, active: bool) {
        if self.active != active {
            self.active = active;
            self.lane = self.account().leave_lane(self.lane);
            self.account().set_active(active);
        }
    }

    /// Ends the lease.
    pub fn complete(mut self, outcome: Outcome) {
        self.account().observe(outcome, None);
        self.outcome = outcome;
    }

    /// Ends the lease and says how long the work took and what time it is, which `peak_ewma` and
    /// `hot_cold` learn from.
    pub fn complete_after(mut self, outcome: Outcome, latency: Duration, now: Instant) {
        self.account().observe(outcome, Some((latency, now)));
        self.outcome = outcome;
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
        self.counted = false;
        Arc::clone(self.backend())
    }

    #[inline]
    fn account(&self) -> &Account {
        self.seat.account()
    }
}

impl<T> Drop for Lease<T> {
    #[inline]
    fn drop(&mut self) {
        if self.counted {
            self.account().unbind(self.lane, self.active, self.outcome);
        }
    }
}

impl<T> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("id", self.id()).field("active", &self.active).finish()
    }
}
