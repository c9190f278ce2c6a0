//! Waiting for a backend: until something changes, for a moment at a time, and not for ever.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::context::{BackendWaiterGuard, BalanceContext};

/// How soon one who waits looks again though nobody said a word: instances that are ready for
/// somebody else's reasons, and limits of leases that others hold, say none.
const RECHECK_INTERVAL: Duration = Duration::from_millis(50);

/// One who waits.
pub(super) struct BackendWait {
    started_at: Instant,
    deadline: Instant,
    next_check: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    waiter: BackendWaiterGuard,
}

impl BackendWait {
    pub(super) fn start<S>(shared: &BalanceContext<S>) -> Box<Self> {
        let begun = Instant::now();
        let far = begun + Duration::from_secs(86_400 * 365);
        let until = begun.checked_add(shared.config.wait_timeout).unwrap_or(far);
        let place = shared.waiters().register();
        Box::new(Self {
            started_at: begun,
            deadline: until,
            next_check: notified_or_recheck(&place, begun, until),
            waiter: place,
        })
    }

    /// `Ready` when it is time to look: something has changed, or may have. `Err` when the time for
    /// looking is over, and how long it was.
    ///
    /// Whatever changes after one `Ready` makes the next one come: look between them.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Duration>> {
        if self.next_check.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if now >= self.deadline {
            return Poll::Ready(Err(now.saturating_duration_since(self.started_at)));
        }
        self.next_check = notified_or_recheck(&self.waiter, now, self.deadline);
        Poll::Ready(Ok(()))
    }
}

fn notified_or_recheck(
    place: &BackendWaiterGuard,
    now: Instant,
    until: Instant,
) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
    // Made here: it hears of all that happens from now on.
    let word = place.notify().notified_owned();
    let look = until.min(now + RECHECK_INTERVAL);
    Box::pin(async move {
        let _ = timeout_at(look, word).await;
    })
}

impl fmt::Debug for BackendWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait")
            .field("begun", &self.started_at)
            .field("until", &self.deadline)
            .finish_non_exhaustive()
    }
}
