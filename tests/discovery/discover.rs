//! Members from tower's `Discover`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use lvs::discovery::DiscoverSource;
use tokio::sync::mpsc;
use tower::discover::{Change, ServiceList};

use crate::world::*;

/// A service that cannot be compared.
#[derive(Clone)]
struct Web(u32);

impl tower::Service<()> for Web {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

type ChangeResult = Result<Change<String, Web>, std::io::Error>;

/// A stream of changes, as the users of tower write them.
struct Changes(mpsc::Receiver<ChangeResult>);

impl futures_core::Stream for Changes {
    type Item = ChangeResult;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<ChangeResult>> {
        self.0.poll_recv(context)
    }
}

#[tokio::test(start_paused = true)]
async fn services_are_inserted_and_removed_and_errors_do_not_end_the_feed() {
    let (changes, receiver) = mpsc::channel(8);
    let set = BackendSet::new();
    let feed = Feed::replacing_targets(&set, DiscoverSource::new(Changes(receiver)));
    let handle = feed.handle();
    let running = tokio::spawn(feed.run());
    let send = async |change: ChangeResult| {
        changes.send(change).await.expect("the feed runs");
        sleep(MOMENT).await;
    };
    send(Ok(Change::Insert("a".into(), Web(1)))).await;
    send(Ok(Change::Insert("b".into(), Web(2)))).await;
    assert_eq!(shows(&set), ["a 1", "b 1"]);
    let before = serial(&set, "a");

    send(Err(std::io::Error::other("no"))).await;
    assert_eq!(handle.status().state, FeedState::Failing);
    assert_eq!(shows(&set), ["a 1", "b 1"]);
    sleep(Duration::from_secs(2)).await;

    send(Ok(Change::Insert("a".into(), Web(3)))).await;
    send(Ok(Change::Remove("b".into()))).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(shows(&set), ["a 1"]);
    assert_eq!(serial(&set, "a"), before, "a replaced service keeps its counters");
    assert_eq!(set.snapshot().backends()[0].target().0, 3);

    drop(changes);
    assert_eq!(running.await.expect("no panic").state, FeedState::Ended);
    assert_eq!(shows(&set), ["a 1"]);
}

#[tokio::test(start_paused = true)]
async fn the_service_list_of_tower_is_one_publication() {
    let set = BackendSet::new();
    let list = ServiceList::new::<()>((0..100).map(Web).collect::<VecDeque<_>>());
    let source = DiscoverSource::named(list, |key| format!("web-{key}").into());
    let status = Feed::replacing_targets(&set, source).run().await;
    assert_eq!((status.members, set.snapshot().generation()), (100, 2));
    assert!(set.snapshot().find(&"web-99".into()).is_some());
}
