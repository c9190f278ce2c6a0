//! Retries of failed requests on other backends.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use ::tower::retry::budget::{Budget, TpsBudget};

#[cfg(feature = "tower-http")]
use super::http::copy_safe_request;
use crate::setting::{SettingError, check_range};

/// Decides which failed requests are sent again: [`NoRetry`] or [`Retry`].
pub trait RetryPolicy<Req>: Clone {
    /// The copy of a request that may be sent again.
    #[doc(hidden)]
    type RequestCopy;

    /// Copies a request before it is sent for the `attempt`th time, 1 being the first; `None` if the
    /// request may not be sent again.
    #[doc(hidden)]
    fn clone_request(&self, request: &Req, attempt: u32) -> Option<Self::RequestCopy>;

    /// Takes a retry from the budget and returns the request to send; `None` without budget.
    #[doc(hidden)]
    fn withdraw_retry(&self, copy: Self::RequestCopy) -> Option<Req>;
}

/// A [`RetryPolicy`] that sends each request once.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRetry;

impl<Req> RetryPolicy<Req> for NoRetry {
    type RequestCopy = Infallible;

    #[inline]
    fn clone_request(&self, _: &Req, _: u32) -> Option<Infallible> {
        None
    }

    fn withdraw_retry(&self, copy: Infallible) -> Option<Req> {
        match copy {}
    }
}

/// Sends a failed request again, to a backend that has not had it yet, within a budget.
///
/// The [classifier](super::Classify) decides what a failure is: an error, and with
/// `HttpStatusClassifier` a status of 500 and above. Each attempt reports its outcome to its own
/// backend.
///
/// The budget is tower's and is shared by all clones. By default, retries may be a fifth of the
/// requests of the last ten seconds, and ten a second besides, so that a service that fails
/// altogether does not receive several times its load. Without budget, or without another backend,
/// the caller receives the failure.
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
/// for (name, fails) in [("sound", false), ("failing", true)] {
///     let instance = service_fn(move |_: u32| async move {
///         if fails { Err(BoxError::from("failed")) } else { Ok(name) }
///     });
///     set.insert(Spec::new(name, instance))?;
/// }
/// // These requests do no harm if they are executed twice.
/// let retry = Retry::new(|request: &u32| Some(*request));
/// let service = Balance::new(Balancer::new(&set, RoundRobin::new())?).retry(retry);
/// for _ in 0..4 {
///     assert_eq!(service.clone().oneshot(7).await?, "sound");
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
    /// Creates a policy that repeats the requests of which `clone_request` returns a clone. It must
    /// return `None` for requests that do harm when they are executed twice: a failed request may have
    /// been executed.
    #[must_use]
    pub fn new<Req>(clone_request: F) -> Self
    where
        F: Fn(&Req) -> Option<Req>,
    {
        Self { clone_request, attempts: 3, budget: Arc::new(TpsBudget::default()) }
    }

    /// Sets how often a request is sent at most, the first time included; at least 1. Default: 3.
    ///
    /// # Errors
    /// [`SettingError`] if the number is 0.
    pub fn attempts(self, attempts: u32) -> Result<Self, SettingError> {
        Ok(Self { attempts: check_range("attempts", attempts, 1..)?, ..self })
    }

    /// Sets the budget of retries.
    #[must_use]
    pub fn budget(self, budget: impl Budget + Send + Sync + 'static) -> Self {
        Self { budget: Arc::new(budget), ..self }
    }
}

#[cfg(feature = "tower-http")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower-http")))]
impl<B: http_body::Body + Default> Retry<fn(&http::Request<B>) -> Option<http::Request<B>>> {
    /// Creates a policy that repeats requests whose method is safe (`GET`, `HEAD`, `OPTIONS` and
    /// `TRACE`; RFC 9110, section 9.2.1) and whose body is empty.
    ///
    /// The copy has the head of the request and the default body, so that the body need not be `Clone`:
    /// axum's, tonic's and those of `http_body_util` will do. A safe request with a body is sent once.
    #[must_use]
    pub fn safe_methods() -> Self {
        Self::new(copy_safe_request)
    }
}

impl<Req, F: Fn(&Req) -> Option<Req> + Clone> RetryPolicy<Req> for Retry<F> {
    type RequestCopy = Req;

    fn clone_request(&self, request: &Req, attempt: u32) -> Option<Req> {
        if attempt == 1 {
            self.budget.deposit();
        }
        if attempt < self.attempts { (self.clone_request)(request) } else { None }
    }

    fn withdraw_retry(&self, copy: Req) -> Option<Req> {
        self.budget.withdraw().then_some(copy)
    }
}

impl<F> fmt::Debug for Retry<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("attempts", &self.attempts).finish_non_exhaustive()
    }
}
