//! Retries of failed requests.

use std::time::Duration;

use lvs::tower::Retry;
use tokio::time::Instant;
use tower::retry::budget::TpsBudget;
use tower::service_fn;

use crate::world::*;

type Called = std::sync::Arc<std::sync::Mutex<Vec<&'static str>>>;

/// Creates a set of instances of which some fail, and the list of those called, in order.
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

fn large_budget() -> TpsBudget {
    TpsBudget::new(Duration::from_secs(10), 1000, 1.0)
}

fn even(request: &u32) -> Option<u32> {
    request.is_multiple_of(2).then_some(*request)
}

#[tokio::test]
async fn a_failed_request_is_retried_elsewhere_and_counts_for_its_backend() {
    let (called, set) = world([("a", true), ("b", true), ("c", false)]);
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("the scheduler accepts any set");
    let service = Balance::new(balancer).retry(Retry::new(even).budget(large_budget()));
    for _ in 0..6 {
        assert_eq!(service.clone().oneshot(2).await.expect("c does not fail"), "c");
    }
    let snapshot = set.snapshot();
    let outcomes = |name: &str| {
        let outcomes = snapshot.find(&name.into()).expect("in the set").outcomes();
        (outcomes.ok, outcomes.failures(), outcomes.cancelled)
    };
    let called = called.lock().expect("no panic");
    let count = |name| called.iter().filter(|called| **called == name).count() as u64;
    assert_eq!(outcomes("a"), (0, count("a"), 0));
    assert_eq!(outcomes("b"), (0, count("b"), 0));
    assert_eq!(outcomes("c"), (6, 0, 0));
    assert!(count("a") > 0 && count("b") > 0);
    assert_eq!(load(&set), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_cannot_be_retried_is_returned_at_once() {
    let begun = Instant::now();
    let (called, set) = world([("a", true), ("b", true), ("c", true)]);
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("the scheduler accepts any set");
    let retry = || Retry::new(even).budget(large_budget());
    let times = async |retry: Retry<_>, request| {
        called.lock().expect("no panic").clear();
        let service = Balance::new(balancer.clone()).retry(retry);
        let error = service.oneshot(request).await.expect_err("all fail");
        let called = called.lock().expect("no panic");
        assert_eq!(
            &*error.to_string(),
            *called.last().expect("an attempt"),
            "the error of the last attempt"
        );
        called.len()
    };
    assert_eq!(times(retry(), 1).await, 1, "the request cannot be cloned");
    assert_eq!(times(retry(), 2).await, 3);
    assert_eq!(times(retry().attempts(2).expect("not 0"), 2).await, 2);
    assert_eq!(times(retry().attempts(9).expect("not 0"), 2).await, 3, "there are three backends");
    let none = TpsBudget::new(Duration::from_secs(10), 0, 0.0);
    assert_eq!(times(retry().budget(none), 2).await, 1, "the budget is empty");
    assert!(begun.elapsed().is_zero(), "no request waits");
    assert_eq!(load(&set), 0);
}

#[tokio::test(start_paused = true)]
async fn all_clones_share_the_budget() {
    let (called, set) = world([("a", true), ("b", true)]);
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("the scheduler accepts any set");
    // Two retries a second, saved up for ten seconds.
    let budget = TpsBudget::new(Duration::from_secs(10), 2, 0.0);
    let service = Balance::new(balancer).retry(Retry::new(even).budget(budget));
    for _ in 0..100 {
        service.clone().oneshot(2).await.expect_err("all fail");
    }
    assert_eq!(called.lock().expect("no panic").len(), 120);
}

#[cfg(feature = "tower-http")]
#[tokio::test]
async fn only_safe_methods_are_retried() {
    // This body is not `Clone`.
    use axum::body::Body;
    use http::{Method, Request, Response};
    use lvs::tower::HttpStatusClassifier;
    let set = BackendSet::new();
    for (name, status) in [("sound", 200), ("failing", 503)] {
        let instance = service_fn(move |_: Request<Body>| async move {
            let response = Response::builder().status(status).body(name);
            Ok::<_, BoxError>(response.expect("a status"))
        });
        set.insert(Spec::new(name, instance)).expect("a new name");
    }
    let service = Balance::new(
        Balancer::new(&set, RoundRobin::new()).expect("the scheduler accepts any set"),
    )
    .classify(HttpStatusClassifier)
    .retry(Retry::safe_methods().budget(large_budget()));
    let mut answers = Vec::new();
    for method in [Method::GET, Method::GET, Method::POST, Method::POST] {
        let request = Request::builder().method(method).body(Body::default()).expect("a request");
        answers.push(service.clone().oneshot(request).await.expect("ready").status().as_u16());
    }
    answers[2..].sort_unstable();
    assert_eq!(answers, [200, 200, 200, 503]);
}
