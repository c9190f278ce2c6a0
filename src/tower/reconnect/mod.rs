//! One connection to a target, made when it is wanted and made again when it breaks.

mod future;
mod link;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tower::{BoxError, Service};
use thiserror::Error;
use tokio::sync::futures::OwnedNotified;

pub use self::future::ReconnectFuture;
use self::link::{Link, State};

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
    link: Arc<Link<M, T>>,
    /// The copy of the connection that this handle asks and calls, with its number.
    own: Option<(M::Response, u64)>,
    word: Option<Pin<Box<OwnedNotified>>>,
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
pub(super) struct Rules {
    pub(super) timeout: Duration,
    /// How long to wait after the first failure, and at most.
    pub(super) backoff: (Duration, Duration),
}

impl Default for Rules {
    fn default() -> Self {
        let backoff = (Duration::from_millis(100), Duration::from_secs(10));
        Self { timeout: Duration::from_secs(5), backoff }
    }
}

impl<M: Service<T>, T> Reconnect<M, T> {
    /// A connection to this target, which is not made yet.
    #[must_use]
    pub fn new(make: M, target: T) -> Self {
        Self::by(Rules::default(), make, target)
    }

    pub(super) fn by(rules: Rules, make: M, target: T) -> Self {
        Self { link: Arc::new(Link::new(rules, make, target)), own: None, word: None }
    }

    /// How long making one may take, its `poll_ready` included. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self
    where
        M: Clone,
        T: Clone,
    {
        self.with(|rules| rules.timeout = timeout)
    }

    /// How long to wait after a failure: `first`, then twice as long each time, up to `longest`.
    /// Default: 100 ms and 10 s.
    #[must_use]
    pub fn backoff(self, first: Duration, longest: Duration) -> Self
    where
        M: Clone,
        T: Clone,
    {
        self.with(|rules| rules.backoff = (first, longest.max(first)))
    }

    /// The target that it connects to.
    #[must_use]
    pub fn target(&self) -> &T {
        self.link.target()
    }

    /// Is there a connection, as far as is known?
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(**self.link.state(), State::Up(..))
    }

    /// Another with these rules; a connection is not taken along.
    fn with(self, change: impl FnOnce(&mut Rules)) -> Self
    where
        M: Clone,
        T: Clone,
    {
        let (mut rules, make, target) = self.link.parts();
        change(&mut rules);
        Self::by(rules, make, target)
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
        Link::connect(&self.link);
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
            if let Some((connection, number)) = &mut self.own {
                match ready!(connection.poll_ready(cx)) {
                    Ok(()) => {
                        self.link.proven();
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) => {
                        Link::broken(&self.link, *number, error.into());
                        self.own = None;
                    }
                }
            }
            // Made ahead of the look: it hears of all that changes behind it.
            let word = self.word.take().unwrap_or_else(|| Box::pin(self.link.word()));
            match &**self.link.state() {
                State::Up(connection, number, _) => {
                    self.own = Some((connection.clone(), *number));
                    continue;
                }
                State::Failed(error) => return Poll::Ready(Err(error.clone().into())),
                State::Idle => Link::connect(&self.link),
                State::Connecting => {}
            }
            ready!(self.word.insert(word).as_mut().poll(cx));
            self.word = None;
        }
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match &mut self.own {
            Some((connection, _)) => ReconnectFuture::of(connection.call(request)),
            None => ReconnectFuture::not_ready(),
        }
    }
}

/// Another handle on the same connection.
impl<M: Service<T>, T> Clone for Reconnect<M, T> {
    fn clone(&self) -> Self {
        Self { link: Arc::clone(&self.link), own: None, word: None }
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
        f.debug_struct("Reconnect").field("link", &self.link).finish_non_exhaustive()
    }
}
