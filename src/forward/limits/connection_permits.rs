//! How many connections a listener has at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of one listener, shared by its workers.
///
/// tokio's semaphore with a name: whoever waits is served in order, a waiter that is dropped passes
/// its turn on, and no wake-up is lost between workers that run on different threads.
///
/// A worker that has accepted one too many keeps its client and waits with [`ConnectionPermits::acquire`]; so there
/// are never more connections being served than places, and never more accepted than places and
/// workers.
///
/// Taking a place is one atomic exchange, giving it back one short lock: together some 13 ns where
/// workers do not meet there.
#[derive(Debug)]
pub(in crate::forward) struct ConnectionPermits {
    semaphore: Arc<Semaphore>,
}

/// A place that is taken; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping a slot gives the place back"]
pub(in crate::forward) struct ConnectionPermit {
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPermits {
    /// So many places; 0 counts as 1.
    pub(in crate::forward) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(limit)) }
    }

    /// Takes a place if one is free and nobody waits for it.
    pub(in crate::forward) fn try_acquire(&self) -> Option<ConnectionPermit> {
        let permit = Arc::clone(&self.semaphore).try_acquire_owned().ok()?;
        Some(ConnectionPermit { _permit: permit })
    }

    /// Takes a place when it is this caller's turn. Cancel safe: a dropped future gives up its turn.
    pub(in crate::forward) async fn acquire(&self) -> ConnectionPermit {
        loop {
            // The semaphore is never closed, so that the first answer is a place.
            if let Ok(permit) = Arc::clone(&self.semaphore).acquire_owned().await {
                return ConnectionPermit { _permit: permit };
            }
        }
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn places_are_taken_and_come_back() {
        let slots = ConnectionPermits::new(2);
        let (first, second) = (slots.try_acquire(), slots.try_acquire());
        assert!(first.is_some() && second.is_some());
        assert!(slots.try_acquire().is_none());
        drop(first);
        assert!(slots.try_acquire().is_some());
    }

    #[test]
    fn any_limit_is_sound() {
        let one = ConnectionPermits::new(0);
        let _held = one.try_acquire().expect("a place");
        assert!(one.try_acquire().is_none());
        assert!(ConnectionPermits::new(usize::MAX).try_acquire().is_some());
    }

    #[tokio::test]
    async fn a_dropped_waiter_passes_its_turn_on() {
        let slots = ConnectionPermits::new(1);
        let held = slots.acquire().await;
        let mut first = Box::pin(slots.acquire());
        let mut second = Box::pin(slots.acquire());
        assert!(poll_once(&mut first).await.is_none());
        assert!(poll_once(&mut second).await.is_none());
        drop(held);
        drop(first);
        assert!(poll_once(&mut second).await.is_some());
    }

    /// Polls once.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn workers_never_have_more_than_the_limit_between_them() {
        const LIMIT: usize = 3;
        let slots = Arc::new(ConnectionPermits::new(LIMIT));
        let held = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (slots, held) = (Arc::clone(&slots), Arc::clone(&held));
                tokio::spawn(async move {
                    for _ in 0..500 {
                        let slot = slots.acquire().await;
                        assert!(held.fetch_add(1, Ordering::SeqCst) < LIMIT);
                        tokio::task::yield_now().await;
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(slot);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.expect("no panic");
        }
        assert_eq!(slots.semaphore.available_permits(), LIMIT);
    }
}
