//! Readiness that is that of an instance.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_test::task;
use tower::limit::ConcurrencyLimit;

use crate::world::*;

#[tokio::test]
async fn it_is_ready_when_one_is_and_calls_that_one() {
    let (set, [a, b]) = set_of(["a", "b"]);
    a.is(Mood::Busy);
    b.is(Mood::Busy);
    let mut service = task::spawn(ReadyFirst::new(in_turn(&set)));
    assert_pending!(poll_ready(&mut service));
    assert_eq!(load(&set), 2, "both are asked");
    b.is(Mood::Ready);
    assert!(service.is_woken());
    assert_ready_ok!(poll_ready(&mut service));
    assert_eq!(load(&set), 1, "the other was let go");
    // Ready it stays, and it is b that is called, though a is ready now as well.
    a.is(Mood::Ready);
    assert_ready_ok!(poll_ready(&mut service));
    let mut asking = task::spawn(service.enter(|_, mut it| it.call(())));
    assert_eq!(assert_ready_ok!(asking.poll()), "b");
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn what_was_ready_is_not_called_once_it_is_out() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let mut service = task::spawn(ReadyFirst::new(in_turn(&set)));
    assert_ready_ok!(poll_ready(&mut service));
    set.set_health(&"a".into(), Health::Down).expect("in the set");
    assert_ready_ok!(poll_ready(&mut service));
    let mut asking = task::spawn(service.enter(|_, mut it| it.call(())));
    assert_eq!(assert_ready_ok!(asking.poll()), "b");
    assert_eq!((a.calls(), b.calls()), (0, 1));
}

#[tokio::test]
async fn who_is_not_ready_any_more_is_waited_for_again() {
    let (set, [a]) = set_of(["a"]);
    let mut service = task::spawn(ReadyFirst::new(in_turn(&set)));
    assert_ready_ok!(poll_ready(&mut service));
    a.is(Mood::Busy);
    assert_pending!(poll_ready(&mut service));
    a.is(Mood::Ready);
    assert!(service.is_woken());
    assert_ready_ok!(poll_ready(&mut service));
}

#[tokio::test(start_paused = true)]
async fn its_time_ends_in_a_call_that_fails_and_not_in_an_error() {
    let (set, [a]) = set_of(["a"]);
    let mut service = ReadyFirst::new(in_turn(&set));
    a.is(Mood::Busy);
    let begun = Instant::now();
    let waited = Duration::from_secs(1);
    let answer = ready(&mut service).await.call(()).await;
    assert_eq!(refusal(answer), BalanceError::Busy { asked: 1, waited });
    assert_eq!(begun.elapsed(), waited);
    // The same service again.
    a.is(Mood::Ready);
    assert_eq!(ready(&mut service).await.call(()).await.expect("ready"), "a");
    set.remove(&"a".into()).expect("in the set");
    let answer = ready(&mut service).await.call(()).await;
    assert_eq!(refusal(answer), BalanceError::NoBackend { reason: PickError::NoBackends, waited });
    assert_eq!(refusal(service.call(()).await), BalanceError::NotReady);
}

#[tokio::test(start_paused = true)]
async fn broken_instances_are_passed_over_and_not_asked_without_pause() {
    let (set, [a, b]) = set_of(["a", "b"]);
    a.is(Mood::Broken);
    let mut service = ReadyFirst::new(in_turn(&set));
    for _ in 0..4 {
        assert_eq!(ready(&mut service).await.call(()).await.expect("ready"), "b");
    }
    b.is(Mood::Broken);
    let failed =
        || -> u64 { set.snapshot().backends().iter().map(|it| it.outcomes().failures()).sum() };
    let before = failed();
    let answer = ready(&mut service).await.call(()).await;
    assert!(answer.expect_err("all are broken").to_string().ends_with("is broken"));
    // Both, every 50 ms of a second.
    assert!((40..=90).contains(&(failed() - before)), "{}", failed() - before);
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn back_pressure_is_exact() {
    const PLACES: usize = 4;
    let places: Vec<_> = (0..PLACES).map(|_| Arc::new(Semaphore::new(1))).collect();
    let set = BackendSet::new();
    for (i, place) in places.iter().enumerate() {
        let instance = Instance::new("a");
        instance.hold(true);
        let limited = ConcurrencyLimit::with_semaphore(instance, Arc::clone(place));
        set.insert(Spec::new(i.to_string(), limited)).expect("a new name");
    }
    let service = ReadyFirst::new(Balancer::new(&set, RoundRobin).expect("takes any set"));
    let mut handles: Vec<_> = (0..=PLACES).map(|_| task::spawn(service.clone())).collect();
    for handle in &mut handles[..PLACES] {
        assert_ready_ok!(poll_ready(handle));
    }
    assert!(places.iter().all(|place| place.available_permits() == 0));
    assert_pending!(poll_ready(&mut handles[PLACES]));
    // As soon as one comes free, and not before.
    drop(handles.remove(0));
    let last = handles.last_mut().expect("it");
    assert!(last.is_woken());
    assert_ready_ok!(poll_ready(last));
    drop(handles);
    assert!(places.iter().all(|place| place.available_permits() == 1));
    assert_eq!(load(&set), 0);
}
