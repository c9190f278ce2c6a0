//! Weak points of tower's own balancer that its issues describe: each test shows one with tower's
//! balancer, and that `Balance` and `ReadyFirst` do not have it.

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
type ChangeResult = Result<Change<&'static str, Plain>, BoxError>;

/// The changes of a channel as a stream, which is a `Discover`.
struct ChannelDiscover(UnboundedReceiver<ChangeResult>);

impl futures_core::Stream for ChannelDiscover {
    type Item = ChangeResult;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ChangeResult>> {
        self.0.poll_recv(cx)
    }
}

fn tower_balance<const N: usize>(
    instances: &[Instance; N],
) -> p2c::Balance<ServiceList<Vec<Plain>>, ()> {
    let list = instances.iter().map(|instance| Constant::new(instance.clone(), 0)).collect();
    p2c::Balance::new(ServiceList::new::<()>(list))
}

/// tower's balancer without instances is pending for ever; here the request fails (after the wait
/// timeout: see `balance`).
#[tokio::test(start_paused = true)]
async fn an_empty_set_fails_the_request() {
    let mut tower_service = task::spawn(tower_balance(&[]));
    assert_pending!(poll_ready(&mut tower_service));
    let day = std::time::Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, ServiceExt::<()>::ready(&mut *tower_service)).await.is_err());

    let (set, []) = set_of([]);
    balance_error(Balance::new(round_robin(&set)).oneshot(()).await);
    balance_error(ready(&mut ReadyFirst::new(round_robin(&set))).await.call(()).await);
}

/// tower's balancer removes an instance after one error of `poll_ready`; here it is passed over until
/// it is ready.
#[tokio::test]
async fn an_error_of_poll_ready_removes_no_instance() {
    let (set, instances) = set_of(["a"]);
    let [a] = &instances;
    let mut tower_service = task::spawn(tower_balance(&instances));
    let lvs_service = Balance::new(round_robin(&set));
    a.set_readiness(Readiness::Broken);
    assert_pending!(poll_ready(&mut tower_service));
    assert!(lvs_service.clone().oneshot(()).await.is_err());
    a.set_readiness(Readiness::Ready);
    assert_pending!(poll_ready(&mut tower_service));
    assert_eq!(lvs_service.oneshot(()).await.expect("the instance is ready again"), "a");
}

/// tower's balancer drives all instances to readiness, and so holds a permit of each.
#[tokio::test]
async fn only_the_picked_instance_holds_a_permit() {
    let permits: Vec<_> = (0..3).map(|_| Arc::new(Semaphore::new(1))).collect();
    let limited = |permit: &Arc<Semaphore>| {
        ConcurrencyLimit::with_semaphore(Instance::new("a"), Arc::clone(permit))
    };
    let free = || permits.iter().map(|permit| permit.available_permits()).sum::<usize>();
    let list: Vec<_> = permits.iter().map(|permit| Constant::new(limited(permit), 0)).collect();
    let mut tower_service = task::spawn(p2c::Balance::<_, ()>::new(ServiceList::new::<()>(list)));
    assert_ready_ok!(poll_ready(&mut tower_service));
    assert_eq!(free(), 0, "three permits for one request");
    drop(tower_service);

    let set = BackendSet::new();
    for (i, permit) in permits.iter().enumerate() {
        set.insert(Spec::new(i.to_string(), limited(permit))).expect("a new name");
    }
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("the scheduler accepts any set");
    let mut lvs_service = task::spawn(Balance::new(balancer.clone()));
    assert_ready_ok!(poll_ready(&mut lvs_service));
    assert_eq!(free(), 3, "no permit before the pick");
    let mut first = task::spawn(ReadyFirst::new(balancer));
    assert_ready_ok!(poll_ready(&mut first));
    assert_eq!(free(), 2, "the permit of the picked instance");
}

/// tower's balancer picks when it becomes ready, however long before the request.
#[tokio::test]
async fn the_pick_is_made_after_the_call() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let least = || {
        Balancer::new(&set, lvs::scheduler::LeastConnections::default())
            .expect("the scheduler accepts any set")
    };
    let mut early = task::spawn(Balance::new(least()));
    assert_ready_ok!(poll_ready(&mut early));
    // Meanwhile other requests load the instance that it would have picked.
    a.hold(true);
    b.hold(true);
    let mut others = [(); 3].map(|()| task::spawn(Balance::new(least()).oneshot(())));
    others.iter_mut().for_each(|other| assert_pending!(other.poll()));
    let (busy, idle) = if a.calls() == 2 { (&a, &b) } else { (&b, &a) };
    assert_eq!((busy.calls(), idle.calls()), (2, 1));
    let mut pending = task::spawn(early.enter(|_, mut service| service.call(())));
    assert_pending!(pending.poll());
    assert_eq!((busy.calls(), idle.calls()), (2, 2));
}

/// tower's balancer calls an instance that was removed after it became ready.
#[tokio::test]
async fn a_removed_instance_is_not_called() {
    let (set, [a, b]) = set_of(["a", "b"]);
    let (changes, list) = tokio::sync::mpsc::unbounded_channel();
    let insert =
        |instance: &Instance| Ok(Change::Insert(instance.name, Constant::new(instance.clone(), 0)));
    changes.send(insert(&a)).expect("the discovery is polled");
    let mut tower_service = task::spawn(p2c::Balance::<_, ()>::new(ChannelDiscover(list)));
    let (lvs_service, first) =
        (Balance::new(round_robin(&set)), ReadyFirst::new(round_robin(&set)));
    let (mut lvs_service, mut first) = (task::spawn(lvs_service), task::spawn(first));
    assert_ready_ok!(poll_ready(&mut tower_service));
    assert_ready_ok!(poll_ready(&mut lvs_service));
    assert_ready_ok!(poll_ready(&mut first));
    changes.send(insert(&b)).expect("the discovery is polled");
    changes.send(Ok(Change::Remove("a"))).expect("the discovery is polled");
    set.remove(&"a".into()).expect("in the set");
    assert_eq!(tower_service.enter(|_, mut service| service.call(())).await.expect("ready"), "a");
    assert_eq!(lvs_service.enter(|_, mut service| service.call(())).await.expect("ready"), "b");
    // `ReadyFirst` has picked: its caller polls again before it calls.
    assert_ready_ok!(poll_ready(&mut first));
    assert_eq!(first.enter(|_, mut service| service.call(())).await.expect("ready"), "b");
}

/// With tower's balancer the first error of a `Discover` is an error of the balancer.
#[cfg(feature = "discovery")]
#[tokio::test]
async fn an_error_of_discovery_fails_no_request() {
    let (changes, list) = tokio::sync::mpsc::unbounded_channel();
    let mut tower_service = task::spawn(p2c::Balance::<_, ()>::new(ChannelDiscover(list)));
    let a = Instance::new("a");
    changes
        .send(Ok(Change::Insert("a", Constant::new(a.clone(), 0))))
        .expect("the discovery is polled");
    assert_ready_ok!(poll_ready(&mut tower_service));
    changes.send(Err("discovery failed".into())).expect("the discovery is polled");
    assert!(matches!(poll_ready(&mut tower_service), Poll::Ready(Err(_))), "though a is ready");

    let (changes, source) = lvs::discovery::channel(8).expect("a capacity");
    let set = BackendSet::new();
    tokio::spawn(lvs::discovery::Feed::replacing_targets(&set, source).run());
    let insert = lvs::discovery::MemberUpdate::Insert(Spec::new("a", a));
    changes.send(insert).await.expect("the feed runs");
    let lvs_service = Balance::new(round_robin(&set));
    assert_eq!(lvs_service.clone().oneshot(()).await.expect("a is ready"), "a");
    changes.send_error(lvs::discovery::DiscoveryError::other("discovery failed")).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
        assert_eq!(lvs_service.clone().oneshot(()).await.expect("a is ready"), "a");
    }
}

/// tower's balancer only compares loads: an instance with three times the constant load gets no
/// request.
#[tokio::test]
async fn weights_set_the_shares_of_requests() {
    let (set, instances) = set_of(["large", "small"]);
    let list =
        instances.iter().zip([1, 3]).map(|(instance, load)| Constant::new(instance.clone(), load));
    let mut tower_service =
        p2c::Balance::<_, ()>::new(ServiceList::new::<()>(list.collect::<Vec<_>>()));
    for _ in 0..400 {
        tower_service.ready().await.expect("ready").call(()).await.expect("an answer");
    }
    assert_eq!(instances.each_ref().map(Instance::calls), [400, 0]);

    set.set_weight(&"large".into(), 3).expect("in the set");
    let balancer = Balancer::new(&set, lvs::scheduler::SmoothWeightedRoundRobin::new());
    let lvs_service = Balance::new(balancer.expect("the scheduler accepts any set"));
    for _ in 0..400 {
        lvs_service.clone().oneshot(()).await.expect("an answer");
    }
    assert_eq!(instances.each_ref().map(Instance::calls), [700, 100]);
}

/// tower's balancer connects only while it is polled: the first request after a pause waits for it.
#[cfg(feature = "discovery-tower")]
#[tokio::test(start_paused = true)]
async fn connections_are_made_before_the_first_request() {
    use lvs::discovery::StaticList;
    use lvs::tower::BalanceLayer;
    use tower::Layer;
    use tower::reconnect::Reconnect;

    use crate::reconnect::Connector;

    let (tower_connector, lvs_connector) = (Connector::new(), Connector::new());
    let lazy = Constant::new(Reconnect::new(tower_connector.clone(), 1_u32), 0);
    let list = ServiceList::new::<()>(vec![lazy]);
    let mut balance = task::spawn(p2c::Balance::<_, ()>::new(list));
    let layer = BalanceLayer::new(RoundRobin::new());
    let made = layer.layer(lvs_connector.clone()).balance(StaticList::new([Spec::new("1", 1_u32)]));
    let made = made.expect("the scheduler accepts any set");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!((tower_connector.made().len(), lvs_connector.made().len()), (0, 1));
    assert_pending!(poll_ready(&mut balance));
    let mut pending = task::spawn(made.oneshot(()));
    assert_ready_ok!(pending.poll(), "at its first poll");
}

/// With tower's balancer a pending instance makes progress only while the balancer is polled.
#[tokio::test]
async fn an_idle_balancer_uses_an_instance_that_became_ready() {
    let (set, [a]) = set_of(["a"]);
    let service = Balance::new(round_robin(&set));
    a.set_readiness(Readiness::Busy);
    let mut pending = task::spawn(service.clone().oneshot(()));
    assert_pending!(pending.poll());
    drop(pending);
    a.set_readiness(Readiness::Ready);
    let mut pending = task::spawn(service.oneshot(()));
    assert_eq!(assert_ready_ok!(pending.poll()), "a", "at its first poll");
}

/// Sharing tower's balancer needs a `Buffer`, whose task must run for each request.
#[tokio::test]
async fn a_shared_balancer_needs_no_task() {
    let (set, instances) = set_of(["a"]);
    let (tower_service, _worker) = tower::buffer::Buffer::pair(tower_balance(&instances), 8);
    let mut pending = task::spawn(tower_service.clone().oneshot(()));
    assert_pending!(pending.poll());
    let mut pending = task::spawn(Balance::new(round_robin(&set)).clone().oneshot(()));
    assert_eq!(assert_ready_ok!(pending.poll()), "a", "at its first poll");
}

/// With tower's balancer, tasks share one queue; here each task has a handle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_is_shared_by_cloning() {
    let (set, instances) = set_of(["a", "b", "c"]);
    let service = Balance::new(round_robin(&set));
    let pending: Vec<_> = (0..30)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    service.clone().oneshot(()).await.expect("ready");
                }
            })
        })
        .collect();
    for pending in pending {
        pending.await.expect("no panic");
    }
    assert_eq!(
        instances.map(|instance| instance.calls()),
        [1000; 3],
        "round robin over all handles"
    );
    assert_eq!(load(&set), 0);
}

/// With tower's balancer an instance that fails fast looks fast, and attracts requests.
#[tokio::test(start_paused = true)]
async fn fast_failures_attract_no_requests() {
    let set = BackendSet::new();
    let instance = |fails: bool| {
        tower::service_fn(move |()| async move {
            if fails {
                return Err(BoxError::from("failed"));
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
    let (mut tower_service, mut failed) = (p2c::Balance::new(list), 0);
    for _ in 0..200 {
        failed += u32::from(tower_service.ready().await.expect("ready").call(()).await.is_err());
    }
    assert!(failed > 190, "{failed} of 200 requests go to the failing instance");

    for (name, fails) in [("failing", true), ("sound", false)] {
        set.insert(Spec::new(name, instance(fails))).expect("a new name");
    }
    let balancer = Balancer::new(&set, lvs::scheduler::PeakEwma::new())
        .expect("the scheduler accepts any set");
    let service = Balance::new(balancer);
    for _ in 0..200 {
        let _ = service.clone().oneshot(()).await;
    }
    let snapshot = set.snapshot();
    let outcomes = |name: &str| snapshot.find(&name.into()).expect("in the set").outcomes();
    let (failures, successes) = (outcomes("failing").failures(), outcomes("sound").ok);
    assert!(failures * 4 < successes, "{failures} failures, {successes} successes");
}
