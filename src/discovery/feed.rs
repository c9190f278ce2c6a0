//! What ties a source to a set.

mod driver;
mod reconciler;
mod status;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::yield_now;

use self::driver::FeedDriver;
pub use self::status::{FeedHandle, FeedState, FeedStatus, MemberRefusal};
use super::MemberSource;
use crate::backend::{BackendId, BackendSet};

/// Keeps the members that a source names in a set, while it runs.
///
/// # Whose members
/// A feed touches only what it has inserted, so a set may have members by hand and by several feeds
/// beside each other. A name that somebody else's member has is [refused](FeedStatus::refusals).
///
/// Of its own members the feed changes what the source says *otherwise than before*: weight, tier,
/// limits, target and address, in place; counters, health and estimates go on. So the operator's
/// weight stays until the source names another one, and a member that somebody removes stays out
/// until the source says something new of it, or drops it and names it again. What the operator
/// wants of a member (enabled, draining, disabled) is never touched but for draining those that are
/// gone; what a source says of that, and of health, counts when the member is inserted.
///
/// # What one answer does
/// Everything that follows from an answer, and from those that are there already behind it (at most
/// 1024), is one publication; an answer that says nothing new is none. Members that are new are
/// inserted in the order in which the source names them; so, as with `ipvsadm`, the last one named
/// is the first in the list. A member that the set refuses is left out, counted and named; the
/// others go in.
///
/// Those that are gone [drain first](RemovalPolicy). Their load is looked at every 100 ms. One that is
/// named again in the meantime is taken back: enabled again, if it was, with its account.
///
/// # When the source fails
/// The set keeps what it has, for as long as it takes. The feed [asks again](Self::retry), says
/// [how it is doing](FeedHandle::status), and after [some time](Self::max_staleness) calls the
/// members stale. An empty list is such a failure unless [allowed](Self::allow_empty). So is one
/// of which the set refuses every member, where some are in the set from before. Only a word that a
/// member is gone ([`Update::Remove`](super::Update::Remove)) takes out the last one.
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
pub struct Feed<T, S> {
    set: BackendSet<T>,
    source: S,
    is_same_target: fn(&T, &T) -> bool,
    removal: RemovalPolicy,
    allow_empty: bool,
    retry_backoff: (Duration, Duration),
    max_staleness: Duration,
    adopted: Vec<BackendId>,
    status: watch::Sender<FeedStatus>,
}

/// What becomes of a member that the source no longer names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RemovalPolicy {
    /// It gets no new work, and is taken out when it has no connections, or at the deadline with
    /// those it has: they go on, as leases do, but no longer count for anybody. The default, with
    /// five minutes.
    Drain {
        /// How long it may take; [`Duration::MAX`] is for ever.
        deadline: Duration,
    },
    /// It is taken out at once; its connections go on.
    AtOnce,
}

/// So many answers that are there already make one publication.
const MAX_UPDATES_PER_PUBLICATION: usize = 1024;

impl<T, S> Feed<T, S>
where
    T: Clone + Send + Sync + 'static,
    S: MemberSource<T>,
{
    /// For targets that can be compared, such as addresses: a target that is named again as it was
    /// is left as it is.
    pub fn new(set: &BackendSet<T>, source: S) -> Self
    where
        T: PartialEq,
    {
        Self::with_target_comparison(set, source, T::eq)
    }

    /// For targets of any kind, such as services: each word about a member gives it the new target.
    pub fn replacing_targets(set: &BackendSet<T>, source: S) -> Self {
        Self::with_target_comparison(set, source, |_, _| false)
    }

    fn with_target_comparison(set: &BackendSet<T>, source: S, same: fn(&T, &T) -> bool) -> Self {
        Self {
            set: set.clone(),
            source,
            is_same_target: same,
            removal: RemovalPolicy::DEFAULT,
            allow_empty: false,
            retry_backoff: (Duration::from_secs(1), Duration::from_secs(30)),
            max_staleness: Duration::from_secs(600),
            adopted: Vec::new(),
            status: watch::Sender::new(FeedStatus::default()),
        }
    }

    /// What becomes of members that the source no longer names. Default: a drain of at most five
    /// minutes.
    pub fn removal(self, removal: RemovalPolicy) -> Self {
        Self { removal, ..self }
    }

    /// Believes a source that says that there are no members at all. Default: that is a failure,
    /// because a registry that has just started or lost its data says so, too.
    pub fn allow_empty(self) -> Self {
        Self { allow_empty: true, ..self }
    }

    /// How long to wait after a failure: `first`, then twice as long each time, up to `longest`; of
    /// that, half to all by chance, so that a thousand programs do not ask at once when a registry
    /// is back. Default: 1 s to 30 s.
    pub fn retry(self, first: Duration, longest: Duration) -> Self {
        Self { retry_backoff: (first, longest.max(first)), ..self }
    }

    /// How long a source may fail until its members are called [stale](FeedState::Stale), counted
    /// from the first failure behind a good answer. Nothing else follows: stale members serve better
    /// than none. Default: 10 min.
    pub fn max_staleness(self, longest: Duration) -> Self {
        Self { max_staleness: longest, ..self }
    }

    /// Takes over members that an earlier feed has left in the set when it was dropped: they stay
    /// until the first answer of this one's source, which says what becomes of them. So a source can
    /// be changed for another, and nobody notices. Names that the set does not have are passed over.
    pub fn adopt(self, members: impl IntoIterator<Item = BackendId>) -> Self {
        Self { adopted: members.into_iter().collect(), ..self }
    }

    /// The hold on the feed, for use while it runs.
    #[must_use]
    pub fn handle(&self) -> FeedHandle {
        FeedHandle { receiver: self.status.subscribe() }
    }

    /// Feeds the set until the source has ended and nobody drains any more; says how it ended.
    ///
    /// Needs a tokio runtime with time.
    ///
    /// # Cancel safety
    /// Dropped, the feed lets go of its members: they stay in the set as they are, those that drain
    /// draining.
    pub async fn run(self) -> FeedStatus {
        let mut source = self.source;
        let mut ledger =
            reconciler::FeedReconciler::new(self.removal, self.allow_empty, self.is_same_target);
        for member in &self.adopted {
            ledger.adopt(&self.set, member);
        }
        let mut driver = FeedDriver::new(
            self.set,
            ledger,
            source.name().to_owned(),
            self.retry_backoff,
            self.max_staleness,
            self.status,
        );
        let mut batch = 0;
        loop {
            let mut next = pin!(source.next());
            // What is there already goes in together with what came just before it.
            let answer = match poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
                Poll::Ready(answer) => answer,
                Poll::Pending => {
                    batch = 0;
                    driver.apply_pending();
                    driver.run_until(next).await
                }
            };
            match answer {
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
                // A source that always has something must not keep the thread.
                yield_now().await;
            }
        }
        driver.finish().await
    }
}

impl<T, S> fmt::Debug for Feed<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("removal", &self.removal)
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}
