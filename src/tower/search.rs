//! From a request to an instance that is ready for it.

use std::fmt;
use std::task::{Context, Poll};

use ::tower::{BoxError, Service};

use super::BalanceError;
use super::held::Held;
use super::shared::Shared;
use super::wait::Wait;
use crate::backend::Outcome;
use crate::balancer::{Lease, PickError};
use crate::scheduler::Flow;

/// How often one poll looks before others have their turn.
const LOOKS: usize = 8;

/// How many broken instances one request asks: nothing is lost by asking all there are, but time.
pub(super) const BROKEN: usize = 32;

/// A search for an instance.
///
/// It asks the one that the scheduler picks, and where that is busy others, each by a pick without
/// those before; the first that is ready is it. The one that was picked first is kept and waited for,
/// so that its word wakes the search; for the others it looks again whenever something changes.
pub(super) struct Search<S> {
    flow: Flow,
    /// The first that was picked, and was busy.
    first: Option<(S, Lease<S>)>,
    wait: Option<Box<Wait>>,
}

/// What a look has come to.
enum Look<S> {
    Found(S, Lease<S>),
    /// All that were asked are busy.
    Busy(usize),
    Nobody(PickError),
    Broken(BoxError),
}

impl<S> Search<S> {
    #[inline]
    pub(super) fn new(flow: Flow) -> Self {
        Self { flow, first: None, wait: None }
    }

    /// Begins with one that was picked already.
    #[cold]
    pub(super) fn at(flow: Flow, picked: Lease<S>) -> Self
    where
        S: Clone,
    {
        Self { flow, first: Some((picked.target().clone(), picked)), wait: None }
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
        held: &mut Held<S>,
    ) -> Poll<Result<S, BoxError>>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        // What nearly always happens, without the rest.
        if self.wait.is_none() && self.first.is_none() {
            if held.shared.balancer.reads_time() {
                self.flow =
                    std::mem::take(&mut self.flow).at(tokio::time::Instant::now().into_std());
            }
            if let Ok(lease) = held.shared.pick(&self.flow) {
                let mut service = lease.target().clone();
                match service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        held.lease = Some(lease);
                        return Poll::Ready(Ok(service));
                    }
                    Poll::Pending => self.first = Some((service, lease)),
                    Poll::Ready(Err(error)) => {
                        if let Some(error) = self.give_up(&held.shared, lease, error.into()) {
                            return Poll::Ready(Err(error));
                        }
                    }
                }
            }
        }
        self.poll_on(cx, held)
    }

    #[cold]
    fn poll_on<Req>(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut Held<S>,
    ) -> Poll<Result<S, BoxError>>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        for _ in 0..LOOKS {
            let waited = match self.look(cx, &held.shared) {
                Look::Found(service, lease) => {
                    held.lease = Some(lease);
                    (self.first, self.wait) = (None, None);
                    return Poll::Ready(Ok(service));
                }
                Look::Broken(error) => return Poll::Ready(Err(error)),
                look => match &mut self.wait {
                    None if held.shared.rules.wait.is_zero() => {
                        return Poll::Ready(Err(fail(look, Default::default())));
                    }
                    None => {
                        self.wait = Some(Wait::begin(&held.shared));
                        continue;
                    }
                    Some(wait) => match wait.poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(waited)) => fail(look, waited),
                    },
                },
            };
            (self.first, self.wait) = (None, None);
            return Poll::Ready(Err(waited));
        }
        // Woken again and again: there is more to do, but others first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn look<Req>(&mut self, cx: &mut Context<'_>, shared: &Shared<S>) -> Look<S>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        let mut asked = 0;
        let mut flow = self.flow.clone();
        let first = self.first.take().filter(|(_, lease)| shared.is_eligible(lease));
        if let Some((mut service, lease)) = first {
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return Look::Found(service, lease),
                Poll::Ready(Err(error)) => {
                    flow.exclude(lease.backend());
                    if let Some(error) = self.give_up(shared, lease, error.into()) {
                        return Look::Broken(error);
                    }
                }
                Poll::Pending => {
                    asked = 1;
                    flow.exclude(lease.backend());
                    self.first = Some((service, lease));
                }
            }
        }
        while asked < shared.rules.candidates {
            let lease = match shared.pick(&flow) {
                Ok(lease) => lease,
                Err(_) if asked > 0 => break,
                Err(why) => return Look::Nobody(why),
            };
            flow.exclude(lease.backend());
            let mut service = lease.target().clone();
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return Look::Found(service, lease),
                Poll::Ready(Err(error)) => {
                    if let Some(error) = self.give_up(shared, lease, error.into()) {
                        return Look::Broken(error);
                    }
                }
                Poll::Pending => {
                    asked += 1;
                    if self.first.is_none() {
                        self.first = Some((service, lease));
                    }
                }
            }
        }
        Look::Busy(asked)
    }

    /// Strikes off an instance that says it is broken; gives the error back if that was the last to
    /// be tried. The next request finds a fresh copy of it: whether the backend is to be left out is
    /// for its health to say.
    #[cold]
    fn give_up(
        &mut self,
        shared: &Shared<S>,
        lease: Lease<S>,
        error: BoxError,
    ) -> Option<BoxError> {
        self.flow.exclude(lease.backend());
        lease.complete(Outcome::ConnectError);
        let spent = self.flow.tried() >= BROKEN;
        (spent || shared.pick(&self.flow).is_err()).then_some(error)
    }
}

#[cold]
fn fail<S>(look: Look<S>, waited: std::time::Duration) -> BoxError {
    match look {
        Look::Broken(error) => error,
        Look::Nobody(why) => BalanceError::NoBackend { why, waited }.into(),
        Look::Busy(asked) => BalanceError::Busy { asked, waited }.into(),
        Look::Found(..) => BalanceError::NotReady.into(),
    }
}

impl<S> fmt::Debug for Search<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search")
            .field("flow", &self.flow)
            .field("first", &self.first.as_ref().map(|(_, lease)| lease))
            .field("wait", &self.wait)
            .finish()
    }
}
