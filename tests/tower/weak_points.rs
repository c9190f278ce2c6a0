//! What is weak in tower's own balancer, as its issues say: each shown there, and not so here.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_test::task;
use tower::balance::p2c;
use tower::discover::ServiceList;
use tower::limit::ConcurrencyLimit;
use tower::load::Constant;

use crate::world::*;

type Plain = Constant<Instance, u32>;

fn towers<const N: usize>(instances: &[Instance; N]) -> p2c::Balance<ServiceList<Vec<Plain>>, ()> {
    let list = instances.iter().map(|it| Constant::new(it.clone(), 0)).collect();
    p2c::Balance::new(ServiceList::new::<()>(list))
}

/// An empty set is pending for ever there, and an answer here (the deadline: see `balance`).
#[tokio::test(start_paused = true)]
async fn nobody_to_ask_is_an_answer() {
    let mut theirs = task::spawn(towers(&[]));
    assert_pending!(poll_ready(&mut theirs));
    let day = std::time::Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, ServiceExt::<()>::ready(&mut *theirs)).await.is_err());

    let (set, []) = set_of([]);
    refusal(Balance::new(in_turn(&set)).oneshot(()).await);
    refusal(ready(&mut ReadyFirst::new(in_turn(&set))).await.call(()).await);
}

/// One error of `poll_ready` takes an instance out for good there; here it is passed over until it is
/// well.
#[tokio::test]
async fn an_error_is_not_for_ever() {
    let (set, instances) = set_of(["a"]);
    let [a] = &instances;
    let mut theirs = task::spawn(towers(&instances));
    let ours = Balance::new(in_turn(&set));
    a.is(Mood::Broken);
    assert_pending!(poll_ready(&mut theirs));
    assert!(ours.clone().oneshot(()).await.is_err());
    a.is(Mood::Ready);
    assert_pending!(poll_ready(&mut theirs));
    assert_eq!(ours.oneshot(()).await.expect("well again"), "a");
}

/// Each balancer there drives all instances to readiness and so holds a place in each, used or not.
#[tokio::test]
async fn only_what_is_used_is_reserved() {
    let places: Vec<_> = (0..3).map(|_| Arc::new(Semaphore::new(1))).collect();
    let limited = |place: &Arc<Semaphore>| {
        ConcurrencyLimit::with_semaphore(Instance::new("a"), Arc::clone(place))
    };
    let free = || places.iter().map(|place| place.available_permits()).sum::<usize>();
    let list: Vec<_> = places.iter().map(|place| Constant::new(limited(place), 0)).collect();
    let mut theirs = task::spawn(p2c::Balance::<_, ()>::new(ServiceList::new::<()>(list)));
    assert_ready_ok!(poll_ready(&mut theirs));
    assert_eq!(free(), 0, "three places for one request");
    drop(theirs);

    let set = BackendSet::new();
    for (i, place) in places.iter().enumerate() {
        set.insert(Spec::new(i.to_string(), limited(place))).expect("a new name");
    }
    let balancer = Balancer::new(&set, RoundRobin).expect("takes any set");
    let mut ours = task::spawn(Balance::new(balancer.clone()));
    assert_ready_ok!(poll_ready(&mut ours));
    assert_eq!(free(), 3, "none before it is known which");
    let mut first = task::spawn(ReadyFirst::new(balancer));
    assert_ready_ok!(poll_ready(&mut first));
    assert_eq!(free(), 2, "the one");
}

/// There the choice is made when the service is found ready, however long ago that was.
#[tokio::test]
async fn the_choice_is_made_when_there_is_a_request() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let least =
        || Balancer::new(&set, lvs::scheduler::LeastConnections::default()).expect("takes any set");
    let mut early = task::spawn(Balance::new(least()));
    assert_ready_ok!(poll_ready(&mut early));
    // Meanwhile others keep whom it would have chosen busy.
    a.hold(true);
    b.hold(true);
    let mut others = [(); 3].map(|()| task::spawn(Balance::new(least()).oneshot(())));
    others.iter_mut().for_each(|other| assert_pending!(other.poll()));
    let (busy, idle) = if a.calls() == 2 { (&a, &b) } else { (&b, &a) };
    assert_eq!((busy.calls(), idle.calls()), (2, 1));
    let mut asking = task::spawn(early.enter(|_, mut it| it.call(())));
    assert_pending!(asking.poll());
    assert_eq!((busy.calls(), idle.calls()), (2, 2));
}

/// There an instance that is pending makes progress only while somebody asks the balancer.
#[tokio::test]
async fn an_idle_balancer_misses_nothing() {
    let (set, [a]) = set_of(["a"]);
    let service = Balance::new(in_turn(&set));
    a.is(Mood::Busy);
    let mut asking = task::spawn(service.clone().oneshot(()));
    assert_pending!(asking.poll());
    drop(asking);
    a.is(Mood::Ready);
    let mut asking = task::spawn(service.oneshot(()));
    assert_eq!(assert_ready_ok!(asking.poll()), "a", "at its first poll");
}

/// A handle there is for one user; others need a task and a queue between. Here it is cloned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_are_shared_by_cloning() {
    let (set, instances) = set_of(["a", "b", "c"]);
    let service = Balance::new(in_turn(&set));
    let asking: Vec<_> = (0..30)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    service.clone().oneshot(()).await.expect("ready");
                }
            })
        })
        .collect();
    for asking in asking {
        asking.await.expect("no panic");
    }
    assert_eq!(instances.map(|it| it.calls()), [1000; 3], "in turn over all of them");
    assert_eq!(load(&set), 0);
}

/// A quick failure there makes an instance look quick.
#[tokio::test(start_paused = true)]
async fn a_quick_failure_attracts_nobody() {
    let set = BackendSet::new();
    let instance = |quick: bool| {
        tower::service_fn(move |()| async move {
            if quick {
                return Err(BoxError::from("no"));
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            Ok(())
        })
    };
    for (name, fails) in [("broken", true), ("well", false)] {
        set.insert(Spec::new(name, instance(fails))).expect("a new name");
    }
    let balancer = Balancer::new(&set, lvs::scheduler::PeakEwma::new()).expect("takes any set");
    let service = Balance::new(balancer);
    for _ in 0..200 {
        let _ = service.clone().oneshot(()).await;
    }
    let snapshot = set.snapshot();
    let outcomes = |name: &str| snapshot.find(&name.into()).expect("in the set").outcomes();
    let (failures, successes) = (outcomes("broken").failures(), outcomes("well").ok);
    assert!(failures * 4 < successes, "{failures} against {successes}");
}
