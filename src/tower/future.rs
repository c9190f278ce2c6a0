//! The future of a balanced request.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::tower::{BoxError, Service};
use pin_project_lite::pin_project;
use tokio::task::{Unconstrained, unconstrained};
use tokio::time::{Sleep, sleep};

use super::completion::Completion;
use super::error::BalanceError;
use super::in_flight::InFlight;
use super::retry::{NoRetry, RetryPolicy};
use super::search::InstanceSearch;
use crate::backend::Outcome;
use crate::scheduler::Flow;

pin_project! {
    /// The future of [`Balance`](super::Balance) and [`ReadyFirst`](super::ReadyFirst).
    ///
    /// # Cancel safety
    /// Dropped at any point, it returns its permit and its lease, and drops its clone of an instance
    /// with what that has reserved.
    #[must_use = "futures do nothing unless polled"]
    pub struct BalanceFuture<S, Req, C, R = NoRetry>
    where
        S: Service<Req>,
        R: RetryPolicy<Req>,
    {
        // `None` after the future has completed.
        in_flight: Option<(InFlight<S>, C)>,
        retry: R,
        attempt: u32,
        #[pin]
        state: BalanceFutureState<S, Req, S::Future, R::RequestCopy>,
    }
}

pin_project! {
    #[project = BalanceFutureStateProjection]
    enum BalanceFutureState<S, Req, F, RequestCopy> {
        // Searches for a ready instance.
        Search { search: InstanceSearch<S>, request: Option<Req> },
        // Awaits the response. The copy of the request and its flow are for a retry.
        Call {
            #[pin]
            future: F,
            retry_copy: Option<(RequestCopy, Flow)>,
            timer: Option<AttemptTimer>,
        },
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
        search: InstanceSearch<S>,
        in_flight: InFlight<S>,
        completion: C,
        retry: R,
    ) -> Self {
        let state = BalanceFutureState::Search { search, request: Some(request) };
        Self { in_flight: Some((in_flight, completion)), retry, attempt: 1, state }
    }

    #[inline]
    pub(super) fn from_call(
        future: S::Future,
        in_flight: InFlight<S>,
        completion: C,
        retry: R,
    ) -> Self {
        let state = BalanceFutureState::Call { future, retry_copy: None, timer: None };
        Self { in_flight: Some((in_flight, completion)), retry, attempt: 1, state }
    }

    /// Returns a future that sends the same request to another backend, if there is one.
    #[cold]
    pub(super) fn hedge_to_other_backend(&self, request: Req, mut flow: Flow) -> Option<Self>
    where
        S: Clone,
        C: Clone,
    {
        let (BalanceFutureState::Call { .. }, Some((in_flight, completion))) =
            (&self.state, &self.in_flight)
        else {
            return None;
        };
        flow.exclude(in_flight.lease.as_ref()?.backend());
        let lease = in_flight.context.pick(&flow).ok()?;
        let in_flight = InFlight::new(Arc::clone(&in_flight.context), None);
        let state = BalanceFutureState::Search {
            search: InstanceSearch::with_picked(flow, lease),
            request: Some(request),
        };
        Some(Self {
            in_flight: Some((in_flight, completion.clone())),
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
    /// Polls like `poll`, and also returns the outcome of the result.
    #[inline]
    pub(super) fn poll_outcome(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<(Result<C::Response, BoxError>, Outcome)> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                BalanceFutureStateProjection::Search { search, request } => {
                    let Some((in_flight, _)) = this.in_flight else { return Poll::Pending };
                    let found = ready!(search.poll(cx, in_flight));
                    match (found, request.take()) {
                        (Ok(mut service), Some(request)) => {
                            in_flight.mark_sent();
                            let copy = this.retry.clone_request(&request, *this.attempt);
                            let retry_copy = copy.map(|copy| (copy, search.take_flow()));
                            let future = service.call(request);
                            let timer = None;
                            this.state.set(BalanceFutureState::Call { future, retry_copy, timer });
                        }
                        (Err(error), _) => {
                            this.state.set(BalanceFutureState::Done);
                            *this.in_flight = None;
                            return Poll::Ready((Err(error), Outcome::ConnectError));
                        }
                        (Ok(_), None) => return Poll::Pending,
                    }
                }
                BalanceFutureStateProjection::Call { future, retry_copy, timer } => {
                    let Some((in_flight, completion)) = &mut this.in_flight else {
                        return Poll::Pending;
                    };
                    let (result, outcome) = match future.poll(cx) {
                        Poll::Ready(result) => {
                            let result = result.map_err(Into::into);
                            let outcome = completion.outcome(result.as_ref());
                            (result.map_err(|error| name_error(in_flight, error)), outcome)
                        }
                        Poll::Pending => {
                            let error = ready!(poll_attempt_timeout(cx, timer, in_flight));
                            (Err(error.into()), Outcome::Timeout)
                        }
                    };
                    let retry = retry_copy
                        .take()
                        .and_then(|copy| start_retry(this.retry, copy, in_flight, outcome));
                    if let Some((request, search)) = retry {
                        *this.attempt += 1;
                        this.state
                            .set(BalanceFutureState::Search { search, request: Some(request) });
                        continue;
                    }
                    this.state.set(BalanceFutureState::Done);
                    let Some((in_flight, completion)) = this.in_flight.take() else {
                        return Poll::Pending;
                    };
                    return Poll::Ready((completion.complete(result, outcome, in_flight), outcome));
                }
                BalanceFutureStateProjection::Failed { error } => {
                    let error = error.take().unwrap_or_else(|| BalanceError::NotReady.into());
                    this.state.set(BalanceFutureState::Done);
                    return Poll::Ready((Err(error), Outcome::ConnectError));
                }
                // Polled after completion.
                BalanceFutureStateProjection::Done => return Poll::Pending,
            }
        }
    }
}

/// Fires when an attempt has taken too long. Unconstrained: an instance that has used up its task's
/// budget does not put off the timeout.
type AttemptTimer = Pin<Box<Unconstrained<Sleep>>>;

/// Returns the error of an attempt that has taken longer than the timeout of the balancer. Starts the
/// timer at the first call.
#[inline]
fn poll_attempt_timeout<S>(
    cx: &mut Context<'_>,
    timer: &mut Option<AttemptTimer>,
    in_flight: &InFlight<S>,
) -> Poll<BalanceError> {
    let (Some(timeout), Some(lease)) = (in_flight.context.config.timeout, &in_flight.lease) else {
        return Poll::Pending;
    };
    let timer = timer.get_or_insert_with(|| Box::pin(unconstrained(sleep(timeout))));
    ready!(timer.as_mut().poll(cx));
    Poll::Ready(BalanceError::Timeout { backend: lease.id().clone(), timeout })
}

/// Returns the error of the instance that has a request as the caller receives it.
#[cold]
fn name_error<S>(in_flight: &InFlight<S>, error: BoxError) -> BoxError {
    match in_flight.id() {
        Some(id) => in_flight.context.name_error(id, error),
        None => error,
    }
}

/// Ends a failed attempt and starts another, if the outcome is a failure, another backend can be
/// picked and the retry budget allows it.
fn start_retry<S, Req, R: RetryPolicy<Req>>(
    retry: &R,
    (copy, mut flow): (R::RequestCopy, Flow),
    in_flight: &mut InFlight<S>,
    outcome: Outcome,
) -> Option<(Req, InstanceSearch<S>)>
where
    S: Clone,
{
    if !outcome.is_failure() {
        return None;
    }
    flow.exclude(in_flight.lease.as_ref()?.backend());
    let lease = in_flight.context.pick(&flow).ok()?;
    let request = retry.withdraw_retry(copy)?;
    in_flight.end_attempt(outcome);
    Some((request, InstanceSearch::with_picked(flow, lease)))
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
            BalanceFutureState::Done => "done",
        };
        let in_flight = self.in_flight.as_ref().map(|(in_flight, _)| in_flight);
        f.debug_struct("BalanceFuture")
            .field("state", &state)
            .field("in_flight", &in_flight)
            .finish()
    }
}
