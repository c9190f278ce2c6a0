//! Requests that are sent again.

use std::time::Duration;

use lvs::tower::Retry;
use tokio::time::Instant;
use tower::retry::budget::TpsBudget;
use tower::service_fn;

use crate::world::*;

type Called = std::sync::Arc<std::sync::Mutex<Vec<&'static str>>>;

/// Instances of which some fail, and who was called in order.
fn world<const N: usize>(
    instances: [(&'static str, bool); N],
) -> (
    Called,
    BackendSet<
        impl Service<u32, Response = &'static str, Error = BoxError, Future: Send> + Clone + Sync,
    >,
) {
    let (called, set) = (Called::default(), BackendSet::new());
    for (name, fails) in instances.into_iter().rev() {
        let called = called.clone();
        let instance = service_fn(move |_: u32| {
            called.lock().expect("no panic").push(name);
            async move { if fails { Err(BoxError::from(name)) } else { Ok(name) } }
        });
        set.insert(Spec::new(name, instance)).expect("a new name");
    }
    (called, set)
}

fn generous() -> TpsBudget {
    TpsBudget::new(Duration::from_secs(10), 1000, 1.0)
}

fn even(request: &u32) -> Option<u32> {
    request.is_multiple_of(2).then_some(*request)
}

#[tokio::test]
async fn a_failure_is_tried_elsewhere_and_held_against_its_own() {
    let (called, set) = world([("a", true), ("b", true), ("c", false)]);
    let balancer = Balancer::new(&set, RoundRobin).expect("takes any set");
    let service = Balance::new(balancer).retry(Retry::new(even).budget(generous()));
    for _ in 0..6 {
        assert_eq!(service.clone().oneshot(2).await.expect("c is well"), "c");
    }
    let snapshot = set.snapshot();
    let outcomes = |name: &str| {
        let outcomes = snapshot.find(&name.into()).expect("in the set").outcomes();
        (outcomes.ok, outcomes.failures(), outcomes.cancelled)
    };
    let called = called.lock().expect("no panic");
    let count = |name| called.iter().filter(|it| **it == name).count() as u64;
    assert_eq!(outcomes("a"), (0, count("a"), 0));
    assert_eq!(outcomes("b"), (0, count("b"), 0));
    assert_eq!(outcomes("c"), (6, 0, 0));
    assert!(count("a") > 0 && count("b") > 0);
    assert_eq!(load(&set), 0);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_or_cannot_be_repeated_is_passed_on_at_once() {
    let begun = Instant::now();
    let (called, set) = world([("a", true), ("b", true), ("c", true)]);
    let balancer = Balancer::new(&set, RoundRobin).expect("takes any set");
    let retry = || Retry::new(even).budget(generous());
    let times = async |retry: Retry<_>, request| {
        called.lock().expect("no panic").clear();
        let service = Balance::new(balancer.clone()).retry(retry);
        let error = service.oneshot(request).await.expect_err("all fail");
        let called = called.lock().expect("no panic");
        assert_eq!(&*error.to_string(), *called.last().expect("one"), "of the last attempt");
        called.len()
    };
    assert_eq!(times(retry(), 1).await, 1, "does harm if it is done twice");
    assert_eq!(times(retry(), 2).await, 3);
    assert_eq!(times(retry().attempts(2), 2).await, 2);
    assert_eq!(times(retry().attempts(9), 2).await, 3, "there are no others");
    let none = TpsBudget::new(Duration::from_secs(10), 0, 0.0);
    assert_eq!(times(retry().budget(none), 2).await, 1, "no budget");
    assert!(begun.elapsed().is_zero(), "nobody waited");
    assert_eq!(load(&set), 0);
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_one_for_all_clones() {
    let (called, set) = world([("a", true), ("b", true)]);
    let balancer = Balancer::new(&set, RoundRobin).expect("takes any set");
    // Two a second, kept for ten.
    let budget = TpsBudget::new(Duration::from_secs(10), 2, 0.0);
    let service = Balance::new(balancer).retry(Retry::new(even).budget(budget));
    for _ in 0..100 {
        service.clone().oneshot(2).await.expect_err("all fail");
    }
    assert_eq!(called.lock().expect("no panic").len(), 120);
}

#[cfg(feature = "tower-http")]
#[tokio::test]
async fn only_safe_methods_are_repeated() {
    use http::{Method, Request, Response};
    use lvs::tower::HttpStatusClassifier;
    let set = BackendSet::new();
    for (name, status) in [("well", 200), ("ill", 503)] {
        let instance = service_fn(move |_: Request<()>| async move {
            let response = Response::builder().status(status).body(name);
            Ok::<_, BoxError>(response.expect("a status"))
        });
        set.insert(Spec::new(name, instance)).expect("a new name");
    }
    let service = Balance::new(Balancer::new(&set, RoundRobin).expect("takes any set"))
        .classify(HttpStatusClassifier)
        .retry(Retry::safe_methods().budget(generous()));
    let mut answers = Vec::new();
    for method in [Method::GET, Method::GET, Method::POST, Method::POST] {
        let request = Request::builder().method(method).body(()).expect("a request");
        answers.push(service.clone().oneshot(request).await.expect("ready").status().as_u16());
    }
    answers[2..].sort_unstable();
    assert_eq!(answers, [200, 200, 200, 503]);
}
