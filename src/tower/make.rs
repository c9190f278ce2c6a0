//! Makes balancers over connections to targets.

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use ::tower::discover::Discover;
use ::tower::{BoxError, Layer, Service};
use tokio_util::task::AbortOnDropHandle;

use super::balance::Balance;
use super::reconnect::{Connect, Reconnect, ReconnectConfig};
use crate::backend::{BackendSet, SetError, Snapshot, SnapshotCommit, SnapshotReader};
use crate::balancer::Balancer;
use crate::discovery::{DiscoverSource, Feed, MemberSource};
use crate::scheduler::Scheduler;

/// A layer that makes a [`MakeBalance`] of a `MakeService`, which makes connections.
#[derive(Clone, Debug)]
pub struct BalanceLayer {
    config: MakeBalanceConfig,
}

#[derive(Clone, Debug)]
struct MakeBalanceConfig {
    scheduler: Arc<dyn Scheduler>,
    reconnect: ReconnectConfig,
    warm_up: bool,
}

/// Makes balancers over connections to the targets that a discovery source names.
///
/// It wraps a `MakeService`: a service that makes a connection, itself a service, to a target such as
/// an address. The targets come from a [`MemberSource`], by [`balance`](Self::balance), or from
/// tower's [`Discover`], as the request of `call`. The result is a [`Balance`] over a [`Reconnect`]
/// for each target.
///
/// A [`Feed`] adds and removes the members: a source that fails removes none, and a member that is no
/// longer named is drained. The feed runs in a task that ends with the balancer, its clones and its
/// requests. For other behaviour, combine the parts yourself: [`Feed::making_targets`] makes a
/// [`Reconnect`] of each target.
///
/// # Warm-up
/// Each connection is made as soon as its target is a member, not with its first request; until it is
/// made, requests go to other members. See [`warm_up`](BalanceLayer::warm_up), and
/// [`SlowStart`](crate::SlowStart) for caches that warm up with load.
///
/// # Examples
/// ```
/// use lvs::discovery::StaticList;
/// use lvs::scheduler::PowerOfTwoChoices;
/// use lvs::tower::BalanceLayer;
/// use tower::{BoxError, Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let connect = service_fn(async |address: std::net::SocketAddr| {
///     // A real `MakeService` would connect to the address here.
///     let connection = service_fn(move |request: &'static str| async move {
///         Ok::<_, BoxError>(format!("{request} for {address}"))
///     });
///     Ok::<_, BoxError>(connection)
/// });
/// let list: StaticList<std::net::SocketAddr> = "10.0.0.1:6379\n10.0.0.2:6379 weight=2".parse()?;
/// let service = BalanceLayer::new(PowerOfTwoChoices::new()).layer(connect).balance(list)?;
/// assert!(service.oneshot("something").await?.starts_with("something for 10.0.0."));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MakeBalance<M> {
    make: M,
    config: MakeBalanceConfig,
}

impl BalanceLayer {
    /// Creates a layer whose balancers pick with this scheduler.
    #[must_use]
    pub fn new(scheduler: impl Scheduler + 'static) -> Self {
        let scheduler = Arc::new(scheduler);
        Self {
            config: MakeBalanceConfig {
                scheduler,
                reconnect: ReconnectConfig::default(),
                warm_up: true,
            },
        }
    }

    /// Sets whether connections are made as soon as their targets are members. Default: true.
    #[must_use]
    pub fn warm_up(mut self, warm_up: bool) -> Self {
        self.config.warm_up = warm_up;
        self
    }

    /// Sets the connect timeout and the backoff of the connections.
    #[must_use]
    pub fn reconnect(mut self, config: ReconnectConfig) -> Self {
        self.config.reconnect = config;
        self
    }
}

impl<M> Layer<M> for BalanceLayer {
    type Service = MakeBalance<M>;

    fn layer(&self, make: M) -> MakeBalance<M> {
        MakeBalance { make, config: self.config.clone() }
    }
}

impl<M> MakeBalance<M> {
    /// Makes a balancer over connections to the targets that a source names; there may be none yet.
    ///
    /// # Errors
    /// Returns the scheduler's error if it rejects an empty set.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub fn balance<T>(
        &self,
        source: impl MemberSource<T> + 'static,
    ) -> Result<Balance<Reconnect<M, T>>, SetError>
    where
        M: Connect<T>,
        T: Clone + PartialEq + Send + Sync + 'static,
    {
        let set = BackendSet::new();
        let balance = Balance::new(Balancer::from_arc(&set, Arc::clone(&self.config.scheduler))?);
        let balance = match self.config.warm_up {
            true => {
                balance.attach(set.add_reader(|_| Ok::<_, SetError>(Arc::new(WarmUpConnector)))?)
            }
            false => balance,
        };
        let (make, config) = (self.make.clone(), self.config.reconnect);
        let connect =
            move |target: &T| Reconnect::with_config(config, make.clone(), target.clone());
        let feed = tokio::spawn(Feed::making_targets(&set, source, connect).run());
        Ok(balance.attach(AbortOnDropHandle::new(feed)))
    }
}

/// Makes a balancer from a [`Discover`] of targets. [`DiscoverSource`] describes how an error and the
/// end of the `Discover` are handled.
impl<M, D> Service<D> for MakeBalance<M>
where
    D: Discover<Key: fmt::Display + Send, Error: Into<BoxError>> + Send + 'static,
    D::Service: Clone + PartialEq + Send + Sync + 'static,
    M: Connect<D::Service>,
{
    type Response = Balance<Reconnect<M, D::Service>>;
    type Error = SetError;
    type Future = Ready<Result<Self::Response, SetError>>;

    /// Is always ready: each connection polls a clone of the `MakeService` of its own.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SetError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, discover: D) -> Self::Future {
        ready(self.balance(DiscoverSource::new(discover)))
    }
}

impl<M> fmt::Debug for MakeBalance<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MakeBalance").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Connects each member of a new snapshot.
struct WarmUpConnector;

impl<M, T> SnapshotReader<Reconnect<M, T>> for WarmUpConnector
where
    M: Connect<T>,
    T: Clone + Send + Sync + 'static,
{
    fn prepare(
        &self,
        next: &Arc<Snapshot<Reconnect<M, T>>>,
    ) -> Result<SnapshotCommit<'_>, SetError> {
        let next = Arc::clone(next);
        // `connect` does nothing for members that are connected or connecting.
        Ok(Box::new(move || next.backends().iter().for_each(|backend| backend.target().connect())))
    }
}
