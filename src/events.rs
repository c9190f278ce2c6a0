//! Streams of events, with a bounded queue.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures_core::Stream;
use thiserror::Error;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, broadcast};

/// How many unread events a reader may have before it misses the oldest.
const MAX_UNREAD_EVENTS: usize = 4096;

/// A reader of events: those of health checks, of the election for virtual addresses, or of a director.
///
/// It reads the events since it was made, and ends when what sends them has ended. The sender never
/// waits for a reader: a reader with more than 4096 unread events misses the oldest, and
/// [`MissedEvents`] says how many. Unread events of all readers are stored once, and each reader gets a
/// clone.
///
/// Tasks call [`next`](Self::next) or use it as a [`Stream`]; threads call
/// [`blocking_next`](Self::blocking_next). It needs no runtime.
///
/// # Examples
#[cfg_attr(feature = "health", doc = "```")]
#[cfg_attr(not(feature = "health"), doc = "```ignore")]
/// use std::net::SocketAddr;
///
/// use lvs::health::{HealthEvents, HealthPlan, Monitor};
/// use lvs::{BackendSet, Health};
///
/// let (set, monitor) = (BackendSet::<SocketAddr>::new(), Monitor::new());
/// set.insert("10.0.0.1:80".parse::<SocketAddr>()?)?;
/// monitor.watch(&set, HealthPlan::new("web"))?;
/// let mut events: HealthEvents = monitor.events();
///
/// set.set_health(&"10.0.0.1:80".into(), Health::Down)?;
/// let event = events.blocking_next().expect("the monitor exists")?;
/// assert_eq!(event.to_string(), "service web: server 10.0.0.1:80 is down (was eligible)");
/// assert!(event.is_alert());
/// assert_eq!(events.try_next(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Events<E> {
    receiver: broadcast::Receiver<E>,
    arrivals: Arc<Notify>,
    /// Ready after the next arrival. It is made before the queue is read, so that none is overlooked.
    next_arrival: Pin<Box<OwnedNotified>>,
}

/// The number of events that a slow reader has missed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{0} events were missed: the reader was too slow")]
pub struct MissedEvents(pub u64);

/// The error of [`Events::blocking_next_timeout`]: no event arrived in time.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("no event arrived within {0:?}")]
pub struct EventTimeout(pub Duration);

impl<E: Clone> Events<E> {
    /// Waits for the next event; returns `None` when the sender has ended and every event is read.
    ///
    /// # Errors
    /// [`MissedEvents`] if the reader missed events; the next call returns the oldest event that is
    /// left.
    ///
    /// # Cancel safety
    /// Dropped, it loses no event.
    pub async fn next(&mut self) -> Option<Result<E, MissedEvents>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Returns the next event if there is one, without waiting.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn try_next(&mut self) -> Option<Result<E, MissedEvents>> {
        match self.receiver.try_recv() {
            Ok(event) => Some(Ok(event)),
            Err(TryRecvError::Lagged(missed)) => Some(Err(MissedEvents(missed))),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    /// Blocks the thread until the next event; returns `None` when the sender has ended and every event
    /// is read. For threads: an async task calls [`next`](Self::next).
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn blocking_next(&mut self) -> Option<Result<E, MissedEvents>> {
        // Without a deadline there is no timeout.
        self.block_until(None).flatten()
    }

    /// Does what [`blocking_next`](Self::blocking_next) does, for at most this long.
    ///
    /// # Errors
    /// [`EventTimeout`] if there is no event by then. Within the result, as [`next`](Self::next).
    pub fn blocking_next_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<Result<E, MissedEvents>>, EventTimeout> {
        // What is too far away to be an instant is no deadline.
        let deadline = now().checked_add(timeout);
        self.block_until(deadline).ok_or(EventTimeout(timeout))
    }

    /// Blocks until the next event or the end; returns `None` at the deadline.
    fn block_until(
        &mut self,
        deadline: Option<Instant>,
    ) -> Option<Option<Result<E, MissedEvents>>> {
        let waker = Waker::from(Arc::new(ThreadWaker(thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(next) = self.poll_event(&mut cx) {
                return Some(next);
            }
            let Some(deadline) = deadline else {
                thread::park();
                continue;
            };
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<E, MissedEvents>>> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Poll::Ready(Some(Ok(event))),
                Err(TryRecvError::Lagged(missed)) => {
                    return Poll::Ready(Some(Err(MissedEvents(missed))));
                }
                Err(TryRecvError::Closed) => return Poll::Ready(None),
                Err(TryRecvError::Empty) => {}
            }
            ready!(self.next_arrival.as_mut().poll(cx));
            self.next_arrival.set(Arc::clone(&self.arrivals).notified_owned());
        }
    }
}

impl<E: Clone> Stream for Events<E> {
    type Item = Result<E, MissedEvents>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx)
    }
}

/// Continues a thread that waits for an event.
struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The sending side. The readers' streams end when it is dropped.
#[derive(Debug)]
pub(crate) struct EventSender<E> {
    /// The queue, made for the first reader: it takes some hundred kilobytes. It is dropped before the
    /// notification: whoever that wakes finds it closed.
    sender: OnceLock<broadcast::Sender<E>>,
    arrivals: NotifyOnDrop,
}

#[derive(Debug)]
struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl<E: Clone> EventSender<E> {
    pub(crate) fn new() -> Self {
        Self { sender: OnceLock::new(), arrivals: NotifyOnDrop(Arc::new(Notify::new())) }
    }

    /// Sends an event to all readers. Never waits for a reader.
    pub(crate) fn send(&self, event: E) {
        // Sending fails only if there are no readers.
        if self.sender.get().is_some_and(|sender| sender.send(event).is_ok()) {
            self.arrivals.0.notify_waiters();
        }
    }

    /// Returns a reader of the events from now on.
    pub(crate) fn subscribe(&self) -> Events<E> {
        let arrivals = Arc::clone(&self.arrivals.0);
        // Before the queue, as in `poll_event`.
        let next_arrival = Box::pin(Arc::clone(&arrivals).notified_owned());
        let sender = self.sender.get_or_init(|| broadcast::Sender::new(MAX_UNREAD_EVENTS));
        Events { receiver: sender.subscribe(), arrivals, next_arrival }
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a thread waits by the system's clock")]
    Instant::now()
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    fn poll(events: &mut Events<u32>) -> Poll<Option<Result<u32, MissedEvents>>> {
        std::pin::pin!(events.next()).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_reader_gets_every_event_since_it_was_made_and_then_the_end() {
        let sender = EventSender::new();
        sender.send(1);
        let mut events = sender.subscribe();
        assert_eq!((poll(&mut events), events.try_next()), (Poll::Pending, None));
        sender.send(2);
        sender.send(3);
        assert_eq!(poll(&mut events), Poll::Ready(Some(Ok(2))));
        assert_eq!(events.try_next(), Some(Ok(3)));
        // Dropped while it waits, `next` loses nothing.
        assert_eq!(poll(&mut events), Poll::Pending);
        sender.send(4);
        drop(sender);
        assert_eq!(poll(&mut events), Poll::Ready(Some(Ok(4))));
        assert_eq!(poll(&mut events), Poll::Ready(None));
        assert_eq!((events.try_next(), events.blocking_next()), (None, None));
    }

    #[test]
    fn a_slow_reader_learns_how_many_events_it_missed() {
        let sender = EventSender::new();
        let (mut slow, mut fast) = (sender.subscribe(), sender.subscribe());
        for number in 0..MAX_UNREAD_EVENTS as u32 + 3 {
            sender.send(number);
            assert_eq!(fast.try_next(), Some(Ok(number)));
        }
        let missed = slow.blocking_next().expect("the sender exists");
        assert_eq!(missed, Err(MissedEvents(3)));
        assert_eq!(
            missed.expect_err("missed").to_string(),
            "3 events were missed: the reader was too slow"
        );
        assert_eq!(slow.blocking_next(), Some(Ok(3)));
    }

    #[test]
    fn a_waiting_thread_and_a_waiting_task_are_woken_by_events_and_by_the_end() {
        let sender = EventSender::new();
        let (mut in_thread, mut in_task) = (sender.subscribe(), sender.subscribe());
        let thread = thread::spawn(move || {
            std::iter::from_fn(|| in_thread.blocking_next()).collect::<Vec<_>>()
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let runtime = runtime.expect("a runtime");
        let task = runtime.spawn(async move {
            let mut read = Vec::new();
            while let Some(event) = in_task.next().await {
                read.push(event);
            }
            read
        });
        (0..1000).for_each(|number| sender.send(number));
        drop(sender);
        let expected: Vec<_> = (0..1000).map(Ok).collect();
        assert_eq!(thread.join().expect("no panic"), expected);
        assert_eq!(runtime.block_on(task).expect("no panic"), expected);
    }

    #[test]
    fn a_wait_with_a_timeout_ends_with_an_event_the_timeout_or_the_end() {
        let sender = EventSender::new();
        let mut events = sender.subscribe();
        let long = Duration::MAX;
        sender.send(1);
        assert_eq!(events.blocking_next_timeout(long), Ok(Some(Ok(1))));
        let error = events.blocking_next_timeout(Duration::ZERO);
        assert_eq!(error, Err(EventTimeout(Duration::ZERO)));
        drop(sender);
        assert_eq!(events.blocking_next_timeout(long), Ok(None));
    }
}
