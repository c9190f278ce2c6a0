//! From targets to a balancer over connections to them.

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tower::discover::Discover;
use ::tower::{BoxError, Layer, Service};
use tokio_util::task::AbortOnDropHandle;

use super::balance::Balance;
use super::reconnect::{Connect, Reconnect, ReconnectConfig};
use crate::backend::{BackendSet, SetError, Snapshot, SnapshotCommit, SnapshotReader, Spec};
use crate::balancer::Balancer;
use crate::discovery::{DiscoverSource, Feed, MemberSource};
use crate::scheduler::Scheduler;

/// Puts a balancer around a `MakeService`, which makes connections: see [`MakeBalance`].
#[derive(Clone, Debug)]
pub struct BalanceLayer {
    config: MakeBalanceConfig,
}

#[derive(Clone, Debug)]
struct MakeBalanceConfig {
    scheduler: Arc<dyn Scheduler>,
    connect: ReconnectConfig,
    warm_up: bool,
}

/// Makes balancers over connections out of wherever targets come from.
///
/// Beneath it is a `MakeService`: a service from a target, such as an address, to a service, the
/// connection. Into it goes who the targets are: a [`MemberSource`] by [`balance`](Self::balance), or
/// tower's [`Discover`] as the request. Out comes a [`Balance`] over a [`Reconnect`] for each of them.
///
/// The members come and go by the rules of a [`Feed`]: a source that fails takes nobody out, and
/// who is gone drains. It runs in a task that ends with the balancer, its clones and its requests.
/// For other rules put the parts together by hand: [`MemberSource::map`] makes a [`Reconnect`] of each
/// target.
///
/// # Warm-up
/// Each connection is made as soon as its target is a member, and not with its first request; until
/// there is one, requests pass the member over. See [`warm_up`](BalanceLayer::warm_up), and
/// [`SlowStart`](crate::SlowStart) for caches that warm up with work.
///
/// # Examples
/// ```
/// use lvs::discovery::StaticList;
/// use lvs::scheduler::PowerOfTwo;
/// use lvs::tower::BalanceLayer;
/// use tower::{BoxError, Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let connect = service_fn(async |address: std::net::SocketAddr| {
///     // Here it would connect to the address.
///     let connection = service_fn(move |request: &'static str| async move {
///         Ok::<_, BoxError>(format!("{request} for {address}"))
///     });
///     Ok::<_, BoxError>(connection)
/// });
/// let list: StaticList<std::net::SocketAddr> = "10.0.0.1:6379\n10.0.0.2:6379 weight=2".parse()?;
/// let service = BalanceLayer::new(PowerOfTwo::new()).layer(connect).balance(list)?;
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
    /// Balancers that choose by this rule.
    #[must_use]
    pub fn new(scheduler: impl Scheduler + 'static) -> Self {
        let scheduler = Arc::new(scheduler);
        Self {
            config: MakeBalanceConfig {
                scheduler,
                connect: ReconnectConfig::default(),
                warm_up: true,
            },
        }
    }

    /// Whether connections are made as soon as their targets are members. Default: they are.
    #[must_use]
    pub fn warm_up(mut self, warm_up: bool) -> Self {
        self.config.warm_up = warm_up;
        self
    }

    /// As [`Reconnect::connect_timeout`].
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect.connect_timeout = timeout;
        self
    }

    /// As [`Reconnect::backoff`].
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.config.connect.backoff = (first, longest.max(first));
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
    /// A balancer over connections to the targets that a source names, which may be none yet.
    ///
    /// # Errors
    /// Those of the scheduler, if it cannot use an empty set.
    ///
    /// # Panics
    /// Outside a tokio runtime.
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
                balance.attach(set.subscribe(|_| Ok::<_, SetError>(Arc::new(WarmUpConnector)))?)
            }
            false => balance,
        };
        let (make, connect) = (self.make.clone(), self.config.connect);
        let connections = source.map(move |spec: Spec<T>| {
            spec.map(|target| Reconnect::with_config(connect, make.clone(), target))
        });
        let feed = tokio::spawn(Feed::new(&set, connections).run());
        Ok(balance.attach(AbortOnDropHandle::new(feed)))
    }
}

/// From a [`Discover`] of targets to a balancer; see [`DiscoverSource`] for what becomes of its
/// errors and of its end.
impl<M, D> Service<D> for MakeBalance<M>
where
    D: Discover<Key: fmt::Display + Send, Error: Into<BoxError>> + Send + 'static,
    D::Service: Clone + PartialEq + Send + Sync + 'static,
    M: Connect<D::Service>,
{
    type Response = Balance<Reconnect<M, D::Service>>;
    type Error = SetError;
    type Future = Ready<Result<Self::Response, SetError>>;

    /// Always: each connection asks a `MakeService` of its own whether it is.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SetError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, discover: D) -> Self::Future {
        ready(self.balance(DiscoverSource::new(discover)))
    }
}

impl<M> fmt::Debug for MakeBalance<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MakeBalance").field("rules", &self.config).finish_non_exhaustive()
    }
}

/// Connects whoever becomes a member.
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
        // Those that are connected, or at it, have no more to do.
        Ok(Box::new(move || next.backends().iter().for_each(|it| it.target().connect())))
    }
}
