//! The clock's side of a feed: when to look, to try again, and to call members stale.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::ledger::Ledger;
use super::status::NAMED;
use super::{FeedState, FeedStatus};
use crate::backend::BackendSet;
use crate::discovery::{SourceError, Update};

/// How often those that drain are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A feed that runs, without its source.
#[derive(Debug)]
pub(super) struct Driver<T> {
    set: BackendSet<T>,
    ledger: Ledger<T>,
    name: String,
    retry: (Duration, Duration),
    max_staleness: Duration,
    status: watch::Sender<FeedStatus>,
    /// Words heard that the set does not show yet.
    heard: u64,
    /// The set took nothing at the last attempt.
    blocked: bool,
    /// The last thing the source said was good.
    good: bool,
    last_wait: Option<Duration>,
    look_at: Option<Instant>,
    try_at: Option<Instant>,
    stale_at: Option<Instant>,
}

impl<T: Clone + Send + Sync + 'static> Driver<T> {
    pub(super) fn new(
        set: BackendSet<T>,
        ledger: Ledger<T>,
        name: String,
        retry: (Duration, Duration),
        max_staleness: Duration,
        status: watch::Sender<FeedStatus>,
    ) -> Self {
        Self {
            set,
            ledger,
            name,
            retry,
            max_staleness,
            status,
            heard: 0,
            blocked: false,
            good: false,
            last_wait: None,
            look_at: None,
            try_at: None,
            stale_at: None,
        }
    }

    /// Takes down a word; `Some` if it is not accepted, and how long to wait then.
    pub(super) fn hear(&mut self, update: Update<T>) -> Option<Duration> {
        match self.ledger.hear(update) {
            Ok(()) => {
                self.heard += 1;
                self.good = true;
                None
            }
            Err(error) => {
                self.settle();
                Some(self.fail(error))
            }
        }
    }

    /// Notes a failure of the source, and says how long to wait.
    pub(super) fn fail(&mut self, error: SourceError) -> Duration {
        self.good = false;
        self.note_failure(error);
        let (first, longest) = self.retry;
        let wait = self.last_wait.map_or(first, |last| last.saturating_mul(2)).min(longest);
        self.last_wait = Some(wait);
        let half = wait / 2;
        let chance = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(fastrand::u64(0..=chance))
    }

    fn note_failure(&mut self, error: SourceError) {
        let now = Instant::now();
        let first = self.status.borrow().failing_since.is_none();
        if first {
            self.stale_at = now.checked_add(self.max_staleness);
            let said = in_full(&error);
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
    pub(super) fn settle(&mut self) {
        if self.heard > 0 {
            self.apply();
        }
    }

    fn apply(&mut self) {
        let now = Instant::now();
        let applied = self.ledger.settle(&self.set, now.into_std());
        let refused = self.ledger.refused().count();
        let again = applied.is_err() || refused > 0;
        self.try_at = again.then(|| now.checked_add(self.retry.1)).flatten();
        self.blocked = applied.is_err();
        match applied {
            Ok(()) => self.note_members(now, refused),
            Err(error) => self.note_failure(error.into()),
        }
        self.heard = 0;
        if self.ledger.leaving() == 0 {
            self.look_at = None;
        } else if self.look_at.is_none_or(|at| at <= now) {
            self.look_at = Some(now + LOOK);
        }
    }

    fn note_members(&mut self, now: Instant, refused: usize) {
        let (members, draining) = (self.ledger.live(), self.ledger.leaving());
        let before = self.status.borrow().clone();
        if (before.members, before.draining) != (members, draining) {
            info!(source = %self.name, members, draining, "discovery changed the set");
        }
        if before.refused != refused {
            for refusal in self.ledger.refused().take(NAMED) {
                warn!(source = %self.name, error = %refusal.error, "the set refuses a member");
            }
        }
        if self.good && before.failing_since.is_some() {
            info!(source = %self.name, "discovery works again");
        }
        self.status.send_modify(|status| {
            if self.heard > 0 {
                status.answers += self.heard;
                status.last_good = Some(now.into_std());
            }
            status.members = members;
            status.draining = draining;
            status.refused = refused;
            if refused > 0 || !status.refusals.is_empty() {
                status.refusals = self.ledger.refused().take(NAMED).cloned().collect();
            }
            if self.good {
                if status.state != FeedState::Ended {
                    status.state = FeedState::Current;
                }
                status.failures_in_a_row = 0;
                status.failing_since = None;
            }
        });
        if self.good {
            self.last_wait = None;
            self.stale_at = None;
        }
    }

    /// Goes on with what time brings until something else has happened.
    pub(super) async fn during<F: Future>(&mut self, mut other: Pin<&mut F>) -> F::Output {
        loop {
            let wake = [self.look_at, self.try_at, self.stale_at].into_iter().flatten().min();
            let wake = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                output = other.as_mut() => return output,
                () = wake => self.tick(),
            }
        }
    }

    /// The same for some time.
    pub(super) async fn wait(&mut self, time: Duration) {
        self.during(pin!(sleep(time))).await;
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.stale_at.is_some_and(|at| at <= now) {
            self.stale_at = None;
            self.status.send_modify(|status| status.state = FeedState::Stale);
            let members = self.ledger.live();
            warn!(source = %self.name, members, "the members are stale, and stay");
        }
        let try_now = self.try_at.is_some_and(|at| at <= now);
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = Some(now + LOOK);
            // A set that takes nothing is not asked ten times a second.
            let idle = try_now || self.blocked;
            if !idle && self.ledger.any_has_left(now.into_std()) {
                self.apply();
            }
        }
        if try_now {
            self.apply();
        }
    }

    /// The source has ended: waits until nobody drains.
    pub(super) async fn end(mut self) -> FeedStatus {
        self.settle();
        self.stale_at = None;
        self.status.send_modify(|status| status.state = FeedState::Ended);
        info!(source = %self.name, members = self.ledger.live(), "discovery has ended");
        while let Some(at) = self.look_at {
            sleep_until(at).await;
            self.tick();
        }
        self.status.borrow().clone()
    }
}

/// An error and what it came of, in one line.
fn in_full(error: &SourceError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
