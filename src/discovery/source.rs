//! The trait of all member sources.

use std::any::type_name;
use std::future::Future;

use super::DiscoveryError;
use crate::backend::{BackendId, Spec};

/// A source that lists the members of a backend set and reports their changes.
///
/// The built-in sources are in [`discovery`](crate::discovery); your own source is a type with one
/// async method. A source only reports members. The [`Feed`](super::Feed) applies the report to the
/// backend set, retries after a failure and drains removed members.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::Spec;
/// use lvs::discovery::{MemberSource, DiscoveryError, MemberUpdate};
///
/// /// A service registry of your own, polled every five seconds.
/// struct Registry {
///     polled: bool,
/// }
///
/// impl MemberSource<SocketAddr> for Registry {
///     async fn next(&mut self) -> Option<Result<MemberUpdate<SocketAddr>, DiscoveryError>> {
///         if std::mem::replace(&mut self.polled, true) {
///             tokio::time::sleep(Duration::from_secs(5)).await;
///         }
///         Some(match fetch().await {
///             Ok(addresses) => Ok(MemberUpdate::All(addresses.into_iter().map(Spec::from).collect())),
///             Err(error) => Err(DiscoveryError::other(error)),
///         })
///     }
/// }
/// # async fn fetch() -> Result<Vec<SocketAddr>, std::io::Error> { Ok(Vec::new()) }
/// ```
pub trait MemberSource<T>: Send {
    /// Waits for the next update; returns `None` when the source has ended.
    ///
    /// The first call returns the known members at once. A source that polls a name server or a
    /// registry returns after every poll, also when no member has changed: so the feed can tell a
    /// current list from a stale list. An error does not end the source: the feed keeps its
    /// members, waits (longer after each failure) and calls again, and the source should then poll
    /// at once.
    ///
    /// The feed polls the future until it is ready, and drops it early only when the feed itself is
    /// dropped. So every request of the source needs a timeout.
    fn next(
        &mut self,
    ) -> impl Future<Output = Option<Result<MemberUpdate<T>, DiscoveryError>>> + Send;

    /// Returns the short name for log lines. Default: the name of the type.
    fn name(&self) -> &str {
        let path = type_name::<Self>();
        let path = path.split('<').next().unwrap_or(path);
        path.rsplit("::").next().unwrap_or(path)
    }

    /// Returns a source that passes every member through a function.
    ///
    /// The function changes the type of the target, or adds attributes: a connection limit, another
    /// name, a health of down until the first check succeeds.
    ///
    /// # Examples
    /// ```
    /// use std::net::SocketAddr;
    /// use lvs::{Health, Limits};
    /// use lvs::discovery::{MemberSource, StaticList};
    ///
    /// let list: StaticList<SocketAddr> = "10.0.0.1:80\n10.0.0.2:80".parse()?;
    /// let source = list.map(|spec| spec.limits(Limits::new(1000)).health(Health::Down));
    /// # let _ = source;
    /// # Ok::<(), lvs::discovery::MemberListError>(())
    /// ```
    fn map<U, F>(self, change: F) -> MappedSource<Self, F, T>
    where
        Self: Sized,
        F: FnMut(Spec<T>) -> Spec<U> + Send,
    {
        MappedSource { source: self, change, marker: std::marker::PhantomData }
    }
}

/// A report of a member source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MemberUpdate<T> {
    /// The whole list: a member that is not in the list is removed.
    All(Vec<Spec<T>>),
    /// A new member, or new attributes of a member. Other members stay as they are.
    Insert(Spec<T>),
    /// A member is removed. Other members stay as they are.
    Remove(BackendId),
}

/// A source whose members pass through a function; made by [`MemberSource::map`].
#[derive(Clone, Debug)]
pub struct MappedSource<S, F, T> {
    source: S,
    change: F,
    marker: std::marker::PhantomData<fn() -> T>,
}

impl<S, F, T, U> MemberSource<U> for MappedSource<S, F, T>
where
    S: MemberSource<T>,
    F: FnMut(Spec<T>) -> Spec<U> + Send,
{
    async fn next(&mut self) -> Option<Result<MemberUpdate<U>, DiscoveryError>> {
        let update = match self.source.next().await? {
            Ok(update) => update,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(match update {
            MemberUpdate::All(specs) => {
                MemberUpdate::All(specs.into_iter().map(&mut self.change).collect())
            }
            MemberUpdate::Insert(spec) => MemberUpdate::Insert((self.change)(spec)),
            MemberUpdate::Remove(id) => MemberUpdate::Remove(id),
        }))
    }

    fn name(&self) -> &str {
        self.source.name()
    }
}
