//! What becomes of a request: chosen, busy, waiting, refused.

use std::time::Duration;

use lvs::{Limits, Outcome};
use tokio::time::Instant;
use tokio_test::task;

use crate::world::*;

#[tokio::test]
async fn broken_instances_are_no_candidates() {
    let (set, instances) = set_of(["a", "b", "c", "d", "e", "f"]);
    instances[1..].iter().for_each(|instance| instance.is(Mood::Broken));
    let (balance, first) = (Balance::new(in_turn(&set)), ReadyFirst::new(in_turn(&set)));
    for _ in 0..12 {
        assert_eq!(balance.clone().oneshot(()).await.expect("one is well"), "a");
        assert_eq!(first.clone().oneshot(()).await.expect("one is well"), "a");
    }
    instances[0].is(Mood::Broken);
    let error = balance.clone().oneshot(()).await.expect_err("all are broken");
    assert!(error.to_string().ends_with("is broken"), "{error}");
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn requests_go_round_and_are_counted_while_they_last() {
    let (set, [a, _]) = set_of(["a", "b"]);
    let service = Balance::new(in_turn(&set));
    for name in ["a", "b", "a"] {
        assert_eq!(service.clone().oneshot(()).await.expect("ready"), name);
    }
    a.hold(true);
    let mut asking = [(); 2].map(|()| task::spawn(service.clone().oneshot(())));
    // b answers at once.
    assert_ready_ok!(asking[0].poll());
    assert_pending!(asking[1].poll());
    assert_eq!(load(&set), 1);
    a.hold(false);
    assert!(asking[1].is_woken());
    assert_ready_ok!(asking[1].poll());
    assert_eq!(load(&set), 0);
    let outcomes = set.snapshot().backends().iter().map(|it| it.outcomes().ok).sum::<u64>();
    assert_eq!(outcomes, 5);
}

#[tokio::test]
async fn a_busy_instance_is_passed_over_and_a_lonely_one_awaited() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let service = Balance::new(in_turn(&set));
    a.is(Mood::Busy);
    for _ in 0..4 {
        assert_eq!(service.clone().oneshot(()).await.expect("b is ready"), "b");
    }
    b.is(Mood::Busy);
    let mut asking = task::spawn(service.clone().oneshot(()));
    assert_pending!(asking.poll());
    assert_eq!(load(&set), 1, "one of them is waited for");
    let first = set.snapshot().backends().iter().find(|it| it.load().total() == 1).cloned();
    let first = first.expect("one").target().clone();
    first.is(Mood::Ready);
    assert!(asking.is_woken());
    assert_eq!(assert_ready_ok!(asking.poll()), first.name);
    assert_eq!(load(&set), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_not_waited_for_is_found_when_it_is_looked_for_again() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let service = Balance::new(in_turn(&set));
    a.is(Mood::Busy);
    b.is(Mood::Busy);
    let mut asking = task::spawn(service.oneshot(()));
    assert_pending!(asking.poll());
    let waited_for = set.snapshot().backends().iter().find(|it| it.load().total() == 1).cloned();
    let other = if waited_for.expect("one").target().name == "a" { &b } else { &a };
    other.is(Mood::Ready);
    assert_eq!(asking.await.expect("found"), other.name);
}

#[tokio::test(start_paused = true)]
async fn who_finds_nobody_has_an_answer_within_its_time() {
    let begun = Instant::now();
    let (set, _) = set_of([]);
    let service = Balance::new(in_turn(&set));
    let waited = Duration::from_secs(1);
    let nobody = |reason| BalanceError::NoBackend { reason, waited };
    assert_eq!(refusal(service.clone().oneshot(()).await), nobody(PickError::NoBackends));
    assert_eq!(begun.elapsed(), waited);

    let (set, _) = set_of(["a", "b"]);
    for id in ["a", "b"] {
        set.set_health(&id.into(), Health::Down).expect("in the set");
    }
    let service = Balance::new(in_turn(&set));
    assert_eq!(refusal(service.clone().oneshot(()).await), nobody(PickError::AllDown));

    let service = service.wait_timeout(Duration::ZERO);
    let begun = Instant::now();
    let error = refusal(service.clone().oneshot(()).await);
    assert_eq!(
        error,
        BalanceError::NoBackend { reason: PickError::AllDown, waited: begun.elapsed() }
    );
    assert!(begun.elapsed().is_zero(), "shed at once");

    let (set, [a]) = set_of(["a"]);
    a.is(Mood::Busy);
    let service = Balance::new(in_turn(&set));
    assert_eq!(refusal(service.oneshot(()).await), BalanceError::Busy { asked: 1, waited });
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn a_backend_that_comes_wakes_those_who_wait() {
    let (set, _) = set_of([]);
    let service = Balance::new(in_turn(&set));
    let mut asking = [(); 3].map(|()| task::spawn(service.clone().oneshot(())));
    asking.iter_mut().for_each(|asking| assert_pending!(asking.poll()));
    let instance = Instance::new("a");
    set.insert(Spec::new("a", instance).health(Health::Down)).expect("a new name");
    for asking in &mut asking {
        assert!(asking.is_woken());
        assert_pending!(asking.poll());
    }
    set.set_health(&"a".into(), Health::Up).expect("in the set");
    for asking in &mut asking {
        assert!(asking.is_woken());
        assert_eq!(assert_ready_ok!(asking.poll()), "a");
    }
}

#[tokio::test]
async fn a_request_that_ends_wakes_one_that_waits_for_its_place() {
    let set = BackendSet::new();
    let instance = Instance::new("a");
    set.insert(Spec::new("a", instance.clone()).limits(Limits::new(1))).expect("a new name");
    let service = Balance::new(in_turn(&set));
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
async fn who_waits_for_one_that_goes_down_turns_to_others() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let service = Balance::new(in_turn(&set)).candidates(1);
    a.is(Mood::Busy);
    let mut asking = task::spawn(service.oneshot(()));
    assert_pending!(asking.poll());
    set.set_health(&"a".into(), Health::Down).expect("in the set");
    assert!(asking.is_woken());
    assert_eq!(assert_ready_ok!(asking.poll()), "b");
    assert_eq!((a.calls(), b.calls(), load(&set)), (0, 1, 0));
}

#[tokio::test]
async fn the_bound_on_requests_holds_over_all_clones() {
    let (set, [a]) = set_of(["a"]);
    a.hold(true);
    let service = Balance::new(in_turn(&set)).max_in_flight(2);
    let mut handles = [(); 3].map(|()| task::spawn(service.clone()));
    // Of two that are ready one was cloned: the clone has reserved nothing.
    assert_ready_ok!(poll_ready(&mut handles[0]));
    assert_ready_ok!(poll_ready(&mut handles[1]));
    let mut clone = task::spawn(handles[0].clone());
    assert_pending!(poll_ready(&mut handles[2]));
    assert_pending!(poll_ready(&mut clone));

    let mut first = task::spawn(handles[0].enter(|_, mut it| it.call(())));
    assert_pending!(first.poll());
    assert_pending!(poll_ready(&mut handles[0]));
    // A place that was reserved and not used comes back, and one whose request is dropped.
    let [zero, one, mut two] = handles;
    drop(one);
    assert!(two.is_woken());
    assert_ready_ok!(poll_ready(&mut two));
    drop((zero, first));
    assert!(clone.is_woken());
    assert_ready_ok!(poll_ready(&mut clone));
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn a_call_without_its_place_fails_and_takes_none() {
    let (set, [a]) = set_of(["a"]);
    let mut service = Balance::new(in_turn(&set)).max_in_flight(1);
    assert_eq!(refusal(service.call(()).await), BalanceError::NotReady);
    assert_eq!(a.calls(), 0);
    assert_eq!(ready(&mut service).await.call(()).await.expect("ready"), "a");
}

#[tokio::test]
async fn what_an_end_means_is_the_classifiers_to_say() {
    let (set, _) = set_of(["a"]);
    let classify = |result: Result<&&str, &BoxError>| match result {
        Ok(&"a") => Outcome::Timeout,
        _ => Outcome::Ok,
    };
    let service = Balance::new(in_turn(&set)).classify(classify);
    service.oneshot(()).await.expect("ready");
    let outcomes = set.snapshot().backends()[0].outcomes();
    assert_eq!((outcomes.timeout, outcomes.ok), (1, 0));
}

/// What a request took is told to schedulers that read it, and only to those.
#[tokio::test(start_paused = true)]
async fn latencies_are_measured_where_somebody_reads_them() {
    for (scheduler, measured) in [("peak_ewma", true), ("bounded(peak_ewma)", true), ("p2c", false)]
    {
        let (set, [a]) = set_of(["a"]);
        let registry = lvs::scheduler::SchedulerRegistry::default();
        let rule = registry.parse(scheduler);
        let Ok(rule) = rule else { continue };
        let service = Balance::new(Balancer::new(&set, rule).expect("takes any set"));
        a.hold(true);
        let asking = tokio::spawn(service.clone().oneshot(()));
        tokio::time::sleep(Duration::from_millis(300)).await;
        a.hold(false);
        asking.await.expect("no panic").expect("an answer");
        let estimate = set.snapshot().backends()[0].estimate(Instant::now().into_std());
        assert_eq!(estimate.latency.is_some(), measured, "{scheduler}");
    }
}
