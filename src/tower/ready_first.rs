//! A balancer without keys that says `Ready` only when an instance is.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tower::{BoxError, Service};

use super::BalanceError;
use super::classify::ByResult;
use super::future::BalanceFuture;
use super::held::{Finish, Held, OnResponse};
use super::retry::Never;
use super::search::BROKEN;
use super::shared::{Copies, Rules, Shared};
use super::wait::Wait;
use crate::backend::Outcome;
use crate::balancer::{Balancer, Lease, PickError};
use crate::scheduler::Flow;

/// How often one poll looks before others have their turn.
const LOOKS: usize = 8;

/// Picks an instance in `poll_ready`, and is ready when that is: for instances whose readiness is
/// real (limits, buffers, connections), where whoever asks is to be held up exactly as long as none
/// has a place.
///
/// [`Balance`](super::Balance) picks in `call`, where the request and its key are known, and says
/// `Ready` before; this one knows no keys. What is picked is held by its lease until `call`, so it
/// is the instance that was ready which is called, whatever becomes of the set meanwhile; one that is
/// no longer eligible is given back and another is picked.
///
/// At most so many [candidates](Self::candidates) are asked at once, each picked without the others:
/// only they reserve anything, and when one is ready the others are dropped, and give it back. Those
/// that turn out to be broken are no candidates, up to 32 at a look.
///
/// If none is ready, or nobody may be chosen, for as long as it [waits](Self::wait), `poll_ready` says
/// `Ready` and the call fails, with [`BalanceError`] or, if all were broken, with what the last one
/// said: an error of `poll_ready` would mean that the service is of no use any more. Wait
/// [for ever](Duration::MAX) to be held up for ever.
///
/// # Cancel safety
/// A `ReadyFirst` that is dropped, ready or not, gives everything back; so does a clone, which begins
/// with nothing.
///
/// # Examples
/// ```
/// use lvs::scheduler::LeastConnections;
/// use lvs::tower::ReadyFirst;
/// use lvs::{BackendSet, Balancer, Spec};
/// use tower::limit::ConcurrencyLimit;
/// use tower::{BoxError, Service, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let set = BackendSet::new();
/// for name in ["a", "b"] {
///     let instance = service_fn(move |_: ()| async move { Ok::<_, BoxError>(name) });
///     set.insert(Spec::new(name, ConcurrencyLimit::new(instance, 1)))?;
/// }
/// let mut service = ReadyFirst::new(Balancer::new(&set, LeastConnections::new())?);
/// let answer = service.ready().await?.call(()).await?;
/// # assert!(["a", "b"].contains(&answer));
/// # Ok(())
/// # }
/// ```
pub struct ReadyFirst<S, C = OnResponse> {
    copies: Copies<S>,
    /// The copy of the thread that asked last.
    shared: Arc<Shared<S>>,
    finish: C,
    /// The instance that was ready, and the version of the plane that it was eligible in.
    ready: Option<(S, Held<S>, u64)>,
    /// Without word to others when one is given back: those that are broken would wake each other.
    asked: Vec<(S, Lease<S>)>,
    wait: Option<Box<Wait>>,
    /// What the last instance that was broken said.
    broken: Option<BoxError>,
    /// What the next call says.
    failed: Option<BoxError>,
}

impl<S: Send + Sync + 'static> ReadyFirst<S> {
    /// A service over the instances of a balancer.
    #[must_use]
    pub fn new(balancer: Balancer<S>) -> Self {
        Self::from_copies(Copies::new(balancer), OnResponse(ByResult))
    }
}

impl<S, C> ReadyFirst<S, C> {
    fn from_copies(copies: Copies<S>, finish: C) -> Self {
        let shared = Arc::clone(copies.local());
        Self {
            copies,
            shared,
            finish,
            ready: None,
            asked: Vec::new(),
            wait: None,
            broken: None,
            failed: None,
        }
    }

    /// How many instances are asked at once; 0 counts as 1. Default: 3.
    #[must_use]
    pub fn candidates(self, candidates: usize) -> Self {
        self.with(|rules| rules.candidates = candidates.max(1))
    }

    /// How long it waits for an instance to be ready. Default: 1 s.
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        self.with(|rules| rules.wait = wait)
    }

    /// Reads the clock for each request, as [`Balance::measure`](super::Balance::measure) has it.
    #[must_use]
    pub fn measure(self, measure: bool) -> Self {
        self.with(|rules| rules.measure = Some(measure))
    }

    /// What the end of a request says about its backend. Default: [`ByResult`].
    #[must_use]
    pub fn classify<F>(self, classify: F) -> ReadyFirst<S, OnResponse<F>> {
        self.finish(OnResponse(classify))
    }

    /// What becomes of responses: by a [`Finish`] of your own.
    #[must_use]
    pub fn finish<N>(self, finish: N) -> ReadyFirst<S, N> {
        ReadyFirst::from_copies(self.copies, finish)
    }

    /// The balancer behind it: its set, its scheduler.
    #[must_use]
    pub fn balancer(&self) -> &Balancer<S> {
        &self.shared.balancer
    }

    #[cfg(feature = "tower-http")]
    pub(super) fn finish_of(&self) -> &C {
        &self.finish
    }

    fn with(self, change: impl FnOnce(&mut Rules)) -> Self {
        let copies = self.copies.with(change);
        Self::from_copies(copies, self.finish)
    }

    /// The next look finds a fresh copy of it.
    #[cold]
    fn strike_off(&mut self, lease: Lease<S>, error: BoxError) {
        lease.complete(Outcome::ConnectError);
        self.broken = Some(error);
    }

    /// Asks those that were asked before, and others in place of those that are gone.
    fn look<Req>(
        &mut self,
        cx: &mut Context<'_>,
        mut flow: Flow,
    ) -> Result<(S, Lease<S>), BalanceError>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        let none = Duration::ZERO;
        if self.shared.balancer.reads_time() {
            flow = flow.at(tokio::time::Instant::now().into_std());
        }
        for (mut service, lease) in std::mem::take(&mut self.asked) {
            if !self.shared.is_eligible(&lease) {
                continue;
            }
            flow.exclude(lease.backend());
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return Ok((service, lease)),
                Poll::Ready(Err(error)) => self.strike_off(lease, error.into()),
                Poll::Pending => self.asked.push((service, lease)),
            }
        }
        let mut broken = 0;
        while self.asked.len() < self.shared.rules.candidates && broken < BROKEN {
            let lease = match self.shared.pick(&flow) {
                Ok(lease) => lease,
                Err(PickError::Exhausted) => break,
                Err(_) if !self.asked.is_empty() => break,
                Err(why) => return Err(BalanceError::NoBackend { why, waited: none }),
            };
            flow.exclude(lease.backend());
            let mut service = lease.target().clone();
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return Ok((service, lease)),
                Poll::Ready(Err(error)) => {
                    self.strike_off(lease, error.into());
                    broken += 1;
                }
                Poll::Pending => self.asked.push((service, lease)),
            }
        }
        match self.asked.len() {
            0 => Err(BalanceError::NoBackend { why: PickError::Exhausted, waited: none }),
            asked => Err(BalanceError::Busy { asked, waited: none }),
        }
    }
}

impl<S, C, Req> Service<Req> for ReadyFirst<S, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Finish<S, S::Response>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BalanceFuture<S, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        if !Arc::ptr_eq(&self.shared, self.copies.local()) {
            self.shared = Arc::clone(self.copies.local());
        }
        let version = self.shared.balancer.version();
        // Who is not to be asked at the first look.
        let mut flow = Flow::new();
        if let Some((mut service, mut held, since)) = self.ready.take()
            && let Some(lease) = held.lease.take()
            && (since == version || self.shared.is_eligible(&lease))
        {
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    held.lease = Some(lease);
                    self.ready = Some((service, held, version));
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    flow.exclude(lease.backend());
                    self.strike_off(lease, error.into());
                }
                Poll::Pending => self.asked.push((service, lease)),
            }
        }
        for _ in 0..LOOKS {
            let error = match self.look(cx, std::mem::take(&mut flow)) {
                Ok((service, lease)) => {
                    let mut held = Held::new(Arc::clone(&self.shared), None);
                    held.lease = Some(lease);
                    self.ready = Some((service, held, version));
                    self.asked.clear();
                    (self.wait, self.broken) = (None, None);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => error,
            };
            let waited = match &mut self.wait {
                None if self.shared.rules.wait.is_zero() => Duration::ZERO,
                None => {
                    self.wait = Some(Wait::begin(&self.shared));
                    continue;
                }
                Some(wait) => match wait.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(waited)) => waited,
                },
            };
            let error = error.after(waited);
            self.failed = Some(match (error, self.broken.take()) {
                (BalanceError::NoBackend { why: PickError::Exhausted, .. }, Some(broken)) => broken,
                (error, _) => error.into(),
            });
            self.asked.clear();
            self.wait = None;
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        match (self.failed.take(), self.ready.take()) {
            (None, Some((mut service, mut held, _))) => {
                held.send();
                let then = (self.finish.clone(), Never);
                BalanceFuture::serve(service.call(request), held, then)
            }
            (failed, _) => {
                let error = failed.unwrap_or_else(|| BalanceError::NotReady.into());
                BalanceFuture::failed(error, Never)
            }
        }
    }
}

/// Another handle, which has picked nothing yet.
impl<S, C: Clone> Clone for ReadyFirst<S, C> {
    fn clone(&self) -> Self {
        Self::from_copies(self.copies.clone(), self.finish.clone())
    }
}

impl<S, C> fmt::Debug for ReadyFirst<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyFirst")
            .field("shared", &self.shared)
            .field("ready", &self.ready.as_ref().map(|(_, held, _)| held))
            .field("asked", &self.asked.len())
            .finish_non_exhaustive()
    }
}
