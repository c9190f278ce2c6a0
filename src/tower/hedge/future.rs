//! The response of a request that may be sent twice.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tower::{BoxError, Service};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Hedge;
use crate::backend::Outcome;
use crate::scheduler::Flow;
use crate::sync::Ordering;
use crate::tower::future::BalanceFuture;
use crate::tower::in_flight::Completion;
use crate::tower::retry::RetryPolicy;

pin_project! {
    /// The future of [`Hedged`](super::Hedged).
    ///
    /// Dropped at any point it gives back what both of its requests hold.
    #[must_use = "futures do nothing unless polled"]
    pub struct HedgeFuture<S, Req, C, R, F>
    where
        S: Service<Req>,
        R: RetryPolicy<Req>,
    {
        // Each `None` once it is over, the second also before it is sent.
        #[pin]
        first: Option<BalanceFuture<S, Req, C, R>>,
        #[pin]
        second: Option<BalanceFuture<S, Req, C, R>>,
        #[pin]
        timer: Option<Sleep>,
        // When to send the second, and what; `None` once it is, or if it will not be.
        second_request: Option<(Instant, Req, Flow)>,
        started_at: Instant,
        hedge: Hedge<F>,
    }
}

impl<S, Req, C, R, F> HedgeFuture<S, Req, C, R, F>
where
    S: Service<Req>,
    R: RetryPolicy<Req>,
{
    pub(super) fn new(
        first: BalanceFuture<S, Req, C, R>,
        begun: Instant,
        plan: Option<(Instant, Req, Flow)>,
        hedge: Hedge<F>,
    ) -> Self {
        Self {
            first: Some(first),
            second: None,
            timer: None,
            second_request: plan,
            started_at: begun,
            hedge,
        }
    }
}

impl<S, Req, C, R, F> Future for HedgeFuture<S, Req, C, R, F>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Completion<S, S::Response>,
    R: RetryPolicy<Req>,
{
    type Output = Result<C::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let end = |outcome: Outcome, at_most: Option<Duration>| {
            if !outcome.is_failure() {
                let now = Instant::now();
                let took = now.saturating_duration_since(*this.started_at);
                let took = at_most.map_or(took, |most| took.min(most));
                this.hedge.stats.delay.record(took, now);
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
                    end(outcome, None);
                    return Poll::Ready(result);
                }
            }
            if let Some(second) = this.second.as_mut().as_pin_mut()
                && let Poll::Ready((result, outcome)) = second.poll_outcome(cx)
            {
                this.second.set(None);
                if !outcome.is_failure() || this.first.is_none() {
                    this.first.set(None);
                    let good = u64::from(!outcome.is_failure());
                    this.hedge.stats.won.fetch_add(good, Ordering::Relaxed);
                    end(outcome, this.hedge.delay());
                    return Poll::Ready(result);
                }
            }
            let Some((when, ..)) = this.second_request else { return Poll::Pending };
            if this.timer.is_none() {
                this.timer.set(Some(sleep_until(*when)));
            }
            if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                ready!(timer.poll(cx));
            }
            this.timer.set(None);
            let (plan, first) = (this.second_request.take(), this.first.as_ref().as_pin_ref());
            let second = plan.zip(first).and_then(|((_, request, flow), first)| {
                let second = first.get_ref().hedge_to_other_backend(request, flow)?;
                this.hedge.budget.withdraw().then_some(second)
            });
            if second.is_none() {
                return Poll::Pending;
            }
            this.hedge.stats.sent.fetch_add(1, Ordering::Relaxed);
            this.second.set(second);
        }
    }
}

impl<S, Req, C, R, F> fmt::Debug for HedgeFuture<S, Req, C, R, F>
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
