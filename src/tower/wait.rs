//! Waiting for a backend, until the set changes, a request ends, or a deadline passes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::backend::{SetError, Snapshot, SnapshotCommit, SnapshotReader};
use crate::sync::{AtomicUsize, Ordering};

/// The interval at which a waiting request searches again without a notification: an instance that
/// becomes ready by itself, and a lease that another balancer returns, notify nobody.
const RECHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The requests of a balancer that wait for a backend, and how they are notified.
#[derive(Debug, Default)]
pub(super) struct BackendWaiters {
    count: AtomicUsize,
    notify: Arc<Notify>,
}

impl BackendWaiters {
    /// Counts one more waiter until the guard is dropped.
    fn register(self: &Arc<Self>) -> BackendWaiterGuard {
        self.count.fetch_add(1, Ordering::Relaxed);
        BackendWaiterGuard(Arc::clone(self))
    }

    /// Notifies one waiter, if there is any.
    #[inline]
    pub(super) fn notify_one(&self) {
        // Relaxed: a waiter that registers at this moment may be missed; its recheck interval covers
        // that.
        if self.count.load(Ordering::Relaxed) != 0 {
            self.notify.notify_one();
        }
    }
}

/// Notifies all waiters of each change of the set.
impl<S> SnapshotReader<S> for BackendWaiters {
    fn prepare(&self, _: &Arc<Snapshot<S>>) -> Result<SnapshotCommit<'_>, SetError> {
        Ok(Box::new(|| self.notify.notify_waiters()))
    }
}

/// Counts a waiter for as long as it lives.
#[derive(Debug)]
struct BackendWaiterGuard(Arc<BackendWaiters>);

impl Drop for BackendWaiterGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The wait of one request for a backend.
pub(super) struct BackendWait {
    started_at: Instant,
    deadline: Instant,
    next_check: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    waiter: BackendWaiterGuard,
}

impl BackendWait {
    /// Starts to wait, for `timeout` at most.
    pub(super) fn start(waiters: &Arc<BackendWaiters>, timeout: Duration) -> Box<Self> {
        let started_at = Instant::now();
        let in_a_year = started_at + Duration::from_secs(86_400 * 365);
        let deadline = started_at.checked_add(timeout).unwrap_or(in_a_year);
        let waiter = waiters.register();
        let next_check = notified_or_recheck(&waiter, started_at, deadline);
        Box::new(Self { started_at, deadline, next_check, waiter })
    }

    /// Is `Ready(Ok)` when the caller must search again, and `Ready(Err)` with the time waited after
    /// the deadline.
    ///
    /// A change after `Ready(Ok)` completes the next poll, so a caller that searches between two polls
    /// misses none.
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
    waiter: &BackendWaiterGuard,
    now: Instant,
    deadline: Instant,
) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
    // Created before the future is polled: it receives every notification from now on.
    let notified = Arc::clone(&waiter.0.notify).notified_owned();
    let recheck = deadline.min(now + RECHECK_INTERVAL);
    Box::pin(async move {
        let _ = timeout_at(recheck, notified).await;
    })
}

impl fmt::Debug for BackendWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendWait")
            .field("started_at", &self.started_at)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
