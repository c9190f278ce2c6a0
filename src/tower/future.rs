//! The response of a balancer, to come.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tower::{BoxError, Service};
use pin_project_lite::pin_project;

use super::BalanceError;
use super::held::{Finish, Held};
use super::search::Search;
use crate::scheduler::Flow;

pin_project! {
    /// The future of [`Balance`](super::Balance) and [`ReadyFirst`](super::ReadyFirst).
    ///
    /// Dropped at any point it gives back all that it holds: its place, its lease, and the copy of an
    /// instance with whatever that has reserved.
    #[must_use = "futures do nothing unless polled"]
    pub struct BalanceFuture<S, Req, C>
    where
        S: Service<Req>,
    {
        // `None` once it is over.
        parts: Option<(Held<S>, C)>,
        #[pin]
        state: State<S, Req, S::Future>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, F> {
        // Looks for an instance.
        Search { search: Search<S>, request: Option<Req> },
        // Awaits its response.
        Serve { #[pin] future: F },
        Failed { error: Option<BoxError> },
        Over,
    }
}

impl<S, Req, C> BalanceFuture<S, Req, C>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn search(request: Req, flow: Flow, held: Held<S>, finish: C) -> Self {
        let state = State::Search { search: Search::new(flow), request: Some(request) };
        Self { parts: Some((held, finish)), state }
    }

    #[inline]
    pub(super) fn serve(future: S::Future, held: Held<S>, finish: C) -> Self {
        Self { parts: Some((held, finish)), state: State::Serve { future } }
    }

    #[cold]
    pub(super) fn failed(error: BoxError) -> Self {
        Self { parts: None, state: State::Failed { error: Some(error) } }
    }
}

impl<S, Req, C> Future for BalanceFuture<S, Req, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Finish<S, S::Response>,
{
    type Output = Result<C::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Search { search, request } => {
                    let Some((held, _)) = this.parts else { return Poll::Pending };
                    let found = ready!(search.poll(cx, held));
                    match (found, request.take()) {
                        (Ok(mut service), Some(request)) => {
                            held.send();
                            let future = service.call(request);
                            this.state.set(State::Serve { future });
                        }
                        (Err(error), _) => {
                            this.state.set(State::Over);
                            *this.parts = None;
                            return Poll::Ready(Err(error));
                        }
                        (Ok(_), None) => return Poll::Pending,
                    }
                }
                StateProjection::Serve { future } => {
                    let result = ready!(future.poll(cx));
                    this.state.set(State::Over);
                    let Some((held, finish)) = this.parts.take() else { return Poll::Pending };
                    return Poll::Ready(finish.finish(result.map_err(Into::into), held));
                }
                StateProjection::Failed { error } => {
                    let error = error.take().unwrap_or_else(|| BalanceError::NotReady.into());
                    this.state.set(State::Over);
                    return Poll::Ready(Err(error));
                }
                // Polled after its end.
                StateProjection::Over => return Poll::Pending,
            }
        }
    }
}

impl<S, Req, C> fmt::Debug for BalanceFuture<S, Req, C>
where
    S: Service<Req>,
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
