//! The queue of connections that wait for a backend while all backends are at their limits.
//!
//! Instead of a refusal, or of a backend above its limit, connections wait first in, first out, for a
//! limited time and in a limited number.
//!
//! # How it works
//! Only the head of the queue tries to pick a backend: when it becomes the head, when a caller reports
//! that a connection [was freed](ConnectionQueue::notify_freed), and every 50 ms, because balancers
//! that share the backends do not report it. When the head has picked a backend or has ended, the next
//! waiter becomes the head and tries at once; so one notification is enough for any number of freed
//! connections. The order is that of tokio's fair semaphore, whose only permit belongs to the head.
//!
//! # No lost wake-up
//! A connection may be freed between a caller's failed pick and its entry into the queue. The caller
//! first counts itself as waiting and then tries to pick; the other side first frees its connection
//! and then reads the number of waiters. A fence on both sides between the two steps ensures that at
//! least one side sees the other.

use std::sync::atomic::fence;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// A bounded first-in, first-out queue for the connections of a balancer, shared by worker threads.
///
/// A new connection picks a backend directly only while the queue [is
/// empty](ConnectionQueue::is_empty); otherwise it [waits](ConnectionQueue::wait) behind the others.
///
/// # Cost
/// One relaxed load for a connection that need not wait. A fence and a relaxed load for the end of a
/// connection, and a lock if a connection waits. A waiter is a node in its own future and allocates
/// nothing; only the head has a running timer.
#[derive(Debug)]
pub(super) struct ConnectionQueue {
    capacity: usize,
    /// The single permit belongs to the head of the queue.
    head_permit: Semaphore,
    /// Wakes the head, so that it tries to pick a backend.
    slot_freed: Notify,
    waiting: AtomicUsize,
    max_waiting: AtomicUsize,
    entered: AtomicU64,
    exits: [AtomicU64; 3],
    rejected: AtomicU64,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
enum QueueExit {
    Served,
    TimedOut,
    Abandoned,
}

/// The error of a wait that ended without a backend.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum QueueError {
    /// The queue is at its capacity.
    #[error("the backend queue is full")]
    Full,
    /// All backends stayed at their limits until the deadline.
    #[error("timed out in the backend queue")]
    Timeout,
}

/// The counters of the queue for backends at their limits.
///
/// Every connection that entered is counted in exactly one of the others:
/// `entered = waiting + served + timed_out + abandoned`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct QueueCounters {
    /// Connections that are waiting now.
    pub waiting: u64,
    /// The most connections that ever waited at once.
    pub max_waiting: u64,
    /// Connections that entered the queue.
    pub entered: u64,
    /// Connections that left the queue with a backend, or because no backend was eligible any more.
    pub served: u64,
    /// Connections that timed out in the queue.
    pub timed_out: u64,
    /// Connections that ended in the queue: the client left, or the forwarder cut them.
    pub abandoned: u64,
    /// Connections that were refused because the queue was full. They did not enter it.
    pub rejected: u64,
}

/// How often the head tries to pick a backend without a notification.
const HEAD_POLL_INTERVAL: Duration = Duration::from_millis(50);

impl ConnectionQueue {
    /// Makes an empty queue; with a capacity of 0 every connection is refused.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            head_permit: Semaphore::new(1),
            slot_freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            max_waiting: AtomicUsize::new(0),
            entered: AtomicU64::new(0),
            exits: Default::default(),
            rejected: AtomicU64::new(0),
        }
    }

    /// Tells whether no connection waits, so that a new connection may pick a backend directly.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Wakes the head: a connection ended, or a limit or the membership changed.
    #[inline]
    pub(super) fn notify_freed(&self) {
        // Pairs with the fence in `enqueue`: see the head of the file.
        fence(Ordering::SeqCst);
        if !self.is_empty() {
            self.slot_freed.notify_one();
        }
    }

    /// Waits in the queue until `try_pick` returns `Some`, or until the deadline.
    ///
    /// `try_pick` is called only at the head of the queue, and once more at the deadline. `None` means
    /// to wait on; every other result ends the wait, such as the error that no backend is eligible. A
    /// head whose deadline has passed calls it once.
    ///
    /// While the head gets `None`, no other waiter is served. So `None` is for
    /// [`AllAtLimit`](crate::PickError::AllAtLimit) alone, where any backend below its limit will do;
    /// a caller that waits for a particular backend would block all others.
    ///
    /// # Errors
    /// [`QueueError::Full`] at once, [`QueueError::Timeout`] at the deadline.
    ///
    /// # Cancel safety
    /// A dropped future leaves the queue, and the next waiter tries in its place. The result of
    /// `try_pick` is never lost, because the future completes in the same poll.
    pub(super) async fn wait<R>(
        &self,
        mut try_pick: impl FnMut() -> Option<R>,
        deadline: Instant,
    ) -> Result<R, QueueError> {
        let mut waiter = self.enqueue()?;
        // The semaphore is never closed, so its error never occurs.
        let picked = match timeout_at(deadline, self.head_permit.acquire()).await {
            Ok(Ok(_permit)) => self.wait_at_head(&mut try_pick, deadline).await,
            Ok(Err(_)) | Err(_) => None,
        };
        waiter.exit = if picked.is_some() { QueueExit::Served } else { QueueExit::TimedOut };
        picked.ok_or(QueueError::Timeout)
    }

    async fn wait_at_head<R>(
        &self,
        try_pick: &mut impl FnMut() -> Option<R>,
        deadline: Instant,
    ) -> Option<R> {
        loop {
            // A notification between the pick and the wait is kept for the wait.
            if let Some(picked) = try_pick() {
                return Some(picked);
            }
            let freed = self.slot_freed.notified();
            let next_poll = Instant::now() + HEAD_POLL_INTERVAL;
            if next_poll < deadline {
                let _ = timeout_at(next_poll, freed).await;
            } else if timeout_at(deadline, freed).await.is_err() {
                return try_pick();
            }
        }
    }

    /// Returns the counters of the queue.
    pub(super) fn counters(&self) -> QueueCounters {
        // Acquire, with the Release in `QueueWaiter::drop`: a thread that reads an exit also reads its
        // entry, if it reads that later; so `waiting` is never below zero.
        let exits = self.exits.each_ref().map(|count| count.load(Ordering::Acquire));
        let entered = self.entered.load(Ordering::Relaxed);
        let [served, timed_out, abandoned] = exits;
        QueueCounters {
            waiting: entered.saturating_sub(exits.iter().sum()),
            max_waiting: self.max_waiting.load(Ordering::Relaxed) as u64,
            entered,
            served,
            timed_out,
            abandoned,
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }

    fn enqueue(&self) -> Result<QueueWaiter<'_>, QueueError> {
        let increment = |waiting: usize| (waiting < self.capacity).then_some(waiting + 1);
        match self.waiting.fetch_update(Ordering::AcqRel, Ordering::Relaxed, increment) {
            Ok(previous) => {
                // Pairs with the fence in `notify_freed`: see the head of the file.
                fence(Ordering::SeqCst);
                self.max_waiting.fetch_max(previous + 1, Ordering::Relaxed);
                self.entered.fetch_add(1, Ordering::Relaxed);
                Ok(QueueWaiter { queue: self, exit: QueueExit::Abandoned })
            }
            Err(_) => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                Err(QueueError::Full)
            }
        }
    }
}

/// A connection that is counted as waiting; its drop counts the exit.
#[derive(Debug)]
struct QueueWaiter<'a> {
    queue: &'a ConnectionQueue,
    exit: QueueExit,
}

impl Drop for QueueWaiter<'_> {
    fn drop(&mut self) {
        self.queue.exits[self.exit as usize].fetch_add(1, Ordering::Release);
        self.queue.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
