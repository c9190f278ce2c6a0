//! What a request holds while it is under way: its permit, and its lease of a backend.

use std::fmt;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::context::BalanceContext;
use crate::backend::{Backend, BackendId, Outcome};
use crate::balancer::Lease;

/// A request's permit of the balancer and its lease of a backend, both returned on drop.
///
/// A [`Completion`](super::Completion) receives it and decides when the request ends: by
/// [`complete`](Self::complete) with an outcome, or by a drop without one.
pub struct InFlight<S> {
    pub(super) context: Arc<BalanceContext<S>>,
    pub(super) lease: Option<Lease<S>>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// When the request was sent, if its latency is measured.
    pub(super) sent_at: Option<Instant>,
}

impl<S> InFlight<S> {
    pub(super) fn new(
        context: Arc<BalanceContext<S>>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { context, lease: None, permit, sent_at: None }
    }

    /// Records that the request is sent now, if its latency is measured.
    #[inline]
    pub(super) fn mark_sent(&mut self) {
        if self.context.measures_latency() {
            self.sent_at = Some(Instant::now());
        }
    }

    /// Returns the lease of a failed attempt and keeps the permit for the next attempt.
    #[cold]
    pub(super) fn end_attempt(&mut self, outcome: Outcome) {
        if let Some(lease) = self.lease.take() {
            complete_lease(lease, self.sent_at.take(), outcome);
        }
    }

    /// Returns the backend that has the request; `None` only before one is picked and after the end.
    #[must_use]
    pub fn backend(&self) -> Option<&Arc<Backend<S>>> {
        self.lease.as_ref().map(Lease::backend)
    }

    /// Returns the name of the [backend](Self::backend), for a log line or a header of the response.
    #[must_use]
    pub fn id(&self) -> Option<&BackendId> {
        self.lease.as_ref().map(Lease::id)
    }

    /// Ends the request and reports `outcome` to the backend's account. A request that is dropped
    /// instead reports [`Outcome::Cancelled`], which counts neither for nor against the backend.
    #[inline]
    pub fn complete(mut self, outcome: Outcome) {
        if let Some(lease) = self.lease.take() {
            complete_lease(lease, self.sent_at, outcome);
        }
    }
}

#[inline]
fn complete_lease<S>(lease: Lease<S>, sent_at: Option<Instant>, outcome: Outcome) {
    match sent_at {
        Some(sent_at) => {
            let now = Instant::now();
            lease.complete_with_latency(
                outcome,
                now.saturating_duration_since(sent_at),
                now.into_std(),
            );
        }
        None => lease.complete(outcome),
    }
}

impl<S> Drop for InFlight<S> {
    #[inline]
    fn drop(&mut self) {
        // Before the notification: the notified request picks at once.
        drop(self.lease.take());
        drop(self.permit.take());
        self.context.notify_waiter();
    }
}

impl<S> fmt::Debug for InFlight<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("lease", &self.lease).finish_non_exhaustive()
    }
}
