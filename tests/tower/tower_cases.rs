//! The tests of tower's own balancer and ready cache, on `Balance` and `ReadyFirst`. Each test has
//! the name of tower's; `stress` is `cancel::dropped_requests_return_everything`.

use tokio_test::task::{self, Spawn};

use crate::world::*;

fn service(set: &BackendSet<Instance>) -> Spawn<ReadyFirst<Instance>> {
    task::spawn(ReadyFirst::new(round_robin(set)))
}

/// Sends a request through a service that is ready; returns the name of the instance.
fn ask(service: &mut Spawn<ReadyFirst<Instance>>) -> &'static str {
    assert_ready_ok!(poll_ready(service));
    let mut pending = task::spawn(service.enter(|_, mut service| service.call(())));
    assert_ready_ok!(pending.poll())
}

/// Returns the number of failed connects that a backend counts.
fn connect_errors(set: &BackendSet<Instance>, name: &str) -> u64 {
    set.snapshot().find(&name.into()).expect("in the set").outcomes().connect_error
}

fn remove(set: &BackendSet<Instance>, name: &str) {
    set.remove(&name.into()).expect("in the set");
}

/// tower's balancer is pending for ever.
#[tokio::test(start_paused = true)]
async fn empty() {
    let (set, []) = set_of([]);
    let mut service = service(&set);
    assert_pending!(poll_ready(&mut service));
    tokio::time::advance(std::time::Duration::from_millis(1001)).await;
    assert!(service.is_woken());
    assert_ready_ok!(poll_ready(&mut service));
    balance_error(service.enter(|_, mut service| service.call(())).await);
}

/// tower's balancer removes an instance that fails; `ReadyFirst` keeps the member and asks it again.
#[tokio::test]
async fn single_endpoint() {
    let (set, [a]) = set_of(["a"]);
    let mut service = service(&set);
    a.set_readiness(Readiness::Busy);
    assert_pending!(poll_ready(&mut service));
    a.set_readiness(Readiness::Ready);
    assert_eq!(ask(&mut service), "a");
    assert_ready_ok!(poll_ready(&mut service));
    a.set_readiness(Readiness::Broken);
    assert_pending!(poll_ready(&mut service));
    assert_eq!((set.snapshot().members().len(), load(&set)), (1, 0));
    a.set_readiness(Readiness::Ready);
    assert_eq!(ask(&mut service), "a");
}

#[tokio::test]
async fn two_endpoints_with_equal_load() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let mut service = service(&set);
    a.set_readiness(Readiness::Busy);
    b.set_readiness(Readiness::Busy);
    assert_pending!(poll_ready(&mut service));
    a.set_readiness(Readiness::Ready);
    assert_eq!(ask(&mut service), "a");
    a.set_readiness(Readiness::Busy);
    b.set_readiness(Readiness::Ready);
    assert_eq!(ask(&mut service), "b");
    a.set_readiness(Readiness::Ready);
    let mut answers = [ask(&mut service), ask(&mut service)];
    answers.sort_unstable();
    assert_eq!(answers, ["a", "b"]);
    a.set_readiness(Readiness::Broken);
    assert_eq!([(); 3].map(|()| ask(&mut service)), ["b"; 3]);
}

#[tokio::test]
async fn poll_ready_inner_failure() {
    let (set, [failing, sound]) = set_of(["failing", "sound"]);
    failing.set_readiness(Readiness::Broken);
    assert_eq!(ask(&mut service(&set)), "sound");
    assert_eq!((connect_errors(&set, "failing"), connect_errors(&set, "sound")), (1, 0));
    assert_eq!((failing.calls(), sound.calls()), (0, 1));
}

#[tokio::test]
async fn poll_ready_not_ready() {
    let (set, instances) = set_of(["a", "b"]);
    instances.iter().for_each(|instance| instance.set_readiness(Readiness::Busy));
    let mut service = service(&set);
    assert_pending!(poll_ready(&mut service));
    assert_eq!(load(&set), 2, "both instances are candidates");
    assert!(!service.is_woken());
}

/// tower's cache promotes both; `ReadyFirst` picks one and drops the other.
#[tokio::test]
async fn poll_ready_promotes_inner() {
    let (set, instances) = set_of(["a", "b"]);
    instances.iter().for_each(|instance| instance.set_readiness(Readiness::Busy));
    let mut service = service(&set);
    assert_pending!(poll_ready(&mut service));
    instances.iter().for_each(|instance| instance.set_readiness(Readiness::Ready));
    assert!(service.is_woken());
    assert_ready_ok!(poll_ready(&mut service));
    assert_eq!(load(&set), 1);
}

/// The error of a removed instance is not reported.
#[tokio::test]
async fn evict_ready_then_error() {
    let (set, [a, _]) = set_of(["a", "b"]);
    let mut service = service(&set);
    assert_ready_ok!(poll_ready(&mut service));
    a.set_readiness(Readiness::Broken);
    remove(&set, "a");
    assert_eq!([ask(&mut service), ask(&mut service)], ["b", "b"]);
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn evict_pending_then_error() {
    let (set, [a, b]) = set_of(["a", "b"]);
    a.set_readiness(Readiness::Busy);
    b.set_readiness(Readiness::Busy);
    let mut service = service(&set);
    assert_pending!(poll_ready(&mut service));
    remove(&set, "a");
    a.set_readiness(Readiness::Broken);
    assert!(service.is_woken());
    assert_pending!(poll_ready(&mut service));
    b.set_readiness(Readiness::Ready);
    assert_eq!(ask(&mut service), "b");
}

#[tokio::test]
async fn push_then_evict() {
    let (set, [a]) = set_of(["a"]);
    a.set_readiness(Readiness::Broken);
    remove(&set, "a");
    let error = balance_error(
        Balance::new(round_robin(&set)).wait_timeout(Default::default()).oneshot(()).await,
    );
    assert!(
        matches!(error, BalanceError::NoBackend { reason: PickError::NoBackends, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn error_after_promote() {
    let (set, [a, b]) = set_of(["a", "b"]);
    a.set_readiness(Readiness::Busy);
    b.set_readiness(Readiness::Busy);
    let mut service = service(&set);
    assert_pending!(poll_ready(&mut service));
    a.set_readiness(Readiness::Ready);
    assert_ready_ok!(poll_ready(&mut service));
    a.set_readiness(Readiness::Broken);
    b.set_readiness(Readiness::Ready);
    assert_eq!(ask(&mut service), "b");
    assert_eq!((connect_errors(&set, "a"), a.calls()), (1, 0));
}

/// A new target of the same name: requests that wait for the old target stop waiting, no request goes
/// to it, and the account continues.
#[tokio::test]
async fn duplicate_key_by_index() {
    let (set, [old]) = set_of(["a"]);
    let mut first = service(&set);
    let mut pending = task::spawn(Balance::new(round_robin(&set)).oneshot(()));
    old.set_readiness(Readiness::Busy);
    assert_pending!(poll_ready(&mut first));
    assert_pending!(pending.poll());
    let new = Instance::new("new");
    set.set_target(&"a".into(), new.clone(), None).expect("in the set");
    assert!(first.is_woken() && pending.is_woken());
    assert_eq!(assert_ready_ok!(pending.poll()), "new");
    assert_eq!(ask(&mut first), "new");
    assert_eq!((old.calls(), new.calls(), load(&set)), (0, 2, 0));
    assert_eq!(set.snapshot().backends()[0].outcomes().ok, 2);

    // The same with an old target that was ready.
    old.set_readiness(Readiness::Ready);
    assert_ready_ok!(poll_ready(&mut first));
    set.set_target(&"a".into(), old.clone(), None).expect("in the set");
    assert_eq!(ask(&mut first), "a");
    assert_eq!((old.calls(), new.calls()), (1, 2));
}

/// A replaced instance leaves nothing behind, however often it is replaced.
#[tokio::test]
async fn cancelation_observed() {
    let (set, [a]) = set_of(["a"]);
    let mut service = service(&set);
    a.set_readiness(Readiness::Busy);
    let mut last = a;
    for _ in 0..130 {
        assert_pending!(poll_ready(&mut service));
        remove(&set, "a");
        last = Instance::new("a");
        last.set_readiness(Readiness::Busy);
        set.insert(Spec::new("a", last.clone())).expect("the name was just removed");
    }
    last.set_readiness(Readiness::Ready);
    assert_eq!(ask(&mut service), "a");
    assert_eq!((last.calls(), load(&set)), (1, 0));
}
