//! The response of a balancer, to come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::tower::{BoxError, Service};
use pin_project_lite::pin_project;

use super::BalanceError;
use super::held::{Finish, Held};
use super::retry::{Again, Never};
use super::search::Search;
use crate::backend::Outcome;
use crate::scheduler::Flow;

pin_project! {
    /// The future of [`Balance`](super::Balance) and [`ReadyFirst`](super::ReadyFirst).
    ///
    /// Dropped at any point it gives back all that it holds: its place, its lease, and the copy of an
    /// instance with whatever that has reserved.
    #[must_use = "futures do nothing unless polled"]
    pub struct BalanceFuture<S, Req, C, R = Never>
    where
        S: Service<Req>,
        R: Again<Req>,
    {
        // `None` once it is over.
        parts: Option<(Held<S>, C)>,
        retry: R,
        attempt: u32,
        #[pin]
        state: State<S, Req, S::Future, R::Kept>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, F, Kept> {
        // Looks for an instance.
        Search { search: Search<S>, request: Option<Req> },
        // Awaits its response.
        // With what is needed to begin again.
        Serve { #[pin] future: F, kept: Option<(Kept, Flow)> },
        Failed { error: Option<BoxError> },
        Over,
    }
}

impl<S, Req, C, R> BalanceFuture<S, Req, C, R>
where
    S: Service<Req>,
    R: Again<Req>,
{
    #[inline]
    pub(super) fn search(request: Req, flow: Flow, held: Held<S>, (finish, retry): (C, R)) -> Self {
        let state = State::Search { search: Search::new(flow), request: Some(request) };
        Self { parts: Some((held, finish)), retry, attempt: 1, state }
    }

    #[inline]
    pub(super) fn serve(future: S::Future, held: Held<S>, (finish, retry): (C, R)) -> Self {
        let state = State::Serve { future, kept: None };
        Self { parts: Some((held, finish)), retry, attempt: 1, state }
    }

    /// The same request to another backend than the one that has it now, if there is one.
    #[cold]
    pub(super) fn beside(&self, request: Req, mut flow: Flow) -> Option<Self>
    where
        S: Clone,
        C: Clone,
    {
        let (State::Serve { .. }, Some((held, finish))) = (&self.state, &self.parts) else {
            return None;
        };
        flow.exclude(held.lease.as_ref()?.backend());
        let next = held.shared.pick(&flow).ok()?;
        let held = Held::new(Arc::clone(&held.shared), None);
        let state = State::Search { search: Search::at(flow, next), request: Some(request) };
        Some(Self {
            parts: Some((held, finish.clone())),
            retry: self.retry.clone(),
            attempt: 1,
            state,
        })
    }

    #[cold]
    pub(super) fn failed(error: BoxError, retry: R) -> Self {
        Self { parts: None, retry, attempt: 1, state: State::Failed { error: Some(error) } }
    }
}

impl<S, Req, C, R> Future for BalanceFuture<S, Req, C, R>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Finish<S, S::Response>,
    R: Again<Req>,
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
    C: Finish<S, S::Response>,
    R: Again<Req>,
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
                StateProjection::Search { search, request } => {
                    let Some((held, _)) = this.parts else { return Poll::Pending };
                    let found = ready!(search.poll(cx, held));
                    match (found, request.take()) {
                        (Ok(mut service), Some(request)) => {
                            held.send();
                            let kept = this.retry.keep(&request, *this.attempt);
                            let kept = kept.map(|kept| (kept, search.take_flow()));
                            let future = service.call(request);
                            this.state.set(State::Serve { future, kept });
                        }
                        (Err(error), _) => {
                            this.state.set(State::Over);
                            *this.parts = None;
                            return Poll::Ready((Err(error), Outcome::ConnectError));
                        }
                        (Ok(_), None) => return Poll::Pending,
                    }
                }
                StateProjection::Serve { future, kept } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    let Some((held, finish)) = &mut this.parts else { return Poll::Pending };
                    let outcome = finish.outcome(result.as_ref());
                    let again = kept.take().and_then(|kept| again(this.retry, kept, held, outcome));
                    if let Some((request, search)) = again {
                        *this.attempt += 1;
                        this.state.set(State::Search { search, request: Some(request) });
                        continue;
                    }
                    this.state.set(State::Over);
                    let Some((held, finish)) = this.parts.take() else { return Poll::Pending };
                    return Poll::Ready((finish.finish(result, outcome, held), outcome));
                }
                StateProjection::Failed { error } => {
                    let error = error.take().unwrap_or_else(|| BalanceError::NotReady.into());
                    this.state.set(State::Over);
                    return Poll::Ready((Err(error), Outcome::ConnectError));
                }
                // Polled after its end.
                StateProjection::Over => return Poll::Pending,
            }
        }
    }
}

/// Ends an attempt that failed and begins another, if it may be sent again and there is somebody else
/// to send it to.
fn again<S, Req, R: Again<Req>>(
    retry: &R,
    (kept, mut flow): (R::Kept, Flow),
    held: &mut Held<S>,
    outcome: Outcome,
) -> Option<(Req, Search<S>)>
where
    S: Clone,
{
    if !outcome.is_failure() {
        return None;
    }
    flow.exclude(held.lease.as_ref()?.backend());
    let next = held.shared.pick(&flow).ok()?;
    let request = retry.again(kept)?;
    held.end_attempt(outcome);
    Some((request, Search::at(flow, next)))
}

impl<S, Req, C, R> fmt::Debug for BalanceFuture<S, Req, C, R>
where
    S: Service<Req>,
    R: Again<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Search { .. } => "searching",
            State::Serve { .. } => "awaiting the response",
            State::Failed { .. } => "failed",
            State::Over => "over",
        };
        let held = self.parts.as_ref().map(|(held, _)| held);
        f.debug_struct("BalanceFuture").field("state", &state).field("held", &held).finish()
    }
}
