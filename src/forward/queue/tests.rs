use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::Poll;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::time::advance;

use super::*;

/// The places of a backend: taken by picking, freed without a word.
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
    places: &'a FreeSlots,
    until: Instant,
) -> BoxedQueueWait<'a> {
    Box::pin(queue.wait(|| places.try_acquire(), until))
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
async fn who_came_first_is_served_first() {
    let (queue, places) = (ConnectionQueue::new(10), FreeSlots::default());
    let mut line: Vec<_> = (0..3).map(|_| wait(&queue, &places, deadline_in(1000))).collect();
    for waiter in &mut line {
        assert_eq!(poll(waiter).await, None);
    }
    assert!(!queue.is_empty());
    for first in 0..3 {
        places.release(1);
        queue.notify_freed();
        // The last is asked first and must not have it.
        for later in (first + 1..3).rev() {
            assert_eq!(poll(&mut line[later]).await, None);
        }
        assert_eq!(poll(&mut line[first]).await, Some(Ok(())));
    }
    drop(line);
    assert!(queue.is_empty());
    let expected = QueueCounters { entered: 3, served: 3, max_waiting: 3, ..Default::default() };
    assert_eq!(queue.counters(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_overtake() {
    let (queue, places) = (ConnectionQueue::new(10), FreeSlots::default());
    let mut first = wait(&queue, &places, deadline_in(1000));
    assert_eq!(poll(&mut first).await, None);
    places.release(1);
    let mut second = wait(&queue, &places, deadline_in(1000));
    assert_eq!(poll(&mut second).await, None, "there is a place, and it is not for this one");
    queue.notify_freed();
    assert_eq!(poll(&mut first).await, Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn one_word_is_enough_for_many_places() {
    let (queue, places) = (ConnectionQueue::new(10), FreeSlots::default());
    let mut line: Vec<_> = (0..4).map(|_| wait(&queue, &places, deadline_in(1000))).collect();
    for waiter in &mut line {
        assert_eq!(poll(waiter).await, None);
    }
    places.release(3);
    queue.notify_freed();
    let mut answers = Vec::new();
    for waiter in &mut line {
        answers.push(poll(waiter).await);
    }
    assert_eq!(answers, [Some(Ok(())), Some(Ok(())), Some(Ok(())), None]);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_at_the_head_and_behind_it() {
    let (queue, places) = (ConnectionQueue::new(10), FreeSlots::default());
    let start = Instant::now();
    let (head, behind) = tokio::join!(
        async { (wait(&queue, &places, deadline_in(500)).await, start.elapsed().as_millis()) },
        async { (wait(&queue, &places, deadline_in(300)).await, start.elapsed().as_millis()) },
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
async fn a_deadline_that_has_passed_gives_the_head_one_look() {
    let (queue, places) = (ConnectionQueue::new(10), FreeSlots::default());
    let past = Instant::now();
    advance(Duration::from_secs(1)).await;
    assert_eq!(wait(&queue, &places, past).await, Err(QueueError::Timeout));
    places.release(1);
    assert_eq!(wait(&queue, &places, past).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_place_freed_without_a_word_is_found_soon() {
    let (queue, places) = (ConnectionQueue::new(10), FreeSlots::default());
    let start = Instant::now();
    let (answer, ()) = tokio::join!(
        async { (wait(&queue, &places, deadline_in(10_000)).await, start.elapsed()) },
        async {
            tokio::time::sleep(Duration::from_millis(120)).await;
            places.release(1);
        },
    );
    assert_eq!(answer.0, Ok(()));
    assert!(answer.1 <= Duration::from_millis(175), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_free_already_is_taken_at_once() {
    let (queue, places) = (ConnectionQueue::new(1), FreeSlots::default());
    places.release(1);
    assert_eq!(poll(&mut wait(&queue, &places, deadline_in(0))).await, Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_leaves_passes_the_word_on() {
    let (queue, places) = (ConnectionQueue::new(10), FreeSlots::default());
    let mut head = wait(&queue, &places, deadline_in(1000));
    let mut next = wait(&queue, &places, deadline_in(1000));
    assert_eq!(poll(&mut head).await, None);
    assert_eq!(poll(&mut next).await, None);
    places.release(1);
    queue.notify_freed();
    drop(head);
    assert_eq!(poll(&mut next).await, Some(Ok(())));
    assert_eq!(queue.counters().abandoned, 1);
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_the_middle_holds_nobody_up() {
    let (queue, places) = (ConnectionQueue::new(3), FreeSlots::default());
    let mut line: Vec<_> = (0..3).map(|_| wait(&queue, &places, deadline_in(1000))).collect();
    for waiter in &mut line {
        assert_eq!(poll(waiter).await, None);
    }
    drop(line.remove(1));
    let mut last = wait(&queue, &places, deadline_in(1000));
    assert_eq!(poll(&mut last).await, None, "there is room in the line again");
    places.release(2);
    queue.notify_freed();
    assert_eq!(poll(&mut line[0]).await, Some(Ok(())));
    assert_eq!(poll(&mut line[1]).await, Some(Ok(())));
    assert_eq!(poll(&mut last).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_full_line_refuses_at_once() {
    let (queue, places) = (ConnectionQueue::new(2), FreeSlots::default());
    let mut line: Vec<_> = (0..2).map(|_| wait(&queue, &places, deadline_in(1000))).collect();
    for waiter in &mut line {
        assert_eq!(poll(waiter).await, None);
    }
    let refused = wait(&queue, &places, deadline_in(1000)).await;
    assert_eq!(refused, Err(QueueError::Full));
    let counters = queue.counters();
    assert_eq!((counters.rejected, counters.entered, counters.waiting), (1, 2, 2));

    let none = ConnectionQueue::new(0);
    places.release(1);
    assert_eq!(wait(&none, &places, deadline_in(1000)).await, Err(QueueError::Full));
    assert!(none.is_empty());
}

/// A lost wake-up would leave a waiter to the 50 ms look; here the clock stands still, so it would
/// wait for ever.
#[test]
fn no_wake_up_is_lost_between_threads() {
    const WORKERS: usize = 4;
    const TURNS: usize = 2_000;
    let queue = Arc::new(ConnectionQueue::new(WORKERS));
    let places = Arc::new(FreeSlots::default());
    places.release(1);
    let (ended, ends) = mpsc::channel();
    for _ in 0..WORKERS {
        let (queue, places, ended) = (Arc::clone(&queue), Arc::clone(&places), ended.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                // While a blocking task runs, a paused clock does not move on by itself.
                let (_held, closed) = mpsc::channel::<()>();
                let _blocking = tokio::task::spawn_blocking(move || closed.recv());
                for _ in 0..TURNS {
                    let until = deadline_in(3_600_000);
                    queue
                        .wait(|| places.try_acquire(), until)
                        .await
                        .expect("the clock stands still");
                    std::thread::yield_now();
                    places.release(1);
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
    assert!(counters.max_waiting > 1, "there was a line: {counters:?}");
}

#[derive(Clone, Debug)]
enum QueueTestStep {
    Arrive { patience: u64 },
    Leave(prop::sample::Index),
    Free(usize),
    Advance(u64),
}

fn any_queue_step() -> impl Strategy<Value = QueueTestStep> {
    prop_oneof![
        4 => (1_u64..2000).prop_map(|patience| QueueTestStep::Arrive { patience }),
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

    /// Against a plain list: whoever is served is the first of those who still wait.
    #[test]
    fn the_line_is_a_list(steps in prop::collection::vec(any_queue_step(), 1..60), backwards in any::<bool>()) {
        const CAPACITY: usize = 6;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (queue, places) = (ConnectionQueue::new(CAPACITY), FreeSlots::default());
            let mut line: Vec<(Instant, BoxedQueueWait<'_>)> = Vec::new();
            for step in steps {
                match step {
                    QueueTestStep::Arrive { patience } => {
                        let until = deadline_in(patience);
                        let mut waiter = wait(&queue, &places, until);
                        match poll(&mut waiter).await {
                            None => line.push((until, waiter)),
                            Some(Ok(())) => assert!(line.is_empty(), "overtaken"),
                            Some(Err(why)) => {
                                assert_eq!((why, line.len()), (QueueError::Full, CAPACITY));
                            }
                        }
                    }
                    QueueTestStep::Leave(which) if !line.is_empty() => {
                        drop(line.remove(which.index(line.len())));
                    }
                    QueueTestStep::Leave(_) => {}
                    QueueTestStep::Free(count) => {
                        places.release(count);
                        queue.notify_freed();
                    }
                    QueueTestStep::Advance(millis) => advance(Duration::from_millis(millis)).await,
                }
                // To rest: ask everybody until a round changes nothing.
                let mut settled = false;
                while !settled {
                    settled = true;
                    let mut order: Vec<usize> = (0..line.len()).collect();
                    if backwards {
                        order.reverse();
                    }
                    for at in order {
                        let Some(answer) = poll(&mut line[at].1).await else { continue };
                        match answer {
                            Ok(()) => assert_eq!(at, 0, "served out of turn"),
                            Err(why) => {
                                assert_eq!(why, QueueError::Timeout);
                                assert!(line[at].0 <= Instant::now(), "too early");
                            }
                        }
                        drop(line.remove(at));
                        settled = false;
                        break;
                    }
                }
                let counters = queue.counters();
                assert_eq!(counters.waiting, line.len() as u64);
                assert!(counters.max_waiting <= CAPACITY as u64);
                assert!(line.is_empty() || places.0.load(SeqCst) == 0, "a place stands empty");
                assert!(line.iter().all(|(until, _)| *until + Duration::from_millis(1) > Instant::now()));
            }
        });
    }
}
