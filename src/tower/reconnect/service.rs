//! The handle of a shared connection, as a service.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::tower::{BoxError, Service};
use tokio::sync::futures::OwnedNotified;

use super::config::ReconnectConfig;
use super::connection::{ReconnectState, SharedConnection};
use super::future::ReconnectFuture;
use super::make::Connect;

/// A service that is one connection to a target: made by a `MakeService`, shared by clones, and made
/// again after it breaks.
///
/// It is meant as an instance of a [`Balance`](crate::tower::Balance): it is cheap to clone, and it is
/// ready when its connection is. While there is no connection, `poll_ready` is pending, so that
/// requests go to other backends. After an attempt to connect has failed, `poll_ready` fails with
/// [`ConnectError`](super::ConnectError) until an attempt succeeds.
///
/// # Connecting
/// The first request starts the first attempt, or [`connect`](Self::connect) does without a request.
/// Attempts run in a task of their own, independent of requests, until there is a connection or the
/// last handle is dropped. After a failed attempt the task waits: 100 ms, doubled with each failure
/// up to 10 s, of which a random half to all is waited ([`backoff`](ReconnectConfig::backoff)). An
/// attempt fails after [5 s](ReconnectConfig::connect_timeout). A connection that breaks before it was
/// ever ready, and sooner than the longest wait, also counts as a failed attempt.
///
/// A connection must report that it has broken by an error of its own `poll_ready`, as the clients of
/// hyper and tower's `Buffer` do. Requests that are under way on it fail with their own errors. Without
/// requests, nothing polls the connection, and a break is not noticed.
///
/// # Errors
/// Returns the errors of the connection's service, and [`ConnectError`](super::ConnectError).
///
/// # Examples
/// ```
/// use lvs::scheduler::PowerOfTwoChoices;
/// use lvs::tower::{Balance, Reconnect};
/// use lvs::{BackendSet, Balancer, Spec};
/// use tower::{BoxError, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// // Makes a connection to a target; here the connection answers by itself.
/// let make = service_fn(async |name: &'static str| {
///     let connection = service_fn(move |request: u32| async move {
///         Ok::<_, BoxError>(format!("{name} has served {request}"))
///     });
///     Ok::<_, BoxError>(connection)
/// });
/// let set = BackendSet::new();
/// set.insert(Spec::new("a", Reconnect::new(make, "a")))?;
/// let service = Balance::new(Balancer::new(&set, PowerOfTwoChoices::new())?);
/// assert_eq!(service.oneshot(7).await?, "a has served 7");
/// # Ok(())
/// # }
/// ```
pub struct Reconnect<M: Service<T>, T> {
    shared: Arc<SharedConnection<M, T>>,
    /// This handle's clone of the connection, with the connection's number.
    connection: Option<(M::Response, u64)>,
    state_changed: Option<Pin<Box<OwnedNotified>>>,
}

impl<M: Service<T>, T> Reconnect<M, T> {
    /// Creates a connection to a target with the default settings; it does not connect yet.
    #[must_use]
    pub fn new(make: M, target: T) -> Self {
        Self::with_config(ReconnectConfig::default(), make, target)
    }

    /// Creates a connection to a target; it does not connect yet.
    #[must_use]
    pub fn with_config(config: ReconnectConfig, make: M, target: T) -> Self {
        Self {
            shared: Arc::new(SharedConnection::new(config, make, target)),
            connection: None,
            state_changed: None,
        }
    }

    /// Returns the target of the connection.
    #[must_use]
    pub fn target(&self) -> &T {
        self.shared.target()
    }

    /// Returns whether there is a connection that has not reported to be broken.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(**self.shared.state(), ReconnectState::Connected(..))
    }
}

impl<M, T> Reconnect<M, T>
where
    M: Connect<T>,
    T: Clone + Send + Sync + 'static,
{
    /// Starts to connect without a request, unless there is a connection or an attempt. Returns at
    /// once.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
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
            // Created before the state is read, so that no later change is missed.
            let notified =
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
            ready!(self.state_changed.insert(notified).as_mut().poll(cx));
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

/// Clones the handle; the clone shares the connection.
impl<M: Service<T>, T> Clone for Reconnect<M, T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), connection: None, state_changed: None }
    }
}

/// Compares the targets only, so that a [`Feed`](crate::discovery::Feed) keeps the connection of a
/// target that is named again.
impl<M: Service<T>, T: PartialEq> PartialEq for Reconnect<M, T> {
    fn eq(&self, other: &Self) -> bool {
        self.target() == other.target()
    }
}

impl<M: Service<T>, T: fmt::Debug> fmt::Debug for Reconnect<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect").field("connection", &self.shared).finish_non_exhaustive()
    }
}
