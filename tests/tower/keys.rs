//! Requests with keys.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lvs::scheduler::{Maglev, hash_bytes};
use lvs::tower::{MissingKeyPolicy, RequestKey};
use tokio_test::task;

use crate::world::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn by_user(set: &BackendSet<Instance>) -> Balance<Instance, impl RequestKey<u32> + Clone> {
    let balancer = Balancer::new(set, Maglev::new()).expect("the scheduler accepts any set");
    Balance::new(balancer).key(|user: &u32| match user {
        0 => None,
        13 => panic!("no such user"),
        user => Some(hash_bytes(&user.to_le_bytes(), 0)),
    })
}

async fn homes(
    service: &Balance<Instance, impl RequestKey<u32> + Clone>,
) -> HashMap<u32, &'static str> {
    let mut homes = HashMap::new();
    for user in (1..200).filter(|user| *user != 13) {
        homes.insert(user, service.clone().oneshot(user).await.expect("ready"));
    }
    homes
}

#[tokio::test]
async fn a_key_stays_with_its_backend_unless_that_is_down() {
    let (set, _) = set_of(NAMES);
    let service = by_user(&set);
    let before = homes(&service).await;
    assert_eq!(homes(&service).await, before);
    assert!(NAMES.iter().all(|name| before.values().any(|home| home == name)));
    set.set_health(&"c".into(), Health::Down).expect("in the set");
    for (user, home) in homes(&service).await {
        assert!(home != "c" && (before[&user] == "c" || before[&user] == home));
    }
    set.set_health(&"c".into(), Health::Up).expect("in the set");
    assert_eq!(homes(&service).await, before, "and returns when it is up");
}

#[tokio::test]
async fn a_busy_backend_of_a_key_is_awaited_or_passed_over_as_configured() {
    let (set, instances) = set_of(NAMES);
    let service = by_user(&set);
    let home = service.clone().oneshot(7).await.expect("ready");
    let home =
        instances.iter().find(|instance| instance.name == home).expect("an instance of that name");
    home.set_readiness(Readiness::Busy);
    let away = service.clone().oneshot(7).await.expect("other instances are ready");
    assert_ne!(away, home.name);
    let mut pending = task::spawn(service.candidates(1).expect("not 0").oneshot(7));
    assert_pending!(pending.poll());
    home.set_readiness(Readiness::Ready);
    assert!(pending.is_woken());
    assert_eq!(assert_ready_ok!(pending.poll()), home.name);
}

#[tokio::test]
async fn a_request_without_a_key_follows_the_missing_key_policy() {
    let (set, _) = set_of(NAMES);
    let service = by_user(&set);
    let mut counts = HashMap::new();
    for _ in 0..200 {
        *counts.entry(service.clone().oneshot(0).await.expect("ready")).or_insert(0) += 1;
    }
    // A backend gets none of them in one of 10^19 runs.
    assert_eq!(counts.len(), NAMES.len(), "{counts:?}");

    let service = service.missing_key(MissingKeyPolicy::Same(9));
    let first = service.clone().oneshot(0).await.expect("ready");
    for _ in 0..20 {
        assert_eq!(service.clone().oneshot(0).await.expect("ready"), first);
    }
    let service = service.missing_key(MissingKeyPolicy::Refuse);
    assert_eq!(balance_error(service.clone().oneshot(0).await), BalanceError::NoKey);
    assert_eq!(load(&set), 0);
}

#[tokio::test]
async fn a_panic_of_the_key_unwinds_to_the_caller_and_leaks_no_permit() {
    let (set, _) = set_of(NAMES);
    let mut service = by_user(&set).max_in_flight(1).expect("not 0");
    ServiceExt::<u32>::ready(&mut service).await.expect("free");
    let call = catch_unwind(AssertUnwindSafe(|| drop(service.call(13))));
    assert!(call.is_err());
    assert_eq!(load(&set), 0);
    ServiceExt::<u32>::ready(&mut service).await.expect("free again").call(1).await.expect("ready");
}
