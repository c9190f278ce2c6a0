//! One connection to a target, made when it is wanted and made again when it breaks.

mod connection;
mod future;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tower::{BoxError, Service};
use thiserror::Error;
use tokio::sync::futures::OwnedNotified;

use self::connection::{ReconnectState, SharedConnection};
pub use self::future::ReconnectFuture;

/// A service that is one connection to a target: made by a `MakeService`, shared by clones, and made
/// again when it has broken.
///
/// It is an instance for a [`Balance`](super::Balance): cheap to clone, and as ready as its
/// connection is. While there is none, `poll_ready` is pending, so that requests go elsewhere; once
/// connecting has failed, it says so ([`ConnectError`]) until it has succeeded.
///
/// # Connecting
/// begins with the first request, or at once by [`connect`](Self::connect), and goes on in a task of
/// its own until there is a connection or nobody holds the service: it hangs on no request. After a
/// failure it waits: 100 ms, then twice as long each time up to 10 s, of which half to all by
/// chance ([`backoff`](Self::backoff)); one that takes more than
/// [5 s](Self::connect_timeout) has failed. A connection that breaks before it was ever ready, and
/// sooner than the longest wait, counts as a failure, too.
///
/// That a connection has broken it must say in its own `poll_ready`, as clients of hyper and
/// tower's `Buffer` do; the requests that are under way on it get their errors as ever. Nobody looks
/// while there are no requests.
///
/// # Errors
/// Those of the connection's service, and [`ConnectError`].
///
/// # Examples
/// ```
/// use lvs::scheduler::PowerOfTwo;
/// use lvs::tower::{Balance, Reconnect};
/// use lvs::{BackendSet, Balancer, Spec};
/// use tower::{BoxError, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// // From a target to a connection: here, something that knows where it goes.
/// let make = service_fn(async |name: &'static str| {
///     let connection = service_fn(move |request: u32| async move {
///         Ok::<_, BoxError>(format!("{name} has served {request}"))
///     });
///     Ok::<_, BoxError>(connection)
/// });
/// let set = BackendSet::new();
/// set.insert(Spec::new("a", Reconnect::new(make, "a")))?;
/// let service = Balance::new(Balancer::new(&set, PowerOfTwo::new())?);
/// assert_eq!(service.oneshot(7).await?, "a has served 7");
/// # Ok(())
/// # }
/// ```
pub struct Reconnect<M: Service<T>, T> {
    shared: Arc<SharedConnection<M, T>>,
    /// The copy of the connection that this handle asks and calls, with its number.
    connection: Option<(M::Response, u64)>,
    state_changed: Option<Pin<Box<OwnedNotified>>>,
}

/// A `MakeService` for [`Reconnect`]: whatever makes a connection to a target, can be cloned for each
/// attempt and goes between threads. Implemented by all that do; a closure by tower's `service_fn`.
pub trait Connect<T>:
    Service<T, Response: Send + Sync, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<M, T> Connect<T> for M where
    M: Service<T, Response: Send + Sync, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Why there is no connection.
#[derive(Clone, Debug, Error)]
#[error("not connected, {failures} attempts failed")]
pub struct ConnectError {
    /// How many attempts have failed since there was a connection.
    pub failures: u32,
    /// What the last one said.
    pub source: Arc<dyn std::error::Error + Send + Sync>,
}

/// An attempt took longer than it [may](Reconnect::connect_timeout).
#[derive(Clone, Copy, Debug, Error)]
#[error("no connection within {0:?}")]
pub struct ConnectTimeout(Duration);

/// How connections are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReconnectConfig {
    pub(super) connect_timeout: Duration,
    /// How long to wait after the first failure, and at most.
    pub(super) backoff: (Duration, Duration),
}

impl Default for ReconnectConfig {
    fn default() -> Self {
        let backoff = (Duration::from_millis(100), Duration::from_secs(10));
        Self { connect_timeout: Duration::from_secs(5), backoff }
    }
}

impl<M: Service<T>, T> Reconnect<M, T> {
    /// A connection to this target, which is not made yet.
    #[must_use]
    pub fn new(make: M, target: T) -> Self {
        Self::with_config(ReconnectConfig::default(), make, target)
    }

    pub(super) fn with_config(rules: ReconnectConfig, make: M, target: T) -> Self {
        Self {
            shared: Arc::new(SharedConnection::new(rules, make, target)),
            connection: None,
            state_changed: None,
        }
    }

    /// How long making one may take, its `poll_ready` included. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self
    where
        M: Clone,
        T: Clone,
    {
        self.reconfigure(|rules| rules.connect_timeout = timeout)
    }

    /// How long to wait after a failure: `first`, then twice as long each time, up to `longest`.
    /// Default: 100 ms and 10 s.
    #[must_use]
    pub fn backoff(self, first: Duration, longest: Duration) -> Self
    where
        M: Clone,
        T: Clone,
    {
        self.reconfigure(|rules| rules.backoff = (first, longest.max(first)))
    }

    /// The target that it connects to.
    #[must_use]
    pub fn target(&self) -> &T {
        self.shared.target()
    }

    /// Is there a connection, as far as is known?
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(**self.shared.state(), ReconnectState::Connected(..))
    }

    /// Another with these rules; a connection is not taken along.
    fn reconfigure(self, change: impl FnOnce(&mut ReconnectConfig)) -> Self
    where
        M: Clone,
        T: Clone,
    {
        let (mut rules, make, target) = self.shared.parts();
        change(&mut rules);
        Self::with_config(rules, make, target)
    }
}

impl<M, T> Reconnect<M, T>
where
    M: Connect<T>,
    T: Clone + Send + Sync + 'static,
{
    /// Connects now, instead of with the first request, if there is no connection. Returns at once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(&self) {
        SharedConnection::connect(&self.shared);
    }
}

impl<M, T, Req> Service<Req> for Reconnect<M, T>
where
    M: Connect<T>,
    M::Response: Service<Req, Error: Into<BoxError>> + Clone + Send + Sync,
    T: Clone + Send + Sync + 'static,
{
    type Response = <M::Response as Service<Req>>::Response;
    type Error = BoxError;
    type Future = ReconnectFuture<<M::Response as Service<Req>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            if let Some((connection, number)) = &mut self.connection {
                match ready!(connection.poll_ready(cx)) {
                    Ok(()) => {
                        self.shared.mark_ready();
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) => {
                        SharedConnection::report_broken(&self.shared, *number, error.into());
                        self.connection = None;
                    }
                }
            }
            // Made ahead of the look: it hears of all that changes behind it.
            let word =
                self.state_changed.take().unwrap_or_else(|| Box::pin(self.shared.state_changed()));
            match &**self.shared.state() {
                ReconnectState::Connected(connection, number, _) => {
                    self.connection = Some((connection.clone(), *number));
                    continue;
                }
                ReconnectState::Failed(error) => return Poll::Ready(Err(error.clone().into())),
                ReconnectState::Idle => SharedConnection::connect(&self.shared),
                ReconnectState::Connecting => {}
            }
            ready!(self.state_changed.insert(word).as_mut().poll(cx));
            self.state_changed = None;
        }
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match &mut self.connection {
            Some((connection, _)) => ReconnectFuture::new(connection.call(request)),
            None => ReconnectFuture::not_ready(),
        }
    }
}

/// Another handle on the same connection.
impl<M: Service<T>, T> Clone for Reconnect<M, T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), connection: None, state_changed: None }
    }
}

/// Equal are those that go to equal targets, so that a [`Feed`](crate::discovery::Feed) leaves a
/// connection alone whose target is named again.
impl<M: Service<T>, T: PartialEq> PartialEq for Reconnect<M, T> {
    fn eq(&self, other: &Self) -> bool {
        self.target() == other.target()
    }
}

impl<M: Service<T>, T: fmt::Debug> fmt::Debug for Reconnect<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect").field("link", &self.shared).finish_non_exhaustive()
    }
}
