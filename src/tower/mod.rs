//! Tower services that balance requests with any [scheduler](crate::scheduler).
//!
//! [`Balance`] picks a backend after `call`, by the request's key if it has one, and suits most
//! stacks. [`ReadyFirst`] picks in `poll_ready`, for instances whose readiness is real and callers
//! that it must hold back. [`Retry`] and [`Hedge`] send failed and slow requests to a second backend,
//! [`Reconnect`] is a connection that is made again after it breaks, and `BalanceLayer` (feature
//! `discovery-tower`) balances over connections to the targets that a discovery source names.
//!
//! # From `tower::balance::p2c` to this module
//! With tower, a list of services under keys goes into a balancer, which goes into a buffer to be
//! shared:
//!
//! ```
//! # use std::sync::Arc;
//! # use tower::{BoxError, service_fn};
//! use tower::balance::p2c::Balance;
//! use tower::discover::ServiceList;
//! use tower::load::{CompleteOnResponse, PendingRequests};
//!
//! # let first = service_fn(async |_: String| Ok::<_, BoxError>("first"));
//! # let second = first;
//! let instances = [first, second]
//!     .map(|instance| PendingRequests::new(instance, CompleteOnResponse::default()));
//! let service = Balance::new(ServiceList::new::<String>(Vec::from(instances)));
//! // let service = tower::buffer::Buffer::new(service, 1024);
//! # let _ = service;
//! ```
//!
//! With this module the services are the targets of a set, under names that logs and metrics show; the
//! scheduler is a value, leases count the load, and the service is cloned:
//!
//! ```
//! # use tower::{BoxError, service_fn};
//! use lvs::scheduler::PowerOfTwoChoices;
//! use lvs::tower::Balance;
//! use lvs::{BackendSet, Balancer, Spec};
//!
//! # let first = service_fn(async |_: String| Ok::<_, BoxError>("first"));
//! # let second = first;
//! let set = BackendSet::new();
//! set.insert(Spec::new("first", first))?;
//! set.insert(Spec::new("second", second).weight(2))?;
//! let service = Balance::new(Balancer::new(&set, PowerOfTwoChoices::default())?);
//! let shared = service.clone();
//! # let _ = shared;
//! # Ok::<(), lvs::SetError>(())
//! ```
//!
//! | `tower` | `lvs::tower` |
//! |---|---|
//! | `ServiceList`, or a stream of changes | [`BackendSet::insert`](crate::BackendSet::insert), or a stream through `discovery::DiscoverSource` (feature `discovery-tower`) and a `Feed` |
//! | the end of that stream ends the updates, an error of it ends the balancer | the members stay, and the feed asks again |
//! | `Load`, `PendingRequests`, `PeakEwma` around each service | the scheduler: `PowerOfTwoChoices`, `PeakEwma`, or any other; all of them with weights |
//! | `CompleteOnResponse`, or your own `TrackCompletion` | [`OnResponse`], `OnBodyEnd` (feature `tower-http`), or your own [`Completion`] |
//! | no keys; `Steer` requires all services to be ready | [`Balance::key`] |
//! | a `Buffer` with a task and a queue, to share the balancer | a clone |
//! | every ready service holds a permit or a slot | one candidate at a time does |
//! | `ConcurrencyLimit` around each service | [`Limits`](crate::Limits) of the backend, which schedulers read |
//! | `Timeout` around each service or around the balancer | [`Balance::timeout`], for each attempt |
//! | `Retry` around the balancer, which may pick the same service again | [`Balance::retry`], which picks another |
//! | `Hedge` around the balancer, which may pick the same service again | [`Balance::hedge`], which picks another, within a budget |
//! | `MakeBalance`, `BalanceLayer`: a service that returns a `Discover` of services | `MakeBalance`, `BalanceLayer` (feature `discovery-tower`): a `MakeService`, and a `Discover` or another source of its targets |
//! | `Reconnect` around a `MakeService`, and a `Buffer` to share it | [`Reconnect`], shared by cloning |
//! | an error of `poll_ready` removes the service until it is discovered again | the request passes the service over; its [health](crate::BackendSet::set_health) decides whether it is down |
//! | with an empty set, `poll_ready` is pending for ever | [`BalanceError::NoBackend`] after [`Balance::wait_timeout`] |
//! | no health, drain, limits, slow start, panic threshold | those of the set: [`backend`](crate::backend) |
//!
//! An instance must be `Clone` (each request uses a clone; clients of hyper and channels of tonic are
//! made for that), `Send` and `Sync`. Wrap an instance that is not `Sync` into tower's
//! `BoxCloneSyncService`, and an instance that cannot be cloned into a `Buffer` of its own.
//!
//! # Timeouts
//! | where | what it bounds | the backend's account | sent again |
//! |---|---|---|---|
//! | [`Balance::timeout`], [`ReadyFirst::timeout`] | one attempt, from the call to the response | a timeout | by [`Retry`], [`Hedge`] |
//! | tower's `Timeout` in each instance | the same | a timeout, by the [classifiers](Classify) of this module; with your own, as you classify its `Elapsed` | the same |
//! | tower's `Timeout` around the balancer | the whole request: waiting, all attempts | cancelled, which counts for nothing | no |
//! | [`Balance::wait_timeout`] | the search for a ready instance | nothing | no |
//!
//! So a timeout around the balancer alone hides a backend that hangs: its requests are dropped, as those
//! of clients that went away are, and the backend stays eligible. Set [`Balance::timeout`] for that, and
//! a timeout around the balancer, longer than that of all attempts, only to bound what a caller waits.
//! None of them bounds the body of a response: a timeout for that belongs into a layer of the body.
//!
//! # What the services need of their runtime
//! A request that waits for a backend, has a [timeout](Balance::timeout) or may be hedged starts a
//! timer, and a [`Reconnect`] one for each connection: a tokio runtime with time (`enable_time`), of
//! either flavor. I/O is needed only by what the instances do. A timer in a runtime without time panics,
//! by tokio's rule.
//!
//! # Cost
//! Ready, call and answer of an instance that does nothing take 0.37 to 0.44 of the time of tower's
//! `p2c` with 10 to 1000 instances (61 to 76 ns against 150 to 173 ns, AMD EPYC), without allocation.
//! [`PeakEwma`](crate::scheduler::PeakEwma) reads the clock twice, as tower's does, and takes 0.4 to
//! 0.5 of its time. Shared by two tasks, `Balance` takes a fifth of a `Buffer`'s time on one thread
//! and less than a tenth on two.
//!
//! Threads that share a set write the counters of the same backends, and contend for their cache
//! lines: on two processors, two threads together do no more than one with 10 backends, and 1.3 times
//! as much with 1000. With one [lane](crate::BackendSet::with_counter_lanes) for each thread they do 1.3 to
//! 1.5 times as much; two threads that share nothing do 1.6 to 1.9 times as much on that machine.
//! What the instances share themselves, such as the count of a cloned `Arc`, adds to this. `cargo run
//! --release --manifest-path benches/peers/Cargo.toml` measures all of it on your machine.

mod balance;
mod classify;
mod completion;
mod context;
mod error;
mod future;
mod hedge;
#[cfg(feature = "tower-http")]
mod http;
mod in_flight;
mod key;
#[cfg(feature = "discovery-tower")]
mod make;
mod ready_first;
mod reconnect;
mod retry;
mod search;
mod wait;

pub use self::balance::Balance;
pub use self::classify::{Classify, ResultClassifier};
pub use self::completion::{Completion, OnResponse};
pub use self::error::{BalanceError, InstanceError};
pub use self::future::BalanceFuture;
pub use self::hedge::{Hedge, HedgeFuture, HedgeStats, Hedged};
#[cfg(feature = "tower-http")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower-http")))]
pub use self::http::{
    ClassifyTrailers, CookieKey, ExtensionKey, GrpcStatusClassifier, HeaderKey,
    HttpStatusClassifier, LeasedBody, NamedResponses, OnBodyEnd, PathKey, PeerKey, ServedBy,
    grpc_error_response, grpc_status,
};
pub use self::in_flight::InFlight;
pub use self::key::{MissingKeyPolicy, NoKey, PinnedKey, RequestKey};
#[cfg(feature = "discovery-tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "discovery-tower")))]
pub use self::make::{BalanceLayer, MakeBalance};
pub use self::ready_first::ReadyFirst;
pub use self::reconnect::{
    Connect, ConnectError, ConnectTimeout, Reconnect, ReconnectConfig, ReconnectFuture,
};
pub use self::retry::{NoRetry, Retry, RetryPolicy};
