//! Keys of requests: requests of one key go to the same backend.

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
