//! A balancer as a service: admission in `poll_ready`, the pick after `call`.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tower::{BoxError, Service};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use super::classify::ResultClassifier;
use super::completion::{Completion, OnResponse};
use super::context::{BalanceConfig, MIN_TIMEOUT, PerThreadContexts};
use super::error::BalanceError;
use super::future::BalanceFuture;
use super::in_flight::InFlight;
use super::key::{MissingKeyPolicy, NoKey, RequestKey};
use super::retry::{NoRetry, RetryPolicy};
use super::search::InstanceSearch;
use crate::balancer::Balancer;
use crate::scheduler::Flow;
use crate::setting::{SettingError, check_range};

/// Sends each request to an instance that the scheduler picks for it.
///
/// The instances are the targets of a [`Balancer`]: services that can be cloned. Cloning a `Balance` is
/// cheap, and all clones share the same instances without a task between them, where tower needs a
/// [`Buffer`](https://docs.rs/tower/latest/tower/buffer/index.html).
///
/// # How a request finds an instance
/// `poll_ready` does not know the request, and so not its key: it only reserves a permit, if
/// [`max_in_flight`](Self::max_in_flight) bounds the requests. `call` computes the request's key. The
/// first poll of the future picks a backend, clones its instance, and calls the clone if it is ready.
///
/// If the instance is busy (its `poll_ready` is pending), the scheduler picks another, up to the number
/// of [candidates](Self::candidates). If all candidates are busy, or no backend can be picked, the
/// request waits for the [wait timeout](Self::wait_timeout). It proceeds when the instance that was
/// picked first becomes ready, or when a new search finds a ready one. It searches again after each
/// change of the set, after another request ends, and every 50 ms. Waiting requests are not served in
/// the order of their arrival.
///
/// An instance whose `poll_ready` fails counts as a failed connect, and another is tried, up to 32; if
/// all fail, the request fails with the last one's error. The instance stays in the set: its health
/// decides whether its backend is up, and each request asks a new clone.
///
/// # How a response is reported
/// The [outcome](super::Classify) of a response is recorded in the backend's account, which
/// schedulers and [outlier ejection](crate::health::EjectionPolicy) (feature `health`) read. The lease ends
/// with the response, or with the last byte of its body, by
/// [`until_body_end`](Balance::until_body_end).
///
/// # Errors
/// Returns the errors of the instance, and [`BalanceError`], which `downcast_ref` tells apart from
/// them. `poll_ready` never fails.
///
/// # Cancel safety
/// Dropped at any point, a future returns its permit and its lease.
///
/// # Examples
/// ```
/// use lvs::scheduler::{Maglev, hash_bytes};
/// use lvs::tower::Balance;
/// use lvs::{BackendSet, Balancer, Spec};
/// use tower::{BoxError, Service, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let set = BackendSet::new();
/// for name in ["a", "b", "c"] {
///     let instance = service_fn(move |user: String| async move {
///         Ok::<_, BoxError>(format!("{name} serves {user}"))
///     });
///     set.insert(Spec::new(name, instance))?;
/// }
/// let balancer = Balancer::new(&set, Maglev::new())?;
/// let users = Balance::new(balancer).key(|user: &String| Some(hash_bytes(user.as_bytes(), 0)));
///
/// let first = users.clone().oneshot("ann".into()).await?;
/// let second = users.clone().oneshot("ann".into()).await?;
/// assert_eq!(first, second);
/// # Ok(())
/// # }
/// ```
pub struct Balance<S, K = NoKey, C = OnResponse, R = NoRetry> {
    contexts: PerThreadContexts<S>,
    key: K,
    completion: C,
    retry: R,
    admission: Option<PollSemaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<S: Send + Sync + 'static> Balance<S> {
    /// Creates a service over the instances of a balancer.
    #[must_use]
    pub fn new(balancer: Balancer<S>) -> Self {
        Self {
            contexts: PerThreadContexts::new(balancer),
            key: NoKey,
            completion: OnResponse(ResultClassifier),
            retry: NoRetry,
            admission: None,
            permit: None,
        }
    }
}

impl<S, K, C, R> Balance<S, K, C, R> {
    /// Sets how a request's key is computed: by a closure or a [`RequestKey`]. Requests of one key go
    /// to the same backend, by schedulers that hash; other schedulers do not read the key.
    #[must_use]
    pub fn key<N>(self, key: N) -> Balance<S, N, C, R> {
        let Self { contexts, completion, retry, admission, .. } = self;
        Balance { contexts, key, completion, retry, admission, permit: None }
    }

    /// Sets what happens to a request without a key. Default: it goes to any backend.
    #[must_use]
    pub fn missing_key(self, policy: MissingKeyPolicy) -> Self {
        self.reconfigure(|config| config.missing_key = policy)
    }

    /// Sets how many instances a request asks, each picked without the ones before, while they are
    /// busy; at least 1. Default: 3. With 1, requests of a key wait for the key's backend, unless its
    /// instance fails.
    ///
    /// # Errors
    /// [`SettingError`] if the number is 0.
    pub fn candidates(self, candidates: usize) -> Result<Self, SettingError> {
        let candidates = check_range("candidates", candidates, 1..)?;
        Ok(self.reconfigure(|config| config.candidates = candidates))
    }

    /// Sets how long a request waits for an instance if all candidates are busy or no backend can be
    /// picked. Default: 1 s. With zero the request fails at once.
    #[must_use]
    pub fn wait_timeout(self, timeout: Duration) -> Self {
        self.reconfigure(|config| config.wait_timeout = timeout)
    }

    /// Sets how long an instance may take to answer; above 0. Default: no timeout.
    ///
    /// It applies to each attempt, from the call of the instance to its response, and not to the search
    /// for a ready instance, for which [`wait_timeout`](Self::wait_timeout) is, nor to the body of the
    /// response. An attempt that takes longer is dropped, and counts as [`Outcome::Timeout`] of its
    /// backend, whatever the [classifier](super::Classify): a failure, which
    /// [ejects](crate::health::EjectionPolicy) a backend that hangs, and which [`Retry`](super::Retry)
    /// and [`Hedge`](super::Hedge) answer by another backend. Without another attempt the request
    /// fails with [`BalanceError::Timeout`].
    ///
    /// [The module](crate::tower#timeouts) compares this with tower's `Timeout`. It costs an allocation
    /// and a timer for each attempt that is not answered at its first poll, which panics outside a tokio
    /// runtime with time.
    ///
    /// [`Outcome::Timeout`]: crate::Outcome::Timeout
    ///
    /// # Errors
    /// [`SettingError`] if the timeout is 0.
    pub fn timeout(self, timeout: Duration) -> Result<Self, SettingError> {
        let timeout = check_range("timeout", timeout, MIN_TIMEOUT..)?;
        Ok(self.reconfigure(|config| config.timeout = Some(timeout)))
    }

    /// Bounds the requests under way over all clones, waiting requests included: at the bound,
    /// `poll_ready` is pending. At least 1. Default: no bound. [`usize::MAX`] is no bound that a
    /// machine reaches.
    ///
    /// # Errors
    /// [`SettingError`] if the number is 0.
    pub fn max_in_flight(self, requests: usize) -> Result<Self, SettingError> {
        let requests = check_range("max_in_flight", requests, 1..)?.min(Semaphore::MAX_PERMITS);
        let admission = Some(PollSemaphore::new(Arc::new(Semaphore::new(requests))));
        Ok(Self { admission, permit: None, ..self })
    }

    /// Wraps the errors of instances into [`InstanceError`](super::InstanceError), which names the
    /// backend. Default: they are passed on as they are. [`Classify`](super::Classify) and
    /// [`Completion::outcome`] see them as they are in either case.
    #[must_use]
    pub fn name_errors(self) -> Self {
        self.reconfigure(|config| config.name_errors = true)
    }

    /// Sets whether the latency of each request is measured, which reads the clock twice and costs
    /// about 40 ns. Default: if the scheduler [reads latencies](crate::Scheduler::reads_time).
    #[must_use]
    pub fn measure_latency(self, measure: bool) -> Self {
        self.reconfigure(|config| config.measure_latency = Some(measure))
    }

    /// Sets the classifier of results. Default: [`ResultClassifier`], by which a response is a success
    /// and an error is a failure.
    #[must_use]
    pub fn classify<F>(self, classify: F) -> Balance<S, K, OnResponse<F>, R> {
        self.completion(OnResponse(classify))
    }

    /// Sets when a request ends and what its caller receives, by a [`Completion`].
    #[must_use]
    pub fn completion<N>(self, completion: N) -> Balance<S, K, N, R> {
        let Self { contexts, key, retry, admission, .. } = self;
        Balance { contexts, key, completion, retry, admission, permit: None }
    }

    /// Sends failed requests again, to other backends, by a [`RetryPolicy`]. Default: never.
    #[must_use]
    pub fn retry<N>(self, retry: N) -> Balance<S, K, C, N> {
        let Self { contexts, key, completion, admission, .. } = self;
        Balance { contexts, key, completion, retry, admission, permit: None }
    }

    /// Keeps a value alive as long as the balancer, its clones and its requests, such as the task that
    /// feeds its set or checks its backends. The value is dropped with the last of them.
    #[must_use]
    pub fn attach(self, guard: impl Send + Sync + 'static) -> Self {
        Self { contexts: self.contexts.attach(guard), ..self }
    }

    /// Returns the balancer, with its set and its scheduler.
    #[must_use]
    pub fn balancer(&self) -> &Balancer<S> {
        &self.contexts.local().balancer
    }

    /// Returns the flow by which the scheduler picks; `None` if the request must be refused.
    #[inline]
    pub(super) fn scheduler_flow<Req>(&self, request: &Req) -> Option<Flow>
    where
        K: RequestKey<Req>,
    {
        self.key.scheduler_flow(request, self.contexts.local().config.missing_key)
    }

    #[cfg(feature = "tower-http")]
    pub(super) fn completion_ref(&self) -> &C {
        &self.completion
    }

    fn reconfigure(self, change: impl FnOnce(&mut BalanceConfig)) -> Self {
        Self { contexts: self.contexts.reconfigured(change), ..self }
    }
}

impl<S, K, C, R, Req> Service<Req> for Balance<S, K, C, R>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: RequestKey<Req>,
    C: Completion<S, S::Response>,
    R: RetryPolicy<Req>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BalanceFuture<S, Req, C, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let Some(admission) = &mut self.admission else { return Poll::Ready(Ok(())) };
        if self.permit.is_some() {
            return Poll::Ready(Ok(()));
        }
        // The semaphore is never closed, so `permit` is never `None`.
        admission.poll_acquire(cx).map(|permit| {
            self.permit = permit;
            Ok(())
        })
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let permit = self.permit.take();
        if permit.is_none() && self.admission.is_some() {
            return BalanceFuture::from_error(BalanceError::NotReady.into(), self.retry.clone());
        }
        match self.scheduler_flow(&request) {
            Some(flow) => {
                let context = Arc::clone(self.contexts.local());
                let pinned = self.key.backend(&request);
                let search = match pinned.and_then(|id| context.balancer.lease_by_id(&id)) {
                    Some(lease) => InstanceSearch::with_picked(flow, lease),
                    None => InstanceSearch::new(flow),
                };
                let in_flight = InFlight::new(context, permit);
                let (completion, retry) = (self.completion.clone(), self.retry.clone());
                BalanceFuture::from_search(request, search, in_flight, completion, retry)
            }
            None => BalanceFuture::from_error(BalanceError::NoKey.into(), self.retry.clone()),
        }
    }
}

/// Clones the handle; the clone has reserved no permit.
impl<S, K: Clone, C: Clone, R: Clone> Clone for Balance<S, K, C, R> {
    fn clone(&self) -> Self {
        Self {
            contexts: self.contexts.clone(),
            key: self.key.clone(),
            completion: self.completion.clone(),
            retry: self.retry.clone(),
            admission: self.admission.clone(),
            permit: None,
        }
    }
}

impl<S, K, C, R> fmt::Debug for Balance<S, K, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance").field("context", self.contexts.local()).finish_non_exhaustive()
    }
}
