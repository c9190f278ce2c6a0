//! Requests that are sent again, to another backend.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use ::tower::retry::budget::{Budget, TpsBudget};

/// Whether requests are sent again, and which: [`NoRetry`], or a [`Retry`].
pub trait RetryPolicy<Req>: Clone {
    /// What is kept of a request that may be sent again.
    #[doc(hidden)]
    type Kept;

    /// Keeps what is needed; `None` if this request goes out once.
    #[doc(hidden)]
    fn clone_request(&self, request: &Req, attempt: u32) -> Option<Self::Kept>;

    /// The request to be sent again, if there is budget left.
    #[doc(hidden)]
    fn withdraw_retry(&self, kept: Self::Kept) -> Option<Req>;
}

/// Each request goes out once.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRetry;

impl<Req> RetryPolicy<Req> for NoRetry {
    type Kept = Infallible;

    #[inline]
    fn clone_request(&self, _: &Req, _: u32) -> Option<Infallible> {
        None
    }

    fn withdraw_retry(&self, kept: Infallible) -> Option<Req> {
        match kept {}
    }
}

/// Sends a request that failed again, to a backend that it has not been to, within a budget.
///
/// What counts as a failure the [classifier](super::Classify) says: an error, and with `HttpStatus` a
/// status of 500 and above. Each attempt tells its own backend its outcome.
///
/// The budget is shared by all clones, and is tower's: by default, retries may be a fifth of the
/// requests of the last ten seconds, and ten a second beside them, so that a service that fails
/// altogether is not asked several times as much. Without budget left, or without another backend to
/// go to, the failure is passed on.
///
/// # Examples
/// ```
/// use lvs::scheduler::RoundRobin;
/// use lvs::tower::{Balance, Retry};
/// use lvs::{BackendSet, Balancer, Spec};
/// use tower::{BoxError, Service, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let set = BackendSet::new();
/// for (name, fails) in [("well", false), ("ill", true)] {
///     let instance = service_fn(move |_: u32| async move {
///         if fails { Err(BoxError::from("no")) } else { Ok(name) }
///     });
///     set.insert(Spec::new(name, instance))?;
/// }
/// // What is asked here does no harm if it is asked twice.
/// let retry = Retry::new(|request: &u32| Some(*request));
/// let service = Balance::new(Balancer::new(&set, RoundRobin)?).retry(retry);
/// for _ in 0..4 {
///     assert_eq!(service.clone().oneshot(7).await?, "well");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Retry<F> {
    clone_request: F,
    attempts: u32,
    budget: Arc<dyn Budget + Send + Sync>,
}

impl<F> Retry<F> {
    /// Sends those again of which `copy` gives a copy: only requests that do no harm if they are done
    /// twice, since one that failed may have been done.
    #[must_use]
    pub fn new<Req>(copy: F) -> Self
    where
        F: Fn(&Req) -> Option<Req>,
    {
        Self { clone_request: copy, attempts: 3, budget: Arc::new(TpsBudget::default()) }
    }

    /// How often a request is sent at most, the first time included; 0 counts as 1. Default: 3.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts: attempts.max(1), ..self }
    }

    /// Another budget.
    #[must_use]
    pub fn budget(self, budget: impl Budget + Send + Sync + 'static) -> Self {
        Self { budget: Arc::new(budget), ..self }
    }
}

#[cfg(feature = "tower-http")]
impl<B: Clone> Retry<fn(&http::Request<B>) -> Option<http::Request<B>>> {
    /// Sends requests again whose method is safe: `GET`, `HEAD`, `OPTIONS`, `TRACE` (RFC 9110, section
    /// 9.2.1).
    #[must_use]
    pub fn safe_methods() -> Self {
        Self::new(|request| request.method().is_safe().then(|| request.clone()))
    }
}

impl<Req, F: Fn(&Req) -> Option<Req> + Clone> RetryPolicy<Req> for Retry<F> {
    type Kept = Req;

    fn clone_request(&self, request: &Req, attempt: u32) -> Option<Req> {
        if attempt == 1 {
            self.budget.deposit();
        }
        if attempt < self.attempts { (self.clone_request)(request) } else { None }
    }

    fn withdraw_retry(&self, kept: Req) -> Option<Req> {
        self.budget.withdraw().then_some(kept)
    }
}

impl<F> fmt::Debug for Retry<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("attempts", &self.attempts).finish_non_exhaustive()
    }
}
