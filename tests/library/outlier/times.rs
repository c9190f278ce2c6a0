//! The time of an ejection, and its end.

use lvs::health::EjectionPolicy;
use lvs::health::outlier::{EjectionAction, EjectionPhase, EjectionReason};

use super::test_bed::{EjectorTestBed, build, ejected, millis, secs};

#[test]
fn ejections_in_a_row_last_30_60_90_up_to_300_seconds() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    for seconds in [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300] {
        assert_eq!(bed.eject(1), secs(seconds));
        assert_eq!(bed.run_until_trial(), [1]);
        let decision =
            bed.ejector.handle_trial_end(bed.now, 1, true).expect("the member is on trial");
        assert_eq!(decision.action, EjectionAction::Return);
        assert!(bed.is_not_ejected(1));
    }
    assert_eq!(bed.state(1).multiplier, 10, "the multiplier that reaches the maximum time");
}

#[test]
fn a_failed_trial_ejects_for_the_next_longer_time() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    bed.eject(1);
    for seconds in [60, 90, 120] {
        assert_eq!(bed.run_until_trial(), [1]);
        let (until, reason) = ejected(
            bed.ejector.handle_trial_end(bed.now, 1, false).expect("the member is on trial"),
        );
        assert_eq!((until - bed.now, reason), (secs(seconds), EjectionReason::TrialFailed));
        assert_eq!(bed.ejector.poll_timeout(), Some(until));
    }
}

#[test]
fn times_are_exact_to_the_millisecond() {
    let policy = EjectionPolicy::builder()
        .base_ejection_time(millis(1_001))
        .max_ejection_time(millis(2_500));
    let policy = build(policy);
    let mut bed = EjectorTestBed::new(policy, 3);
    for time in [1_001, 2_002, 2_500, 2_500] {
        assert_eq!(bed.eject(1), millis(time));
        bed.run_until_trial();
        let _ = bed.ejector.handle_trial_end(bed.now, 1, true);
    }
    assert_eq!(bed.state(1).multiplier, 3);
}

#[test]
fn healthy_sweeps_lower_the_multiplier_and_sweeps_while_ejected_do_not() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    for _ in 0..3 {
        bed.eject(1);
        (0..5).for_each(|_| assert_eq!(bed.sweep(), []));
        bed.run_until_trial();
        (0..5).for_each(|_| assert_eq!(bed.sweep(), []));
        let _ = bed.ejector.handle_trial_end(bed.now, 1, true);
    }
    let mut multipliers = Vec::new();
    for _ in 0..4 {
        multipliers.push(bed.state(1).multiplier);
        bed.sweep();
    }
    assert_eq!(multipliers, [3, 2, 1, 0]);
    assert_eq!(bed.eject(1), secs(30), "the multiplier is 0");
}

#[test]
fn sweep_with_the_member_as_outlier_keeps_its_multiplier() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 6);
    bed.eject(1);
    bed.run_until_trial();
    let _ = bed.ejector.handle_trial_end(bed.now, 1, true);
    bed.eject(6);
    // The limit on ejected members is reached.
    bed.add_traffic(1, 0, 100);
    (2..=5).for_each(|serial| bed.add_traffic(serial, 100, 0));
    assert_eq!(bed.sweep(), []);
    assert_eq!(bed.state(1).multiplier, 1);
    assert_eq!(bed.sweep(), []);
    assert_eq!(bed.state(1).multiplier, 0);
}

#[test]
fn jitter_lengthens_ejections_by_at_most_itself() {
    let mut bed = EjectorTestBed::new(build(EjectionPolicy::builder().jitter(secs(5))), 3);
    let times: Vec<_> = (0..50)
        .map(|_| {
            let time = bed.eject(1);
            assert!(bed.ejector.release(1).is_some());
            time
        })
        .collect();
    assert!(times.iter().all(|&time| (secs(30)..=secs(35)).contains(&time)));
    assert!(times.iter().any(|&time| time < secs(31)) && times.iter().any(|&time| time > secs(34)));
}

#[test]
fn trial_starts_once_and_ends_by_its_own_lease() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    bed.eject(1);
    assert_eq!(
        bed.ejector.handle_trial_end(bed.now, 1, true),
        None,
        "the member is not on trial yet"
    );
    bed.run_until_trial();
    bed.advance(secs(100_000));
    assert_eq!(bed.ejector.handle_timeout(bed.now), []);
    assert_eq!(bed.ejector.poll_timeout(), None);
    assert_eq!(bed.report_streak(1, 50, 50), None, "failures of earlier leases do not count");
    let reason = EjectionReason::ConsecutiveFailures { failures: 5 };
    assert_eq!(bed.state(1).phase, EjectionPhase::OnTrial { reason });
    assert!(bed.ejector.handle_trial_end(bed.now, 1, true).is_some());
    assert_eq!(bed.ejector.handle_trial_end(bed.now, 1, true), None);
}

#[test]
fn trial_of_a_member_that_is_down_starts_too() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    bed.eject(1);
    bed.set_up(1, false);
    assert_eq!(bed.run_until_trial(), [1]);
    bed.set_up(1, true);
    assert!(bed.ejector.handle_trial_end(bed.now, 1, true).is_some());
}

#[test]
fn passed_check_ends_an_ejection_only_if_configured() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    bed.eject(1);
    assert_eq!(bed.ejector.handle_check_passed(1), None);
    let mut bed =
        EjectorTestBed::new(build(EjectionPolicy::builder().check_ends_ejection(true)), 3);
    bed.eject(1);
    assert_eq!(
        bed.ejector.handle_check_passed(1).expect("the member is ejected").action,
        EjectionAction::Return
    );
    assert_eq!(bed.ejector.handle_check_passed(1), None);
    assert_eq!(bed.eject(1), secs(60), "the multiplier stays");
}

#[test]
fn release_ends_an_ejection_and_resets_the_multiplier() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    bed.eject(1);
    assert_eq!(
        bed.ejector.release(1).expect("the member is ejected").action,
        EjectionAction::Return
    );
    assert_eq!(bed.ejector.release(1), None);
    assert_eq!(bed.ejector.release(99), None);
    assert_eq!(bed.eject(1), secs(30));
    assert_eq!(bed.ejector.poll_timeout(), Some(bed.now + secs(30)));
}

#[test]
fn removed_members_are_forgotten() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 4);
    bed.eject(1);
    bed.ejector.forget(1);
    assert_eq!((bed.ejector.poll_timeout(), bed.ejector.ejection_state(1)), (None, None));
    bed.eject(2);
    bed.members.remove(&2);
    bed.sweep();
    assert_eq!((bed.ejector.poll_timeout(), bed.ejector.ejection_state(2)), (None, None));
    assert_eq!(bed.ejector.counters().forgotten, 2);
}

#[test]
fn new_policy_keeps_the_current_ejections() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    bed.eject(1);
    let shorter = EjectionPolicy::builder().base_ejection_time(secs(1)).max_ejection_time(secs(1));
    bed.ejector.set_policy(build(shorter));
    assert_eq!(bed.ejector.poll_timeout(), Some(bed.now + secs(30)));
    bed.run_until_trial();
    let (until, _) =
        ejected(bed.ejector.handle_trial_end(bed.now, 1, false).expect("the member is on trial"));
    assert_eq!(until - bed.now, secs(1));
}
