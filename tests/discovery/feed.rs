//! How updates change the set, and which members a feed changes.

use std::sync::Arc;
use std::time::Duration;

use lvs::Limits;
use lvs::backend::{MAX_WEIGHT, Zone};
use lvs::discovery::{FileSource, MemberSendError, StaticList};

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn an_update_is_one_publication_and_an_equal_update_is_none() {
    let world = World::new();
    let before = world.set.snapshot().generation();
    world.all(&[("a", 1), ("b", 2), ("c", 3)]).await;
    assert_eq!(world.shows(), ["a 1", "b 2", "c 3"]);
    assert_eq!(world.set.snapshot().generation(), before + 1);
    world.all(&[("c", 3), ("b", 2), ("a", 1)]).await;
    assert_eq!(world.set.snapshot().generation(), before + 1);
    let status = world.status();
    assert_eq!((status.state, status.answers, status.members), (FeedState::Current, 2, 3));
    world.all(&[("b", 5), ("c", 3), ("d", 1)]).await;
    assert_eq!(
        world.set.snapshot().generation(),
        before + 2,
        "removed, new and changed members in one publication"
    );
    assert_eq!(world.shows(), ["a 1 draining", "b 5", "c 3", "d 1"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_member_of_the_list_is_the_first_of_the_set_as_with_ipvsadm() {
    let world = World::new();
    world.all(&[("b", 1), ("c", 1), ("a", 1)]).await;
    let order: Vec<String> =
        world.set.snapshot().members().iter().map(|m| m.id().to_string()).collect();
    assert_eq!(order, ["a", "c", "b"]);
}

#[tokio::test(start_paused = true)]
async fn queued_updates_are_one_publication() {
    let set = BackendSet::new();
    let (members, source) = channel(64).expect("a capacity");
    for name in ["a", "b", "c", "d"] {
        members.send(MemberUpdate::Insert(member(name, 1))).await.expect("room");
    }
    members.send(MemberUpdate::Remove("b".into())).await.expect("room");
    let feed = Feed::new(&set, source);
    let handle = feed.handle();
    tokio::spawn(feed.run());
    sleep(MOMENT).await;
    assert_eq!(
        (shows(&set), set.snapshot().generation()),
        (vec!["a 1".into(), "c 1".into(), "d 1".into()], 2)
    );
    assert_eq!(handle.status().answers, 5);
}

#[tokio::test(start_paused = true)]
async fn attributes_change_in_place_and_counters_stay() {
    let world = World::new();
    world.all(&[("a", 1)]).await;
    let leases = occupy(&world.set);
    let before = serial(&world.set, "a");
    let zone = Zone::new("eu-1a").expect("a name");
    let changed = Spec::new("a", "elsewhere").weight(7).tier(2).limits(Limits::new(9)).zone(zone);
    world.say(MemberUpdate::Insert(changed)).await;

    let snapshot = world.set.snapshot();
    let (backend, member) = snapshot.iter().next().expect("one member");
    assert_eq!((*backend.target(), backend.load().active), ("elsewhere", 1));
    assert_eq!((member.weight(), member.tier(), member.limits()), (7, 2, Limits::new(9)));
    assert_eq!(member.zone(), Some(zone));
    assert_eq!(member.serial(), before);
    assert_eq!(*leases[0].target(), "a", "an earlier lease keeps its target");
}

#[tokio::test(start_paused = true)]
async fn the_operators_weight_stays_until_the_source_reports_another() {
    let world = World::new();
    world.all(&[("a", 1), ("b", 1)]).await;
    world.set.set_weight(&"a".into(), 0).expect("a member");
    world.set.disable(&"b".into()).expect("a member");
    world.all(&[("a", 1), ("b", 1)]).await;
    assert_eq!(world.shows(), ["a 0 quiesced", "b 1 disabled"]);
    world.all(&[("a", 4), ("b", 4)]).await;
    assert_eq!(world.shows(), ["a 4", "b 4 disabled"], "the source does not change the state");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_an_operator_removes_stays_removed_until_the_source_reports_a_change() {
    let world = World::new();
    world.all(&[("a", 1), ("b", 1)]).await;
    world.set.remove(&"a".into()).expect("a member");
    world.all(&[("a", 1), ("b", 1)]).await;
    assert_eq!(world.shows(), ["b 1"]);
    world.all(&[("a", 2), ("b", 1)]).await;
    assert_eq!(world.shows(), ["a 2", "b 1"], "another weight is a change");
    world.set.remove(&"a".into()).expect("a member");
    world.all(&[("b", 1)]).await;
    world.all(&[("a", 2), ("b", 1)]).await;
    assert_eq!(world.shows(), ["a 2", "b 1"], "a member that is listed again is a change");
    assert_eq!(world.status().members, 2);
}

#[tokio::test(start_paused = true)]
async fn members_of_others_stay_and_their_names_are_refused() {
    let world = World::new();
    world.set.insert(member("mine", 9)).expect("a new name");
    world.set.insert(member("a", 9)).expect("a new name");
    world.all(&[("a", 1), ("b", 1)]).await;
    assert_eq!(world.shows(), ["a 9", "b 1", "mine 9"]);
    let status = world.status();
    assert_eq!((status.refused, status.members), (1, 1));
    assert_eq!(status.refusals[0].error.to_string(), "backend a is already in the set");

    world.all(&[("b", 1)]).await;
    assert_eq!(world.shows(), ["a 9", "b 1", "mine 9"], "members of others do not drain");
    assert_eq!(world.status().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_member_is_tried_again_without_an_update() {
    let world = World::new();
    world.set.insert(member("a", 9)).expect("a new name");
    world.all(&[("a", 1), ("b", 1)]).await;
    world.set.remove(&"a".into()).expect("a member");
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.shows(), ["a 1", "b 1"]);
    assert_eq!((world.status().refused, world.status().refusals.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn refused_members_are_left_out_and_the_others_are_inserted() {
    let world = World::new();
    world.all(&[("a", 1), ("b", MAX_WEIGHT + 1), ("c", 1), ("a", 2)]).await;
    assert_eq!(world.shows(), ["a 1", "c 1"], "of two entries of a member the first counts");
    let errors: Vec<String> =
        world.status().refusals.iter().map(|refusal| refusal.error.to_string()).collect();
    let heavy = "backend b: weight is 65536, must be from 0 to 65535";
    assert_eq!(errors, [heavy, "backend a is already in the set"]);

    world.all(&[("a", MAX_WEIGHT + 1), ("c", 5)]).await;
    assert_eq!(world.shows(), ["a 1", "c 5"], "a refused change leaves the member as it is");
    assert_eq!((world.status().state, world.status().refused), (FeedState::Current, 1));
}

#[tokio::test(start_paused = true)]
async fn thousands_of_refusals_are_counted_and_some_are_listed() {
    let set = BackendSet::new();
    let bad = (0..5000).map(|n| Spec::new(n.to_string(), "x").weight(MAX_WEIGHT + 1));
    let list = StaticList::new(bad.chain([member("good", 1)]));
    let status = Feed::new(&set, list).run().await;
    assert_eq!((status.refused, status.refusals.len(), status.members), (5000, 16, 1));
}

#[tokio::test(start_paused = true)]
async fn when_the_source_ends_the_members_stay() {
    let set = BackendSet::new();
    let list = StaticList::new([member("a", 1), member("b", 1)]);
    let feed = Feed::new(&set, list);
    let mut handle = feed.handle();
    let status = feed.run().await;
    assert_eq!((status.state, status.members), (FeedState::Ended, 2));
    assert_eq!(shows(&set), ["a 1", "b 1"]);
    assert!(handle.ready().await.is_some(), "the handle stays valid after the feed");
    assert_eq!(handle.status().state, FeedState::Ended);
}

#[tokio::test(start_paused = true)]
async fn two_feeds_share_a_set() {
    let world = World::new();
    let other = World::of(world.set.clone(), |feed| feed.removal(RemovalPolicy::AtOnce));
    world.all(&[("a", 1)]).await;
    other.all(&[("b", 1), ("c", 1)]).await;
    world.all(&[("a", 3)]).await;
    other.all(&[("c", 2)]).await;
    assert_eq!(world.shows(), ["a 3", "c 2"]);
    // A name moves from one to the other.
    world.all(&[("a", 3), ("c", 5)]).await;
    assert_eq!(world.status().refused, 1);
    other.all(&[("d", 1)]).await;
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.shows(), ["a 3", "c 5", "d 1"]);
}

#[tokio::test(start_paused = true)]
async fn full_and_closed_channels_return_the_update() {
    let (members, source) = channel::<Target>(1).expect("a capacity");
    members.try_send(MemberUpdate::Remove("a".into())).expect("room for one");
    let full = members.try_send(MemberUpdate::Remove("b".into()));
    assert!(
        matches!(full, Err(MemberSendError::Full(MemberUpdate::Remove(id))) if id.as_str() == "b")
    );
    drop(source);
    let closed = members.send(MemberUpdate::Insert(member("c", 1))).await;
    assert!(matches!(closed, Err(MemberSendError::Closed(MemberUpdate::Insert(_)))));
    assert!(matches!(members.try_send(MemberUpdate::All(vec![])), Err(MemberSendError::Closed(_))));
    let _ = channel::<Target>(usize::MAX).expect("no bound");
    let error = channel::<Target>(0).map(drop).expect_err("no room");
    assert_eq!(error.to_string(), "capacity is 0, must be at least 1");
}

#[tokio::test(start_paused = true)]
async fn a_source_is_mapped_to_members_of_another_kind() {
    let set: BackendSet<Arc<str>> = BackendSet::new();
    let source = StaticList::new([member("a", 3)])
        .map(|spec| spec.limits(Limits::new(5)).health(lvs::Health::Down).map(Arc::from));
    assert_eq!(MemberSource::<Arc<str>>::name(&source), "static");
    Feed::new(&set, source).run().await;
    assert_eq!(shows(&set), ["a 3 down"]);
    assert_eq!(set.snapshot().members()[0].limits(), Limits::new(5));
}

#[test]
fn waits_out_of_order_are_refused() {
    let ms = Duration::from_millis;
    let feed = Feed::new(&BackendSet::new(), StaticList::new([member("a", 1)]));
    let error = feed.retry(ms(2), ms(1)).expect_err("out of order");
    assert_eq!(error.to_string(), "retry.longest is 1ms, must be at least 2ms");
    let error = FileSource::new("members").interval(ms(99)).expect_err("too short");
    assert_eq!(error.to_string(), "interval is 99ms, must be at least 100ms");
}

#[test]
fn a_runtime_without_time_is_refused_at_the_start() {
    let set = lvs::BackendSet::<std::net::SocketAddr>::new();
    let list: StaticList<std::net::SocketAddr> = "10.0.0.1:80".parse().expect("a list");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let status = runtime.block_on(lvs::discovery::Feed::new(&set, list).run());
    assert_eq!(status.state, FeedState::Ended);
    let error = status.last_error.expect("an error").to_string();
    let expected = "a discovery feed needs a tokio runtime with time";
    assert!(error.starts_with(expected), "{error}");
    assert!(set.snapshot().members().is_empty());
}

#[tokio::test(start_paused = true)]
async fn targets_are_made_only_for_what_is_new() {
    let (members, source) = lvs::discovery::channel(64).expect("a capacity");
    let (made, set) = (Arc::new(std::sync::Mutex::new(Vec::new())), BackendSet::<String>::new());
    let making = Arc::clone(&made);
    // As a client is made of an address; a `String` is no `&str`.
    let feed = Feed::making_targets(&set, source, move |target: &Target| {
        making.lock().expect("no panic").push(*target);
        format!("client of {target}")
    });
    tokio::spawn(feed.run());
    let say = async |list: Vec<Spec<Target>>| {
        members.send(MemberUpdate::All(list)).await.expect("the feed runs");
        sleep(MOMENT).await;
        std::mem::take(&mut *made.lock().expect("no panic"))
    };
    assert_eq!(say(vec![member("a", 1), member("b", 1)]).await, ["a", "b"]);
    let (generation, before) = (set.snapshot().generation(), set.snapshot());
    for _ in 0..10 {
        assert!(say(vec![member("b", 1), member("a", 1)]).await.is_empty(), "nothing has changed");
    }
    assert_eq!(set.snapshot().generation(), generation);
    assert!(say(vec![member("a", 5), member("b", 1)]).await.is_empty(), "a weight is no target");
    let list = vec![Spec::new("a", "c"), member("b", 1), member("d", 1)];
    assert_eq!(say(list).await, ["c", "d"]);
    let now = set.snapshot();
    let target = |name: &str| now.find(&name.into()).expect("a member").target().clone();
    assert_eq!(["a", "b", "d"].map(target), ["client of c", "client of b", "client of d"]);
    let b = |snapshot: &lvs::backend::Snapshot<String>| snapshot.find(&"b".into()).cloned();
    assert!(Arc::ptr_eq(&b(&before).expect("a member"), &b(&now).expect("a member")));
}
