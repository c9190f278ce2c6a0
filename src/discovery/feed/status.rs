//! What one sees of a feed.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::backend::{BackendId, SetError};
use crate::discovery::DiscoveryError;

/// Watches a [`Feed`](super::Feed).
///
/// A cheap clone; each sees every change for itself. Dropping it ends nothing.
#[derive(Clone, Debug)]
pub struct FeedHandle {
    pub(super) receiver: watch::Receiver<FeedStatus>,
}

impl FeedHandle {
    /// How the feed is doing now, or how it ended.
    #[must_use]
    pub fn status(&self) -> FeedStatus {
        self.receiver.borrow().clone()
    }

    /// Waits until the status is another than this handle has seen, and returns it; `None` when the
    /// feed has ended. Of several changes in between the last one is seen.
    ///
    /// Cancel safe.
    pub async fn changed(&mut self) -> Option<FeedStatus> {
        self.receiver.changed().await.ok()?;
        Some(self.receiver.borrow_and_update().clone())
    }

    /// Waits for the first good answer of the source: then the set has its members. `None` if the
    /// feed ends without one.
    ///
    /// For programs that open their doors only when somebody can serve. A source that fails from
    /// the start keeps them waiting: put a timeout around it.
    ///
    /// Cancel safe.
    pub async fn ready(&mut self) -> Option<FeedStatus> {
        self.receiver.wait_for(|status| status.last_success.is_some()).await.ok().map(|s| s.clone())
    }
}

/// How a feed is doing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FeedStatus {
    /// Whether what the set has is what the source says.
    pub state: FeedState,
    /// Members that the set has from this feed and the source still names.
    pub members: usize,
    /// Members that the source no longer names and that are finishing their work.
    pub draining: usize,
    /// What the set did not take of what the source says: the first 16. They are tried again with
    /// every update, and each time the longest [retry wait](super::Feed::retry) has passed.
    pub refusals: Arc<[MemberRefusal]>,
    /// How many there are in all.
    pub refused: usize,
    /// Good answers so far.
    pub answers: u64,
    /// Failures so far.
    pub failures: u64,
    /// Failures since the last good answer.
    pub failures_in_a_row: u64,
    /// When the last good answer came.
    pub last_success: Option<Instant>,
    /// When the first failure since then was.
    pub failing_since: Option<Instant>,
    /// What was wrong at the last failure; stays for reading when all is well again.
    pub last_error: Option<Arc<DiscoveryError>>,
}

/// Whether a feed's members are what its source says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum FeedState {
    /// The source has not answered yet.
    #[default]
    Waiting,
    /// The last answer was good.
    Current,
    /// The source fails. The members are those of the last good answer.
    Failing,
    /// The source has failed for longer than [`max_staleness`](super::Feed::max_staleness). The
    /// members are still those of the last good answer, if there ever was one.
    Stale,
    /// The source has ended. The members stay.
    Ended,
}

impl FeedState {
    /// The short name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Current => "current",
            Self::Failing => "failing",
            Self::Stale => "stale",
            Self::Ended => "ended",
        }
    }
}

impl std::fmt::Display for FeedState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A member, or a change of one, that the set did not take.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemberRefusal {
    /// The member.
    pub id: BackendId,
    /// Why not.
    pub error: Arc<SetError>,
}

/// How many refusals a status names one by one.
pub(super) const MAX_LISTED_REFUSALS: usize = 16;
