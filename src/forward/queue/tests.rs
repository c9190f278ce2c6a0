use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::Poll;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::time::advance;

use super::*;

/// The free connections of a backend: acquired by a pick, released without a notification.
#[derive(Debug, Default)]
struct FreeSlots(AtomicUsize);

impl FreeSlots {
    fn try_acquire(&self) -> Option<()> {
        self.0.fetch_update(SeqCst, SeqCst, |free| free.checked_sub(1)).ok().map(drop)
    }

    fn release(&self, count: usize) {
        self.0.fetch_add(count, SeqCst);
    }
}

type BoxedQueueWait<'a> = Pin<Box<dyn Future<Output = Result<(), QueueError>> + 'a>>;

fn wait<'a>(
    queue: &'a ConnectionQueue,
    slots: &'a FreeSlots,
    until: Instant,
) -> BoxedQueueWait<'a> {
    Box::pin(queue.wait(|| slots.try_acquire(), until))
}

async fn poll(wait: &mut BoxedQueueWait<'_>) -> Option<Result<(), QueueError>> {
    std::future::poll_fn(|cx| {
        Poll::Ready(match wait.as_mut().poll(cx) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        })
    })
    .await
}

fn deadline_in(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn the_first_waiter_is_served_first() {
    let (queue, slots) = (ConnectionQueue::new(10), FreeSlots::default());
    let mut waiters: Vec<_> = (0..3).map(|_| wait(&queue, &slots, deadline_in(1000))).collect();
    for waiter in &mut waiters {
        assert_eq!(poll(waiter).await, None);
    }
    assert!(!queue.is_empty());
    for first in 0..3 {
        slots.release(1);
        queue.notify_freed();
        // The last waiter is polled first and must not be served.
        for later in (first + 1..3).rev() {
            assert_eq!(poll(&mut waiters[later]).await, None);
        }
        assert_eq!(poll(&mut waiters[first]).await, Some(Ok(())));
    }
    drop(waiters);
    assert!(queue.is_empty());
    let expected = QueueCounters { entered: 3, served: 3, max_waiting: 3, ..Default::default() };
    assert_eq!(queue.counters(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_new_waiter_does_not_overtake() {
    let (queue, slots) = (ConnectionQueue::new(10), FreeSlots::default());
    let mut first = wait(&queue, &slots, deadline_in(1000));
    assert_eq!(poll(&mut first).await, None);
    slots.release(1);
    let mut second = wait(&queue, &slots, deadline_in(1000));
    assert_eq!(poll(&mut second).await, None, "the free connection is for the first waiter");
    queue.notify_freed();
    assert_eq!(poll(&mut first).await, Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn one_notification_is_enough_for_many_slots() {
    let (queue, slots) = (ConnectionQueue::new(10), FreeSlots::default());
    let mut waiters: Vec<_> = (0..4).map(|_| wait(&queue, &slots, deadline_in(1000))).collect();
    for waiter in &mut waiters {
        assert_eq!(poll(waiter).await, None);
    }
    slots.release(3);
    queue.notify_freed();
    let mut results = Vec::new();
    for waiter in &mut waiters {
        results.push(poll(waiter).await);
    }
    assert_eq!(results, [Some(Ok(())), Some(Ok(())), Some(Ok(())), None]);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_at_the_head_and_behind_it() {
    let (queue, slots) = (ConnectionQueue::new(10), FreeSlots::default());
    let start = Instant::now();
    let (head, behind) = tokio::join!(
        async { (wait(&queue, &slots, deadline_in(500)).await, start.elapsed().as_millis()) },
        async { (wait(&queue, &slots, deadline_in(300)).await, start.elapsed().as_millis()) },
    );
    let timed_out = Err(QueueError::Timeout);
    assert_eq!((head.0, behind.0), (timed_out, timed_out));
    // tokio's timer rounds up to its next millisecond.
    assert!((500..=501).contains(&head.1), "{head:?}");
    assert!((300..=301).contains(&behind.1), "{behind:?}");
    let expected = QueueCounters { entered: 2, timed_out: 2, max_waiting: 2, ..Default::default() };
    assert_eq!(queue.counters(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_head_whose_deadline_has_passed_picks_once() {
    let (queue, slots) = (ConnectionQueue::new(10), FreeSlots::default());
    let past = Instant::now();
    advance(Duration::from_secs(1)).await;
    assert_eq!(wait(&queue, &slots, past).await, Err(QueueError::Timeout));
    slots.release(1);
    assert_eq!(wait(&queue, &slots, past).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_slot_freed_without_a_notification_is_found_within_the_poll_interval() {
    let (queue, slots) = (ConnectionQueue::new(10), FreeSlots::default());
    let start = Instant::now();
    let (waited, ()) = tokio::join!(
        async { (wait(&queue, &slots, deadline_in(10_000)).await, start.elapsed()) },
        async {
            tokio::time::sleep(Duration::from_millis(120)).await;
            slots.release(1);
        },
    );
    assert_eq!(waited.0, Ok(()));
    assert!(waited.1 <= Duration::from_millis(175), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_free_slot_is_acquired_at_once() {
    let (queue, slots) = (ConnectionQueue::new(1), FreeSlots::default());
    slots.release(1);
    assert_eq!(poll(&mut wait(&queue, &slots, deadline_in(0))).await, Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_leaves_passes_the_notification_on() {
    let (queue, slots) = (ConnectionQueue::new(10), FreeSlots::default());
    let mut head = wait(&queue, &slots, deadline_in(1000));
    let mut next = wait(&queue, &slots, deadline_in(1000));
    assert_eq!(poll(&mut head).await, None);
    assert_eq!(poll(&mut next).await, None);
    slots.release(1);
    queue.notify_freed();
    drop(head);
    assert_eq!(poll(&mut next).await, Some(Ok(())));
    assert_eq!(queue.counters().abandoned, 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_the_middle_blocks_no_other() {
    let (queue, slots) = (ConnectionQueue::new(3), FreeSlots::default());
    let mut waiters: Vec<_> = (0..3).map(|_| wait(&queue, &slots, deadline_in(1000))).collect();
    for waiter in &mut waiters {
        assert_eq!(poll(waiter).await, None);
    }
    drop(waiters.remove(1));
    let mut last = wait(&queue, &slots, deadline_in(1000));
    assert_eq!(poll(&mut last).await, None, "the queue is below its capacity again");
    slots.release(2);
    queue.notify_freed();
    assert_eq!(poll(&mut waiters[0]).await, Some(Ok(())));
    assert_eq!(poll(&mut waiters[1]).await, Some(Ok(())));
    assert_eq!(poll(&mut last).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once() {
    let (queue, slots) = (ConnectionQueue::new(2), FreeSlots::default());
    let mut waiters: Vec<_> = (0..2).map(|_| wait(&queue, &slots, deadline_in(1000))).collect();
    for waiter in &mut waiters {
        assert_eq!(poll(waiter).await, None);
    }
    let refused = wait(&queue, &slots, deadline_in(1000)).await;
    assert_eq!(refused, Err(QueueError::Full));
    let counters = queue.counters();
    assert_eq!((counters.rejected, counters.entered, counters.waiting), (1, 2, 2));

    let none = ConnectionQueue::new(0);
    slots.release(1);
    assert_eq!(wait(&none, &slots, deadline_in(1000)).await, Err(QueueError::Full));
    assert!(none.is_empty());
}

/// A waiter whose wake-up is lost would wait for the 50 ms poll; here the clock is paused, so it would
/// wait for ever.
#[test]
fn no_wake_up_is_lost_between_threads() {
    const WORKERS: usize = 4;
    const TURNS: usize = 2_000;
    let queue = Arc::new(ConnectionQueue::new(WORKERS));
    let slots = Arc::new(FreeSlots::default());
    slots.release(1);
    let (ended, ends) = mpsc::channel();
    for _ in 0..WORKERS {
        let (queue, slots, ended) = (Arc::clone(&queue), Arc::clone(&slots), ended.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                // While a blocking task runs, a paused clock does not advance by itself.
                let (_held, closed) = mpsc::channel::<()>();
                let _blocking = tokio::task::spawn_blocking(move || closed.recv());
                for _ in 0..TURNS {
                    let until = deadline_in(3_600_000);
                    queue.wait(|| slots.try_acquire(), until).await.expect("the clock is paused");
                    std::thread::yield_now();
                    slots.release(1);
                    queue.notify_freed();
                }
            });
            let _ = ended.send(());
        });
    }
    for _ in 0..WORKERS {
        ends.recv_timeout(Duration::from_secs(60)).expect("no wake-up is lost");
    }
    assert!(queue.is_empty());
    let counters = queue.counters();
    assert_eq!(counters.served, (WORKERS * TURNS) as u64);
    assert!(counters.max_waiting > 1, "connections waited: {counters:?}");
}

#[derive(Clone, Debug)]
enum QueueTestStep {
    Arrive { timeout: u64 },
    Leave(prop::sample::Index),
    Free(usize),
    Advance(u64),
}

fn any_queue_step() -> impl Strategy<Value = QueueTestStep> {
    prop_oneof![
        4 => (1_u64..2000).prop_map(|timeout| QueueTestStep::Arrive { timeout }),
        1 => any::<prop::sample::Index>().prop_map(QueueTestStep::Leave),
        2 => (1_usize..3).prop_map(QueueTestStep::Free),
        2 => (1_u64..400).prop_map(QueueTestStep::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    /// Compares with a list: the waiter that is served is always the first in the list.
    #[test]
    fn the_queue_agrees_with_a_list(steps in prop::collection::vec(any_queue_step(), 1..60), backwards in any::<bool>()) {
        const CAPACITY: usize = 6;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (queue, slots) = (ConnectionQueue::new(CAPACITY), FreeSlots::default());
            let mut waiters: Vec<(Instant, BoxedQueueWait<'_>)> = Vec::new();
            for step in steps {
                match step {
                    QueueTestStep::Arrive { timeout } => {
                        let until = deadline_in(timeout);
                        let mut waiter = wait(&queue, &slots, until);
                        match poll(&mut waiter).await {
                            None => waiters.push((until, waiter)),
                            Some(Ok(())) => assert!(waiters.is_empty(), "overtaken"),
                            Some(Err(error)) => {
                                assert_eq!((error, waiters.len()), (QueueError::Full, CAPACITY));
                            }
                        }
                    }
                    QueueTestStep::Leave(index) if !waiters.is_empty() => {
                        drop(waiters.remove(index.index(waiters.len())));
                    }
                    QueueTestStep::Leave(_) => {}
                    QueueTestStep::Free(count) => {
                        slots.release(count);
                        queue.notify_freed();
                    }
                    QueueTestStep::Advance(millis) => advance(Duration::from_millis(millis)).await,
                }
                // Polls all waiters until a round changes nothing.
                let mut is_settled = false;
                while !is_settled {
                    is_settled = true;
                    let mut order: Vec<usize> = (0..waiters.len()).collect();
                    if backwards {
                        order.reverse();
                    }
                    for position in order {
                        let Some(result) = poll(&mut waiters[position].1).await else { continue };
                        match result {
                            Ok(()) => assert_eq!(position, 0, "served out of order"),
                            Err(error) => {
                                assert_eq!(error, QueueError::Timeout);
                                assert!(waiters[position].0 <= Instant::now(), "too early");
                            }
                        }
                        drop(waiters.remove(position));
                        is_settled = false;
                        break;
                    }
                }
                let counters = queue.counters();
                assert_eq!(counters.waiting, waiters.len() as u64);
                assert!(counters.max_waiting <= CAPACITY as u64);
                assert!(waiters.is_empty() || slots.0.load(SeqCst) == 0, "a connection waits while a backend is below its limit");
                assert!(waiters.iter().all(|(until, _)| *until + Duration::from_millis(1) > Instant::now()));
            }
        });
    }
}
