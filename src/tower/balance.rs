//! A balancer as a service: admission in `poll_ready`, the pick in `call`.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tower::{BoxError, Service};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use super::classify::ResultClassifier;
use super::context::{BalanceConfig, PerThreadContexts};
use super::future::BalanceFuture;
use super::in_flight::{Completion, InFlight, OnResponse};
use super::key::{MissingKeyPolicy, NoKey, RequestKey};
use super::retry::{NoRetry, RetryPolicy};
use super::{BalanceError, Classify};
use crate::balancer::Balancer;
use crate::scheduler::Flow;

/// Sends each request to an instance that the scheduler picks for it.
///
/// The instances are the targets of a [`Balancer`]: services that can be cloned. A clone of a
/// `Balance` is a cheap handle on the same instances, with no task between them: share it by cloning
/// it, instead of a [`Buffer`](https://docs.rs/tower/latest/tower/buffer/index.html).
///
/// # What happens to a request
/// `poll_ready` knows no request, and so no key: it reserves a place, if their number is
/// [bounded](Self::max_in_flight), and nothing else. `call` finds the request's key. When the future
/// is first polled, the scheduler picks; the instance is cloned, and if it is ready, called.
///
/// If it is busy (its `poll_ready` is pending), the scheduler picks another, up to so many
/// [candidates](Self::candidates). If all are busy, or nobody may be chosen, the request
/// [waits](Self::wait_timeout): until the first that was picked is ready, or one of the others when it looks
/// again, which it does when the set changes, when another request ends, and every 50 ms. Whoever
/// waits longest has no right to go first.
///
/// An instance whose `poll_ready` fails counts as a connect that failed, and the next is tried, up to
/// 32; if all fail, the error of the last one comes through. It stays in the set: whether it is up is a matter of its
/// health, and each request asks a fresh clone of it.
///
/// # What becomes of a response
/// Its [outcome](Classify) is told to the backend's account, for schedulers and
/// [outlier ejection](crate::health::Ejection), if the feature `health` is on. The lease ends with
/// the response, or, with [`until_body_end`](Balance::until_body_end), with its last byte.
///
/// # Errors
/// Those of the instance, and [`BalanceError`]; the latter can be told by `downcast_ref`. `poll_ready`
/// never fails.
///
/// # Cancel safety
/// A future dropped at any point gives everything back.
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
    /// A service over the instances of a balancer.
    #[must_use]
    pub fn new(balancer: Balancer<S>) -> Self {
        let shared = PerThreadContexts::new(balancer);
        let (key, finish, retry) = (NoKey, OnResponse(ResultClassifier), NoRetry);
        Self { contexts: shared, key, completion: finish, retry, admission: None, permit: None }
    }
}

impl<S, K, C, R> Balance<S, K, C, R> {
    /// What requests must go to the same backend: a closure, or a type that finds it. For schedulers
    /// that hash; the others do not read it.
    #[must_use]
    pub fn key<N>(self, key: N) -> Balance<S, N, C, R> {
        let Self { contexts: shared, completion: finish, retry, admission, .. } = self;
        Balance { contexts: shared, key, completion: finish, retry, admission, permit: None }
    }

    /// What becomes of requests without key. Default: they go anywhere.
    #[must_use]
    pub fn missing_key(self, rule: MissingKeyPolicy) -> Self {
        self.reconfigure(|rules| rules.missing_key = rule)
    }

    /// How many instances are asked, each picked without those before, when the first is busy; 0
    /// counts as 1. Default: 3. With 1 a key's requests go to its own backend or wait, unless that is
    /// broken.
    #[must_use]
    pub fn candidates(self, candidates: usize) -> Self {
        self.reconfigure(|rules| rules.candidates = candidates.max(1))
    }

    /// How long a request waits for an instance, if all that were asked are busy or nobody may be
    /// chosen. Default: 1 s. Zero sheds it at once.
    #[must_use]
    pub fn wait_timeout(self, wait: Duration) -> Self {
        self.reconfigure(|rules| rules.wait_timeout = wait)
    }

    /// Bounds the requests under way, those that wait included, over all clones: `poll_ready` is
    /// pending while there are so many. Default: no bound. 0 counts as 1.
    #[must_use]
    pub fn max_in_flight(self, requests: usize) -> Self {
        let requests = requests.clamp(1, Semaphore::MAX_PERMITS);
        let admission = Some(PollSemaphore::new(Arc::new(Semaphore::new(requests))));
        Self { admission, permit: None, ..self }
    }

    /// Reads the clock for each request, so that its latency is known. Default: where the scheduler
    /// [wants it](crate::Scheduler::reads_time). Costs two readings, some 40 ns.
    #[must_use]
    pub fn measure_latency(self, measure: bool) -> Self {
        self.reconfigure(|rules| rules.measure_latency = Some(measure))
    }

    /// What the end of a request says about its backend. Default: [`ResultClassifier`], a response is good
    /// and an error is not.
    #[must_use]
    pub fn classify<F>(self, classify: F) -> Balance<S, K, OnResponse<F>, R> {
        self.completion(OnResponse(classify))
    }

    /// What becomes of responses: by a [`Completion`] of your own.
    #[must_use]
    pub fn completion<N>(self, finish: N) -> Balance<S, K, N, R> {
        let Self { contexts: shared, key, retry, admission, .. } = self;
        Balance { contexts: shared, key, completion: finish, retry, admission, permit: None }
    }

    /// Sends requests that failed again, to other backends. Default: never.
    #[must_use]
    pub fn retry<N>(self, retry: N) -> Balance<S, K, C, N> {
        let Self { contexts: shared, key, completion: finish, admission, .. } = self;
        Balance { contexts: shared, key, completion: finish, retry, admission, permit: None }
    }

    /// Lets something live as long as the balancer, its clones and its requests do: the task that
    /// feeds its set, one that checks its backends. It is dropped with the last of them.
    #[must_use]
    pub fn attach(self, guard: impl Send + Sync + 'static) -> Self {
        Self { contexts: self.contexts.attach(guard), ..self }
    }

    /// The balancer behind it: its set, its scheduler.
    #[must_use]
    pub fn balancer(&self) -> &Balancer<S> {
        &self.contexts.local().balancer
    }

    /// What is known of a request when its backend is chosen; `None` if it goes nowhere.
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
        // Nobody closes it.
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
                let held = InFlight::new(Arc::clone(self.contexts.local()), permit);
                let then = (self.completion.clone(), self.retry.clone());
                BalanceFuture::from_search(request, flow, held, then)
            }
            None => BalanceFuture::from_error(BalanceError::NoKey.into(), self.retry.clone()),
        }
    }
}

/// Another handle, which has reserved nothing yet.
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
        f.debug_struct("Balance").field("shared", self.contexts.local()).finish_non_exhaustive()
    }
}

/// Spells the classifier of a balancer whose responses end it.
impl<F> OnResponse<F> {
    /// Ends each request with its response, which says by this rule what it was worth.
    pub const fn new<Res>(classify: F) -> Self
    where
        F: Classify<Res>,
    {
        Self(classify)
    }
}
