//! What is weak in tower's own balancer, as its issues say: each shown there, and not so here.
//!
//! Who knows the list: 1 is [`sharing_needs_no_task`] and [`handles_are_shared_by_cloning`], 2 and 7
//! [`the_choice_is_made_when_there_is_a_request`] and [`who_is_gone_is_not_called`], 3
//! [`connecting_waits_for_no_request`], 4 [`an_error_is_not_for_ever`], 5 [`nobody_to_ask_is_an_answer`], 6
//! [`only_what_is_used_is_reserved`], 8 [`weights_are_shares`], 9 [`a_quick_failure_attracts_nobody`], 10
//! [`an_error_of_discovery_is_not_the_end`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_test::task;
use tower::balance::p2c;
use tower::discover::{Change, ServiceList};
use tower::limit::ConcurrencyLimit;
use tower::load::{CompleteOnResponse, Constant};

use crate::world::*;

type Plain = Constant<Instance, u32>;
type Word = Result<Change<&'static str, Plain>, BoxError>;

/// What a discovery says, as a stream.
struct Said(UnboundedReceiver<Word>);

impl futures_core::Stream for Said {
    type Item = Word;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Word>> {
        self.0.poll_recv(cx)
    }
}

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

/// There a service that was chosen is called though it was taken out meanwhile.
#[tokio::test]
async fn who_is_gone_is_not_called() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let (changes, list) = tokio::sync::mpsc::unbounded_channel();
    let insert = |it: &Instance| Ok(Change::Insert(it.name, Constant::new(it.clone(), 0)));
    changes.send(insert(&a)).expect("it listens");
    let mut theirs = task::spawn(p2c::Balance::<_, ()>::new(Said(list)));
    let (ours, first) = (Balance::new(in_turn(&set)), ReadyFirst::new(in_turn(&set)));
    let (mut ours, mut first) = (task::spawn(ours), task::spawn(first));
    assert_ready_ok!(poll_ready(&mut theirs));
    assert_ready_ok!(poll_ready(&mut ours));
    assert_ready_ok!(poll_ready(&mut first));
    changes.send(insert(&b)).expect("it listens");
    changes.send(Ok(Change::Remove("a"))).expect("it listens");
    set.remove(&"a".into()).expect("in the set");
    assert_eq!(theirs.enter(|_, mut it| it.call(())).await.expect("ready"), "a");
    assert_eq!(ours.enter(|_, mut it| it.call(())).await.expect("ready"), "b");
    // Its caller was told that one is ready, and who that was: it asks again, or calls that one.
    assert_ready_ok!(poll_ready(&mut first));
    assert_eq!(first.enter(|_, mut it| it.call(())).await.expect("ready"), "b");
}

/// There the first error of a `Discover` is one of the balancer.
#[cfg(feature = "discovery")]
#[tokio::test]
async fn an_error_of_discovery_is_not_the_end() {
    let (changes, list) = tokio::sync::mpsc::unbounded_channel();
    let mut theirs = task::spawn(p2c::Balance::<_, ()>::new(Said(list)));
    let a = Instance::new("a");
    changes.send(Ok(Change::Insert("a", Constant::new(a.clone(), 0)))).expect("it listens");
    assert_ready_ok!(poll_ready(&mut theirs));
    changes.send(Err("not now".into())).expect("it listens");
    assert!(matches!(poll_ready(&mut theirs), Poll::Ready(Err(_))), "though a is well");

    let (changes, source) = lvs::discovery::channel(8);
    let set = BackendSet::new();
    tokio::spawn(lvs::discovery::Feed::replacing_targets(&set, source).run());
    let insert = lvs::discovery::MemberUpdate::Insert(Spec::new("a", a));
    changes.send(insert).await.expect("the feed runs");
    let ours = Balance::new(in_turn(&set));
    assert_eq!(ours.clone().oneshot(()).await.expect("a is well"), "a");
    changes.send_error(lvs::discovery::DiscoveryError::other("not now")).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
        assert_eq!(ours.clone().oneshot(()).await.expect("a is well"), "a");
    }
}

/// There a load is a number to compare, and one that is three times as high gets nothing at all.
#[tokio::test]
async fn weights_are_shares() {
    let (set, instances) = set_of(["large", "small"]);
    let list = instances.iter().zip([1, 3]).map(|(it, load)| Constant::new(it.clone(), load));
    let mut theirs = p2c::Balance::<_, ()>::new(ServiceList::new::<()>(list.collect::<Vec<_>>()));
    for _ in 0..400 {
        theirs.ready().await.expect("ready").call(()).await.expect("well");
    }
    assert_eq!(instances.each_ref().map(Instance::calls), [400, 0]);

    set.set_weight(&"large".into(), 3).expect("in the set");
    let balancer = Balancer::new(&set, lvs::scheduler::SmoothWeightedRoundRobin::new());
    let ours = Balance::new(balancer.expect("takes any set"));
    for _ in 0..400 {
        ours.clone().oneshot(()).await.expect("well");
    }
    assert_eq!(instances.each_ref().map(Instance::calls), [700, 100]);
}

/// There a connection is made while somebody asks the balancer, and only then: the first request after
/// a pause waits for it.
#[cfg(feature = "discovery-tower")]
#[tokio::test(start_paused = true)]
async fn connecting_waits_for_no_request() {
    use lvs::discovery::StaticList;
    use lvs::tower::BalanceLayer;
    use tower::Layer;
    use tower::reconnect::Reconnect;

    use crate::reconnect::Connector;

    let (theirs, ours) = (Connector::new(), Connector::new());
    let lazy = Constant::new(Reconnect::new(theirs.clone(), 1_u32), 0);
    let list = ServiceList::new::<()>(vec![lazy]);
    let mut balance = task::spawn(p2c::Balance::<_, ()>::new(list));
    let layer = BalanceLayer::new(RoundRobin);
    let made = layer.layer(ours.clone()).balance(StaticList::new([Spec::new("1", 1_u32)]));
    let made = made.expect("takes any set");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!((theirs.made().len(), ours.made().len()), (0, 1));
    assert_pending!(poll_ready(&mut balance));
    let mut asking = task::spawn(made.oneshot(()));
    assert_ready_ok!(asking.poll(), "at its first poll");
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

/// A handle there is for one user: others need a `Buffer`, whose task must run for them.
#[tokio::test]
async fn sharing_needs_no_task() {
    let (set, instances) = set_of(["a"]);
    let (theirs, _worker) = tower::buffer::Buffer::pair(towers(&instances), 8);
    let mut asking = task::spawn(theirs.clone().oneshot(()));
    assert_pending!(asking.poll());
    let mut asking = task::spawn(Balance::new(in_turn(&set)).clone().oneshot(()));
    assert_eq!(assert_ready_ok!(asking.poll()), "a", "at its first poll");
}

/// So many tasks there are one queue. Here each has a handle.
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
    let peak = |fails| {
        let (rtt, decay) = (std::time::Duration::from_millis(30), 10e9);
        tower::load::PeakEwma::new(instance(fails), rtt, decay, CompleteOnResponse::default())
    };
    let list = ServiceList::new::<()>(vec![peak(true), peak(false)]);
    let (mut theirs, mut failed) = (p2c::Balance::new(list), 0);
    for _ in 0..200 {
        failed += u32::from(theirs.ready().await.expect("ready").call(()).await.is_err());
    }
    assert!(failed > 190, "{failed} of 200 go where they fail");

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
