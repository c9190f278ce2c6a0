//! `Balance`: picks, busy and failing instances, waits, admission.

use std::time::Duration;

use lvs::{Limits, Outcome};
use tokio::time::Instant;
use tokio_test::task;

use crate::world::*;

#[tokio::test]
async fn instances_whose_poll_ready_fails_do_not_count_as_candidates() {
    let (set, instances) = set_of(["a", "b", "c", "d", "e", "f"]);
    instances[1..].iter().for_each(|instance| instance.set_readiness(Readiness::Broken));
    let (balance, first) = (Balance::new(round_robin(&set)), ReadyFirst::new(round_robin(&set)));
    for _ in 0..12 {
        assert_eq!(balance.clone().oneshot(()).await.expect("one instance is ready"), "a");
        assert_eq!(first.clone().oneshot(()).await.expect("one instance is ready"), "a");
    }
    instances[0].set_readiness(Readiness::Broken);
    let error = balance.clone().oneshot(()).await.expect_err("all instances fail");
    assert!(error.to_string().ends_with("is broken"), "{error}");
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn requests_are_picked_round_robin_and_counted_until_their_response() {
    let (set, [a, _]) = set_of(["a", "b"]);
    let service = Balance::new(round_robin(&set));
    for name in ["a", "b", "a"] {
        assert_eq!(service.clone().oneshot(()).await.expect("ready"), name);
    }
    a.hold(true);
    let mut pending = [(); 2].map(|()| task::spawn(service.clone().oneshot(())));
    // b answers at once.
    assert_ready_ok!(pending[0].poll());
    assert_pending!(pending[1].poll());
    assert_eq!(load(&set), 1);
    a.hold(false);
    assert!(pending[1].is_woken());
    assert_ready_ok!(pending[1].poll());
    assert_eq!(load(&set), 0);
    let outcomes =
        set.snapshot().backends().iter().map(|backend| backend.outcomes().ok).sum::<u64>();
    assert_eq!(outcomes, 5);
}

#[tokio::test]
async fn a_busy_instance_is_passed_over_and_awaited_when_all_are_busy() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let service = Balance::new(round_robin(&set));
    a.set_readiness(Readiness::Busy);
    for _ in 0..4 {
        assert_eq!(service.clone().oneshot(()).await.expect("b is ready"), "b");
    }
    b.set_readiness(Readiness::Busy);
    let mut pending = task::spawn(service.clone().oneshot(()));
    assert_pending!(pending.poll());
    assert_eq!(load(&set), 1, "the lease of the instance that is awaited");
    let first =
        set.snapshot().backends().iter().find(|backend| backend.load().total() == 1).cloned();
    let first = first.expect("one leased backend").target().clone();
    first.set_readiness(Readiness::Ready);
    assert!(pending.is_woken());
    assert_eq!(assert_ready_ok!(pending.poll()), first.name);
    assert_eq!(load(&set), 0);
}

#[tokio::test(start_paused = true)]
async fn a_ready_instance_that_is_not_awaited_is_found_by_the_next_search() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let service = Balance::new(round_robin(&set));
    a.set_readiness(Readiness::Busy);
    b.set_readiness(Readiness::Busy);
    let mut pending = task::spawn(service.oneshot(()));
    assert_pending!(pending.poll());
    let waited_for =
        set.snapshot().backends().iter().find(|backend| backend.load().total() == 1).cloned();
    let other = if waited_for.expect("one leased backend").target().name == "a" { &b } else { &a };
    other.set_readiness(Readiness::Ready);
    assert_eq!(pending.await.expect("found"), other.name);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_eligible_backend_fails_after_the_wait_timeout() {
    let begun = Instant::now();
    let (set, _) = set_of([]);
    let service = Balance::new(round_robin(&set));
    let waited = Duration::from_secs(1);
    let no_backend = |reason| BalanceError::NoBackend { reason, waited };
    assert_eq!(balance_error(service.clone().oneshot(()).await), no_backend(PickError::NoBackends));
    assert_eq!(begun.elapsed(), waited);

    let (set, _) = set_of(["a", "b"]);
    for id in ["a", "b"] {
        set.set_health(&id.into(), Health::Down).expect("in the set");
    }
    let service = Balance::new(round_robin(&set));
    assert_eq!(balance_error(service.clone().oneshot(()).await), no_backend(PickError::AllDown));

    let service = service.wait_timeout(Duration::ZERO);
    let begun = Instant::now();
    let error = balance_error(service.clone().oneshot(()).await);
    assert_eq!(
        error,
        BalanceError::NoBackend { reason: PickError::AllDown, waited: begun.elapsed() }
    );
    assert!(begun.elapsed().is_zero(), "fails at once");

    let (set, [a]) = set_of(["a"]);
    a.set_readiness(Readiness::Busy);
    let service = Balance::new(round_robin(&set));
    assert_eq!(balance_error(service.oneshot(()).await), BalanceError::Busy { asked: 1, waited });
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn a_change_of_the_set_wakes_waiting_requests() {
    let (set, _) = set_of([]);
    let service = Balance::new(round_robin(&set));
    let mut pending = [(); 3].map(|()| task::spawn(service.clone().oneshot(())));
    pending.iter_mut().for_each(|pending| assert_pending!(pending.poll()));
    let instance = Instance::new("a");
    set.insert(Spec::new("a", instance).health(Health::Down)).expect("a new name");
    for pending in &mut pending {
        assert!(pending.is_woken());
        assert_pending!(pending.poll());
    }
    set.set_health(&"a".into(), Health::Up).expect("in the set");
    for pending in &mut pending {
        assert!(pending.is_woken());
        assert_eq!(assert_ready_ok!(pending.poll()), "a");
    }
}

#[tokio::test]
async fn the_end_of_a_request_wakes_one_that_waits_for_its_connection_slot() {
    let set = BackendSet::new();
    let instance = Instance::new("a");
    set.insert(Spec::new("a", instance.clone()).limits(Limits::new(1))).expect("a new name");
    let service = Balance::new(round_robin(&set));
    instance.hold(true);
    let mut first = task::spawn(service.clone().oneshot(()));
    assert_pending!(first.poll());
    let mut second = task::spawn(service.clone().oneshot(()));
    assert_pending!(second.poll());
    assert_eq!(instance.calls(), 1);
    drop(first);
    assert!(second.is_woken());
    assert_pending!(second.poll());
    assert_eq!(instance.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_backend_moves_when_that_goes_down() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let service = Balance::new(round_robin(&set)).candidates(1).expect("not 0");
    a.set_readiness(Readiness::Busy);
    let mut pending = task::spawn(service.oneshot(()));
    assert_pending!(pending.poll());
    set.set_health(&"a".into(), Health::Down).expect("in the set");
    assert!(pending.is_woken());
    assert_eq!(assert_ready_ok!(pending.poll()), "b");
    assert_eq!((a.calls(), b.calls(), load(&set)), (0, 1, 0));
}

#[tokio::test]
async fn max_in_flight_bounds_all_clones_together() {
    let (set, [a]) = set_of(["a"]);
    a.hold(true);
    let service = Balance::new(round_robin(&set)).max_in_flight(2).expect("not 0");
    let mut handles = [(); 3].map(|()| task::spawn(service.clone()));
    // The clone of a ready handle has reserved nothing.
    assert_ready_ok!(poll_ready(&mut handles[0]));
    assert_ready_ok!(poll_ready(&mut handles[1]));
    let mut clone = task::spawn(handles[0].clone());
    assert_pending!(poll_ready(&mut handles[2]));
    assert_pending!(poll_ready(&mut clone));

    let mut first = task::spawn(handles[0].enter(|_, mut service| service.call(())));
    assert_pending!(first.poll());
    assert_pending!(poll_ready(&mut handles[0]));
    // A permit returns when an unused handle is dropped, and when a request is dropped.
    let [first_handle, second_handle, mut third_handle] = handles;
    drop(second_handle);
    assert!(third_handle.is_woken());
    assert_ready_ok!(poll_ready(&mut third_handle));
    drop((first_handle, first));
    assert!(clone.is_woken());
    assert_ready_ok!(poll_ready(&mut clone));
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn a_call_without_a_permit_fails_and_leaves_the_permit() {
    let (set, [a]) = set_of(["a"]);
    let mut service = Balance::new(round_robin(&set)).max_in_flight(1).expect("not 0");
    assert_eq!(balance_error(service.call(()).await), BalanceError::NotReady);
    assert_eq!(a.calls(), 0);
    assert_eq!(ready(&mut service).await.call(()).await.expect("ready"), "a");
}

#[tokio::test]
async fn the_classifier_decides_the_outcome() {
    let (set, _) = set_of(["a"]);
    let classify = |result: Result<&&str, &BoxError>| match result {
        Ok(&"a") => Outcome::Timeout,
        _ => Outcome::Ok,
    };
    let service = Balance::new(round_robin(&set)).classify(classify);
    service.oneshot(()).await.expect("ready");
    let outcomes = set.snapshot().backends()[0].outcomes();
    assert_eq!((outcomes.timeout, outcomes.ok), (1, 0));
}

/// A request's latency is recorded for schedulers that read it, and only for those.
#[tokio::test(start_paused = true)]
async fn latencies_are_measured_for_schedulers_that_read_them() {
    for (scheduler, measured) in [("peak_ewma", true), ("bounded(peak_ewma)", true), ("p2c", false)]
    {
        let (set, [a]) = set_of(["a"]);
        let registry = lvs::scheduler::SchedulerRegistry::default();
        let Ok(scheduler_value) = registry.parse(scheduler) else { continue };
        let service = Balance::new(
            Balancer::new(&set, scheduler_value).expect("the scheduler accepts any set"),
        );
        a.hold(true);
        let pending = tokio::spawn(service.clone().oneshot(()));
        tokio::time::sleep(Duration::from_millis(300)).await;
        a.hold(false);
        pending.await.expect("no panic").expect("an answer");
        let estimate = set.snapshot().backends()[0].estimate(Instant::now().into_std());
        assert_eq!(estimate.latency.is_some(), measured, "{scheduler}");
    }
}
