//! What must go to the same backend each time.

use crate::scheduler::Flow;

/// Finds the key of a request: requests with the same key go to the same backend, by a scheduler
/// that hashes (`ring`, `rendezvous`, `maglev`, `mh`, ...), as long as that backend may be chosen.
///
/// A closure is one: `|request: &Request| Some(hash_bytes(request.user.as_bytes(), 0))`. Keys of HTTP
/// requests (a header, a cookie, a part of the path) come with the feature `tower-http`.
///
/// A key must be the same in every process that balances over the same backends, and in the next
/// release of your program: make it by [`hash_bytes`](crate::scheduler::hash_bytes), which is stable,
/// and not by the standard library's hasher, which is neither.
///
/// Called once a request, in `call`. A panic in it goes to whoever called; no backend has been
/// chosen then, and what `poll_ready` reserved is given back.
pub trait RequestKey<Req> {
    /// The key; `None` if the request has none.
    fn key(&self, request: &Req) -> Option<u64>;

    /// All that is known of the request: the key, or what is to be done without.
    #[doc(hidden)]
    fn scheduler_flow(&self, request: &Req, without: MissingKeyPolicy) -> Option<Flow> {
        match (self.key(request), without) {
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

/// Requests without keys: any backend will do.
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

/// What becomes of a request that has no key, where others have one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum MissingKeyPolicy {
    /// It goes anywhere: it gets a key at random.
    #[default]
    Spread,
    /// All of them share this one, and go to one backend.
    Same(u64),
    /// It fails with [`BalanceError::NoKey`](super::BalanceError::NoKey).
    Refuse,
}
