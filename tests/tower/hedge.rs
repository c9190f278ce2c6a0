//! Requests that are sent twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lvs::tower::Hedge;
use tokio::time::{Instant, sleep};
use tower::retry::budget::TpsBudget;

use crate::world::*;

const MS: Duration = Duration::from_millis(1);

/// An instance that takes its time, and fails if told so.
#[derive(Clone)]
struct Slow {
    name: &'static str,
    takes: Arc<Mutex<Duration>>,
    fails: bool,
    calls: Arc<AtomicU64>,
}

impl Slow {
    fn new(name: &'static str, fails: bool) -> Self {
        Self { name, takes: Arc::new(Mutex::new(10 * MS)), fails, calls: Arc::default() }
    }

    fn takes(&self, time: Duration) {
        *self.takes.lock().expect("no panic") = time;
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Service<u32> for Slow {
    type Response = &'static str;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<&'static str, BoxError>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let (name, fails, takes) = (self.name, self.fails, *self.takes.lock().expect("no panic"));
        Box::pin(async move {
            sleep(takes).await;
            if fails { Err(name.into()) } else { Ok(name) }
        })
    }
}

fn world<const N: usize>(instances: [(&'static str, bool); N]) -> (BackendSet<Slow>, [Slow; N]) {
    let instances = instances.map(|(name, fails)| Slow::new(name, fails));
    let set = BackendSet::new();
    for instance in instances.iter().rev() {
        set.insert(Spec::new(instance.name, instance.clone())).expect("a new name");
    }
    (set, instances)
}

fn balance(set: &BackendSet<Slow>) -> Balance<Slow> {
    Balance::new(Balancer::new(set, RoundRobin).expect("takes any set"))
}

fn any(request: &u32) -> Option<u32> {
    Some(*request)
}

fn even(request: &u32) -> Option<u32> {
    request.is_multiple_of(2).then_some(*request)
}

fn generous() -> TpsBudget {
    TpsBudget::new(Duration::from_secs(10), 1000, 1.0)
}

/// Sends requests one after another; gives the longest time and the last answer, or error.
async fn ask<S>(service: &S, requests: u32) -> (Duration, String)
where
    S: Service<u32, Response = &'static str, Error = BoxError> + Clone,
{
    let (mut longest, mut last) = (Duration::ZERO, String::new());
    for request in 0..requests {
        let begun = Instant::now();
        let answer = service.clone().oneshot(request).await;
        last = answer.map_or_else(|error| error.to_string(), str::to_owned);
        longest = longest.max(begun.elapsed());
    }
    (longest, last)
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_stalls_costs_a_quantile_and_not_its_stall() {
    let (set, [well, ill]) = world([("well", false), ("ill", false)]);
    let hedge = Hedge::new(any).budget(generous());
    let service = balance(&set).hedge(hedge.clone());
    ask(&service, 200).await;
    assert!(hedge.delay().is_some_and(|delay| delay >= 9 * MS), "{:?}", hedge.delay());
    assert_eq!((well.calls(), ill.calls(), hedge.hedges_sent()), (100, 100, 0));

    ill.takes(Duration::from_secs(60));
    let (longest, last) = ask(&service, 100).await;
    assert!(longest <= 25 * MS, "{longest:?}");
    assert_eq!(last, "well");
    let asked = ill.calls() - 100;
    assert!(asked > 0);
    assert_eq!((hedge.hedges_sent(), hedge.hedges_won()), (asked, asked));
    let snapshot = set.snapshot();
    let outcomes = snapshot.find(&"ill".into()).expect("in the set").outcomes();
    assert_eq!((outcomes.ok, outcomes.cancelled), (100, asked), "nobody awaited its answer");
    assert_eq!(load(&set), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_twice_that_may_not_or_before_enough_is_known() {
    let (set, [a, b]) = world([("a", false), ("b", false)]);
    let hedge = Hedge::new(even).budget(generous());
    let service = balance(&set).hedge(hedge.clone());
    b.takes(300 * MS);
    ask(&service, 90).await;
    assert_eq!((hedge.delay(), hedge.hedges_sent()), (None, 0));
    b.takes(10 * MS);
    ask(&service, 2000).await;
    [&a, &b].iter().for_each(|it| it.takes(50 * MS));
    let before = a.calls() + b.calls();
    service.clone().oneshot(1).await.expect("well");
    assert_eq!((a.calls() + b.calls() - before, hedge.hedges_sent()), (1, 0));
    service.clone().oneshot(2).await.expect("well");
    assert_eq!((a.calls() + b.calls() - before, hedge.hedges_sent()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_slow_altogether_is_asked_no_more_than_the_budget_allows() {
    let (set, [a, b]) = world([("a", false), ("b", false)]);
    let hedge = Hedge::new(any).budget(TpsBudget::new(Duration::from_secs(10), 0, 0.1));
    let service = balance(&set).hedge(hedge.clone());
    ask(&service, 1000).await;
    [&a, &b].iter().for_each(|it| it.takes(20 * MS));
    // Before the quantile knows.
    ask(&service, 20).await;
    let free = hedge.hedges_sent();
    assert_eq!(free, 20, "a tenth of a thousand");
    let none = Hedge::new(any).budget(TpsBudget::new(Duration::from_secs(10), 0, 0.0));
    let service = balance(&set).hedge(none.clone());
    ask(&service, 100).await;
    [&a, &b].iter().for_each(|it| it.takes(40 * MS));
    ask(&service, 10).await;
    assert!(none.delay().is_some());
    assert_eq!(none.hedges_sent(), 0);
    // Nobody else to send it to: no budget is spent.
    let (set, [alone]) = world([("alone", false)]);
    let hedge = Hedge::new(any).budget(generous());
    let service = balance(&set).hedge(hedge.clone());
    ask(&service, 200).await;
    alone.takes(60 * MS);
    ask(&service, 10).await;
    assert_eq!(hedge.hedges_sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_waits_for_the_other() {
    let (set, instances) = world([("good", false), ("bad", true)]);
    let hedge = Hedge::new(even).budget(generous());
    let service = balance(&set).hedge(hedge.clone());
    // Only what is good counts for the quantile, and that is half of it.
    ask(&service, 400).await;
    assert!(hedge.delay().is_some_and(|delay| delay <= 11 * MS));
    instances.iter().for_each(|it| it.takes(30 * MS));
    let answer = service.clone().oneshot(0).await;
    assert_eq!(answer.expect("as the first was"), "good");
    assert_eq!((hedge.hedges_sent(), hedge.hedges_won()), (1, 0));
    // One that goes nowhere else has the turn of the good one.
    service.clone().oneshot(1).await.expect("good");
    let answer = service.clone().oneshot(0).await;
    assert_eq!(answer.expect("as the second was"), "good");
    assert_eq!((hedge.hedges_sent(), hedge.hedges_won()), (2, 1));

    let (set, [a, b]) = world([("a", true), ("b", true)]);
    let both = balance(&set).hedge(hedge.clone());
    a.takes(30 * MS);
    b.takes(40 * MS);
    let (_, last) = ask(&both, 1).await;
    assert_eq!(last, "b", "the last to fail");
    assert_eq!((a.calls(), b.calls(), load(&set)), (1, 1, 0));
    assert_eq!((hedge.hedges_sent(), hedge.hedges_won()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn the_second_of_a_key_goes_to_the_next_of_that_key() {
    let (set, instances) = world([("a", false), ("b", false), ("c", false)]);
    let balancer = Balancer::new(&set, lvs::scheduler::Maglev::new()).expect("takes any set");
    let hedge = Hedge::new(any).budget(generous());
    let keyed = Balance::new(balancer).key(|request: &u32| Some(u64::from(*request)));
    let service = keyed.hedge(hedge.clone());
    ask(&service, 200).await;
    let owner = service.clone().oneshot(7).await.expect("well");
    let stalled = instances.iter().find(|it| it.name == owner).expect("one of them");
    stalled.takes(Duration::from_secs(60));
    let mut next = Vec::new();
    for _ in 0..10 {
        next.push(service.clone().oneshot(7).await.expect("well"));
    }
    assert!(next.iter().all(|it| *it == next[0] && *it != owner), "{next:?}");
    assert_eq!(load(&set), 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_it_gives_back_what_both_hold() {
    let (set, instances) = world([("a", false), ("b", false)]);
    let service = balance(&set).max_in_flight(1).hedge(Hedge::new(any).budget(generous()));
    ask(&service, 200).await;
    instances.iter().for_each(|it| it.takes(Duration::from_secs(60)));
    for wait in [0, 5, 15, 60] {
        let asked = tokio::time::timeout(MS * wait, service.clone().oneshot(0)).await;
        asked.expect_err("it stalls");
        assert_eq!(load(&set), 0, "after {wait} ms");
    }
    // The place is free again.
    instances.iter().for_each(|it| it.takes(MS));
    service.clone().oneshot(0).await.expect("well");
}
