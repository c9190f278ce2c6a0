//! How long an ejection takes, and how it ends.

use lvs::health::outlier::{EjectionAction, EjectionPhase, EjectionPolicy, EjectionReason};

use super::world::{World, ejected, millis, secs};

#[test]
fn ejections_in_a_row_take_30_60_90_to_300_seconds() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    for seconds in [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300] {
        assert_eq!(world.eject(1), secs(seconds));
        assert_eq!(world.run_to_trial(), [1]);
        let back = world.ejector.handle_trial_end(world.now, 1, true).expect("was on trial");
        assert_eq!(back.action, EjectionAction::Return);
        assert!(world.is_in(1));
    }
    assert_eq!(world.standing(1).multiplier, 10, "no more than reaches the cap");
}

#[test]
fn a_failed_trial_ejects_for_the_next_longer_time() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    world.eject(1);
    for seconds in [60, 90, 120] {
        assert_eq!(world.run_to_trial(), [1]);
        let (until, why) =
            ejected(world.ejector.handle_trial_end(world.now, 1, false).expect("was on trial"));
        assert_eq!((until - world.now, why), (secs(seconds), EjectionReason::TrialFailed));
        assert_eq!(world.ejector.poll_timeout(), Some(until));
    }
}

#[test]
fn times_are_exact_to_the_millisecond_whatever_the_base() {
    let rules =
        EjectionPolicy::new().base_ejection_time(millis(1_001)).max_ejection_time(millis(2_500));
    let mut world = World::new(rules, 3);
    for time in [1_001, 2_002, 2_500, 2_500] {
        assert_eq!(world.eject(1), millis(time));
        world.run_to_trial();
        let _ = world.ejector.handle_trial_end(world.now, 1, true);
    }
    assert_eq!(world.standing(1).multiplier, 3);
}

#[test]
fn each_healthy_sweep_takes_one_off_and_those_outside_none() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    for _ in 0..3 {
        world.eject(1);
        (0..5).for_each(|_| assert_eq!(world.sweep(), []));
        world.run_to_trial();
        (0..5).for_each(|_| assert_eq!(world.sweep(), []));
        let _ = world.ejector.handle_trial_end(world.now, 1, true);
    }
    let mut left = Vec::new();
    for _ in 0..4 {
        left.push(world.standing(1).multiplier);
        world.sweep();
    }
    assert_eq!(left, [3, 2, 1, 0]);
    assert_eq!(world.eject(1), secs(30), "all is forgiven");
}

#[test]
fn a_sweep_in_which_it_is_an_outlier_forgives_nothing() {
    let mut world = World::new(EjectionPolicy::new(), 6);
    world.eject(1);
    world.run_to_trial();
    let _ = world.ejector.handle_trial_end(world.now, 1, true);
    world.eject(6);
    // As many are out as may be.
    world.traffic(1, 0, 100);
    (2..=5).for_each(|serial| world.traffic(serial, 100, 0));
    assert_eq!(world.sweep(), []);
    assert_eq!(world.standing(1).multiplier, 1);
    assert_eq!(world.sweep(), []);
    assert_eq!(world.standing(1).multiplier, 0);
}

#[test]
fn jitter_lengthens_and_never_beyond_itself() {
    let mut world = World::new(EjectionPolicy::new().jitter(secs(5)), 3);
    let times: Vec<_> = (0..50)
        .map(|_| {
            let time = world.eject(1);
            assert!(world.ejector.release(1).is_some());
            time
        })
        .collect();
    assert!(times.iter().all(|&time| (secs(30)..=secs(35)).contains(&time)));
    assert!(times.iter().any(|&time| time < secs(31)) && times.iter().any(|&time| time > secs(34)));
}

#[test]
fn a_trial_is_offered_once_and_is_decided_by_its_own_work() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    world.eject(1);
    assert_eq!(world.ejector.handle_trial_end(world.now, 1, true), None, "is not on trial yet");
    world.run_to_trial();
    world.wait(secs(100_000));
    assert_eq!(world.ejector.handle_timeout(world.now), []);
    assert_eq!(world.ejector.poll_timeout(), None);
    assert_eq!(world.accuse(1, 50, 50), None, "what it had in its hands does not count");
    let why = EjectionReason::ConsecutiveFailures { failures: 5 };
    assert_eq!(world.standing(1).phase, EjectionPhase::OnTrial { why });
    assert!(world.ejector.handle_trial_end(world.now, 1, true).is_some());
    assert_eq!(world.ejector.handle_trial_end(world.now, 1, true), None);
}

#[test]
fn who_is_down_when_its_time_is_over_is_on_trial_all_the_same() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    world.eject(1);
    world.up(1, false);
    assert_eq!(world.run_to_trial(), [1]);
    world.up(1, true);
    assert!(world.ejector.handle_trial_end(world.now, 1, true).is_some());
}

#[test]
fn a_passing_check_ends_an_ejection_only_where_it_is_told_to() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    world.eject(1);
    assert_eq!(world.ejector.handle_check_passed(1), None);
    let mut world = World::new(EjectionPolicy::new().check_ends_ejection(true), 3);
    world.eject(1);
    assert_eq!(
        world.ejector.handle_check_passed(1).expect("was out").action,
        EjectionAction::Return
    );
    assert_eq!(world.ejector.handle_check_passed(1), None);
    assert_eq!(world.eject(1), secs(60), "the multiplier stays");
}

#[test]
fn the_operators_word_forgives_all() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    world.eject(1);
    assert_eq!(world.ejector.release(1).expect("was out").action, EjectionAction::Return);
    assert_eq!(world.ejector.release(1), None);
    assert_eq!(world.ejector.release(99), None);
    assert_eq!(world.eject(1), secs(30));
    assert_eq!(world.ejector.poll_timeout(), Some(world.now + secs(30)));
}

#[test]
fn who_left_is_forgotten() {
    let mut world = World::new(EjectionPolicy::new(), 4);
    world.eject(1);
    world.ejector.forget(1);
    assert_eq!((world.ejector.poll_timeout(), world.ejector.ejection_state(1)), (None, None));
    world.eject(2);
    world.members.remove(&2);
    world.sweep();
    assert_eq!((world.ejector.poll_timeout(), world.ejector.ejection_state(2)), (None, None));
    assert_eq!(world.ejector.counters().forgotten, 2);
}

#[test]
fn other_rules_leave_who_is_out_alone() {
    let mut world = World::new(EjectionPolicy::new(), 3);
    world.eject(1);
    let shorter = EjectionPolicy::new().base_ejection_time(secs(1)).max_ejection_time(secs(1));
    world.ejector.set_policy(shorter).expect("they make sense");
    assert_eq!(world.ejector.poll_timeout(), Some(world.now + secs(30)));
    world.run_to_trial();
    let again = ejected(world.ejector.handle_trial_end(world.now, 1, false).expect("on trial"));
    assert_eq!(again.0 - world.now, secs(1));
    assert!(world.ejector.set_policy(EjectionPolicy::new().sweep_interval(secs(0))).is_err());
}
