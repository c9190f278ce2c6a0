//! Leases: a backend that was picked, counted until the work ends.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Backend, BackendAccount, BackendId, LeaseHandle, Outcome};

/// A backend that was picked, for as long as the work takes.
///
/// The backend's count goes up when the lease is made and down when it is dropped, on every path,
/// also by cancellation and panic. A lease that is dropped without an outcome ends as
/// [`Outcome::Cancelled`].
///
/// A lease keeps its backend's memory alive but not its place in the set: a removed backend finishes
/// the work that it has.
#[must_use = "dropping a lease ends it"]
pub struct Lease<T> {
    handle: Arc<LeaseHandle<T>>,
    count_slot: LeaseCountSlot,
}

/// The lane that counts a connection, and whether it is active.
///
/// One number and not two fields: a processor is slow to read as a whole what was just written in
/// parts, and a new lease is moved at once.
#[derive(Clone, Copy, Eq, PartialEq)]
struct LeaseCountSlot(u32);

impl LeaseCountSlot {
    /// The connection is not counted: the lease has ended, or was detached.
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
    /// Makes a lease of a connection that was just counted.
    #[inline]
    pub(super) fn new(handle: Arc<LeaseHandle<T>>, lane: u8) -> Self {
        Self { handle, count_slot: LeaseCountSlot::new(lane, true) }
    }

    /// Returns the name of the backend.
    #[must_use]
    pub fn id(&self) -> &BackendId {
        self.backend().id()
    }

    /// Returns the backend's target.
    #[must_use]
    pub fn target(&self) -> &T {
        self.backend().target()
    }

    /// Returns the backend with its counters.
    #[must_use]
    pub fn backend(&self) -> &Arc<Backend<T>> {
        self.handle.backend()
    }

    /// Moves the connection to the active or the inactive count.
    ///
    /// IPVS does this when a TCP connection starts to close. Least-connection schedulers give inactive
    /// connections little weight, `sed` and `nq` none; limits count both.
    pub fn set_active(&mut self, active: bool) {
        if self.count_slot.is_active() != active {
            let lane = self.account().move_off_lane(self.count_slot.lane());
            self.account().set_active(active);
            self.count_slot = LeaseCountSlot::new(lane, active);
        }
    }

    /// Ends the lease with an outcome.
    pub fn complete(self, outcome: Outcome) {
        self.finish(outcome, None);
    }

    /// Ends the lease with an outcome, the duration of the work and the current time, from which
    /// `peak_ewma` and `hot_cold` learn.
    pub fn complete_with_latency(self, outcome: Outcome, latency: Duration, now: Instant) {
        self.finish(outcome, Some((latency, now)));
    }

    /// Feeds the latency estimate while the work goes on.
    ///
    /// For long work whose latency is known early: the connect time of a connection is news when it is
    /// made, and not when it ends. Such a lease ends with [`Lease::complete`].
    pub fn observe_latency(&self, latency: Duration, now: Instant) {
        self.account().observe_latency(latency, now);
    }

    /// Reports that the backend has accepted the connection, or has answered for the first time, while the
    /// work goes on.
    ///
    /// For long work: a backend that was ejected because connections to it failed returns with it, and
    /// not when the trial's connection ends.
    pub fn report_connected(&self) {
        if self.count_slot != LeaseCountSlot::NONE {
            self.account().report_connected(self.count_slot.lane());
        }
    }

    /// Ends the lease and leaves the counts as they are, for a mirror that
    /// [sets](Backend::set_load) them.
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
