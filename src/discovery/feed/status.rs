//! The status of a feed.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::backend::{BackendId, SetError};
use crate::discovery::DiscoveryError;

/// A handle that reads the status of a running [`Feed`](super::Feed).
///
/// Cheap to clone; each clone sees every change. The feed runs on when a handle is dropped.
#[derive(Clone, Debug)]
pub struct FeedHandle {
    pub(super) receiver: watch::Receiver<FeedStatus>,
}

impl FeedHandle {
    /// Returns the present status, or the last status of a feed that has ended.
    #[must_use]
    pub fn status(&self) -> FeedStatus {
        self.receiver.borrow().clone()
    }

    /// Waits for a status that this handle has not returned yet; `None` when the feed has ended. Of
    /// several changes in between, only the last is returned.
    ///
    /// Cancel safe.
    pub async fn changed(&mut self) -> Option<FeedStatus> {
        self.receiver.changed().await.ok()?;
        Some(self.receiver.borrow_and_update().clone())
    }

    /// Waits until the first update of the source has been applied to the set; `None` if the feed
    /// ends without an update.
    ///
    /// For programs that accept clients only when there is a member to serve them. Put a timeout
    /// around the call: a source that fails from the start keeps the caller waiting.
    ///
    /// Cancel safe.
    pub async fn ready(&mut self) -> Option<FeedStatus> {
        self.receiver.wait_for(|status| status.last_success.is_some()).await.ok().map(|s| s.clone())
    }
}

/// The status of a feed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FeedStatus {
    /// Whether the members are those that the source lists.
    pub state: FeedState,
    /// The number of members in the set that the source lists.
    pub members: usize,
    /// The number of members that the source no longer lists and that drain.
    pub draining: usize,
    /// The first 16 members, or changes of members, that the set refuses. They are tried again with
    /// every update, and each time the longest [retry wait](super::Feed::retry) has passed.
    pub refusals: Arc<[MemberRefusal]>,
    /// The number of all refused members and changes.
    pub refused: usize,
    /// The number of updates applied so far.
    pub answers: u64,
    /// The number of failures so far.
    pub failures: u64,
    /// The number of failures since the last update.
    pub consecutive_failures: u64,
    /// The time of the last update.
    pub last_success: Option<Instant>,
    /// The time of the first failure since the last update; `None` if the source does not fail.
    pub failing_since: Option<Instant>,
    /// The error of the last failure; stays when the source works again.
    pub last_error: Option<Arc<DiscoveryError>>,
}

/// Whether the members of a feed are those that its source lists.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FeedState {
    /// The source has not reported yet.
    #[default]
    Waiting,
    /// The members are those of the last report.
    Current,
    /// The source fails. The members are those of the last update.
    Failing,
    /// The source has failed for longer than [`max_staleness`](super::Feed::max_staleness). The
    /// members are still those of the last update, if there was any.
    Stale,
    /// The source has ended. The members stay.
    Ended,
}

impl FeedState {
    /// Returns the short name for metrics and logs.
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

/// A member, or a change of a member, that the set refuses.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemberRefusal {
    /// The member.
    pub id: BackendId,
    /// The reason.
    pub error: Arc<SetError>,
}

/// The most refusals that a status lists.
pub(super) const MAX_LISTED_REFUSALS: usize = 16;
