//! What a request holds while it is under way, and what becomes of that at its end.

use std::fmt;
use std::sync::Arc;

use ::tower::BoxError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::classify::{Classify, ResultClassifier};
use super::context::BalanceContext;
use crate::backend::Outcome;
use crate::balancer::Lease;

/// The place that a request has in the balancer, and its lease of a backend; both are given back when
/// it is dropped.
///
/// For a [`Completion`] of your own, which decides when that is.
pub struct InFlight<S> {
    pub(super) context: Arc<BalanceContext<S>>,
    pub(super) lease: Option<Lease<S>>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// When the request was sent, if anybody wants to know.
    pub(super) sent_at: Option<Instant>,
}

impl<S> InFlight<S> {
    pub(super) fn new(
        shared: Arc<BalanceContext<S>>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { context: shared, lease: None, permit, sent_at: None }
    }

    /// Notes that the request is sent now.
    #[inline]
    pub(super) fn mark_sent(&mut self) {
        if self.context.measures_latency() {
            self.sent_at = Some(Instant::now());
        }
    }

    /// Ends one of several attempts.
    #[cold]
    pub(super) fn end_attempt(&mut self, outcome: Outcome) {
        if let Some(lease) = self.lease.take() {
            complete_lease(lease, self.sent_at.take(), outcome);
        }
    }

    /// Ends the request: that is what it says about its backend. One that is dropped without says
    /// nothing ([`Outcome::Cancelled`]).
    #[inline]
    pub fn complete(mut self, outcome: Outcome) {
        if let Some(lease) = self.lease.take() {
            complete_lease(lease, self.sent_at, outcome);
        }
    }
}

#[inline]
fn complete_lease<S>(lease: Lease<S>, sent: Option<Instant>, outcome: Outcome) {
    match sent {
        Some(sent) => {
            let now = Instant::now();
            lease.complete_with_latency(
                outcome,
                now.saturating_duration_since(sent),
                now.into_std(),
            );
        }
        None => lease.complete(outcome),
    }
}

impl<S> Drop for InFlight<S> {
    #[inline]
    fn drop(&mut self) {
        // First: who is told looks at once.
        drop(self.lease.take());
        drop(self.permit.take());
        self.context.notify_waiter();
    }
}

impl<S> fmt::Debug for InFlight<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// What becomes of a response, and of what its request holds.
///
/// [`OnResponse`] is what a balancer does by itself; with the feature `tower-http`, `OnBodyEnd` lets
/// the response's body hold the backend until its last byte.
pub trait Completion<S, Res>: Clone {
    /// What the balancer's caller gets.
    type Response;

    /// What a result says about the backend. [`Retry`](super::Retry) sends failures again, and does
    /// not hand them to [`complete_lease`](Self::complete_lease).
    fn outcome(&self, result: Result<&Res, &BoxError>) -> Outcome;

    /// Takes the result of a request, what [it says](Self::outcome), and what the request holds.
    /// Whatever is not handed on within the response is given back when this returns.
    ///
    /// # Errors
    /// Those of the request, or others.
    fn complete(
        self,
        result: Result<Res, BoxError>,
        outcome: Outcome,
        held: InFlight<S>,
    ) -> Result<Self::Response, BoxError>;
}

/// A request is over when its response is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnResponse<F = ResultClassifier>(pub(super) F);

impl<S, Res, F: Classify<Res> + Clone> Completion<S, Res> for OnResponse<F> {
    type Response = Res;

    #[inline]
    fn outcome(&self, result: Result<&Res, &BoxError>) -> Outcome {
        self.0.classify(result)
    }

    #[inline]
    fn complete(
        self,
        result: Result<Res, BoxError>,
        outcome: Outcome,
        held: InFlight<S>,
    ) -> Result<Res, BoxError> {
        held.complete(outcome);
        result
    }
}
