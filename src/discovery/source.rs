//! What a source is: something that says who the members are, and says it again when they change.

use std::any::type_name;
use std::error::Error;
use std::future::Future;
use std::io;

use thiserror::Error;

use super::MemberListError;
use crate::backend::{BackendId, SetError, Spec};

/// Something that knows who the members of a set are.
///
/// The built-in ones are in [`discovery`](crate::discovery); your own is a type with one async
/// method. It says what it knows; what follows for the set, how a failure is waited out and how
/// those who are gone drain is the [`Feed`](super::Feed)'s.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::Spec;
/// use lvs::discovery::{MemberSource, DiscoveryError, MemberUpdate};
///
/// /// Who a registry of your own says they are, asked every five seconds.
/// struct Registry {
///     asked: bool,
/// }
///
/// impl MemberSource<SocketAddr> for Registry {
///     async fn next(&mut self) -> Option<Result<MemberUpdate<SocketAddr>, DiscoveryError>> {
///         if std::mem::replace(&mut self.asked, true) {
///             tokio::time::sleep(Duration::from_secs(5)).await;
///         }
///         Some(match ask().await {
///             Ok(addresses) => Ok(MemberUpdate::All(addresses.into_iter().map(Spec::from).collect())),
///             Err(error) => Err(DiscoveryError::other(error)),
///         })
///     }
/// }
/// # async fn ask() -> Result<Vec<SocketAddr>, std::io::Error> { Ok(Vec::new()) }
/// ```
pub trait MemberSource<T>: Send {
    /// Waits for the next word; `None` when there will be no more.
    ///
    /// The first call says at once what is known. A source that asks (a name server, a registry)
    /// answers whenever it has asked, also where nothing is new: that is what tells a current list
    /// from a stale one. An error is not the end: the feed keeps what it has, waits (longer each
    /// time) and calls again, and the source should then ask at once.
    ///
    /// The feed polls the future to its end, and drops it early only when it is dropped itself. The
    /// source must see to it that the future does end or means to wait: a question needs a timeout.
    fn next(
        &mut self,
    ) -> impl Future<Output = Option<Result<MemberUpdate<T>, DiscoveryError>>> + Send;

    /// The short name in logs. Default: the name of the type.
    fn name(&self) -> &str {
        let path = type_name::<Self>();
        let path = path.split('<').next().unwrap_or(path);
        path.rsplit("::").next().unwrap_or(path)
    }

    /// Makes members of another kind of those that the source names, or adds to what it says of
    /// them: a connection limit, another name, that they begin as down until a check has found them
    /// up.
    ///
    /// # Examples
    /// ```
    /// use std::net::SocketAddr;
    /// use lvs::{Health, Limits};
    /// use lvs::discovery::{MemberSource, StaticList};
    ///
    /// let list: StaticList<SocketAddr> = "10.0.0.1:80\n10.0.0.2:80".parse()?;
    /// let source = list.map(|spec| spec.limits(Limits::max(1000)).health(Health::Down));
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

/// What a source says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MemberUpdate<T> {
    /// These are all; whoever is not among them is gone.
    All(Vec<Spec<T>>),
    /// This one is a member (or still is, with these attributes), whatever the others.
    Insert(Spec<T>),
    /// This one is gone.
    Remove(BackendId),
}

/// Why a source does not know who the members are. The set keeps those it has.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// Something could not be read.
    #[error("cannot read {name}")]
    Io {
        /// What was to be read.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The list is not one.
    #[error("{name}:{error}")]
    List {
        /// Where the list is: a file's path.
        name: String,
        /// Line, column, and what is wrong there.
        error: MemberListError,
    },
    /// A name could not be resolved.
    #[error("cannot resolve {name}")]
    Resolve {
        /// The name.
        name: String,
        /// What became of the question.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The source names no member, and [that is not taken for an
    /// answer](super::Feed::allow_empty).
    #[error("it names no member")]
    Empty,
    /// The set takes nothing of what the source says.
    #[error("the set refuses what it says")]
    Refused {
        /// The (first) refusal.
        #[from]
        source: SetError,
    },
    /// What a source of another kind said.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl DiscoveryError {
    /// An error of your own source.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}

/// A source whose members are changed on their way; made by [`MemberSource::map`].
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
