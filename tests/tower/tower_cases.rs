//! What tower tests of its own balancer and its ready cache, as it is here. Each test bears the name of
//! theirs; `stress` is `cancel::nothing_is_kept`.

use tokio_test::task::{self, Spawn};

use crate::world::*;

fn service(set: &BackendSet<Instance>) -> Spawn<ReadyFirst<Instance>> {
    task::spawn(ReadyFirst::new(in_turn(set)))
}

/// Who answers a service that is ready.
fn ask(service: &mut Spawn<ReadyFirst<Instance>>) -> &'static str {
    assert_ready_ok!(poll_ready(service));
    let mut asking = task::spawn(service.enter(|_, mut it| it.call(())));
    assert_ready_ok!(asking.poll())
}

/// How often connecting to a backend is said to have failed.
fn broken(set: &BackendSet<Instance>, name: &str) -> u64 {
    set.snapshot().find(&name.into()).expect("in the set").outcomes().connect_error
}

fn gone(set: &BackendSet<Instance>, name: &str) {
    set.remove(&name.into()).expect("in the set");
}

/// Pending for ever there.
#[tokio::test(start_paused = true)]
async fn empty() {
    let (set, []) = set_of([]);
    let mut service = service(&set);
    assert_pending!(poll_ready(&mut service));
    tokio::time::advance(std::time::Duration::from_millis(1001)).await;
    assert!(service.is_woken());
    assert_ready_ok!(poll_ready(&mut service));
    refusal(service.enter(|_, mut it| it.call(())).await);
}

/// An instance that fails is forgotten there; here it is a member like any other, and asked again.
#[tokio::test]
async fn single_endpoint() {
    let (set, [a]) = set_of(["a"]);
    let mut service = service(&set);
    a.is(Mood::Busy);
    assert_pending!(poll_ready(&mut service));
    a.is(Mood::Ready);
    assert_eq!(ask(&mut service), "a");
    assert_ready_ok!(poll_ready(&mut service));
    a.is(Mood::Broken);
    assert_pending!(poll_ready(&mut service));
    assert_eq!((set.snapshot().members().len(), load(&set)), (1, 0));
    a.is(Mood::Ready);
    assert_eq!(ask(&mut service), "a");
}

#[tokio::test]
async fn two_endpoints_with_equal_load() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let mut service = service(&set);
    a.is(Mood::Busy);
    b.is(Mood::Busy);
    assert_pending!(poll_ready(&mut service));
    a.is(Mood::Ready);
    assert_eq!(ask(&mut service), "a");
    a.is(Mood::Busy);
    b.is(Mood::Ready);
    assert_eq!(ask(&mut service), "b");
    a.is(Mood::Ready);
    let mut answers = [ask(&mut service), ask(&mut service)];
    answers.sort_unstable();
    assert_eq!(answers, ["a", "b"]);
    a.is(Mood::Broken);
    assert_eq!([(); 3].map(|()| ask(&mut service)), ["b"; 3]);
}

#[tokio::test]
async fn poll_ready_inner_failure() {
    let (set, [doomed, well]) = set_of(["doomed", "well"]);
    doomed.is(Mood::Broken);
    assert_eq!(ask(&mut service(&set)), "well");
    assert_eq!((broken(&set, "doomed"), broken(&set, "well")), (1, 0));
    assert_eq!((doomed.calls(), well.calls()), (0, 1));
}

#[tokio::test]
async fn poll_ready_not_ready() {
    let (set, instances) = set_of(["a", "b"]);
    instances.iter().for_each(|it| it.is(Mood::Busy));
    let mut service = service(&set);
    assert_pending!(poll_ready(&mut service));
    assert_eq!(load(&set), 2, "both are asked");
    assert!(!service.is_woken());
}

/// Both are promoted there; here one is chosen, and the other let go.
#[tokio::test]
async fn poll_ready_promotes_inner() {
    let (set, instances) = set_of(["a", "b"]);
    instances.iter().for_each(|it| it.is(Mood::Busy));
    let mut service = service(&set);
    assert_pending!(poll_ready(&mut service));
    instances.iter().for_each(|it| it.is(Mood::Ready));
    assert!(service.is_woken());
    assert_ready_ok!(poll_ready(&mut service));
    assert_eq!(load(&set), 1);
}

/// Nobody hears of the error of one that is gone.
#[tokio::test]
async fn evict_ready_then_error() {
    let (set, [a, _]) = set_of(["a", "b"]);
    let mut service = service(&set);
    assert_ready_ok!(poll_ready(&mut service));
    a.is(Mood::Broken);
    gone(&set, "a");
    assert_eq!([ask(&mut service), ask(&mut service)], ["b", "b"]);
    assert_eq!(a.calls(), 0);
}

#[tokio::test]
async fn evict_pending_then_error() {
    let (set, [a, b]) = set_of(["a", "b"]);
    a.is(Mood::Busy);
    b.is(Mood::Busy);
    let mut service = service(&set);
    assert_pending!(poll_ready(&mut service));
    gone(&set, "a");
    a.is(Mood::Broken);
    assert!(service.is_woken());
    assert_pending!(poll_ready(&mut service));
    b.is(Mood::Ready);
    assert_eq!(ask(&mut service), "b");
}

#[tokio::test]
async fn push_then_evict() {
    let (set, [a]) = set_of(["a"]);
    a.is(Mood::Broken);
    gone(&set, "a");
    let error =
        refusal(Balance::new(in_turn(&set)).wait_timeout(Default::default()).oneshot(()).await);
    assert!(
        matches!(error, BalanceError::NoBackend { reason: PickError::NoBackends, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn error_after_promote() {
    let (set, [a, b]) = set_of(["a", "b"]);
    a.is(Mood::Busy);
    b.is(Mood::Busy);
    let mut service = service(&set);
    assert_pending!(poll_ready(&mut service));
    a.is(Mood::Ready);
    assert_ready_ok!(poll_ready(&mut service));
    a.is(Mood::Broken);
    b.is(Mood::Ready);
    assert_eq!(ask(&mut service), "b");
    assert_eq!((broken(&set, "a"), a.calls()), (1, 0));
}

/// Another target under the same name: who waits for the old one waits no longer, nobody is sent to
/// it, and the account goes on.
#[tokio::test]
async fn duplicate_key_by_index() {
    let (set, [old]) = set_of(["a"]);
    let mut first = service(&set);
    let mut asking = task::spawn(Balance::new(in_turn(&set)).oneshot(()));
    old.is(Mood::Busy);
    assert_pending!(poll_ready(&mut first));
    assert_pending!(asking.poll());
    let new = Instance::new("new");
    set.set_target(&"a".into(), new.clone(), None).expect("in the set");
    assert!(first.is_woken() && asking.is_woken());
    assert_eq!(assert_ready_ok!(asking.poll()), "new");
    assert_eq!(ask(&mut first), "new");
    assert_eq!((old.calls(), new.calls(), load(&set)), (0, 2, 0));
    assert_eq!(set.snapshot().backends()[0].outcomes().ok, 2);

    // And one that was ready.
    old.is(Mood::Ready);
    assert_ready_ok!(poll_ready(&mut first));
    set.set_target(&"a".into(), old.clone(), None).expect("in the set");
    assert_eq!(ask(&mut first), "a");
    assert_eq!((old.calls(), new.calls()), (1, 2));
}

/// However often an instance is replaced, nothing is left of those before.
#[tokio::test]
async fn cancelation_observed() {
    let (set, [a]) = set_of(["a"]);
    let mut service = service(&set);
    a.is(Mood::Busy);
    let mut last = a;
    for _ in 0..130 {
        assert_pending!(poll_ready(&mut service));
        gone(&set, "a");
        last = Instance::new("a");
        last.is(Mood::Busy);
        set.insert(Spec::new("a", last.clone())).expect("it has just gone");
    }
    last.is(Mood::Ready);
    assert_eq!(ask(&mut service), "a");
    assert_eq!((last.calls(), load(&set)), (1, 0));
}
