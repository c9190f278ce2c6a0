//! The feed: applies the reports of a member source to a backend set.

mod driver;
mod reconciler;
mod removal;
mod retry;
mod status;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::yield_now;
use tracing::error;

use self::driver::FeedDriver;
use self::reconciler::{FeedReconciler, TargetMaker};
pub use self::removal::RemovalPolicy;
use self::retry::RetryBackoff;
pub use self::status::{FeedHandle, FeedState, FeedStatus, MemberRefusal};
use super::{DiscoveryError, MemberSource};
use crate::backend::{BackendId, BackendSet};
use crate::runtime::require_time;
use crate::setting::SettingError;

/// Keeps the members of a backend set as a member source reports them.
///
/// # Which members a feed changes
/// A feed changes only members that it has inserted, so a set may have members of several feeds and
/// members that the program inserts. A name that another member has is
/// [refused](FeedStatus::refusals).
///
/// The feed applies to its members what the source reports *differently than before*: weight, tier,
/// limits, target and address, in place; counters, health and estimates stay. So an operator's
/// weight stays until the source reports another weight, and a member that an operator removes
/// stays removed until the source reports new attributes, or drops the member and lists it again.
/// The feed changes the administrative state (enabled, draining, disabled) only to drain removed
/// members; the state and the health that a source reports apply when the member is inserted.
///
/// # How an update is applied
/// An update, with the updates that are ready behind it (at most 1024), is applied in one
/// publication; an update without changes publishes nothing. New members are inserted in the order
/// of the list; so, as with `ipvsadm`, the last member is the first in the set. A member that the
/// set refuses is left out, counted and [listed](FeedStatus::refusals); the others are inserted.
///
/// Removed members [drain first](RemovalPolicy); the feed reads their load every 100 ms. A member
/// that is listed again while it drains is kept, with its counters, and is enabled again if it was
/// enabled before.
///
/// # When the source fails
/// The set keeps its members, without a time limit. The feed [retries](Self::retry), reports its
/// [status](FeedHandle::status), and calls the members stale after
/// [`max_staleness`](Self::max_staleness). An empty list is a failure unless
/// [allowed](Self::allow_empty). A list of which the set refuses every member is a failure if the
/// set has members of the feed. Only [`MemberUpdate::Remove`](super::MemberUpdate::Remove) removes
/// the last member.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::BackendSet;
/// use lvs::discovery::{Feed, RemovalPolicy, StaticList};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let set = BackendSet::<SocketAddr>::new();
/// let list: StaticList<SocketAddr> = "10.0.0.1:80 weight=3\n10.0.0.2:80".parse()?;
/// let feed = Feed::new(&set, list).removal(RemovalPolicy::Drain { deadline: Duration::from_secs(30) });
/// let mut handle = feed.handle();
/// tokio::spawn(feed.run());
///
/// handle.ready().await;
/// assert_eq!(set.snapshot().members().len(), 2);
/// # Ok(())
/// # }
/// ```
#[must_use = "a feed does nothing until it runs"]
pub struct Feed<T, S, A = T> {
    set: BackendSet<T>,
    source: S,
    is_same_target: fn(&A, &A) -> bool,
    make_target: TargetMaker<A, T>,
    adopt_member: fn(&mut FeedReconciler<A, T>, &BackendSet<T>, &BackendId),
    removal: RemovalPolicy,
    allow_empty: bool,
    retry_backoff: RetryBackoff,
    max_staleness: Duration,
    adopted: Vec<BackendId>,
    name: Option<String>,
    status: watch::Sender<FeedStatus>,
}

/// The most updates that are applied in one publication.
const MAX_UPDATES_PER_PUBLICATION: usize = 1024;

impl<T, S> Feed<T, S>
where
    T: Clone + Send + Sync + 'static,
    S: MemberSource<T>,
{
    /// Makes a feed of targets that can be compared, such as addresses: an equal target is not
    /// replaced.
    pub fn new(set: &BackendSet<T>, source: S) -> Self
    where
        T: PartialEq,
    {
        Self::with_target_comparison(set, source, T::eq)
    }

    /// Makes a feed of targets of any type, such as services: each update of a member replaces its
    /// target, and a source that is polled reports every member again each time. For clients of
    /// addresses use [`making_targets`](Feed::making_targets), which keeps them.
    pub fn replacing_targets(set: &BackendSet<T>, source: S) -> Self {
        Self::with_target_comparison(set, source, |_, _| false)
    }

    fn with_target_comparison(
        set: &BackendSet<T>,
        source: S,
        is_same_target: fn(&T, &T) -> bool,
    ) -> Self {
        let make_target = Box::new(T::clone);
        Self::from_parts(set, source, is_same_target, make_target, FeedReconciler::adopt)
    }

    /// Takes over members that an earlier feed has left in the set when it was dropped.
    ///
    /// The members stay until the first update of the new source, which keeps or removes them. So a
    /// source can be replaced without an interruption. Names that the set does not have are
    /// ignored. A feed that [makes its targets](Feed::making_targets) adopts none: it cannot know what
    /// the targets of the set were made of.
    pub fn adopt(self, members: impl IntoIterator<Item = BackendId>) -> Self {
        Self { adopted: members.into_iter().collect(), ..self }
    }
}

impl<T, S, A> Feed<T, S, A>
where
    T: Send + Sync + 'static,
    S: MemberSource<A>,
    A: Clone + Send + Sync + 'static,
{
    /// Makes a feed whose targets, such as clients, are made of what the source names, such as
    /// addresses: when a member is inserted, and when the source names something else for it. A list that
    /// has not changed makes nothing, and replaces nothing.
    ///
    /// # Examples
    /// ```
    /// use std::net::SocketAddr;
    /// use lvs::BackendSet;
    /// use lvs::discovery::{Feed, StaticList};
    ///
    /// /// A client of a server; connects when it is first used.
    /// #[derive(Debug)]
    /// struct Client(SocketAddr);
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let set = BackendSet::<Client>::new();
    /// let list: StaticList<SocketAddr> = "10.0.0.1:80\n10.0.0.2:80".parse()?;
    /// Feed::making_targets(&set, list, |address: &SocketAddr| Client(*address)).run().await;
    /// assert_eq!(set.snapshot().backends().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn making_targets(
        set: &BackendSet<T>,
        source: S,
        make: impl Fn(&A) -> T + Send + Sync + 'static,
    ) -> Self
    where
        A: PartialEq,
    {
        Self::from_parts(set, source, A::eq, Box::new(make), |_, _, _| ())
    }

    fn from_parts(
        set: &BackendSet<T>,
        source: S,
        is_same_target: fn(&A, &A) -> bool,
        make_target: TargetMaker<A, T>,
        adopt_member: fn(&mut FeedReconciler<A, T>, &BackendSet<T>, &BackendId),
    ) -> Self {
        Self {
            set: set.clone(),
            source,
            is_same_target,
            make_target,
            adopt_member,
            removal: RemovalPolicy::DEFAULT,
            allow_empty: false,
            retry_backoff: RetryBackoff::DEFAULT,
            max_staleness: Duration::from_secs(600),
            adopted: Vec::new(),
            name: None,
            status: watch::Sender::new(FeedStatus::default()),
        }
    }

    /// Sets the treatment of members that the source no longer lists. Default: a drain of at most
    /// five minutes.
    pub fn removal(self, removal: RemovalPolicy) -> Self {
        Self { removal, ..self }
    }

    /// Accepts an empty list. Default: an empty list is a failure, because a registry that has just
    /// started or lost its data reports an empty list, too.
    pub fn allow_empty(self) -> Self {
        Self { allow_empty: true, ..self }
    }

    /// Sets the wait after a failure: `first`, doubled at each further failure, up to `longest`. A
    /// random part of up to half is subtracted, so that a thousand programs do not retry at the
    /// same time when a registry recovers. Default: 1 s to 30 s.
    ///
    /// # Errors
    /// [`SettingError`] if `longest` is below `first`.
    pub fn retry(self, first: Duration, longest: Duration) -> Result<Self, SettingError> {
        Ok(Self { retry_backoff: RetryBackoff::new(first, longest)?, ..self })
    }

    /// Sets how long a source may fail until its members are called [stale](FeedState::Stale),
    /// counted from the first failure after a success. Stale members stay in the set: they serve
    /// better than none. Default: 10 min.
    pub fn max_staleness(self, longest: Duration) -> Self {
        Self { max_staleness: longest, ..self }
    }

    /// Sets the name that log lines begin with, such as `service web`. Default: none; log lines name
    /// the source only.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Returns a handle that reads the status of the feed while it runs.
    #[must_use]
    pub fn handle(&self) -> FeedHandle {
        FeedHandle { receiver: self.status.subscribe() }
    }

    /// Runs until the source has ended and no member drains any more; returns the last status.
    ///
    /// Needs a tokio runtime with time; without, the feed ends at once, with
    /// [`DiscoveryError::Runtime`] as its
    /// [last error](FeedStatus::last_error).
    ///
    /// # Cancel safety
    /// When the future is dropped, the members stay in the set as they are; draining members stay
    /// draining.
    pub async fn run(self) -> FeedStatus {
        if let Err(error) = require_time("a discovery feed") {
            return refuse_to_run(&self.status, error.into());
        }
        let mut source = self.source;
        let mut reconciler = FeedReconciler::new(
            self.removal,
            self.allow_empty,
            self.is_same_target,
            self.make_target,
        );
        for member in &self.adopted {
            (self.adopt_member)(&mut reconciler, &self.set, member);
        }
        let mut driver = FeedDriver::new(
            self.set,
            reconciler,
            match self.name {
                Some(name) => format!("{name}: discovery from {}", source.name()),
                None => format!("discovery from {}", source.name()),
            },
            self.retry_backoff,
            self.max_staleness,
            self.status,
        );
        let mut batch = 0;
        loop {
            let mut next = pin!(source.next());
            // Updates that are ready are applied in one publication.
            let update = match poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
                Poll::Ready(update) => update,
                Poll::Pending => {
                    batch = 0;
                    driver.apply_pending();
                    driver.run_until(next).await
                }
            };
            match update {
                None => break,
                Some(Ok(update)) => match driver.handle_update(update) {
                    None => batch += 1,
                    Some(wait) => driver.run_for(wait).await,
                },
                Some(Err(error)) => {
                    driver.apply_pending();
                    let wait = driver.handle_failure(error);
                    driver.run_for(wait).await;
                }
            }
            if batch >= MAX_UPDATES_PER_PUBLICATION {
                batch = 0;
                driver.apply_pending();
                // A source that is always ready must not block the thread.
                yield_now().await;
            }
        }
        driver.finish().await
    }
}

/// Reports a feed that ends before it begins.
fn refuse_to_run(status: &watch::Sender<FeedStatus>, error: DiscoveryError) -> FeedStatus {
    error!("a discovery feed cannot run: {error}");
    status.send_modify(|status| {
        status.state = FeedState::Ended;
        status.failures += 1;
        status.last_error = Some(Arc::new(error));
    });
    status.borrow().clone()
}

impl<T, S, A> fmt::Debug for Feed<T, S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("removal", &self.removal)
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}
