//! Removed members drain first, as the policy sets.

use crate::world::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn world() -> World {
    World::of(BackendSet::new(), |feed| feed.removal(RemovalPolicy::Drain { deadline: DEADLINE }))
}

#[tokio::test(start_paused = true)]
async fn a_removed_member_drains_and_is_then_removed() {
    let world = world();
    world.all(&[("a", 1), ("b", 1)]).await;
    let leases = occupy(&world.set);
    world.all(&[("b", 1)]).await;
    sleep(DEADLINE / 2).await;
    assert_eq!(world.shows(), ["a 1 draining", "b 1"]);
    assert_eq!((world.status().members, world.status().draining), (1, 1));
    let later = occupy(&world.set);
    assert!(
        later.iter().all(|lease| *lease.target() == "b"),
        "a draining member gets no new connections"
    );

    drop(leases);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(world.shows(), ["b 1"]);
    assert_eq!(world.status().draining, 0);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_member_is_removed_and_its_connections_go_on() {
    let world = world();
    world.all(&[("a", 1), ("b", 1)]).await;
    let leases = occupy(&world.set);
    world.all(&[("b", 1)]).await;
    sleep(DEADLINE - Duration::from_millis(200)).await;
    assert_eq!(world.shows(), ["a 1 draining", "b 1"]);
    sleep(Duration::from_millis(400)).await;
    assert_eq!(world.shows(), ["b 1"]);
    let kept = leases.iter().find(|lease| *lease.target() == "a").expect("one on each");
    assert_eq!(kept.backend().load().active, 1, "the lease is still counted");
}

#[tokio::test(start_paused = true)]
async fn updates_do_not_prolong_the_drain() {
    let world = world();
    world.all(&[("a", 1), ("b", 1)]).await;
    let _leases = occupy(&world.set);
    world.all(&[("b", 1)]).await;
    for weight in 2..(DEADLINE.as_millis() / 50) as u32 + 10 {
        world.all(&[("b", weight)]).await;
        sleep(Duration::from_millis(45)).await;
    }
    assert_eq!(world.status().draining, 0);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_listed_again_while_it_drains_keeps_its_counters() {
    let world = world();
    world.all(&[("a", 1), ("b", 1)]).await;
    let leases = occupy(&world.set);
    let before = serial(&world.set, "a");
    world.all(&[("b", 1)]).await;
    world.all(&[("a", 2), ("b", 1)]).await;
    assert_eq!(world.shows(), ["a 2", "b 1"]);
    assert_eq!(serial(&world.set, "a"), before);
    let snapshot = world.set.snapshot();
    assert_eq!(snapshot.find(&"a".into()).expect("a member").load().active, 1);
    // The member is not removed at the old deadline, nor without connections.
    drop(leases);
    sleep(2 * DEADLINE).await;
    assert_eq!(world.shows(), ["a 2", "b 1"]);
}

#[tokio::test(start_paused = true)]
async fn states_set_by_an_operator_before_and_during_the_drain_stay() {
    let world = world();
    world.all(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]).await;
    let _leases = occupy(&world.set);
    world.set.disable(&"a".into()).expect("a member");
    world.set.drain(&"b".into()).expect("a member");
    world.all(&[("d", 1)]).await;
    assert_eq!(world.shows(), ["a 1 disabled", "b 1 draining", "c 1 draining", "d 1"]);
    world.set.disable(&"c".into()).expect("a member");
    world.all(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]).await;
    assert_eq!(world.shows(), ["a 1 disabled", "b 1 draining", "c 1 disabled", "d 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_remove_a_draining_member() {
    let world = world();
    world.all(&[("a", 1), ("b", 1)]).await;
    let _leases = occupy(&world.set);
    world.all(&[("b", 1)]).await;
    world.set.remove(&"a".into()).expect("still there");
    world.set.insert(member("a", 9)).expect("the name is free");
    sleep(2 * DEADLINE).await;
    assert_eq!(
        world.shows(),
        ["a 9", "b 1"],
        "the feed does not remove another member of the same name"
    );
    assert_eq!(world.status().draining, 0);
}

#[tokio::test(start_paused = true)]
async fn the_policy_at_once_does_not_drain() {
    let world = World::of(BackendSet::new(), |feed| feed.removal(RemovalPolicy::AtOnce));
    world.all(&[("a", 1), ("b", 1)]).await;
    let _leases = occupy(&world.set);
    world.all(&[("b", 1)]).await;
    assert_eq!(world.shows(), ["b 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_a_deadline_does_not_end_by_time() {
    let drain = RemovalPolicy::Drain { deadline: Duration::MAX };
    let world = World::of(BackendSet::new(), |feed| feed.removal(drain));
    world.all(&[("a", 1), ("b", 1)]).await;
    let _leases = occupy(&world.set);
    world.all(&[("b", 1)]).await;
    sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(world.shows(), ["a 1 draining", "b 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_feed_whose_source_has_ended_completes_the_drain() {
    let set = BackendSet::new();
    let (members, source) = channel(8).expect("a capacity");
    let running = tokio::spawn(Feed::new(&set, source).run());
    members
        .send(MemberUpdate::All(vec![member("a", 1), member("b", 1)]))
        .await
        .expect("the feed runs");
    sleep(MOMENT).await;
    let leases = occupy(&set);
    members.send(MemberUpdate::Remove("a".into())).await.expect("the feed runs");
    drop(members);
    sleep(Duration::from_secs(5)).await;
    assert!(!running.is_finished());
    drop(leases);
    let status = running.await.expect("no panic");
    assert_eq!((status.state, status.members, status.draining), (FeedState::Ended, 1, 0));
    assert_eq!(shows(&set), ["b 1"]);
}
