//! A balancer that hedges requests, as a service.

use std::task::{Context, Poll};

use ::tower::{BoxError, Service};
use tokio::time::Instant;

use super::future::HedgeFuture;
use super::policy::Hedge;
use super::stats::HedgeStats;
use crate::tower::balance::Balance;
use crate::tower::completion::Completion;
use crate::tower::key::RequestKey;
use crate::tower::retry::RetryPolicy;

/// A [`Balance`] whose slow requests are sent to a second backend; made by [`Balance::hedge`].
#[derive(Debug)]
pub struct Hedged<S, K, C, R, F> {
    balance: Balance<S, K, C, R>,
    hedge: Hedge<F>,
    stats: HedgeStats,
}

impl<S, K, C, R> Balance<S, K, C, R> {
    /// Sends requests whose answer takes long to a second backend; see [`Hedge`].
    #[must_use]
    pub fn hedge<F>(self, hedge: Hedge<F>) -> Hedged<S, K, C, R, F> {
        let stats = HedgeStats::new(hedge.new_delay());
        Hedged { balance: self, hedge, stats }
    }
}

impl<S, K, C, R, F> Hedged<S, K, C, R, F> {
    /// Returns the balancer that sends the requests.
    #[must_use]
    pub fn balance(&self) -> &Balance<S, K, C, R> {
        &self.balance
    }

    /// Returns the statistics of this service and its clones.
    #[must_use]
    pub fn stats(&self) -> &HedgeStats {
        &self.stats
    }
}

impl<S, K, C, R, F, Req> Service<Req> for Hedged<S, K, C, R, F>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: RequestKey<Req>,
    C: Completion<S, S::Response>,
    R: RetryPolicy<Req>,
    F: Fn(&Req) -> Option<Req>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = HedgeFuture<S, Req, C, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.balance.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let started_at = Instant::now();
        let budget = &self.hedge.budget;
        budget.deposit();
        let second_request = self.stats.delay().and_then(|delay| {
            let clone = (self.hedge.clone_request)(&request)?;
            Some((started_at.checked_add(delay)?, clone, self.balance.scheduler_flow(&request)?))
        });
        let (budget, stats) = (budget.clone(), self.stats.clone());
        HedgeFuture::new(self.balance.call(request), started_at, second_request, budget, stats)
    }
}

impl<S, K: Clone, C: Clone, R: Clone, F: Clone> Clone for Hedged<S, K, C, R, F> {
    fn clone(&self) -> Self {
        Self { balance: self.balance.clone(), hedge: self.hedge.clone(), stats: self.stats.clone() }
    }
}
