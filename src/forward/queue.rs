//! The line for a place at a backend, when all of them are at their limit.
//!
//! What a limit is worth shows here: instead of refusing who comes one too many, or of letting a
//! server take more than it can do, clients wait in the order in which they came, for a bounded
//! time and in bounded number.
//!
//! # How it works
//! One waiter is the head of the line, and only the head looks for a place: when it becomes the
//! head, when somebody says that a place [may be free](ConnectionQueue::notify_freed), and every 50 ms besides,
//! because backends may be shared with balancers that do not say so. When it has a place, or gives
//! up, the next in line becomes the head and looks at once; so one word is enough for any number of
//! places. The order is that of tokio's fair semaphore, whose only permit is being the head.
//!
//! # No lost wake-up
//! A place may come free between a caller's failed pick and its entry into the line. The caller
//! counts itself as waiting, and then looks; whoever frees a place frees it, and then looks whether
//! anybody waits. A fence on both sides between the two steps makes sure that one of them sees the
//! other.

use std::sync::atomic::fence;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// A bounded line, first come first served; one for each balancer, shared by the workers.
///
/// A newcomer picks for itself only while the line [is empty](ConnectionQueue::is_empty); else it
/// [waits](ConnectionQueue::wait) behind those who came before.
///
/// # Cost
/// For who need not wait: one relaxed load. For who ends a connection: a fence and a relaxed load,
/// and a lock where somebody waits. A waiter is a node in its own future and allocates nothing; only
/// the head has a timer that runs.
#[derive(Debug)]
pub(super) struct ConnectionQueue {
    capacity: usize,
    /// One permit: its holder is the head of the line.
    head_permit: Semaphore,
    /// Tells the head to look.
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

/// Why a caller was not given a place.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum QueueError {
    /// The line was at its capacity.
    #[error("the line for a backend is full")]
    Full,
    /// No place came free in time.
    #[error("no backend had a place in time")]
    Timeout,
}

/// What a line for a place has seen so far.
///
/// Everybody who entered is in exactly one place:
/// `entered = waiting + served + timed_out + gave_up`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct QueueCounters {
    /// Connections that wait now.
    pub waiting: u64,
    /// The most connections that ever waited at once.
    pub max_waiting: u64,
    /// Connections that had to wait.
    pub entered: u64,
    /// Connections that waited and were given an answer: a backend, or that there is none to wait for.
    pub served: u64,
    /// Connections that waited until their time was over.
    pub timed_out: u64,
    /// Connections that ended while they waited: the client left, or the forwarder cut them.
    pub abandoned: u64,
    /// Connections that were refused because the line was full. They did not enter.
    pub rejected: u64,
}

/// How often the head looks for places that were freed without a word.
const HEAD_POLL_INTERVAL: Duration = Duration::from_millis(50);

impl ConnectionQueue {
    /// An empty line in which so many may wait; with 0, nobody does.
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

    /// Tells whether nobody waits, so that a newcomer overtakes nobody by picking for itself.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Says that a place may be free: a connection ended, or a limit or the membership changed.
    #[inline]
    pub(super) fn notify_freed(&self) {
        // With the fence in `enter`: see the head of the file.
        fence(Ordering::SeqCst);
        if !self.is_empty() {
            self.slot_freed.notify_one();
        }
    }

    /// Waits in line until `try_pick` gives something, or until a moment.
    ///
    /// `try_pick` is called only at the head of the line, and once more at the last moment. `None`
    /// says to go on waiting; what else there is to say is its `Some`, such as that there is nobody
    /// left to wait for. A moment that has passed already gives the head one look.
    ///
    /// While the head gets `None`, nobody behind it looks. So `None` is for
    /// [`Saturated`](crate::PickError::Saturated) alone, where every place that comes free would do;
    /// a caller that looks for one particular backend would hold up all the others.
    ///
    /// # Errors
    /// [`QueueError::Full`] at once, [`QueueError::Timeout`] at that moment.
    ///
    /// # Cancel safety
    /// A dropped future leaves the line, and the next in it looks in its stead. A place that
    /// `try_pick` took is never lost, because the future is ready in the same step.
    pub(super) async fn wait<R>(
        &self,
        mut try_pick: impl FnMut() -> Option<R>,
        until: Instant,
    ) -> Result<R, QueueError> {
        let mut waiter = self.enqueue()?;
        // Never closed: the other error of the semaphore cannot come, and would be no turn.
        let picked = match timeout_at(until, self.head_permit.acquire()).await {
            Ok(Ok(_turn)) => self.wait_at_head(&mut try_pick, until).await,
            Ok(Err(_)) | Err(_) => None,
        };
        waiter.exit = if picked.is_some() { QueueExit::Served } else { QueueExit::TimedOut };
        picked.ok_or(QueueError::Timeout)
    }

    async fn wait_at_head<R>(
        &self,
        try_pick: &mut impl FnMut() -> Option<R>,
        until: Instant,
    ) -> Option<R> {
        loop {
            // A word that comes between the look and the wait is kept for the wait.
            if let Some(picked) = try_pick() {
                return Some(picked);
            }
            let freed = self.slot_freed.notified();
            let look_again = Instant::now() + HEAD_POLL_INTERVAL;
            if look_again < until {
                let _ = timeout_at(look_again, freed).await;
            } else if timeout_at(until, freed).await.is_err() {
                return try_pick();
            }
        }
    }

    /// What the line has seen so far.
    pub(super) fn counters(&self) -> QueueCounters {
        // Acquire, with the Release in `QueueWaiter::drop`: whoever sees an end sees its beginning, if it
        // looks for it later; so `waiting` is never below zero.
        let ends = self.exits.each_ref().map(|end| end.load(Ordering::Acquire));
        let entered = self.entered.load(Ordering::Relaxed);
        let [served, timed_out, gave_up] = ends;
        QueueCounters {
            waiting: entered.saturating_sub(ends.iter().sum()),
            max_waiting: self.max_waiting.load(Ordering::Relaxed) as u64,
            entered,
            served,
            timed_out,
            abandoned: gave_up,
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }

    fn enqueue(&self) -> Result<QueueWaiter<'_>, QueueError> {
        let room = |waiting: usize| (waiting < self.capacity).then_some(waiting + 1);
        match self.waiting.fetch_update(Ordering::AcqRel, Ordering::Relaxed, room) {
            Ok(before) => {
                // With the fence in `freed`: see the head of the file.
                fence(Ordering::SeqCst);
                self.max_waiting.fetch_max(before + 1, Ordering::Relaxed);
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

/// One who is counted as waiting.
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
