//! A failing source never empties the set.

use lvs::backend::MAX_WEIGHT;
use lvs::scheduler::Maglev;

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn failures_are_counted_and_change_no_member() {
    let world = World::new();
    world.all(&[("a", 1)]).await;
    let good = world.status();
    world.fail().await;
    let status = world.status();
    assert_eq!(
        (status.state, status.members, status.consecutive_failures),
        (FeedState::Failing, 1, 1)
    );
    assert_eq!(status.last_success, good.last_success);
    assert!(status.failing_since > status.last_success);
    assert_eq!(status.last_error.expect("an error").to_string(), "the registry is down");

    sleep(Duration::from_secs(2)).await;
    world.fail().await;
    assert_eq!(world.status().consecutive_failures, 2);
    assert_eq!(world.status().failing_since, status.failing_since);
    sleep(Duration::from_secs(4)).await;
    world.all(&[("a", 2)]).await;
    let status = world.status();
    assert_eq!(
        (status.state, status.consecutive_failures, status.failures),
        (FeedState::Current, 0, 2)
    );
    assert_eq!((status.failing_since, world.shows()), (None, vec!["a 2".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn stale_members_stay() {
    let longest = Duration::from_secs(60);
    let world = World::of(BackendSet::new(), |feed| feed.max_staleness(longest));
    world.all(&[("a", 1)]).await;
    world.fail().await;
    sleep(longest - Duration::from_millis(100)).await;
    assert_eq!(world.status().state, FeedState::Failing);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(world.status().state, FeedState::Stale);
    world.fail().await;
    assert_eq!(
        world.status().state,
        FeedState::Stale,
        "another failure does not end the staleness"
    );
    sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(world.shows(), ["a 1"]);
    world.all(&[("a", 1)]).await;
    assert_eq!(world.status().state, FeedState::Current);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_works_again_in_time_is_not_stale_later() {
    let longest = Duration::from_secs(60);
    let world = World::of(BackendSet::new(), |feed| feed.max_staleness(longest));
    world.all(&[("a", 1)]).await;
    world.fail().await;
    sleep(longest / 2).await;
    world.all(&[("a", 1)]).await;
    sleep(10 * longest).await;
    assert_eq!(world.status().state, FeedState::Current, "a source without updates does not fail");
}

/// A source that always fails.
struct Broken {
    calls: tokio::sync::mpsc::UnboundedSender<tokio::time::Instant>,
}

impl MemberSource<Target> for Broken {
    async fn next(&mut self) -> Option<Result<MemberUpdate<Target>, DiscoveryError>> {
        let _ = self.calls.send(tokio::time::Instant::now());
        Some(Err(DiscoveryError::other("broken")))
    }
}

#[tokio::test(start_paused = true)]
async fn the_waits_between_retries_double_up_to_a_bound() {
    let (calls, mut times) = tokio::sync::mpsc::unbounded_channel();
    let set = BackendSet::<Target>::new();
    let feed = Feed::new(&set, Broken { calls });
    let mut handle = feed.handle();
    tokio::spawn(feed.run());
    let mut last = times.recv().await.expect("a call");
    for whole in [1, 2, 4, 8, 16, 30, 30, 30] {
        let next = times.recv().await.expect("a retry");
        let wait = next - last;
        // tokio's timers have a resolution of a millisecond.
        let (least, most) =
            (Duration::from_millis(whole * 500), Duration::from_millis(whole * 1000 + 1));
        assert!((least..=most).contains(&wait), "{wait:?}, expected at most {whole} s");
        last = next;
    }
    let ready = tokio::time::timeout(LONG, handle.ready()).await;
    assert!(ready.is_err(), "the feed is not ready without an update");
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_a_failure_unless_it_is_allowed() {
    let world = World::new();
    world.all(&[]).await;
    assert_eq!((world.status().state, world.status().last_success), (FeedState::Failing, None));
    sleep(Duration::from_secs(2)).await;
    world.all(&[("a", 1)]).await;
    world.all(&[]).await;
    assert_eq!(world.shows(), ["a 1"]);
    assert!(matches!(*world.status().last_error.expect("an error"), DiscoveryError::Empty));

    let world =
        World::of(BackendSet::new(), |feed| feed.allow_empty().removal(RemovalPolicy::AtOnce));
    world.all(&[("a", 1)]).await;
    world.all(&[]).await;
    assert_eq!((world.shows().len(), world.status().state), (0, FeedState::Current));
}

#[tokio::test(start_paused = true)]
async fn the_removal_of_the_last_member_is_applied() {
    let world = World::of(BackendSet::new(), |feed| feed.removal(RemovalPolicy::AtOnce));
    world.say(MemberUpdate::Insert(member("a", 1))).await;
    world.say(MemberUpdate::Remove("a".into())).await;
    world.say(MemberUpdate::Remove("never there".into())).await;
    assert_eq!((world.shows().len(), world.status().state), (0, FeedState::Current));
}

#[tokio::test(start_paused = true)]
async fn a_list_of_which_every_member_is_refused_does_not_empty_the_set() {
    let world = World::of(BackendSet::new(), |feed| feed.removal(RemovalPolicy::AtOnce));
    world.all(&[("a", 1), ("b", 1)]).await;
    world.all(&[("c", MAX_WEIGHT + 1), ("d", MAX_WEIGHT + 1)]).await;
    assert_eq!(world.shows(), ["a 1", "b 1"]);
    let status = world.status();
    assert_eq!((status.state, status.members), (FeedState::Failing, 2));
    let error = status.last_error.expect("an error");
    assert!(matches!(&*error, DiscoveryError::Refused { .. }), "{error:?}");
    world.all(&[("c", 1)]).await;
    assert_eq!((world.shows(), world.status().state), (vec!["c 1".into()], FeedState::Current));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_a_scheduler_cannot_use_changes_nothing_and_is_tried_again() {
    let world = World::new();
    world.all(&[("a", 1)]).await;
    let table = Maglev::default().size(2).expect("a prime");
    let balancer = Balancer::new(&world.set, table).expect("one member fits");
    world.all(&[("b", 1), ("c", 1), ("d", 1)]).await;
    assert_eq!(world.shows(), ["a 1"], "no member drains either");
    assert_eq!((world.status().state, world.status().failures), (FeedState::Failing, 1));

    drop(balancer);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.shows(), ["b 1", "c 1", "d 1"]);
    assert_eq!((world.status().state, world.status().members), (FeedState::Current, 3));
}
