//! The clock's side of a feed: when to look, to try again, and to call members stale.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::reconciler::FeedReconciler;
use super::status::MAX_LISTED_REFUSALS;
use super::{FeedState, FeedStatus};
use crate::backend::BackendSet;
use crate::discovery::{DiscoveryError, MemberUpdate};

/// How often those that drain are looked at.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A feed that runs, without its source.
#[derive(Debug)]
pub(super) struct FeedDriver<T> {
    set: BackendSet<T>,
    reconciler: FeedReconciler<T>,
    name: String,
    retry_backoff: (Duration, Duration),
    max_staleness: Duration,
    status: watch::Sender<FeedStatus>,
    /// Words heard that the set does not show yet.
    pending_updates: u64,
    /// The set took nothing at the last attempt.
    last_apply_failed: bool,
    /// The last thing the source said was good.
    last_answer_ok: bool,
    last_backoff: Option<Duration>,
    next_drain_poll_at: Option<Instant>,
    next_apply_at: Option<Instant>,
    stale_at: Option<Instant>,
}

impl<T: Clone + Send + Sync + 'static> FeedDriver<T> {
    pub(super) fn new(
        set: BackendSet<T>,
        ledger: FeedReconciler<T>,
        name: String,
        retry: (Duration, Duration),
        max_staleness: Duration,
        status: watch::Sender<FeedStatus>,
    ) -> Self {
        Self {
            set,
            reconciler: ledger,
            name,
            retry_backoff: retry,
            max_staleness,
            status,
            pending_updates: 0,
            last_apply_failed: false,
            last_answer_ok: false,
            last_backoff: None,
            next_drain_poll_at: None,
            next_apply_at: None,
            stale_at: None,
        }
    }

    /// Takes down a word; `Some` if it is not accepted, and how long to wait then.
    pub(super) fn handle_update(&mut self, update: MemberUpdate<T>) -> Option<Duration> {
        match self.reconciler.update_desired(update) {
            Ok(()) => {
                self.pending_updates += 1;
                self.last_answer_ok = true;
                None
            }
            Err(error) => {
                self.apply_pending();
                Some(self.handle_failure(error))
            }
        }
    }

    /// Notes a failure of the source, and says how long to wait.
    pub(super) fn handle_failure(&mut self, error: DiscoveryError) -> Duration {
        self.last_answer_ok = false;
        self.record_failure(error);
        let (first, longest) = self.retry_backoff;
        let wait = self.last_backoff.map_or(first, |last| last.saturating_mul(2)).min(longest);
        self.last_backoff = Some(wait);
        let half = wait / 2;
        let chance = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(fastrand::u64(0..=chance))
    }

    fn record_failure(&mut self, error: DiscoveryError) {
        let now = Instant::now();
        let first = self.status.borrow().failing_since.is_none();
        if first {
            self.stale_at = now.checked_add(self.max_staleness);
            let said = format_error_chain(&error);
            warn!(source = %self.name, error = %said, "discovery fails; the members stay");
        }
        self.status.send_modify(|status| {
            if !matches!(status.state, FeedState::Stale | FeedState::Ended) {
                status.state = FeedState::Failing;
            }
            status.failures += 1;
            status.failures_in_a_row += 1;
            status.failing_since.get_or_insert(now.into_std());
            status.last_error = Some(Arc::new(error));
        });
    }

    /// Makes the set what was heard.
    pub(super) fn apply_pending(&mut self) {
        if self.pending_updates > 0 {
            self.apply();
        }
    }

    fn apply(&mut self) {
        let now = Instant::now();
        let applied = self.reconciler.apply_to(&self.set, now.into_std());
        let refused = self.reconciler.refusals().count();
        let again = applied.is_err() || refused > 0;
        self.next_apply_at = again.then(|| now.checked_add(self.retry_backoff.1)).flatten();
        self.last_apply_failed = applied.is_err();
        match applied {
            Ok(()) => self.record_members(now, refused),
            Err(error) => self.record_failure(error.into()),
        }
        self.pending_updates = 0;
        if self.reconciler.draining_count() == 0 {
            self.next_drain_poll_at = None;
        } else if self.next_drain_poll_at.is_none_or(|at| at <= now) {
            self.next_drain_poll_at = Some(now + DRAIN_POLL_INTERVAL);
        }
    }

    fn record_members(&mut self, now: Instant, refused: usize) {
        let (members, draining) = (self.reconciler.live_count(), self.reconciler.draining_count());
        let before = self.status.borrow().clone();
        if (before.members, before.draining) != (members, draining) {
            info!(source = %self.name, members, draining, "discovery changed the set");
        }
        if before.refused != refused {
            for refusal in self.reconciler.refusals().take(MAX_LISTED_REFUSALS) {
                warn!(source = %self.name, error = %refusal.error, "the set refuses a member");
            }
        }
        if self.last_answer_ok && before.failing_since.is_some() {
            info!(source = %self.name, "discovery works again");
        }
        self.status.send_modify(|status| {
            if self.pending_updates > 0 {
                status.answers += self.pending_updates;
                status.last_success = Some(now.into_std());
            }
            status.members = members;
            status.draining = draining;
            status.refused = refused;
            if refused > 0 || !status.refusals.is_empty() {
                status.refusals =
                    self.reconciler.refusals().take(MAX_LISTED_REFUSALS).cloned().collect();
            }
            if self.last_answer_ok {
                if status.state != FeedState::Ended {
                    status.state = FeedState::Current;
                }
                status.failures_in_a_row = 0;
                status.failing_since = None;
            }
        });
        if self.last_answer_ok {
            self.last_backoff = None;
            self.stale_at = None;
        }
    }

    /// Goes on with what time brings until something else has happened.
    pub(super) async fn run_until<F: Future>(&mut self, mut other: Pin<&mut F>) -> F::Output {
        loop {
            let wake = [self.next_drain_poll_at, self.next_apply_at, self.stale_at]
                .into_iter()
                .flatten()
                .min();
            let wake = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                output = other.as_mut() => return output,
                () = wake => self.handle_timers(),
            }
        }
    }

    /// The same for some time.
    pub(super) async fn run_for(&mut self, time: Duration) {
        self.run_until(pin!(sleep(time))).await;
    }

    fn handle_timers(&mut self) {
        let now = Instant::now();
        if self.stale_at.is_some_and(|at| at <= now) {
            self.stale_at = None;
            self.status.send_modify(|status| status.state = FeedState::Stale);
            let members = self.reconciler.live_count();
            warn!(source = %self.name, members, "the members are stale, and stay");
        }
        let try_now = self.next_apply_at.is_some_and(|at| at <= now);
        if self.next_drain_poll_at.is_some_and(|at| at <= now) {
            self.next_drain_poll_at = Some(now + DRAIN_POLL_INTERVAL);
            // A set that takes nothing is not asked ten times a second.
            let idle = try_now || self.last_apply_failed;
            if !idle && self.reconciler.has_drained_member(now.into_std()) {
                self.apply();
            }
        }
        if try_now {
            self.apply();
        }
    }

    /// The source has ended: waits until nobody drains.
    pub(super) async fn finish(mut self) -> FeedStatus {
        self.apply_pending();
        self.stale_at = None;
        self.status.send_modify(|status| status.state = FeedState::Ended);
        info!(source = %self.name, members = self.reconciler.live_count(), "discovery has ended");
        while let Some(at) = self.next_drain_poll_at {
            sleep_until(at).await;
            self.handle_timers();
        }
        self.status.borrow().clone()
    }
}

/// An error and what it came of, in one line.
fn format_error_chain(error: &DiscoveryError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
