//! `ReadyFirst`: its readiness is that of an instance.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_test::task;
use tower::limit::ConcurrencyLimit;

use crate::world::*;

#[tokio::test]
async fn poll_ready_waits_for_an_instance_and_call_calls_it() {
    let (set, [a, b]) = set_of(["a", "b"]);
    a.set_readiness(Readiness::Busy);
    b.set_readiness(Readiness::Busy);
    let mut service = task::spawn(ReadyFirst::new(round_robin(&set)));
    assert_pending!(poll_ready(&mut service));
    assert_eq!(load(&set), 2, "both instances are candidates");
    b.set_readiness(Readiness::Ready);
    assert!(service.is_woken());
    assert_ready_ok!(poll_ready(&mut service));
    assert_eq!(load(&set), 1, "the other candidate is dropped");
    // b stays the picked instance, though a is ready now as well.
    a.set_readiness(Readiness::Ready);
    assert_ready_ok!(poll_ready(&mut service));
    let mut pending = task::spawn(service.enter(|_, mut service| service.call(())));
    assert_eq!(assert_ready_ok!(pending.poll()), "b");
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn an_instance_whose_backend_went_down_is_not_called() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let mut service = task::spawn(ReadyFirst::new(round_robin(&set)));
    assert_ready_ok!(poll_ready(&mut service));
    set.set_health(&"a".into(), Health::Down).expect("in the set");
    assert_ready_ok!(poll_ready(&mut service));
    let mut pending = task::spawn(service.enter(|_, mut service| service.call(())));
    assert_eq!(assert_ready_ok!(pending.poll()), "b");
    assert_eq!((a.calls(), b.calls()), (0, 1));
}

#[tokio::test]
async fn an_instance_that_is_busy_again_is_awaited_again() {
    let (set, [a]) = set_of(["a"]);
    let mut service = task::spawn(ReadyFirst::new(round_robin(&set)));
    assert_ready_ok!(poll_ready(&mut service));
    a.set_readiness(Readiness::Busy);
    assert_pending!(poll_ready(&mut service));
    a.set_readiness(Readiness::Ready);
    assert!(service.is_woken());
    assert_ready_ok!(poll_ready(&mut service));
}

#[tokio::test(start_paused = true)]
async fn after_the_wait_timeout_the_call_fails_and_not_poll_ready() {
    let (set, [a]) = set_of(["a"]);
    let mut service = ReadyFirst::new(round_robin(&set));
    a.set_readiness(Readiness::Busy);
    let begun = Instant::now();
    let waited = Duration::from_secs(1);
    let answer = ready(&mut service).await.call(()).await;
    assert_eq!(balance_error(answer), BalanceError::Busy { asked: 1, waited });
    assert_eq!(begun.elapsed(), waited);
    // The same service is usable afterwards.
    a.set_readiness(Readiness::Ready);
    assert_eq!(ready(&mut service).await.call(()).await.expect("ready"), "a");
    set.remove(&"a".into()).expect("in the set");
    let answer = ready(&mut service).await.call(()).await;
    assert_eq!(
        balance_error(answer),
        BalanceError::NoBackend { reason: PickError::NoBackends, waited }
    );
    assert_eq!(balance_error(service.call(()).await), BalanceError::NotReady);
}

#[tokio::test(start_paused = true)]
async fn failing_instances_are_passed_over_and_asked_at_intervals() {
    let (set, [a, b]) = set_of(["a", "b"]);
    a.set_readiness(Readiness::Broken);
    let mut service = ReadyFirst::new(round_robin(&set));
    for _ in 0..4 {
        assert_eq!(ready(&mut service).await.call(()).await.expect("ready"), "b");
    }
    b.set_readiness(Readiness::Broken);
    let failed = || -> u64 {
        set.snapshot().backends().iter().map(|backend| backend.outcomes().failures()).sum()
    };
    let before = failed();
    let answer = ready(&mut service).await.call(()).await;
    assert!(answer.expect_err("all instances fail").to_string().ends_with("is broken"));
    // Both instances fail every 50 ms for a second.
    assert!((40..=90).contains(&(failed() - before)), "{}", failed() - before);
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn back_pressure_is_that_of_the_instances() {
    const PLACES: usize = 4;
    let places: Vec<_> = (0..PLACES).map(|_| Arc::new(Semaphore::new(1))).collect();
    let set = BackendSet::new();
    for (i, place) in places.iter().enumerate() {
        let instance = Instance::new("a");
        instance.hold(true);
        let limited = ConcurrencyLimit::with_semaphore(instance, Arc::clone(place));
        set.insert(Spec::new(i.to_string(), limited)).expect("a new name");
    }
    let service = ReadyFirst::new(
        Balancer::new(&set, RoundRobin::new()).expect("the scheduler accepts any set"),
    );
    let mut handles: Vec<_> = (0..=PLACES).map(|_| task::spawn(service.clone())).collect();
    for handle in &mut handles[..PLACES] {
        assert_ready_ok!(poll_ready(handle));
    }
    assert!(places.iter().all(|place| place.available_permits() == 0));
    assert_pending!(poll_ready(&mut handles[PLACES]));
    // Ready as soon as one permit is free.
    drop(handles.remove(0));
    let last = handles.last_mut().expect("a handle");
    assert!(last.is_woken());
    assert_ready_ok!(poll_ready(last));
    drop(handles);
    assert!(places.iter().all(|place| place.available_permits() == 1));
    assert_eq!(load(&set), 0);
}
