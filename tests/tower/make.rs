//! Balancers over connections, to targets that come and go.

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

/// `Discover` is any stream of changes.
struct Said(VecDeque<Result<Change<u32, u32>, DiscoveryError>>);

impl futures_core::Stream for Said {
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
async fn connections_are_made_when_their_targets_join() {
    let connector = Connector::new();
    let service = make(&connector).balance(list([1, 2, 3])).expect("takes any set");
    sleep(Duration::from_millis(5)).await;
    let mut made = connector.made();
    made.sort_unstable();
    assert_eq!(made, [1, 2, 3], "and no request yet");
    service.oneshot(()).await.expect("connected");

    let connector = Connector::new();
    let lazy = BalanceLayer::new(PowerOfTwoChoices::new()).warm_up(false).layer(connector.clone());
    let service = lazy.balance(list([1, 2, 3])).expect("takes any set");
    sleep(Duration::from_millis(5)).await;
    assert!(connector.made().is_empty());
    service.oneshot(()).await.expect("connected");
    assert!(!connector.made().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_named_again_keeps_its_connection_and_what_is_not_drains() {
    let connector = Connector::new();
    let (sender, source) = channel(8);
    let service = make(&connector).balance(source).expect("takes any set");
    let set = service.balancer().backend_set().clone();
    let names = || -> Vec<String> {
        set.snapshot().backends().iter().map(|it| it.id().as_str().to_owned()).collect()
    };
    for _ in 0..5 {
        sender.send(MemberUpdate::All(vec![spec(1), spec(2)])).await.expect("the feed runs");
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(connector.made().len(), 2);
    sender.send(MemberUpdate::All(vec![spec(2), spec(3)])).await.expect("the feed runs");
    sleep(Duration::from_secs(1)).await;
    let mut left = names();
    left.sort_unstable();
    assert_eq!((left, connector.made().len()), (vec!["2".to_owned(), "3".to_owned()], 3));

    // The source ends; the members stay, and are connected to again.
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
    let (sender, source) = channel(8);
    let service = make(&connector).balance(source).expect("takes any set");
    let clone = service.clone().max_in_flight(3);
    drop(service);
    sender.send(MemberUpdate::All(vec![spec(1)])).await.expect("a clone is left");
    let asked = clone.oneshot(());
    sender.send(MemberUpdate::All(vec![spec(1), spec(2)])).await.expect("a request is left");
    asked.await.expect("connected");
    sleep(Duration::from_millis(1)).await;
    let sent = sender.send(MemberUpdate::All(vec![spec(3)])).await;
    assert!(matches!(sent, Err(MemberSendError::Closed(_))), "{sent:?}");
}

/// A stream that errs and repeats itself between what it has to say, and ends.
#[tokio::test(start_paused = true)]
async fn a_discover_that_errs_repeats_itself_and_ends_leaves_what_it_said() {
    let changes = vec![
        Ok(Change::Insert(1, 1)),
        Err(DiscoveryError::other("not now")),
        Ok(Change::Insert(1, 1)),
        Ok(Change::Insert(2, 2)),
        Ok(Change::Remove(9)),
        Err(DiscoveryError::other("not now either")),
        Ok(Change::Insert(2, 2)),
        Ok(Change::Insert(3, 3)),
        Ok(Change::Remove(3)),
    ];
    let connector = Connector::new();
    let service = make(&connector).oneshot(Said(changes.into())).await.expect("takes any set");
    sleep(Duration::from_secs(600)).await;
    for _ in 0..10 {
        service.clone().oneshot(()).await.expect("connected");
    }
    let set = service.balancer().backend_set();
    let mut names: Vec<_> =
        set.snapshot().backends().iter().map(|it| it.id().as_str().to_owned()).collect();
    names.sort_unstable();
    assert_eq!(names, ["1", "2"]);
    let mut made = connector.made();
    made.sort_unstable();
    made.retain(|it| *it != 3);
    assert_eq!(made, [1, 2], "one connection each, however often it is named");
}

#[tokio::test(start_paused = true)]
async fn nobody_there_answers_within_the_deadline() {
    let connector = Connector::new();
    let empty = make(&connector).balance(list([])).expect("takes any set");
    let begun = tokio::time::Instant::now();
    let error = refusal(empty.oneshot(()).await);
    assert!(matches!(error, BalanceError::NoBackend { .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(1));

    connector.fate(Fate::Never);
    let connecting = make(&connector).balance(list([1, 2])).expect("takes any set");
    let error = refusal(connecting.oneshot(()).await);
    assert!(matches!(error, BalanceError::Busy { asked: 2, .. }), "{error}");
}
