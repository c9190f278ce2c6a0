//! The search for an instance that is ready for a request.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tower::{BoxError, Service};

use super::context::BalanceContext;
use super::error::BalanceError;
use super::in_flight::InFlight;
use super::wait::BackendWait;
use crate::backend::Outcome;
use crate::balancer::{Lease, PickError};
use crate::scheduler::Flow;

/// How many rounds one poll searches before it yields to other tasks.
pub(super) const MAX_ROUNDS_PER_POLL: usize = 8;

/// How many failing instances one search asks; a bound on the time that it takes.
pub(super) const MAX_BROKEN_INSTANCES: usize = 32;

/// A search for an instance.
///
/// It asks the instance that the scheduler picks; while that is busy it asks others, each picked
/// without the ones before, and takes the first that is ready. It keeps the busy instance that was
/// picked first, whose readiness wakes the search; others are asked again after a change or an
/// interval.
pub(super) struct InstanceSearch<S> {
    flow: Flow,
    /// The busy instance that was picked first.
    first_picked: Option<(S, Lease<S>)>,
    wait: Option<Box<BackendWait>>,
}

/// The result of one round of a search.
enum PollRound<S> {
    Found(S, Lease<S>),
    /// All instances that were asked are busy; their number.
    Busy(usize),
    NoBackend(PickError),
    /// Every instance that could be picked failed; the error of the last.
    Broken(BoxError),
}

impl<S> InstanceSearch<S> {
    #[inline]
    pub(super) fn new(flow: Flow) -> Self {
        Self { flow, first_picked: None, wait: None }
    }

    /// Creates a search that first asks the instance of `lease`.
    #[cold]
    pub(super) fn with_picked(flow: Flow, lease: Lease<S>) -> Self
    where
        S: Clone,
    {
        Self { flow, first_picked: Some((lease.target().clone(), lease)), wait: None }
    }

    /// Takes the flow of the request, for the search of a retry.
    pub(super) fn take_flow(&mut self) -> Flow {
        std::mem::take(&mut self.flow)
    }

    /// Polls for a ready instance, and puts its lease into `in_flight`.
    #[inline]
    pub(super) fn poll<Req>(
        &mut self,
        cx: &mut Context<'_>,
        in_flight: &mut InFlight<S>,
    ) -> Poll<Result<S, BoxError>>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        // The usual case first: the first pick is ready.
        if self.wait.is_none() && self.first_picked.is_none() {
            if in_flight.context.balancer.reads_time() {
                self.flow =
                    std::mem::take(&mut self.flow).time(tokio::time::Instant::now().into_std());
            }
            if let Ok(lease) = in_flight.context.pick(&self.flow) {
                let mut service = lease.target().clone();
                match service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        in_flight.lease = Some(lease);
                        return Poll::Ready(Ok(service));
                    }
                    Poll::Pending => self.first_picked = Some((service, lease)),
                    Poll::Ready(Err(error)) => {
                        let context = &in_flight.context;
                        if let Some(error) = self.exclude_broken(context, lease, error.into()) {
                            return Poll::Ready(Err(error));
                        }
                    }
                }
            }
        }
        self.poll_candidates(cx, in_flight)
    }

    #[cold]
    fn poll_candidates<Req>(
        &mut self,
        cx: &mut Context<'_>,
        in_flight: &mut InFlight<S>,
    ) -> Poll<Result<S, BoxError>>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        for _ in 0..MAX_ROUNDS_PER_POLL {
            let error = match self.poll_round(cx, &in_flight.context) {
                PollRound::Found(service, lease) => {
                    in_flight.lease = Some(lease);
                    (self.first_picked, self.wait) = (None, None);
                    return Poll::Ready(Ok(service));
                }
                PollRound::Broken(error) => return Poll::Ready(Err(error)),
                round => match &mut self.wait {
                    None if in_flight.context.config.wait_timeout.is_zero() => {
                        return Poll::Ready(Err(search_error(round, Duration::ZERO)));
                    }
                    None => {
                        self.wait = Some(in_flight.context.start_wait());
                        continue;
                    }
                    Some(wait) => match wait.poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(waited)) => search_error(round, waited),
                    },
                },
            };
            (self.first_picked, self.wait) = (None, None);
            return Poll::Ready(Err(error));
        }
        // Notified in every round: yield to other tasks, then continue.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_round<Req>(&mut self, cx: &mut Context<'_>, context: &BalanceContext<S>) -> PollRound<S>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        let mut asked = 0;
        let mut flow = self.flow.clone();
        let first = self.first_picked.take().filter(|(_, lease)| context.is_eligible(lease));
        if let Some((mut service, lease)) = first {
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return PollRound::Found(service, lease),
                Poll::Ready(Err(error)) => {
                    flow.exclude(lease.backend());
                    if let Some(error) = self.exclude_broken(context, lease, error.into()) {
                        return PollRound::Broken(error);
                    }
                }
                Poll::Pending => {
                    asked = 1;
                    flow.exclude(lease.backend());
                    self.first_picked = Some((service, lease));
                }
            }
        }
        while asked < context.config.candidates {
            let lease = match context.pick(&flow) {
                Ok(lease) => lease,
                Err(_) if asked > 0 => break,
                Err(reason) => return PollRound::NoBackend(reason),
            };
            flow.exclude(lease.backend());
            let mut service = lease.target().clone();
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return PollRound::Found(service, lease),
                Poll::Ready(Err(error)) => {
                    if let Some(error) = self.exclude_broken(context, lease, error.into()) {
                        return PollRound::Broken(error);
                    }
                }
                Poll::Pending => {
                    asked += 1;
                    if self.first_picked.is_none() {
                        self.first_picked = Some((service, lease));
                    }
                }
            }
        }
        PollRound::Busy(asked)
    }

    /// Excludes an instance whose `poll_ready` failed from this search; returns the error if no other
    /// instance is left to try. The next request asks a new clone: the health of the backend decides
    /// whether it is up, not this error.
    #[cold]
    fn exclude_broken(
        &mut self,
        context: &BalanceContext<S>,
        lease: Lease<S>,
        error: BoxError,
    ) -> Option<BoxError> {
        self.flow.exclude(lease.backend());
        let error = context.name_error(lease.id(), error);
        lease.complete(Outcome::ConnectError);
        let is_exhausted = self.flow.view().tried_count() >= MAX_BROKEN_INSTANCES;
        (is_exhausted || context.pick(&self.flow).is_err()).then_some(error)
    }
}

#[cold]
fn search_error<S>(round: PollRound<S>, waited: Duration) -> BoxError {
    match round {
        PollRound::Broken(error) => error,
        PollRound::NoBackend(reason) => BalanceError::NoBackend { reason, waited }.into(),
        PollRound::Busy(asked) => BalanceError::Busy { asked, waited }.into(),
        PollRound::Found(..) => BalanceError::NotReady.into(),
    }
}

impl<S> fmt::Debug for InstanceSearch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceSearch")
            .field("flow", &self.flow)
            .field("first_picked", &self.first_picked.as_ref().map(|(_, lease)| lease))
            .field("wait", &self.wait)
            .finish()
    }
}
