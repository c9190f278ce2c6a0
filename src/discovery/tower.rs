//! Members from tower's `Discover`.

use std::error::Error;
use std::fmt::{self, Display};
use std::future::poll_fn;
use std::pin::Pin;

use tower::discover::{Change, Discover};

use super::{DiscoveryError, MemberSource, MemberUpdate};
use crate::backend::{BackendId, Spec};

/// A source that reports the changes of a tower [`Discover`].
///
/// The service is the target; the key, as text, is the name. A service that is inserted under an
/// existing key replaces the old service, and keeps its counters. tower's own balancer ends at an
/// error of its `Discover`; here the members stay and the feed retries. Only the end of the stream
/// ends the feed.
///
/// Services can seldom be compared: make the feed by
/// [`Feed::replacing_targets`](super::Feed::replacing_targets), or discover addresses and make it by
/// [`Feed::making_targets`](super::Feed::making_targets).
///
/// # Examples
/// ```
/// use lvs::BackendSet;
/// use lvs::discovery::{DiscoverSource, Feed};
/// use tower::discover::ServiceList;
/// # use std::task::{Context, Poll};
/// # #[derive(Clone)]
/// # struct Web;
/// # impl tower::Service<()> for Web {
/// #     type Response = ();
/// #     type Error = std::convert::Infallible;
/// #     type Future = std::future::Ready<Result<(), Self::Error>>;
/// #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
/// #         Poll::Ready(Ok(()))
/// #     }
/// #     fn call(&mut self, (): ()) -> Self::Future { std::future::ready(Ok(())) }
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let set = BackendSet::new();
/// let services = ServiceList::new::<()>(vec![Web, Web]);
/// Feed::replacing_targets(&set, DiscoverSource::new(services)).run().await;
/// assert_eq!(set.snapshot().members().len(), 2);
/// # }
/// ```
pub struct DiscoverSource<D, F> {
    // Pinned in a box: a `Discover` need not be `Unpin`, and a source is moved.
    discover: Pin<Box<D>>,
    name: F,
}

impl<D> DiscoverSource<D, fn(&D::Key) -> BackendId>
where
    D: Discover,
    D::Key: Display,
{
    /// Makes a source whose members are named by the text of their keys.
    #[must_use]
    pub fn new(discover: D) -> Self {
        Self::named(discover, |key| BackendId::from(key.to_string()))
    }
}

impl<D, F> DiscoverSource<D, F>
where
    D: Discover,
    F: FnMut(&D::Key) -> BackendId,
{
    /// Makes a source whose members are named by a function of the key; two keys need two names.
    #[must_use]
    pub fn named(discover: D, name: F) -> Self {
        Self { discover: Box::pin(discover), name }
    }
}

impl<D, F> MemberSource<D::Service> for DiscoverSource<D, F>
where
    D: Discover + Send,
    D::Key: Send,
    D::Service: Send,
    D::Error: Into<Box<dyn Error + Send + Sync>>,
    F: FnMut(&D::Key) -> BackendId + Send,
{
    async fn next(&mut self) -> Option<Result<MemberUpdate<D::Service>, DiscoveryError>> {
        poll_fn(|context| {
            self.discover.as_mut().poll_discover(context).map(|change| {
                Some(match change? {
                    Ok(Change::Insert(key, service)) => {
                        Ok(MemberUpdate::Insert(Spec::new((self.name)(&key), service)))
                    }
                    Ok(Change::Remove(key)) => Ok(MemberUpdate::Remove((self.name)(&key))),
                    Err(error) => Err(DiscoveryError::other(error)),
                })
            })
        })
        .await
    }

    fn name(&self) -> &str {
        "discover"
    }
}

impl<D, F> fmt::Debug for DiscoverSource<D, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoverSource").finish_non_exhaustive()
    }
}
