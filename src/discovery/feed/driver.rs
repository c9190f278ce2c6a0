//! The timers of a feed: retries, drain polls and staleness.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::reconciler::FeedReconciler;
use super::retry::RetryBackoff;
use super::status::{FeedState, FeedStatus, MAX_LISTED_REFUSALS, MemberRefusal};
use crate::backend::BackendSet;
use crate::discovery::{DiscoveryError, MemberUpdate};

/// The time between two reads of the load of draining members.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A running feed without its source.
#[derive(Debug)]
pub(super) struct FeedDriver<A, T> {
    set: BackendSet<T>,
    reconciler: FeedReconciler<A, T>,
    /// What log lines begin with: the name of the feed, if set, and that of the source.
    label: String,
    retry_backoff: RetryBackoff,
    max_staleness: Duration,
    status: watch::Sender<FeedStatus>,
    /// The number of updates that have not been applied to the set yet.
    pending_updates: u64,
    /// Whether the set refused the whole change at the last attempt.
    last_apply_failed: bool,
    /// Whether the last report of the source was an update, not a failure.
    last_answer_ok: bool,
    next_drain_poll_at: Option<Instant>,
    next_apply_at: Option<Instant>,
    stale_at: Option<Instant>,
}

impl<A: Clone, T: Send + Sync + 'static> FeedDriver<A, T> {
    pub(super) fn new(
        set: BackendSet<T>,
        reconciler: FeedReconciler<A, T>,
        label: String,
        retry_backoff: RetryBackoff,
        max_staleness: Duration,
        status: watch::Sender<FeedStatus>,
    ) -> Self {
        Self {
            set,
            reconciler,
            label,
            retry_backoff,
            max_staleness,
            status,
            pending_updates: 0,
            last_apply_failed: false,
            last_answer_ok: false,
            next_drain_poll_at: None,
            next_apply_at: None,
            stale_at: None,
        }
    }

    /// Records an update, to be applied later; returns how long to wait if the update is not
    /// accepted.
    pub(super) fn handle_update(&mut self, update: MemberUpdate<A>) -> Option<Duration> {
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

    /// Records a failure of the source; returns how long to wait before the retry.
    pub(super) fn handle_failure(&mut self, error: DiscoveryError) -> Duration {
        self.last_answer_ok = false;
        self.record_failure(error);
        self.retry_backoff.next_wait()
    }

    fn record_failure(&mut self, error: DiscoveryError) {
        let now = Instant::now();
        let is_first = self.status.borrow().failing_since.is_none();
        if is_first {
            self.stale_at = now.checked_add(self.max_staleness);
            let (label, error) = (&self.label, error.with_causes());
            warn!("{label} failed, its members stay in service: {error}");
        }
        self.status.send_modify(|status| {
            if !matches!(status.state, FeedState::Stale | FeedState::Ended) {
                status.state = FeedState::Failing;
            }
            status.failures += 1;
            status.consecutive_failures += 1;
            status.failing_since.get_or_insert(now.into_std());
            status.last_error = Some(Arc::new(error));
        });
    }

    /// Applies the recorded updates to the set.
    pub(super) fn apply_pending(&mut self) {
        if self.pending_updates > 0 {
            self.apply();
        }
    }

    fn apply(&mut self) {
        let now = Instant::now();
        let applied = self.reconciler.apply_to(&self.set, now.into_std());
        let refused = self.reconciler.refusals().count();
        let needs_retry = applied.is_err() || refused > 0;
        let retry_at = now.checked_add(self.retry_backoff.longest());
        self.next_apply_at = needs_retry.then_some(retry_at).flatten();
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
        let (label, previous) = (&self.label, self.status.borrow().clone());
        if (previous.members, previous.draining) != (members, draining) {
            info!("{label} has {members} members in service, and {draining} that drain");
        }
        if previous.refused != refused {
            for MemberRefusal { id, error } in self.reconciler.refusals().take(MAX_LISTED_REFUSALS)
            {
                warn!("{label}: cannot add or change member {id}: {error}");
            }
        }
        if self.last_answer_ok && previous.failing_since.is_some() {
            info!("{label} works again");
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
                status.consecutive_failures = 0;
                status.failing_since = None;
            }
        });
        if self.last_answer_ok {
            self.retry_backoff.reset();
            self.stale_at = None;
        }
    }

    /// Handles timers until a future is ready; returns the future's output.
    pub(super) async fn run_until<F: Future>(&mut self, mut future: Pin<&mut F>) -> F::Output {
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
                output = future.as_mut() => return output,
                () = wake => self.handle_timers(),
            }
        }
    }

    /// Handles timers for a duration.
    pub(super) async fn run_for(&mut self, duration: Duration) {
        self.run_until(pin!(sleep(duration))).await;
    }

    fn handle_timers(&mut self) {
        let now = Instant::now();
        if self.stale_at.is_some_and(|at| at <= now) {
            self.stale_at = None;
            self.status.send_modify(|status| status.state = FeedState::Stale);
            let (label, members) = (&self.label, self.reconciler.live_count());
            let age = self.max_staleness;
            warn!(
                "{label} has failed for {age:?}: its {members} members are stale, and stay in service"
            );
        }
        let apply_now = self.next_apply_at.is_some_and(|at| at <= now);
        if self.next_drain_poll_at.is_some_and(|at| at <= now) {
            self.next_drain_poll_at = Some(now + DRAIN_POLL_INTERVAL);
            // A set that refused the last change is not tried ten times a second.
            let postpone = apply_now || self.last_apply_failed;
            if !postpone && self.reconciler.has_drained_member(now.into_std()) {
                self.apply();
            }
        }
        if apply_now {
            self.apply();
        }
    }

    /// Runs after the end of the source until no member drains.
    pub(super) async fn finish(mut self) -> FeedStatus {
        self.apply_pending();
        self.stale_at = None;
        self.status.send_modify(|status| status.state = FeedState::Ended);
        let (label, members) = (&self.label, self.reconciler.live_count());
        info!("{label} has ended, its {members} members stay in service");
        while let Some(at) = self.next_drain_poll_at {
            sleep_until(at).await;
            self.handle_timers();
        }
        self.status.borrow().clone()
    }
}
