//! Requests that are sent to a second backend when the first takes long.

mod delay;
mod future;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tower::retry::budget::{Budget, TpsBudget};
use ::tower::{BoxError, Service};
use tokio::time::Instant;

use self::delay::HedgeDelay;
pub use self::future::HedgeFuture;
use super::balance::Balance;
use super::in_flight::Completion;
use super::key::RequestKey;
use super::retry::RetryPolicy;
use crate::histogram::DurationHistogram;
use crate::sync::{AtomicU64, Ordering};

/// Sends a request to a second backend when the first has not answered for longer than nearly all
/// do; the first good answer counts, and the other is dropped.
///
/// It takes the tail off response times that come from single backends which stall, for a few
/// hundredths more work ("hedged requests" in Dean and Barroso, *The Tail at Scale*, 2013). It does
/// nothing where all are slow, but for adding to their load; so it has a budget.
///
/// # When
/// The delay is a [quantile](Self::quantile) of how long requests took lately, over a
/// [window](Self::window), and is found anew twenty times in each. A request that a second backend
/// has answered counts as one that took as long as the delay: no more is known of its first attempt
/// than that it is among the slow. Failures do not count. Until a hundred are known nothing is sent
/// twice.
///
/// The second goes to a backend that the first is not at, picked by the same scheduler, and needs
/// no [place](Balance::max_in_flight) of its own. Where there is none, or no
/// [budget](Self::budget), the first is awaited alone; so it is if it still
/// [searches](super::Balance#what-happens-to-a-request) after the delay.
///
/// A failure of one, by the [classifier](super::Classify), waits for the other while that is under
/// way; when both fail the last one is the answer. The one that is dropped says nothing about its
/// backend ([`Outcome::Cancelled`](crate::Outcome::Cancelled)): let [checks](crate::health) find
/// those that stall for good.
///
/// # What it costs
/// Two readings of the clock, a copy of the request and two additions to a histogram that all clones
/// share; a timer for those whose answer is not there at once.
///
/// # Examples
/// ```
/// use lvs::scheduler::PowerOfTwo;
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
/// let hedge = Hedge::new(|request: &u32| Some(*request)).quantile(0.99);
/// let service = Balance::new(Balancer::new(&set, PowerOfTwo::new())?).hedge(hedge.clone());
/// assert_eq!(service.oneshot(7).await?, 8);
/// assert_eq!((hedge.hedges_sent(), hedge.hedges_won()), (0, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Hedge<F> {
    clone_request: F,
    budget: Arc<dyn Budget + Send + Sync>,
    stats: Arc<HedgeStats>,
}

#[derive(Debug)]
struct HedgeStats {
    delay: HedgeDelay,
    sent: AtomicU64,
    won: AtomicU64,
}

impl<F> Hedge<F> {
    /// Sends those twice of which `copy` gives a copy: only requests that do no harm if they are done
    /// twice.
    #[must_use]
    pub fn new<Req>(copy: F) -> Self
    where
        F: Fn(&Req) -> Option<Req>,
    {
        Self {
            clone_request: copy,
            budget: Arc::new(TpsBudget::default()),
            stats: HedgeStats::new(HedgeDelay::default()),
        }
    }

    /// Which part of all answers is in time: the rest, 1 less this, is about the part of all
    /// requests that is sent twice. Default: 0.95. What lies outside 0.5 to 0.9999 counts as the
    /// nearer of them.
    #[must_use]
    pub fn quantile(self, quantile: f64) -> Self {
        let delay = self.stats.delay.with_quantile(quantile);
        Self { stats: HedgeStats::new(delay), ..self }
    }

    /// How long the past is that the quantile is taken of. Default: 10 s. At least 20 ms.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        let delay = self.stats.delay.with_window(window);
        Self { stats: HedgeStats::new(delay), ..self }
    }

    /// Bounds what is sent twice; tower's. Default: a fifth of the requests of the last ten seconds,
    /// and ten a second beside them.
    #[must_use]
    pub fn budget(self, budget: impl Budget + Send + Sync + 'static) -> Self {
        Self { budget: Arc::new(budget), ..self }
    }

    /// How many second requests were sent, by all clones.
    #[must_use]
    pub fn hedges_sent(&self) -> u64 {
        self.stats.sent.load(Ordering::Relaxed)
    }

    /// How many of them gave the answer.
    #[must_use]
    pub fn hedges_won(&self) -> u64 {
        self.stats.won.load(Ordering::Relaxed)
    }

    /// How long a request is awaited alone, as things stand; `None` while too little is known.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.stats.delay.current()
    }

    /// How long requests took lately, over half a window to a whole one.
    #[must_use]
    pub fn latencies(&self) -> DurationHistogram {
        self.stats.delay.latencies()
    }
}

impl HedgeStats {
    fn new(delay: HedgeDelay) -> Arc<Self> {
        Arc::new(Self { delay, sent: AtomicU64::new(0), won: AtomicU64::new(0) })
    }
}

#[cfg(feature = "tower-http")]
impl<B: Clone> Hedge<fn(&http::Request<B>) -> Option<http::Request<B>>> {
    /// Sends requests twice whose method is safe: `GET`, `HEAD`, `OPTIONS`, `TRACE` (RFC 9110, section
    /// 9.2.1).
    #[must_use]
    pub fn safe_methods() -> Self {
        Self::new(|request| request.method().is_safe().then(|| request.clone()))
    }
}

impl<F> fmt::Debug for Hedge<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge").field("shared", &self.stats).finish_non_exhaustive()
    }
}

/// A [`Balance`] whose slow requests are sent to a second backend; made by [`Balance::hedge`].
#[derive(Debug)]
pub struct Hedged<S, K, C, R, F> {
    balance: Balance<S, K, C, R>,
    hedge: Hedge<F>,
}

impl<S, K, C, R> Balance<S, K, C, R> {
    /// Sends requests whose answer takes long to a second backend, by these rules; see [`Hedge`].
    #[must_use]
    pub fn hedge<F>(self, hedge: Hedge<F>) -> Hedged<S, K, C, R, F> {
        Hedged { balance: self, hedge }
    }
}

impl<S, K, C, R, F> Hedged<S, K, C, R, F> {
    /// The balancer that sends the requests.
    #[must_use]
    pub fn balance(&self) -> &Balance<S, K, C, R> {
        &self.balance
    }
}

impl<S, K, C, R, F, Req> Service<Req> for Hedged<S, K, C, R, F>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: RequestKey<Req>,
    C: Completion<S, S::Response>,
    R: RetryPolicy<Req>,
    F: Fn(&Req) -> Option<Req> + Clone,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = HedgeFuture<S, Req, C, R, F>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.balance.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let begun = Instant::now();
        self.hedge.budget.deposit();
        let second = self.hedge.delay().and_then(|delay| {
            let copy = (self.hedge.clone_request)(&request)?;
            Some((begun.checked_add(delay)?, copy, self.balance.scheduler_flow(&request)?))
        });
        HedgeFuture::new(self.balance.call(request), begun, second, self.hedge.clone())
    }
}

impl<S, K: Clone, C: Clone, R: Clone, F: Clone> Clone for Hedged<S, K, C, R, F> {
    fn clone(&self) -> Self {
        Self { balance: self.balance.clone(), hedge: self.hedge.clone() }
    }
}
