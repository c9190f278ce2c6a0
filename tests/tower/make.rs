//! `MakeBalance`: balancers over connections to discovered targets.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lvs::discovery::{DiscoveryError, MemberSendError, MemberUpdate, StaticList, channel};
use lvs::scheduler::PowerOfTwoChoices;
use lvs::tower::{BalanceLayer, MakeBalance};
use tokio::time::sleep;
use tower::Layer;
use tower::discover::Change;

use crate::reconnect::{Connector, Fate};
use crate::world::*;

/// A stream of the given changes, which is a `Discover`.
struct ScriptedDiscover(VecDeque<Result<Change<u32, u32>, DiscoveryError>>);

impl futures_core::Stream for ScriptedDiscover {
    type Item = Result<Change<u32, u32>, DiscoveryError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop_front())
    }
}

fn make(connector: &Connector) -> MakeBalance<Connector> {
    BalanceLayer::new(PowerOfTwoChoices::new()).layer(connector.clone())
}

fn list(targets: impl IntoIterator<Item = u32>) -> StaticList<u32> {
    StaticList::new(targets.into_iter().map(spec))
}

fn spec(target: u32) -> Spec<u32> {
    Spec::new(target.to_string().as_str(), target)
}

#[tokio::test(start_paused = true)]
async fn connections_are_made_when_their_targets_become_members() {
    let connector = Connector::new();
    let service = make(&connector).balance(list([1, 2, 3])).expect("the scheduler accepts any set");
    sleep(Duration::from_millis(5)).await;
    let mut made = connector.made();
    made.sort_unstable();
    assert_eq!(made, [1, 2, 3], "before the first request");
    service.oneshot(()).await.expect("connected");

    let connector = Connector::new();
    let lazy = BalanceLayer::new(PowerOfTwoChoices::new()).warm_up(false).layer(connector.clone());
    let service = lazy.balance(list([1, 2, 3])).expect("the scheduler accepts any set");
    sleep(Duration::from_millis(5)).await;
    assert!(connector.made().is_empty());
    service.oneshot(()).await.expect("connected");
    assert!(!connector.made().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_target_named_again_keeps_its_connection_and_others_drain() {
    let connector = Connector::new();
    let (sender, source) = channel(8).expect("a capacity");
    let service = make(&connector).balance(source).expect("the scheduler accepts any set");
    let set = service.balancer().backend_set().clone();
    let names = || -> Vec<String> {
        set.snapshot().backends().iter().map(|backend| backend.id().as_str().to_owned()).collect()
    };
    for _ in 0..5 {
        sender.send(MemberUpdate::All(vec![spec(1), spec(2)])).await.expect("the feed runs");
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(connector.made().len(), 2);
    sender.send(MemberUpdate::All(vec![spec(2), spec(3)])).await.expect("the feed runs");
    sleep(Duration::from_secs(1)).await;
    let mut remaining = names();
    remaining.sort_unstable();
    assert_eq!((remaining, connector.made().len()), (vec!["2".to_owned(), "3".to_owned()], 3));

    // The source ends; the members stay, and their connections are made again.
    drop(sender);
    sleep(Duration::from_secs(60)).await;
    connector.cut();
    for _ in 0..20 {
        service.clone().oneshot(()).await.expect("connected");
    }
    assert_eq!((names().len(), load(&set)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_feed_ends_with_the_balancer_and_its_requests() {
    let connector = Connector::new();
    let (sender, source) = channel(8).expect("a capacity");
    let service = make(&connector).balance(source).expect("the scheduler accepts any set");
    let clone = service.clone().max_in_flight(3).expect("not 0");
    drop(service);
    sender.send(MemberUpdate::All(vec![spec(1)])).await.expect("a clone is left");
    let asked = clone.oneshot(());
    sender.send(MemberUpdate::All(vec![spec(1), spec(2)])).await.expect("a request is left");
    asked.await.expect("connected");
    sleep(Duration::from_millis(1)).await;
    let sent = sender.send(MemberUpdate::All(vec![spec(3)])).await;
    assert!(matches!(sent, Err(MemberSendError::Closed(_))), "{sent:?}");
}

/// A stream with errors and repeated changes, which ends.
#[tokio::test(start_paused = true)]
async fn errors_repeats_and_the_end_of_a_discover_leave_the_members() {
    let changes = vec![
        Ok(Change::Insert(1, 1)),
        Err(DiscoveryError::other("first failure")),
        Ok(Change::Insert(1, 1)),
        Ok(Change::Insert(2, 2)),
        Ok(Change::Remove(9)),
        Err(DiscoveryError::other("second failure")),
        Ok(Change::Insert(2, 2)),
        Ok(Change::Insert(3, 3)),
        Ok(Change::Remove(3)),
    ];
    let connector = Connector::new();
    let service = make(&connector)
        .oneshot(ScriptedDiscover(changes.into()))
        .await
        .expect("the scheduler accepts any set");
    sleep(Duration::from_secs(600)).await;
    for _ in 0..10 {
        service.clone().oneshot(()).await.expect("connected");
    }
    let set = service.balancer().backend_set();
    let mut names: Vec<_> =
        set.snapshot().backends().iter().map(|backend| backend.id().as_str().to_owned()).collect();
    names.sort_unstable();
    assert_eq!(names, ["1", "2"]);
    let mut made = connector.made();
    made.sort_unstable();
    made.retain(|target| *target != 3);
    assert_eq!(made, [1, 2], "one connection for each target");
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_ready_connection_fail_after_the_wait_timeout() {
    let connector = Connector::new();
    let empty = make(&connector).balance(list([])).expect("the scheduler accepts any set");
    let begun = tokio::time::Instant::now();
    let error = balance_error(empty.oneshot(()).await);
    assert!(matches!(error, BalanceError::NoBackend { .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(1));

    connector.set_fate(Fate::Never);
    let connecting = make(&connector).balance(list([1, 2])).expect("the scheduler accepts any set");
    let error = balance_error(connecting.oneshot(()).await);
    assert!(matches!(error, BalanceError::Busy { asked: 2, .. }), "{error}");
}
