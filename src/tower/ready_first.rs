//! A balancer as a service that is ready when one of its instances is; without keys.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tower::{BoxError, Service};

use super::classify::ResultClassifier;
use super::completion::{Completion, OnResponse};
use super::context::{BalanceConfig, BalanceContext, MIN_TIMEOUT, PerThreadContexts};
use super::error::BalanceError;
use super::future::BalanceFuture;
use super::in_flight::InFlight;
use super::retry::NoRetry;
use super::search::{MAX_BROKEN_INSTANCES, MAX_ROUNDS_PER_POLL};
use super::wait::BackendWait;
use crate::backend::Outcome;
use crate::balancer::{Balancer, Lease, PickError};
use crate::scheduler::Flow;
use crate::setting::{SettingError, check_range};

/// Picks an instance in `poll_ready`, and is ready when that instance is.
///
/// For instances whose readiness is real (limits, buffers, connections) and callers that must be held
/// back exactly as long as no instance is ready. [`Balance`](super::Balance) picks after `call`, with
/// the request and its key known, and is ready before; a `ReadyFirst` knows no keys.
///
/// A lease holds the picked instance until `call`, so that `call` calls the instance that was ready,
/// whatever happens to the set in between. If `poll_ready` is polled again and the backend is no longer
/// eligible, its lease is returned and another backend is picked.
///
/// At most [`candidates`](Self::candidates) instances are asked at a time, each picked without the
/// others; only these reserve anything. When one is ready the others are dropped and return what they
/// reserved. Instances whose `poll_ready` fails are no candidates; up to 32 are passed over in a round.
///
/// If no instance is ready, or no backend can be picked, within the [wait
/// timeout](Self::wait_timeout), `poll_ready` returns `Ready` and the next call fails: with
/// [`BalanceError`], or with the last instance's error if all instances failed. (By tower's
/// convention an error of `poll_ready` would mean that the service is of no more use.) A wait timeout
/// of [`Duration::MAX`] waits for a year.
///
/// # Cancel safety
/// A `ReadyFirst` that is dropped, ready or not, returns its leases and drops its clones of
/// instances. A clone starts without any.
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
    /// The context of the thread that polled last.
    context: Arc<BalanceContext<S>>,
    completion: C,
    /// The instance that was ready, and the version of the snapshot in which it was eligible.
    ready: Option<(S, InFlight<S>, u64)>,
    /// Busy instances with their leases. Returning such a lease notifies no waiting request: otherwise
    /// services whose instances fail would wake each other in a loop.
    candidates: Vec<(S, Lease<S>)>,
    wait: Option<Box<BackendWait>>,
    /// The error of the last instance whose `poll_ready` failed.
    last_instance_error: Option<BoxError>,
    /// The error of the next call.
    call_error: Option<BoxError>,
}

impl<S: Send + Sync + 'static> ReadyFirst<S> {
    /// Creates a service over the instances of a balancer.
    #[must_use]
    pub fn new(balancer: Balancer<S>) -> Self {
        Self::from_contexts(PerThreadContexts::new(balancer), OnResponse(ResultClassifier))
    }
}

impl<S, C> ReadyFirst<S, C> {
    fn from_contexts(contexts: PerThreadContexts<S>, completion: C) -> Self {
        let context = Arc::clone(contexts.local());
        Self {
            contexts,
            context,
            completion,
            ready: None,
            candidates: Vec::new(),
            wait: None,
            last_instance_error: None,
            call_error: None,
        }
    }

    /// Sets how many instances are asked at a time, at least 1. Default: 3.
    ///
    /// # Errors
    /// [`SettingError`] if the number is 0.
    pub fn candidates(self, candidates: usize) -> Result<Self, SettingError> {
        let candidates = check_range("candidates", candidates, 1..)?;
        Ok(self.reconfigure(|config| config.candidates = candidates))
    }

    /// Sets how long `poll_ready` waits for a ready instance. Default: 1 s.
    #[must_use]
    pub fn wait_timeout(self, timeout: Duration) -> Self {
        self.reconfigure(|config| config.wait_timeout = timeout)
    }

    /// Sets how long an instance may take to answer; above 0. Default: no timeout. See
    /// [`Balance::timeout`](super::Balance::timeout); nothing is sent again here.
    ///
    /// # Errors
    /// [`SettingError`] if the timeout is 0.
    pub fn timeout(self, timeout: Duration) -> Result<Self, SettingError> {
        let timeout = check_range("timeout", timeout, MIN_TIMEOUT..)?;
        Ok(self.reconfigure(|config| config.timeout = Some(timeout)))
    }

    /// Wraps the errors of instances into [`InstanceError`](super::InstanceError), which names the
    /// backend. Default: they are passed on as they are.
    #[must_use]
    pub fn name_errors(self) -> Self {
        self.reconfigure(|config| config.name_errors = true)
    }

    /// Sets whether the latency of each request is measured; see
    /// [`Balance::measure_latency`](super::Balance::measure_latency).
    #[must_use]
    pub fn measure_latency(self, measure: bool) -> Self {
        self.reconfigure(|config| config.measure_latency = Some(measure))
    }

    /// Sets the classifier of results. Default: [`ResultClassifier`].
    #[must_use]
    pub fn classify<F>(self, classify: F) -> ReadyFirst<S, OnResponse<F>> {
        self.completion(OnResponse(classify))
    }

    /// Sets when a request ends and what its caller receives, by a [`Completion`].
    #[must_use]
    pub fn completion<N>(self, completion: N) -> ReadyFirst<S, N> {
        ReadyFirst::from_contexts(self.contexts, completion)
    }

    /// Returns the balancer, with its set and its scheduler.
    #[must_use]
    pub fn balancer(&self) -> &Balancer<S> {
        &self.context.balancer
    }

    #[cfg(feature = "tower-http")]
    pub(super) fn completion_ref(&self) -> &C {
        &self.completion
    }

    fn reconfigure(self, change: impl FnOnce(&mut BalanceConfig)) -> Self {
        let contexts = self.contexts.reconfigured(change);
        Self::from_contexts(contexts, self.completion)
    }

    /// Returns the lease of an instance whose `poll_ready` failed. The next round asks a new clone.
    #[cold]
    fn discard_broken(&mut self, lease: Lease<S>, error: BoxError) {
        self.last_instance_error = Some(self.context.name_error(lease.id(), error));
        lease.complete(Outcome::ConnectError);
    }

    /// Asks the candidates of the last round, and new ones in place of those that are gone.
    fn poll_candidates<Req>(
        &mut self,
        cx: &mut Context<'_>,
        mut flow: Flow,
    ) -> Result<(S, Lease<S>), BalanceError>
    where
        S: Service<Req> + Clone,
        S::Error: Into<BoxError>,
    {
        // The caller fills in the time waited.
        let waited = Duration::ZERO;
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
        let mut broken_count = 0;
        while self.candidates.len() < self.context.config.candidates
            && broken_count < MAX_BROKEN_INSTANCES
        {
            let lease = match self.context.pick(&flow) {
                Ok(lease) => lease,
                Err(PickError::AllTried) => break,
                Err(_) if !self.candidates.is_empty() => break,
                Err(reason) => return Err(BalanceError::NoBackend { reason, waited }),
            };
            flow.exclude(lease.backend());
            let mut service = lease.target().clone();
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => return Ok((service, lease)),
                Poll::Ready(Err(error)) => {
                    self.discard_broken(lease, error.into());
                    broken_count += 1;
                }
                Poll::Pending => self.candidates.push((service, lease)),
            }
        }
        match self.candidates.len() {
            0 => Err(BalanceError::NoBackend { reason: PickError::AllTried, waited }),
            asked => Err(BalanceError::Busy { asked, waited }),
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
        // Excludes an instance that fails below from the first round.
        let mut flow = Flow::new();
        if let Some((mut service, mut in_flight, ready_version)) = self.ready.take()
            && let Some(lease) = in_flight.lease.take()
            && (ready_version == version || self.context.is_eligible(&lease))
        {
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    in_flight.lease = Some(lease);
                    self.ready = Some((service, in_flight, version));
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
                    let mut in_flight = InFlight::new(Arc::clone(&self.context), None);
                    in_flight.lease = Some(lease);
                    self.ready = Some((service, in_flight, version));
                    self.candidates.clear();
                    (self.wait, self.last_instance_error) = (None, None);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => error,
            };
            let waited = match &mut self.wait {
                None if self.context.config.wait_timeout.is_zero() => Duration::ZERO,
                None => {
                    self.wait = Some(self.context.start_wait());
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
                (BalanceError::NoBackend { reason: PickError::AllTried, .. }, Some(error)) => error,
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
            (None, Some((mut service, mut in_flight, _))) => {
                in_flight.mark_sent();
                let (future, completion) = (service.call(request), self.completion.clone());
                BalanceFuture::from_call(future, in_flight, completion, NoRetry)
            }
            (error, _) => {
                let error = error.unwrap_or_else(|| BalanceError::NotReady.into());
                BalanceFuture::from_error(error, NoRetry)
            }
        }
    }
}

/// Clones the handle; the clone has picked nothing.
impl<S, C: Clone> Clone for ReadyFirst<S, C> {
    fn clone(&self) -> Self {
        Self::from_contexts(self.contexts.clone(), self.completion.clone())
    }
}

impl<S, C> fmt::Debug for ReadyFirst<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyFirst")
            .field("context", &self.context)
            .field("ready", &self.ready.as_ref().map(|(_, in_flight, _)| in_flight))
            .field("candidates", &self.candidates.len())
            .finish_non_exhaustive()
    }
}
