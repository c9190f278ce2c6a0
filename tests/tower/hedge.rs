//! Hedged requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lvs::tower::Hedge;
use tokio::time::{Instant, sleep};
use tower::retry::budget::TpsBudget;

use crate::world::*;

const MS: Duration = Duration::from_millis(1);

/// An instance with a set latency, which fails if the test sets it to.
#[derive(Clone)]
struct Slow {
    name: &'static str,
    latency: Arc<Mutex<Duration>>,
    fails: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Slow {
    fn new(name: &'static str, fails: bool) -> Self {
        let (latency, fails) = (Arc::new(Mutex::new(10 * MS)), Arc::new(AtomicBool::new(fails)));
        Self { name, latency, fails, calls: Arc::default() }
    }

    fn set_latency(&self, latency: Duration) {
        *self.latency.lock().expect("no panic") = latency;
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
        let (name, fails) = (self.name, self.fails.load(Ordering::SeqCst));
        let latency = *self.latency.lock().expect("no panic");
        Box::pin(async move {
            sleep(latency).await;
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
    Balance::new(Balancer::new(set, RoundRobin::new()).expect("the scheduler accepts any set"))
}

fn any(request: &u32) -> Option<u32> {
    Some(*request)
}

fn even(request: &u32) -> Option<u32> {
    request.is_multiple_of(2).then_some(*request)
}

fn large_budget() -> TpsBudget {
    TpsBudget::new(Duration::from_secs(10), 1000, 1.0)
}

/// Sends requests one after another; returns the longest latency and the last answer or error.
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
async fn a_stalled_backend_costs_the_delay_and_not_its_stall() {
    let (set, [sound, stalled]) = world([("sound", false), ("stalled", false)]);
    let hedge = Hedge::new(any).budget(large_budget());
    let service = balance(&set).hedge(hedge);
    let stats = service.stats().clone();
    ask(&service, 200).await;
    assert!(stats.delay().is_some_and(|delay| delay >= 9 * MS), "{:?}", stats.delay());
    assert_eq!((sound.calls(), stalled.calls(), stats.sent()), (100, 100, 0));

    stalled.set_latency(Duration::from_secs(60));
    let (longest, last) = ask(&service, 100).await;
    assert!(longest <= 25 * MS, "{longest:?}");
    assert_eq!(last, "sound");
    let asked = stalled.calls() - 100;
    assert!(asked > 0);
    assert_eq!((stats.sent(), stats.won()), (asked, asked));
    let snapshot = set.snapshot();
    let outcomes = snapshot.find(&"stalled".into()).expect("in the set").outcomes();
    assert_eq!(
        (outcomes.ok, outcomes.cancelled),
        (100, asked),
        "the stalled requests are cancelled"
    );
    assert_eq!(load(&set), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_are_hedged_only_if_cloneable_and_with_enough_latencies() {
    let (set, [a, b]) = world([("a", false), ("b", false)]);
    let hedge = Hedge::new(even).budget(large_budget());
    let service = balance(&set).hedge(hedge);
    let stats = service.stats().clone();
    b.set_latency(300 * MS);
    ask(&service, 90).await;
    assert_eq!((stats.delay(), stats.sent()), (None, 0));
    b.set_latency(10 * MS);
    ask(&service, 2000).await;
    [&a, &b].iter().for_each(|instance| instance.set_latency(50 * MS));
    let before = a.calls() + b.calls();
    service.clone().oneshot(1).await.expect("an answer");
    assert_eq!((a.calls() + b.calls() - before, stats.sent()), (1, 0));
    service.clone().oneshot(2).await.expect("an answer");
    assert_eq!((a.calls() + b.calls() - before, stats.sent()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_hedging_when_all_backends_are_slow() {
    let (set, [a, b]) = world([("a", false), ("b", false)]);
    let hedge = Hedge::new(any).budget(TpsBudget::new(Duration::from_secs(10), 0, 0.1));
    let service = balance(&set).hedge(hedge);
    let stats = service.stats().clone();
    ask(&service, 1000).await;
    [&a, &b].iter().for_each(|instance| instance.set_latency(20 * MS));
    // While the delay is still that of the faster requests.
    ask(&service, 20).await;
    assert_eq!(stats.sent(), 20, "within a tenth of a thousand requests");
    let without_budget = Hedge::new(any).budget(TpsBudget::new(Duration::from_secs(10), 0, 0.0));
    let service = balance(&set).hedge(without_budget);
    let stats = service.stats().clone();
    ask(&service, 100).await;
    [&a, &b].iter().for_each(|instance| instance.set_latency(40 * MS));
    ask(&service, 10).await;
    assert!(stats.delay().is_some());
    assert_eq!(stats.sent(), 0);
    // Without another backend nothing is hedged.
    let (set, [alone]) = world([("alone", false)]);
    let hedge = Hedge::new(any).budget(large_budget());
    let service = balance(&set).hedge(hedge);
    let stats = service.stats().clone();
    ask(&service, 200).await;
    alone.set_latency(60 * MS);
    ask(&service, 10).await;
    assert_eq!(stats.sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_other_request_is_awaited() {
    let (set, instances) = world([("good", false), ("bad", true)]);
    let hedge = Hedge::new(even).budget(large_budget());
    let service = balance(&set).hedge(hedge);
    let stats = service.stats().clone();
    // Only the successes count for the delay, which are half of the requests.
    ask(&service, 400).await;
    assert!(stats.delay().is_some_and(|delay| delay <= 11 * MS));
    instances.iter().for_each(|instance| instance.set_latency(30 * MS));
    let answer = service.clone().oneshot(0).await;
    assert_eq!(answer.expect("the first request succeeds"), "good");
    assert_eq!((stats.sent(), stats.won()), (1, 0));
    // A request that is not hedged moves round robin on past the good instance.
    service.clone().oneshot(1).await.expect("an answer of the good instance");
    let answer = service.clone().oneshot(0).await;
    assert_eq!(answer.expect("the second request succeeds"), "good");
    assert_eq!((stats.sent(), stats.won()), (2, 1));

    // Both requests fail, after the delay is known.
    let (set, [a, b]) = world([("a", false), ("b", false)]);
    let both = balance(&set).hedge(Hedge::new(even).budget(large_budget()));
    ask(&both, 200).await;
    let calls = (a.calls(), b.calls());
    [&a, &b].iter().for_each(|instance| instance.fails.store(true, Ordering::SeqCst));
    a.set_latency(30 * MS);
    b.set_latency(40 * MS);
    let (_, last) = ask(&both, 1).await;
    assert_eq!(last, "b", "the later failure");
    assert_eq!((a.calls(), b.calls(), load(&set)), (calls.0 + 1, calls.1 + 1, 0));
    assert_eq!((both.stats().sent(), both.stats().won()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_second_requests_of_a_key_go_to_one_backend() {
    let (set, instances) = world([("a", false), ("b", false), ("c", false)]);
    let balancer =
        Balancer::new(&set, lvs::scheduler::Maglev::new()).expect("the scheduler accepts any set");
    let hedge = Hedge::new(any).budget(large_budget());
    let keyed = Balance::new(balancer).key(|request: &u32| Some(u64::from(*request)));
    let service = keyed.hedge(hedge);
    ask(&service, 200).await;
    let owner = service.clone().oneshot(7).await.expect("an answer");
    let stalled =
        instances.iter().find(|instance| instance.name == owner).expect("an instance of that name");
    stalled.set_latency(Duration::from_secs(60));
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(service.clone().oneshot(7).await.expect("an answer"));
    }
    let second = answers[0];
    assert_ne!(second, owner);
    assert!(answers.iter().all(|answer| *answer == second), "{answers:?}");
    assert_eq!(load(&set), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_returns_what_both_requests_hold() {
    let (set, instances) = world([("a", false), ("b", false)]);
    let service = balance(&set)
        .max_in_flight(1)
        .expect("not 0")
        .hedge(Hedge::new(any).budget(large_budget()));
    ask(&service, 200).await;
    instances.iter().for_each(|instance| instance.set_latency(Duration::from_secs(60)));
    for wait in [0, 5, 15, 60] {
        let asked = tokio::time::timeout(MS * wait, service.clone().oneshot(0)).await;
        asked.expect_err("the instances stall");
        assert_eq!(load(&set), 0, "after {wait} ms");
    }
    // The permit is free again.
    instances.iter().for_each(|instance| instance.set_latency(MS));
    service.clone().oneshot(0).await.expect("an answer");
}
