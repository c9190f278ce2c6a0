//! A subscription to the publications of a set.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Snapshot;
use crate::sync::{Mutex, lock};

/// Follows the publications of a [`BackendSet`](super::BackendSet):
/// [`BackendSet::subscribe`](super::BackendSet::subscribe) makes it.
///
/// For programs that keep something in step with a set: a list of connections, a page, another engine.
/// It needs no runtime. The set keeps the newest snapshot for each subscription, so that a slow reader
/// misses what was in between and holds nothing else alive; a publication wakes it once, under the
/// writers' lock, after the balancers of the set have the snapshot. A set without subscriptions does
/// nothing for them.
///
/// # Examples
/// ```
/// use lvs::{BackendSet, Spec};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let set = BackendSet::new();
/// let mut subscription = set.subscribe();
/// assert!(subscription.snapshot().backends().is_empty());
///
/// set.insert(Spec::new("a", ()))?;
/// set.insert(Spec::new("b", ()))?;
/// let snapshot = subscription.changed().await.ok_or("the set is there")?;
/// assert_eq!(snapshot.backends().len(), 2, "two publications, read as one");
/// assert!(subscription.try_changed().is_none());
///
/// drop(set);
/// assert!(subscription.changed().await.is_none());
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct SetSubscription<T> {
    slot: Arc<SubscriptionSlot<T>>,
    /// The generation of the snapshot that was returned last.
    seen: u64,
}

/// What a set and one subscription share.
pub(super) struct SubscriptionSlot<T>(Mutex<SlotState<T>>);

struct SlotState<T> {
    newest: Arc<Snapshot<T>>,
    /// Whether the set is gone.
    is_closed: bool,
    /// The reader that waits.
    waker: Option<Waker>,
}

impl<T> SubscriptionSlot<T> {
    pub(super) fn new(newest: Arc<Snapshot<T>>) -> Self {
        Self(Mutex::new(SlotState { newest, is_closed: false, waker: None }))
    }

    /// Replaces the snapshot, and wakes the reader.
    pub(super) fn publish(&self, snapshot: &Arc<Snapshot<T>>) {
        self.update(|state| state.newest = Arc::clone(snapshot));
    }

    /// Says that there will be no other snapshot, and wakes the reader.
    pub(super) fn close(&self) {
        self.update(|state| state.is_closed = true);
    }

    fn update(&self, change: impl FnOnce(&mut SlotState<T>)) {
        let waker = {
            let mut state = lock(&self.0);
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> SetSubscription<T> {
    pub(super) fn new(slot: Arc<SubscriptionSlot<T>>) -> Self {
        let seen = lock(&slot.0).newest.generation();
        Self { slot, seen }
    }

    /// Returns the newest snapshot, whether it was returned before or not.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        Arc::clone(&lock(&self.slot.0).newest)
    }

    /// Waits for a snapshot that was published after the one that was returned last, or after the
    /// subscription was made, and returns the newest. Returns `None` when the set is gone: its handles
    /// and balancers are dropped.
    ///
    /// # Cancel safety
    /// Dropped, nothing is lost: the next call returns the snapshot.
    pub async fn changed(&mut self) -> Option<Arc<Snapshot<T>>> {
        poll_fn(|context| self.poll_changed(context)).await
    }

    /// Polls for what [`changed`](Self::changed) waits for. The waker of the last call is woken.
    pub fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<Snapshot<T>>>> {
        let mut state = lock(&self.slot.0);
        if state.newest.generation() != self.seen {
            self.seen = state.newest.generation();
            return Poll::Ready(Some(Arc::clone(&state.newest)));
        }
        if state.is_closed {
            return Poll::Ready(None);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            waker => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Returns the newest snapshot if it was not returned before, without waiting.
    pub fn try_changed(&mut self) -> Option<Arc<Snapshot<T>>> {
        let newest = self.snapshot();
        let is_new = newest.generation() != self.seen;
        self.seen = newest.generation();
        is_new.then_some(newest)
    }
}

impl<T> fmt::Debug for SetSubscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetSubscription")
            .field("seen", &self.seen)
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::backend::{BackendSet, Spec};

    /// Counts how often it is woken.
    #[derive(Default)]
    struct CountingWaker(AtomicUsize);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_publication_wakes_the_reader_once_and_several_are_read_as_one() {
        let set = BackendSet::new();
        let mut subscription = set.subscribe();
        let counter = Arc::new(CountingWaker::default());
        let waker = Waker::from(Arc::clone(&counter));
        let mut context = Context::from_waker(&waker);
        assert!(subscription.poll_changed(&mut context).is_pending());
        assert!(subscription.poll_changed(&mut context).is_pending());
        for name in ["a", "b"] {
            set.insert(Spec::new(name, ())).expect("a new name");
        }
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        let Poll::Ready(Some(snapshot)) = subscription.poll_changed(&mut context) else {
            panic!("a snapshot was published");
        };
        assert_eq!(snapshot.generation(), set.snapshot().generation());
        assert!(subscription.poll_changed(&mut context).is_pending());
        // An edit that changes nothing publishes nothing.
        set.enable(&"a".into()).expect("it is there");
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);

        set.drain(&"a".into()).expect("it is there");
        drop(set);
        assert!(matches!(subscription.poll_changed(&mut context), Poll::Ready(Some(_))));
        assert!(matches!(subscription.poll_changed(&mut context), Poll::Ready(None)));
    }

    #[test]
    fn a_dropped_subscription_is_forgotten() {
        let set = BackendSet::new();
        let dropped = set.subscribe();
        let slot = Arc::downgrade(&dropped.slot);
        drop(dropped);
        let mut other = set.subscribe();
        set.insert(Spec::new("a", ())).expect("a new name");
        assert!(slot.upgrade().is_none());
        assert!(other.try_changed().is_some_and(|snapshot| snapshot.backends().len() == 1));
        assert!(other.try_changed().is_none());
    }
}
