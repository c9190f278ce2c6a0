//! Keys of requests: requests of one key go to the same backend.

use crate::backend::BackendId;
use crate::scheduler::Flow;

/// Computes the key of a request: with a scheduler that hashes (`ring`, `rendezvous`, `maglev`, `mh`,
/// ...), requests of the same key go to the same backend as long as that backend is eligible.
///
/// Closures implement it: `|request: &Request| Some(hash_bytes(request.user.as_bytes(), 0))`. Keys of
/// HTTP requests (a header, a cookie, a part of the path) come with the feature `tower-http`.
///
/// A key must be the same in every process that balances over the same backends, and in the next
/// release of your program: compute it with [`hash_bytes`](crate::scheduler::hash_bytes), which is
/// stable, and not with the standard library's hasher, which is not.
///
/// `call` computes the key once for each request. A panic in it unwinds to the caller of `call`; no
/// backend is picked then, and the permit that `poll_ready` reserved is returned.
pub trait RequestKey<Req> {
    /// Returns the key of the request, if it has one.
    fn key(&self, request: &Req) -> Option<u64>;

    /// Returns the backend that the request is pinned to, such as by a cookie: the request goes there as
    /// long as that backend is eligible, whatever its connection limit, and is otherwise scheduled. A
    /// retry goes elsewhere, and so does a request whose backend's instance is busy. Default: no
    /// request is pinned. [`PinnedKey`] makes it of a closure.
    fn backend(&self, request: &Req) -> Option<BackendId> {
        let _ = request;
        None
    }

    /// Returns the flow by which the scheduler picks; `None` if the request must be refused.
    #[doc(hidden)]
    fn scheduler_flow(&self, request: &Req, missing_key: MissingKeyPolicy) -> Option<Flow> {
        match (self.key(request), missing_key) {
            (Some(key), _) => Some(Flow::new().key(key)),
            (None, MissingKeyPolicy::Spread) => Some(Flow::new().key(fastrand::u64(..))),
            (None, MissingKeyPolicy::Same(key)) => Some(Flow::new().key(key)),
            (None, MissingKeyPolicy::Refuse) => None,
        }
    }
}

impl<Req, F: Fn(&Req) -> Option<u64>> RequestKey<Req> for F {
    fn key(&self, request: &Req) -> Option<u64> {
        self(request)
    }
}

/// A [`RequestKey`] that gives no request a key: the scheduler may pick any backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKey;

impl<Req> RequestKey<Req> for NoKey {
    fn key(&self, _: &Req) -> Option<u64> {
        None
    }

    fn scheduler_flow(&self, _: &Req, _: MissingKeyPolicy) -> Option<Flow> {
        Some(Flow::new())
    }
}

/// A [`RequestKey`] that pins requests to backends by their names, and leaves the others to another key.
///
/// For sessions whose backend is named by the request, in a cookie or in a header that the first
/// response has set: [`InFlight::id`](super::InFlight::id), or `Balance::name_responses` (feature
/// `tower-http`), has the name. The look-up of the backend is linear in the number of members.
///
/// A name from a client is not proof of anything: it can only name a backend that is eligible anyway.
///
/// # Examples
/// ```
/// use lvs::scheduler::RoundRobin;
/// use lvs::tower::{Balance, PinnedKey};
/// use lvs::{BackendSet, Balancer, Health, Spec};
/// use tower::{BoxError, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let set = BackendSet::new();
/// for name in ["a", "b", "c"] {
///     let instance = service_fn(move |_: &str| async move { Ok::<_, BoxError>(name) });
///     set.insert(Spec::new(name, instance))?;
/// }
/// // Here the whole request is the name of a backend.
/// let key = PinnedKey::new(|request: &&str| Some((*request).into()));
/// let service = Balance::new(Balancer::new(&set, RoundRobin::new())?).key(key);
/// for _ in 0..3 {
///     assert_eq!(service.clone().oneshot("b").await?, "b");
/// }
/// set.set_health(&"b".into(), Health::Down)?;
/// assert_ne!(service.oneshot("b").await?, "b");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PinnedKey<F, K = NoKey> {
    pin: F,
    key: K,
}

impl<F> PinnedKey<F> {
    /// Creates a key that pins each request to the backend that the closure returns, if there is one.
    #[must_use]
    pub const fn new<Req>(pin: F) -> Self
    where
        F: Fn(&Req) -> Option<BackendId>,
    {
        Self { pin, key: NoKey }
    }
}

impl<F, K> PinnedKey<F, K> {
    /// Sets the key of the requests that are not pinned, or whose backend is not eligible. Default: they
    /// have none.
    #[must_use]
    pub fn otherwise<N>(self, key: N) -> PinnedKey<F, N> {
        PinnedKey { pin: self.pin, key }
    }
}

impl<Req, F, K> RequestKey<Req> for PinnedKey<F, K>
where
    F: Fn(&Req) -> Option<BackendId>,
    K: RequestKey<Req>,
{
    fn key(&self, request: &Req) -> Option<u64> {
        self.key.key(request)
    }

    fn backend(&self, request: &Req) -> Option<BackendId> {
        (self.pin)(request).or_else(|| self.key.backend(request))
    }

    fn scheduler_flow(&self, request: &Req, missing_key: MissingKeyPolicy) -> Option<Flow> {
        self.key.scheduler_flow(request, missing_key)
    }
}

/// What a balancer with keys does with a request that has none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum MissingKeyPolicy {
    /// The request gets a random key, and may go to any backend.
    #[default]
    Spread,
    /// All requests without a key share this key, and go to one backend.
    Same(u64),
    /// The request fails with [`BalanceError::NoKey`](super::BalanceError::NoKey).
    Refuse,
}
