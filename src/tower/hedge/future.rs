//! The future of a request that may be hedged.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tower::retry::budget::Budget;
use ::tower::{BoxError, Service};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::stats::HedgeStats;
use crate::backend::Outcome;
use crate::scheduler::Flow;
use crate::tower::completion::Completion;
use crate::tower::future::BalanceFuture;
use crate::tower::retry::RetryPolicy;

pin_project! {
    /// The future of [`Hedged`](super::Hedged).
    ///
    /// # Cancel safety
    /// Dropped at any point, it returns what both of its requests hold.
    #[must_use = "futures do nothing unless polled"]
    pub struct HedgeFuture<S, Req, C, R>
    where
        S: Service<Req>,
        R: RetryPolicy<Req>,
    {
        // Each is `None` after it has ended; the second also before it is sent.
        #[pin]
        first: Option<BalanceFuture<S, Req, C, R>>,
        #[pin]
        second: Option<BalanceFuture<S, Req, C, R>>,
        #[pin]
        timer: Option<Sleep>,
        // The second request and when to send it; `None` after that, or if it may not be sent.
        second_request: Option<(Instant, Req, Flow)>,
        started_at: Instant,
        budget: Arc<dyn Budget + Send + Sync>,
        stats: HedgeStats,
    }
}

impl<S, Req, C, R> HedgeFuture<S, Req, C, R>
where
    S: Service<Req>,
    R: RetryPolicy<Req>,
{
    pub(super) fn new(
        first: BalanceFuture<S, Req, C, R>,
        started_at: Instant,
        second_request: Option<(Instant, Req, Flow)>,
        budget: Arc<dyn Budget + Send + Sync>,
        stats: HedgeStats,
    ) -> Self {
        Self {
            first: Some(first),
            second: None,
            timer: None,
            second_request,
            started_at,
            budget,
            stats,
        }
    }
}

impl<S, Req, C, R> Future for HedgeFuture<S, Req, C, R>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Completion<S, S::Response>,
    R: RetryPolicy<Req>,
{
    type Output = Result<C::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let record = |outcome: Outcome, max: Option<Duration>| {
            if !outcome.is_failure() {
                let now = Instant::now();
                let latency = now.saturating_duration_since(*this.started_at);
                let latency = max.map_or(latency, |max| latency.min(max));
                this.stats.record_latency(latency, now);
            }
        };
        loop {
            if let Some(first) = this.first.as_mut().as_pin_mut()
                && let Poll::Ready((result, outcome)) = first.poll_outcome(cx)
            {
                this.first.set(None);
                if !outcome.is_failure() || this.second.is_none() {
                    *this.second_request = None;
                    this.second.set(None);
                    record(outcome, None);
                    return Poll::Ready(result);
                }
            }
            if let Some(second) = this.second.as_mut().as_pin_mut()
                && let Poll::Ready((result, outcome)) = second.poll_outcome(cx)
            {
                this.second.set(None);
                if !outcome.is_failure() || this.first.is_none() {
                    this.first.set(None);
                    if !outcome.is_failure() {
                        this.stats.count_won();
                    }
                    record(outcome, this.stats.delay());
                    return Poll::Ready(result);
                }
            }
            let Some((send_at, ..)) = this.second_request else { return Poll::Pending };
            if this.timer.is_none() {
                this.timer.set(Some(sleep_until(*send_at)));
            }
            if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                ready!(timer.poll(cx));
            }
            this.timer.set(None);
            let (second, first) = (this.second_request.take(), this.first.as_ref().as_pin_ref());
            let second = second.zip(first).and_then(|((_, request, flow), first)| {
                let second = first.get_ref().hedge_to_other_backend(request, flow)?;
                this.budget.withdraw().then_some(second)
            });
            if second.is_none() {
                return Poll::Pending;
            }
            this.stats.count_sent();
            this.second.set(second);
        }
    }
}

impl<S, Req, C, R> fmt::Debug for HedgeFuture<S, Req, C, R>
where
    S: Service<Req>,
    R: RetryPolicy<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeFuture")
            .field("first", &self.first)
            .field("second", &self.second)
            .finish_non_exhaustive()
    }
}
