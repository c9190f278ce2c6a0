//! The response of a balancer, to come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::tower::{BoxError, Service};
use pin_project_lite::pin_project;

use super::BalanceError;
use super::in_flight::{Completion, InFlight};
use super::retry::{NoRetry, RetryPolicy};
use super::search::InstanceSearch;
use crate::backend::Outcome;
use crate::scheduler::Flow;

pin_project! {
    /// The future of [`Balance`](super::Balance) and [`ReadyFirst`](super::ReadyFirst).
    ///
    /// Dropped at any point it gives back all that it holds: its place, its lease, and the copy of an
    /// instance with whatever that has reserved.
    #[must_use = "futures do nothing unless polled"]
    pub struct BalanceFuture<S, Req, C, R = NoRetry>
    where
        S: Service<Req>,
        R: RetryPolicy<Req>,
    {
        // `None` once it is over.
        in_flight: Option<(InFlight<S>, C)>,
        retry: R,
        attempt: u32,
        #[pin]
        state: BalanceFutureState<S, Req, S::Future, R::Kept>,
    }
}

pin_project! {
    #[project = BalanceFutureStateProjection]
    enum BalanceFutureState<S, Req, F, Kept> {
        // Looks for an instance.
        Search { search: InstanceSearch<S>, request: Option<Req> },
        // Awaits its response.
        // With what is needed to begin again.
        Call { #[pin] future: F, retry_copy: Option<(Kept, Flow)> },
        Failed { error: Option<BoxError> },
        Done,
    }
}

impl<S, Req, C, R> BalanceFuture<S, Req, C, R>
where
    S: Service<Req>,
    R: RetryPolicy<Req>,
{
    #[inline]
    pub(super) fn from_search(
        request: Req,
        flow: Flow,
        held: InFlight<S>,
        (finish, retry): (C, R),
    ) -> Self {
        let state = BalanceFutureState::Search {
            search: InstanceSearch::new(flow),
            request: Some(request),
        };
        Self { in_flight: Some((held, finish)), retry, attempt: 1, state }
    }

    #[inline]
    pub(super) fn from_call(future: S::Future, held: InFlight<S>, (finish, retry): (C, R)) -> Self {
        let state = BalanceFutureState::Call { future, retry_copy: None };
        Self { in_flight: Some((held, finish)), retry, attempt: 1, state }
    }

    /// The same request to another backend than the one that has it now, if there is one.
    #[cold]
    pub(super) fn hedge_to_other_backend(&self, request: Req, mut flow: Flow) -> Option<Self>
    where
        S: Clone,
        C: Clone,
    {
        let (BalanceFutureState::Call { .. }, Some((held, finish))) =
            (&self.state, &self.in_flight)
        else {
            return None;
        };
        flow.exclude(held.lease.as_ref()?.backend());
        let next = held.context.pick(&flow).ok()?;
        let held = InFlight::new(Arc::clone(&held.context), None);
        let state = BalanceFutureState::Search {
            search: InstanceSearch::with_picked(flow, next),
            request: Some(request),
        };
        Some(Self {
            in_flight: Some((held, finish.clone())),
            retry: self.retry.clone(),
            attempt: 1,
            state,
        })
    }

    #[cold]
    pub(super) fn from_error(error: BoxError, retry: R) -> Self {
        Self {
            in_flight: None,
            retry,
            attempt: 1,
            state: BalanceFutureState::Failed { error: Some(error) },
        }
    }
}

impl<S, Req, C, R> Future for BalanceFuture<S, Req, C, R>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Completion<S, S::Response>,
    R: RetryPolicy<Req>,
{
    type Output = Result<C::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_outcome(cx).map(|(result, _)| result)
    }
}

impl<S, Req, C, R> BalanceFuture<S, Req, C, R>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Completion<S, S::Response>,
    R: RetryPolicy<Req>,
{
    /// As `poll`, with what the result says.
    #[inline]
    pub(super) fn poll_outcome(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<(Result<C::Response, BoxError>, Outcome)> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                BalanceFutureStateProjection::Search { search, request } => {
                    let Some((held, _)) = this.in_flight else { return Poll::Pending };
                    let found = ready!(search.poll(cx, held));
                    match (found, request.take()) {
                        (Ok(mut service), Some(request)) => {
                            held.mark_sent();
                            let kept = this.retry.clone_request(&request, *this.attempt);
                            let kept = kept.map(|kept| (kept, search.take_flow()));
                            let future = service.call(request);
                            this.state.set(BalanceFutureState::Call { future, retry_copy: kept });
                        }
                        (Err(error), _) => {
                            this.state.set(BalanceFutureState::Done);
                            *this.in_flight = None;
                            return Poll::Ready((Err(error), Outcome::ConnectError));
                        }
                        (Ok(_), None) => return Poll::Pending,
                    }
                }
                BalanceFutureStateProjection::Call { future, retry_copy: kept } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    let Some((held, finish)) = &mut this.in_flight else { return Poll::Pending };
                    let outcome = finish.outcome(result.as_ref());
                    let again =
                        kept.take().and_then(|kept| start_retry(this.retry, kept, held, outcome));
                    if let Some((request, search)) = again {
                        *this.attempt += 1;
                        this.state
                            .set(BalanceFutureState::Search { search, request: Some(request) });
                        continue;
                    }
                    this.state.set(BalanceFutureState::Done);
                    let Some((held, finish)) = this.in_flight.take() else { return Poll::Pending };
                    return Poll::Ready((finish.complete(result, outcome, held), outcome));
                }
                BalanceFutureStateProjection::Failed { error } => {
                    let error = error.take().unwrap_or_else(|| BalanceError::NotReady.into());
                    this.state.set(BalanceFutureState::Done);
                    return Poll::Ready((Err(error), Outcome::ConnectError));
                }
                // Polled after its end.
                BalanceFutureStateProjection::Done => return Poll::Pending,
            }
        }
    }
}

/// Ends an attempt that failed and begins another, if it may be sent again and there is somebody else
/// to send it to.
fn start_retry<S, Req, R: RetryPolicy<Req>>(
    retry: &R,
    (kept, mut flow): (R::Kept, Flow),
    held: &mut InFlight<S>,
    outcome: Outcome,
) -> Option<(Req, InstanceSearch<S>)>
where
    S: Clone,
{
    if !outcome.is_failure() {
        return None;
    }
    flow.exclude(held.lease.as_ref()?.backend());
    let next = held.context.pick(&flow).ok()?;
    let request = retry.withdraw_retry(kept)?;
    held.end_attempt(outcome);
    Some((request, InstanceSearch::with_picked(flow, next)))
}

impl<S, Req, C, R> fmt::Debug for BalanceFuture<S, Req, C, R>
where
    S: Service<Req>,
    R: RetryPolicy<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            BalanceFutureState::Search { .. } => "searching",
            BalanceFutureState::Call { .. } => "awaiting the response",
            BalanceFutureState::Failed { .. } => "failed",
            BalanceFutureState::Done => "over",
        };
        let held = self.in_flight.as_ref().map(|(held, _)| held);
        f.debug_struct("BalanceFuture").field("state", &state).field("held", &held).finish()
    }
}
