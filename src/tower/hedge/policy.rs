//! When a request is hedged, and which.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::tower::retry::budget::{Budget, TpsBudget};

use super::delay::{HedgeDelay, MIN_WINDOW, QUANTILES};
use crate::setting::{SettingError, check_range};
#[cfg(feature = "tower-http")]
use crate::tower::http::copy_safe_request;

/// Sends a request to a second backend when the first has not answered for longer than nearly all
/// requests take; the first good answer counts, and the other request is dropped.
///
/// Hedging shortens the tail of response times that comes from single backends that stall, for a few
/// percent more requests ("hedged requests" in Dean and Barroso, *The Tail at Scale*, 2013). Where all
/// backends are slow it only adds to their load; a budget bounds that.
///
/// [`Balance::hedge`](crate::tower::Balance::hedge) applies these settings. Clones share the budget;
/// [`HedgeStats`](super::HedgeStats) counts for each balancer and its clones.
///
/// # When a request is hedged
/// The delay is a [quantile](Self::quantile) of the latencies of the last [window](Self::window), and
/// is updated twenty times in a window. A request that its second backend answered counts with the
/// delay as its latency, since its first attempt is only known to be among the slow. Failures do not
/// count. Nothing is hedged until a hundred latencies are known.
///
/// The same scheduler picks the second backend, without the first, and the second request needs no
/// [permit](crate::tower::Balance::max_in_flight) of its own. A request is not hedged if there is no
/// other backend, no [budget](Self::budget), or if it still
/// [searches](crate::tower::Balance#how-a-request-finds-an-instance) for its first backend after the
/// delay.
///
/// If one of the two requests fails, by the [classifier](crate::tower::Classify), the other is awaited;
/// if both fail, the caller receives the later failure. The dropped request reports
/// [`Outcome::Cancelled`](crate::Outcome::Cancelled) to its backend: backends that stall for good are
/// for [health checks](crate::health) to find.
///
/// # Cost
/// Two readings of the clock, a clone of the request, and two additions to a histogram that all clones
/// share; a timer for each request that is not answered at its first poll.
///
/// # Examples
/// ```
/// use lvs::scheduler::PowerOfTwoChoices;
/// use lvs::tower::{Balance, Hedge};
/// use lvs::{BackendSet, Balancer, Spec};
/// use tower::{BoxError, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let set = BackendSet::new();
/// for name in ["a", "b"] {
///     set.insert(Spec::new(name, service_fn(async |number: u32| Ok::<_, BoxError>(number + 1))))?;
/// }
/// let hedge = Hedge::new(|request: &u32| Some(*request)).quantile(0.99)?;
/// let service = Balance::new(Balancer::new(&set, PowerOfTwoChoices::new())?).hedge(hedge);
/// let stats = service.stats().clone();
/// assert_eq!(service.oneshot(7).await?, 8);
/// assert_eq!((stats.sent(), stats.won()), (0, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Hedge<F> {
    pub(super) clone_request: F,
    pub(super) budget: Arc<dyn Budget + Send + Sync>,
    quantile: f64,
    window: Duration,
}

impl<F> Hedge<F> {
    /// Creates settings that hedge the requests of which `clone_request` returns a clone. It must
    /// return `None` for requests that do harm when they are executed twice.
    #[must_use]
    pub fn new<Req>(clone_request: F) -> Self
    where
        F: Fn(&Req) -> Option<Req>,
    {
        Self {
            clone_request,
            budget: Arc::new(TpsBudget::default()),
            quantile: 0.95,
            window: Duration::from_secs(10),
        }
    }

    /// Sets the quantile of latencies after which a request is hedged; about 1 less this part of all
    /// requests is sent twice. From 0.5 to 0.9999. Default: 0.95.
    ///
    /// # Errors
    /// [`SettingError`] if the value is outside that range.
    pub fn quantile(self, quantile: f64) -> Result<Self, SettingError> {
        Ok(Self { quantile: check_range("quantile", quantile, QUANTILES)?, ..self })
    }

    /// Sets the time whose latencies the quantile covers, at least 20 ms. Default: 10 s.
    ///
    /// # Errors
    /// [`SettingError`] if the window is shorter.
    pub fn window(self, window: Duration) -> Result<Self, SettingError> {
        Ok(Self { window: check_range("window", window, MIN_WINDOW..)?, ..self })
    }

    /// Sets the budget that bounds second requests. Default: tower's, a fifth of the requests of the
    /// last ten seconds, and ten a second besides.
    #[must_use]
    pub fn budget(self, budget: impl Budget + Send + Sync + 'static) -> Self {
        Self { budget: Arc::new(budget), ..self }
    }

    pub(super) fn new_delay(&self) -> HedgeDelay {
        HedgeDelay::new(self.quantile, self.window)
    }
}

#[cfg(feature = "tower-http")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower-http")))]
impl<B: http_body::Body + Default> Hedge<fn(&http::Request<B>) -> Option<http::Request<B>>> {
    /// Creates settings that hedge requests whose method is safe (`GET`, `HEAD`, `OPTIONS` and `TRACE`;
    /// RFC 9110, section 9.2.1) and whose body is empty. The second request has the default body, as
    /// with [`Retry::safe_methods`](crate::tower::Retry::safe_methods).
    #[must_use]
    pub fn safe_methods() -> Self {
        Self::new(copy_safe_request)
    }
}

impl<F> fmt::Debug for Hedge<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge")
            .field("quantile", &self.quantile)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
