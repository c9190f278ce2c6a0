//! How many are out at once, and who of many.

use lvs::health::outlier::{EjectionPolicy, EjectionReasonKind, LatencyDetector};

use super::world::{World, millis};

/// How many of the members go out when all of them fail.
fn out_of(rules: EjectionPolicy, members: u64) -> usize {
    let mut world = World::new(rules, members);
    (1..=members).filter(|&serial| world.accuse(serial, 5, 5).is_some()).count()
}

#[test]
fn a_tenth_is_out_one_at_least_and_never_the_last() {
    let cases = [(1, 0), (2, 1), (3, 1), (10, 1), (19, 1), (20, 2), (99, 9), (100, 10)];
    for (members, out) in cases {
        assert_eq!(out_of(EjectionPolicy::new(), members), out, "of {members}");
    }
}

#[test]
fn other_shares_keep_the_one_and_the_last_as_well() {
    for (percent, members, out) in
        [(0, 100, 1), (50, 3, 1), (50, 4, 2), (100, 1, 0), (100, 2, 1), (100, 100, 99)]
    {
        let rules = EjectionPolicy::new().max_ejected_percent(percent);
        assert_eq!(out_of(rules, members), out, "{percent} % of {members}");
    }
}

#[test]
fn who_cannot_serve_counts_neither_as_member_nor_as_out() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    world.up(2, false);
    world.up(3, false);
    assert_eq!(world.accuse(1, 5, 0), None, "the last that is left");
    world.up(2, true);
    assert!(world.accuse(1, 5, 0).is_some());
    world.up(3, true);
    assert_eq!(world.accuse(2, 5, 0), None, "one of three is out");
    world.up(1, false);
    assert!(world.accuse(2, 5, 0).is_some(), "the first is down by its checks as well");
}

#[test]
fn who_is_on_trial_counts_as_out() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    world.eject(1);
    world.run_to_trial();
    assert_eq!(world.accuse(2, 5, 0), None);
    assert_eq!(world.ejector.counters().refused(EjectionReasonKind::ConsecutiveFailures), 1);
    let _ = world.ejector.handle_trial_end(world.now, 1, true);
    assert!(world.accuse(2, 5, 0).is_some());
}

#[test]
fn a_trial_fails_whatever_the_cap_has_become() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    world.eject(1);
    world.run_to_trial();
    world.up(2, false);
    world.up(3, false);
    assert!(world.ejector.handle_trial_end(world.now, 1, false).is_some());
}

#[test]
fn the_worst_go_first() {
    let rules =
        EjectionPolicy::new().latency(Some(LatencyDetector::new(4.0))).max_ejected_percent(50);
    let mut world = World::new(rules, 12);
    for serial in 1..=12 {
        world.latency(serial, millis(20));
        world.traffic(serial, 1000, 0);
    }
    world.latency(1, millis(200));
    world.latency(2, millis(300));
    world.traffic(3, 0, 9000);
    world.traffic(4, 0, 10_000_000);
    world.traffic(5, 0, 9000);
    world.traffic(5, 1000, 9000);
    world.traffic(6, 0, 9000);
    let order: Vec<u64> = world.sweep().iter().map(|decision| decision.serial).collect();
    // The share of failures, then their number, then the serial; then who is slow.
    assert_eq!(order, [4, 5, 3, 6, 2, 1]);
}

#[test]
fn beyond_the_cap_the_worst_are_out_and_the_others_counted() {
    let mut world = World::new(EjectionPolicy::new(), 20);
    for serial in 1..=20 {
        world.traffic(serial, if serial <= 4 { 100 - 2 * serial } else { 1000 }, 0);
        world.traffic(serial, 0, if serial <= 4 { 900 + 2 * serial } else { 0 });
    }
    let order: Vec<u64> = world.sweep().iter().map(|decision| decision.serial).collect();
    assert_eq!(order, [4, 3]);
    let counters = world.ejector.counters();
    assert_eq!(counters.ejected(EjectionReasonKind::FailurePercentage), 2);
    assert_eq!(counters.refused(EjectionReasonKind::FailurePercentage), 2);
    assert_eq!((counters.currently_ejected, counters.new_ejections()), (2, 2));
}
