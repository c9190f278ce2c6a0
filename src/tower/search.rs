//! From a request to an instance that is ready for it.

use std::fmt;
use std::task::{Context, Poll};

use ::tower::{BoxError, Service};

use super::BalanceError;
use super::context::BalanceContext;
use super::in_flight::InFlight;
use super::wait::BackendWait;
use crate::backend::Outcome;
use crate::balancer::{Lease, PickError};
use crate::scheduler::Flow;

/// How often one poll looks before others have their turn.
const MAX_ROUNDS_PER_POLL: usize = 8;

/// How many broken instances one request asks: nothing is lost by asking all there are, but time.
pub(super) const MAX_BROKEN_INSTANCES: usize = 32;

/// A search for an instance.
///
/// It asks the one that the scheduler picks, and where that is busy others, each by a pick without
/// those before; the first that is ready is it. The one that was picked first is kept and waited for,
/// so that its word wakes the search; for the others it looks again whenever something changes.
pub(super) struct InstanceSearch<S> {
    flow: Flow,
    /// The first that was picked, and was busy.
    first_picked: Option<(S, Lease<S>)>,
    wait: Option<Box<BackendWait>>,
}

/// What a look has come to.
enum PollRound<S> {
    Found(S, Lease<S>),
    /// All that were asked are busy.
    Busy(usize),
    NoBackend(PickError),
    Broken(BoxError),
}

impl<S> InstanceSearch<S> {
    #[inline]
    pub(super) fn new(flow: Flow) -> Self {
        Self { flow, first_picked: None, wait: None }
    }

    /// Begins with one that was picked already.
    #[cold]
    pub(super) fn with_picked(flow: Flow, picked: Lease<S>) -> Self
    where
        S: Clone,
    {
        Self { flow, first_picked: Some((picked.target().clone(), picked)), wait: None }
    }

    /// What is known of the request, for another search.
    pub(super) fn take_flow(&mut self) -> Flow {
        std::mem::take(&mut self.flow)
    }

    /// Finds one, and puts its lease where the request's things are.
    #[inline]
    pub(super) fn poll<Req>(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut InFlight<S>,
    ) -> Poll<Result<S, BoxError>>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        // What nearly always happens, without the rest.
        if self.wait.is_none() && self.first_picked.is_none() {
            if held.context.balancer.reads_time() {
                self.flow =
                    std::mem::take(&mut self.flow).time(tokio::time::Instant::now().into_std());
            }
            if let Ok(lease) = held.context.pick(&self.flow) {
                let mut service = lease.target().clone();
                match service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        held.lease = Some(lease);
                        return Poll::Ready(Ok(service));
                    }
                    Poll::Pending => self.first_picked = Some((service, lease)),
                    Poll::Ready(Err(error)) => {
                        if let Some(error) = self.exclude_broken(&held.context, lease, error.into())
                        {
                            return Poll::Ready(Err(error));
                        }
                    }
                }
            }
        }
        self.poll_candidates(cx, held)
    }

    #[cold]
    fn poll_candidates<Req>(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut InFlight<S>,
    ) -> Poll<Result<S, BoxError>>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        for _ in 0..MAX_ROUNDS_PER_POLL {
            let waited = match self.poll_round(cx, &held.context) {
                PollRound::Found(service, lease) => {
                    held.lease = Some(lease);
                    (self.first_picked, self.wait) = (None, None);
                    return Poll::Ready(Ok(service));
                }
                PollRound::Broken(error) => return Poll::Ready(Err(error)),
                look => match &mut self.wait {
                    None if held.context.config.wait_timeout.is_zero() => {
                        return Poll::Ready(Err(search_error(look, Default::default())));
                    }
                    None => {
                        self.wait = Some(BackendWait::start(&held.context));
                        continue;
                    }
                    Some(wait) => match wait.poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(waited)) => search_error(look, waited),
                    },
                },
            };
            (self.first_picked, self.wait) = (None, None);
            return Poll::Ready(Err(waited));
        }
        // Woken again and again: there is more to do, but others first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_round<Req>(&mut self, cx: &mut Context<'_>, shared: &BalanceContext<S>) -> PollRound<S>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        let mut asked = 0;
        let mut flow = self.flow.clone();
        let first = self.first_picked.take().filter(|(_, lease)| shared.is_eligible(lease));
        if let Some((mut service, lease)) = first {
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return PollRound::Found(service, lease),
                Poll::Ready(Err(error)) => {
                    flow.exclude(lease.backend());
                    if let Some(error) = self.exclude_broken(shared, lease, error.into()) {
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
        while asked < shared.config.candidates {
            let lease = match shared.pick(&flow) {
                Ok(lease) => lease,
                Err(_) if asked > 0 => break,
                Err(why) => return PollRound::NoBackend(why),
            };
            flow.exclude(lease.backend());
            let mut service = lease.target().clone();
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return PollRound::Found(service, lease),
                Poll::Ready(Err(error)) => {
                    if let Some(error) = self.exclude_broken(shared, lease, error.into()) {
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

    /// Strikes off an instance that says it is broken; gives the error back if that was the last to
    /// be tried. The next request finds a fresh copy of it: whether the backend is to be left out is
    /// for its health to say.
    #[cold]
    fn exclude_broken(
        &mut self,
        shared: &BalanceContext<S>,
        lease: Lease<S>,
        error: BoxError,
    ) -> Option<BoxError> {
        self.flow.exclude(lease.backend());
        lease.complete(Outcome::ConnectError);
        let spent = self.flow.tried_count() >= MAX_BROKEN_INSTANCES;
        (spent || shared.pick(&self.flow).is_err()).then_some(error)
    }
}

#[cold]
fn search_error<S>(look: PollRound<S>, waited: std::time::Duration) -> BoxError {
    match look {
        PollRound::Broken(error) => error,
        PollRound::NoBackend(why) => BalanceError::NoBackend { reason: why, waited }.into(),
        PollRound::Busy(asked) => BalanceError::Busy { asked, waited }.into(),
        PollRound::Found(..) => BalanceError::NotReady.into(),
    }
}

impl<S> fmt::Debug for InstanceSearch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search")
            .field("flow", &self.flow)
            .field("first", &self.first_picked.as_ref().map(|(_, lease)| lease))
            .field("wait", &self.wait)
            .finish()
    }
}
