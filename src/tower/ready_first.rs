//! A balancer without keys that says `Ready` only when an instance is.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tower::{BoxError, Service};

use super::BalanceError;
use super::classify::ResultClassifier;
use super::context::{BalanceConfig, BalanceContext, PerThreadContexts};
use super::future::BalanceFuture;
use super::in_flight::{Completion, InFlight, OnResponse};
use super::retry::NoRetry;
use super::search::MAX_BROKEN_INSTANCES;
use super::wait::BackendWait;
use crate::backend::Outcome;
use crate::balancer::{Balancer, Lease, PickError};
use crate::scheduler::Flow;

/// How often one poll looks before others have their turn.
const MAX_ROUNDS_PER_POLL: usize = 8;

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
/// If none is ready, or nobody may be chosen, for as long as it [waits](Self::wait_timeout), `poll_ready` says
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
    contexts: PerThreadContexts<S>,
    /// The copy of the thread that asked last.
    context: Arc<BalanceContext<S>>,
    completion: C,
    /// The instance that was ready, and the version of the plane that it was eligible in.
    ready: Option<(S, InFlight<S>, u64)>,
    /// Without word to others when one is given back: those that are broken would wake each other.
    candidates: Vec<(S, Lease<S>)>,
    wait: Option<Box<BackendWait>>,
    /// What the last instance that was broken said.
    last_instance_error: Option<BoxError>,
    /// What the next call says.
    call_error: Option<BoxError>,
}

impl<S: Send + Sync + 'static> ReadyFirst<S> {
    /// A service over the instances of a balancer.
    #[must_use]
    pub fn new(balancer: Balancer<S>) -> Self {
        Self::from_contexts(PerThreadContexts::new(balancer), OnResponse(ResultClassifier))
    }
}

impl<S, C> ReadyFirst<S, C> {
    fn from_contexts(copies: PerThreadContexts<S>, finish: C) -> Self {
        let shared = Arc::clone(copies.local());
        Self {
            contexts: copies,
            context: shared,
            completion: finish,
            ready: None,
            candidates: Vec::new(),
            wait: None,
            last_instance_error: None,
            call_error: None,
        }
    }

    /// How many instances are asked at once; 0 counts as 1. Default: 3.
    #[must_use]
    pub fn candidates(self, candidates: usize) -> Self {
        self.reconfigure(|rules| rules.candidates = candidates.max(1))
    }

    /// How long it waits for an instance to be ready. Default: 1 s.
    #[must_use]
    pub fn wait_timeout(self, wait: Duration) -> Self {
        self.reconfigure(|rules| rules.wait_timeout = wait)
    }

    /// Reads the clock for each request, as [`Balance::measure`](super::Balance::measure) has it.
    #[must_use]
    pub fn measure_latency(self, measure: bool) -> Self {
        self.reconfigure(|rules| rules.measure_latency = Some(measure))
    }

    /// What the end of a request says about its backend. Default: [`ResultClassifier`].
    #[must_use]
    pub fn classify<F>(self, classify: F) -> ReadyFirst<S, OnResponse<F>> {
        self.completion(OnResponse(classify))
    }

    /// What becomes of responses: by a [`Completion`] of your own.
    #[must_use]
    pub fn completion<N>(self, finish: N) -> ReadyFirst<S, N> {
        ReadyFirst::from_contexts(self.contexts, finish)
    }

    /// The balancer behind it: its set, its scheduler.
    #[must_use]
    pub fn balancer(&self) -> &Balancer<S> {
        &self.context.balancer
    }

    #[cfg(feature = "tower-http")]
    pub(super) fn completion_ref(&self) -> &C {
        &self.completion
    }

    fn reconfigure(self, change: impl FnOnce(&mut BalanceConfig)) -> Self {
        let copies = self.contexts.reconfigured(change);
        Self::from_contexts(copies, self.completion)
    }

    /// The next look finds a fresh copy of it.
    #[cold]
    fn discard_broken(&mut self, lease: Lease<S>, error: BoxError) {
        lease.complete(Outcome::ConnectError);
        self.last_instance_error = Some(error);
    }

    /// Asks those that were asked before, and others in place of those that are gone.
    fn poll_candidates<Req>(
        &mut self,
        cx: &mut Context<'_>,
        mut flow: Flow,
    ) -> Result<(S, Lease<S>), BalanceError>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        let none = Duration::ZERO;
        if self.context.balancer.reads_time() {
            flow = flow.time(tokio::time::Instant::now().into_std());
        }
        for (mut service, lease) in std::mem::take(&mut self.candidates) {
            if !self.context.is_eligible(&lease) {
                continue;
            }
            flow.exclude(lease.backend());
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return Ok((service, lease)),
                Poll::Ready(Err(error)) => self.discard_broken(lease, error.into()),
                Poll::Pending => self.candidates.push((service, lease)),
            }
        }
        let mut broken = 0;
        while self.candidates.len() < self.context.config.candidates
            && broken < MAX_BROKEN_INSTANCES
        {
            let lease = match self.context.pick(&flow) {
                Ok(lease) => lease,
                Err(PickError::AllTried) => break,
                Err(_) if !self.candidates.is_empty() => break,
                Err(why) => return Err(BalanceError::NoBackend { reason: why, waited: none }),
            };
            flow.exclude(lease.backend());
            let mut service = lease.target().clone();
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return Ok((service, lease)),
                Poll::Ready(Err(error)) => {
                    self.discard_broken(lease, error.into());
                    broken += 1;
                }
                Poll::Pending => self.candidates.push((service, lease)),
            }
        }
        match self.candidates.len() {
            0 => Err(BalanceError::NoBackend { reason: PickError::AllTried, waited: none }),
            asked => Err(BalanceError::Busy { asked, waited: none }),
        }
    }
}

impl<S, C, Req> Service<Req> for ReadyFirst<S, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Completion<S, S::Response>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BalanceFuture<S, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.call_error.is_some() {
            return Poll::Ready(Ok(()));
        }
        if !Arc::ptr_eq(&self.context, self.contexts.local()) {
            self.context = Arc::clone(self.contexts.local());
        }
        let version = self.context.balancer.version();
        // Who is not to be asked at the first look.
        let mut flow = Flow::new();
        if let Some((mut service, mut held, since)) = self.ready.take()
            && let Some(lease) = held.lease.take()
            && (since == version || self.context.is_eligible(&lease))
        {
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    held.lease = Some(lease);
                    self.ready = Some((service, held, version));
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    flow.exclude(lease.backend());
                    self.discard_broken(lease, error.into());
                }
                Poll::Pending => self.candidates.push((service, lease)),
            }
        }
        for _ in 0..MAX_ROUNDS_PER_POLL {
            let error = match self.poll_candidates(cx, std::mem::take(&mut flow)) {
                Ok((service, lease)) => {
                    let mut held = InFlight::new(Arc::clone(&self.context), None);
                    held.lease = Some(lease);
                    self.ready = Some((service, held, version));
                    self.candidates.clear();
                    (self.wait, self.last_instance_error) = (None, None);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => error,
            };
            let waited = match &mut self.wait {
                None if self.context.config.wait_timeout.is_zero() => Duration::ZERO,
                None => {
                    self.wait = Some(BackendWait::start(&self.context));
                    continue;
                }
                Some(wait) => match wait.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(waited)) => waited,
                },
            };
            let error = error.with_waited(waited);
            self.call_error = Some(match (error, self.last_instance_error.take()) {
                (BalanceError::NoBackend { reason: PickError::AllTried, .. }, Some(broken)) => {
                    broken
                }
                (error, _) => error.into(),
            });
            self.candidates.clear();
            self.wait = None;
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        match (self.call_error.take(), self.ready.take()) {
            (None, Some((mut service, mut held, _))) => {
                held.mark_sent();
                let then = (self.completion.clone(), NoRetry);
                BalanceFuture::from_call(service.call(request), held, then)
            }
            (failed, _) => {
                let error = failed.unwrap_or_else(|| BalanceError::NotReady.into());
                BalanceFuture::from_error(error, NoRetry)
            }
        }
    }
}

/// Another handle, which has picked nothing yet.
impl<S, C: Clone> Clone for ReadyFirst<S, C> {
    fn clone(&self) -> Self {
        Self::from_contexts(self.contexts.clone(), self.completion.clone())
    }
}

impl<S, C> fmt::Debug for ReadyFirst<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyFirst")
            .field("shared", &self.context)
            .field("ready", &self.ready.as_ref().map(|(_, held, _)| held))
            .field("asked", &self.candidates.len())
            .finish_non_exhaustive()
    }
}
