//! Timeouts of attempts.

use std::time::Duration;

use lvs::Outcome;
use lvs::backend::OutcomeCounts;
use lvs::scheduler::PowerOfTwoChoices;
use lvs::tower::{Classify, Hedge, Retry};
use tokio::time::Instant;
use tower::timeout::Timeout;

use crate::world::*;

const LIMIT: Duration = Duration::from_millis(300);

fn outcomes<S>(set: &BackendSet<S>, name: &str) -> OutcomeCounts {
    set.snapshot().find(&name.into()).expect("in the set").outcomes()
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_is_a_timeout_in_its_account_and_named_in_the_error() {
    let (set, [instance]) = set_of(["a"]);
    instance.hold(true);
    // The classifier of the caller is not asked: no answer is a timeout, whatever its error means.
    let all_is_well = |_: Result<&&'static str, &BoxError>| Outcome::Ok;
    let service =
        Balance::new(round_robin(&set)).classify(all_is_well).timeout(LIMIT).expect("not 0");
    let begun = Instant::now();
    let error = balance_error(service.clone().oneshot(()).await);
    assert_eq!(error, BalanceError::Timeout { backend: "a".into(), timeout: LIMIT });
    assert_eq!(error.to_string(), "backend a did not answer within 300ms");
    assert_eq!(begun.elapsed(), LIMIT);
    assert_eq!((outcomes(&set, "a").timeout, outcomes(&set, "a").total()), (1, 1));
    assert_eq!(load(&set), 0);
    instance.hold(false);
    assert_eq!(service.oneshot(()).await.expect("the answer is there"), "a");

    let ready_first = ReadyFirst::new(round_robin(&set)).timeout(LIMIT).expect("not 0");
    instance.hold(true);
    let error = balance_error(ready_first.oneshot(()).await);
    assert_eq!(error, BalanceError::Timeout { backend: "a".into(), timeout: LIMIT });
    assert_eq!((outcomes(&set, "a").timeout, load(&set)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_timeout_is_for_each_attempt_and_a_retry_goes_elsewhere() {
    let (set, [hanging, sound]) = set_of(["a", "b"]);
    hanging.hold(true);
    let retry = Retry::new(|(): &()| Some(()));
    let service = Balance::new(round_robin(&set)).retry(retry).timeout(LIMIT).expect("not 0");
    let begun = Instant::now();
    assert_eq!(service.clone().oneshot(()).await.expect("b answers"), "b");
    assert_eq!(begun.elapsed(), LIMIT);
    assert_eq!((outcomes(&set, "a").timeout, outcomes(&set, "b").ok), (1, 1));

    sound.hold(true);
    let error = balance_error(service.oneshot(()).await);
    assert!(matches!(error, BalanceError::Timeout { .. }), "{error}");
    assert_eq!(begun.elapsed(), 3 * LIMIT, "one timeout for each of two attempts");
}

#[tokio::test(start_paused = true)]
async fn the_second_attempt_of_a_hedge_is_awaited_after_the_timeout_of_the_first() {
    let (set, [first, second]) = set_of(["a", "b"]);
    let balancer = Balancer::new(&set, PowerOfTwoChoices::new()).expect("any set");
    let hedge = Hedge::new(|(): &()| Some(()));
    let service = Balance::new(balancer).timeout(LIMIT).expect("not 0").hedge(hedge);
    for _ in 0..200 {
        service.clone().oneshot(()).await.expect("both answer");
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let stats = service.stats().clone();
    assert!(stats.delay().is_some_and(|delay| delay < LIMIT), "{stats:?}");
    first.hold(true);
    second.hold(true);
    let mut request = tokio_test::task::spawn(service.oneshot(()));
    assert_pending!(request.poll());
    tokio::time::sleep(LIMIT / 2).await;
    assert_pending!(request.poll());
    assert_eq!(stats.sent(), 1);
    tokio::time::sleep(LIMIT * 2 / 3).await;
    assert_pending!(request.poll(), "the second attempt has time left");
    first.hold(false);
    second.hold(false);
    assert_ready_ok!(request.poll());
    let timeouts = outcomes(&set, "a").timeout + outcomes(&set, "b").timeout;
    assert_eq!((timeouts, load(&set)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_tower_in_an_instance_is_a_timeout_of_its_backend() {
    let (set, instance) = (BackendSet::new(), Instance::new("a"));
    instance.hold(true);
    set.insert(Spec::new("a", Timeout::new(instance, LIMIT))).expect("a new name");
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("any set");
    let error = Balance::new(balancer).oneshot(()).await.expect_err("nobody answers");
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
    assert_eq!((outcomes(&set, "a").timeout, outcomes(&set, "a").total()), (1, 1));
    let classified = lvs::tower::ResultClassifier.classify(Err::<&(), _>(&error));
    assert_eq!(classified, Outcome::Timeout);
}

#[tokio::test(start_paused = true)]
async fn the_search_for_an_instance_has_no_part_in_the_timeout() {
    let (set, [instance]) = set_of(["a"]);
    instance.set_readiness(Readiness::Busy);
    let service = Balance::new(round_robin(&set)).timeout(LIMIT).expect("not 0");
    let begun = Instant::now();
    let error = balance_error(service.oneshot(()).await);
    assert!(matches!(error, BalanceError::Busy { .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(1), "the wait timeout");
}
