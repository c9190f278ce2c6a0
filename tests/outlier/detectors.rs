//! Each detector at its thresholds exactly, and one below.

use lvs::backend::OutcomeCounts;
use lvs::health::outlier::{
    EjectionPolicy, EjectionReason, FailurePercentageDetector, LatencyDetector, SuccessRateDetector,
};

use super::world::{World, ejected, millis};

/// Nothing but what a test turns on.
fn none() -> EjectionPolicy {
    EjectionPolicy::new()
        .consecutive_failures(None)
        .consecutive_connect_failures(None)
        .failure_percentage(None)
        .success_rate(None)
}

fn said(serial: u64, why: &str) -> Vec<(u64, String)> {
    vec![(serial, why.to_owned())]
}

#[test]
fn five_failures_in_a_row_eject_and_four_do_not() {
    let mut world = World::new(EjectionPolicy::new(), 2);
    assert_eq!(world.accuse(1, 4, 2), None);
    let (_, why) = ejected(world.accuse(1, 5, 2).expect("5 in a row"));
    assert_eq!(why, EjectionReason::ConsecutiveFailures { failures: 5 });
    assert_eq!(why.to_string(), "5 failures in a row");
    assert_eq!(world.accuse(1, 6, 0), None, "it is out already");
}

#[test]
fn three_failed_connects_in_a_row_eject_and_two_do_not() {
    let mut world = World::new(EjectionPolicy::new(), 2);
    assert_eq!(world.accuse(1, 2, 2), None);
    let (_, why) = ejected(world.accuse(1, 3, 3).expect("3 in a row"));
    assert_eq!(why.to_string(), "3 failed connects in a row");
}

#[test]
fn a_detector_that_is_off_sees_nothing() {
    let mut world = World::new(none(), 10);
    assert_eq!(world.accuse(1, u32::MAX, u32::MAX), None);
    world.traffic(1, 0, 1000);
    (2..=10).for_each(|serial| world.traffic(serial, 1000, 0));
    assert_eq!(world.swept(), []);
}

#[test]
fn a_member_is_known_before_the_first_sweep() {
    let mut world = World::new(EjectionPolicy::new(), 2);
    world.join(3);
    assert!(world.accuse(3, 5, 0).is_some());
    assert_eq!(world.accuse(4, 5, 0), None, "nobody told of it");
}

/// Five members with so many requests each; the first fails some of them.
fn first_fails(
    rules: EjectionPolicy,
    members: u64,
    requests: u64,
    failed: u64,
) -> Vec<(u64, String)> {
    let mut world = World::new(rules, members);
    world.traffic(1, requests - failed, failed);
    (2..=members).for_each(|serial| world.traffic(serial, requests, 0));
    world.swept()
}

#[test]
fn a_failure_percentage_of_85_ejects_and_84_does_not() {
    let rules = || none().failure_percentage(Some(FailurePercentageDetector::new()));
    assert_eq!(first_fails(rules(), 5, 100, 84), []);
    assert_eq!(first_fails(rules(), 5, 100, 85), said(1, "failed 85 % of 100 requests"));
    assert_eq!(first_fails(rules(), 5, 1000, 849), []);
    assert_eq!(first_fails(rules(), 5, 1000, 850), said(1, "failed 85 % of 1000 requests"));
}

#[test]
fn a_failure_percentage_takes_five_hosts_with_50_requests() {
    let rules = || none().failure_percentage(Some(FailurePercentageDetector::new()));
    assert_eq!(first_fails(rules(), 5, 50, 50), said(1, "failed 100 % of 50 requests"));
    assert_eq!(first_fails(rules(), 5, 49, 49), []);
    assert_eq!(first_fails(rules(), 4, 50, 50), []);
}

#[test]
fn a_member_without_enough_requests_counts_as_no_host() {
    let mut world =
        World::new(none().failure_percentage(Some(FailurePercentageDetector::new())), 5);
    world.traffic(1, 0, 50);
    (2..=4).for_each(|serial| world.traffic(serial, 50, 0));
    world.traffic(5, 49, 0);
    assert_eq!(world.swept(), []);
}

/// 1.9 deviations: of five, a lone outlier is 2.0 away, of four 1.73.
#[test]
fn a_success_rate_takes_five_hosts_with_100_requests() {
    let rules = || none().success_rate(Some(SuccessRateDetector::new()));
    assert_eq!(first_fails(rules(), 5, 100, 100), said(1, "success rate 0.0 % below 4.0 %"));
    assert_eq!(first_fails(rules(), 5, 99, 99), []);
    assert_eq!(first_fails(rules(), 4, 100, 100), []);
    let four = SuccessRateDetector::new().min_hosts(4);
    assert_eq!(first_fails(none().success_rate(Some(four)), 4, 100, 100), []);
    let less = four.deviations(1.7);
    assert_eq!(first_fails(none().success_rate(Some(less)), 4, 100, 100).len(), 1);
}

#[test]
fn the_deviation_is_that_of_the_whole_population() {
    // Two of eight at 40 %: 1.73 deviations below; one of eight at 40 %: 2.65.
    let mut world = World::new(none().success_rate(Some(SuccessRateDetector::new())), 8);
    (1..=8).for_each(|serial| world.traffic(serial, 200, 0));
    world.traffic(1, 0, 300);
    world.traffic(2, 0, 300);
    assert_eq!(world.swept(), []);
    (1..=8).for_each(|serial| world.traffic(serial, 200, 0));
    world.traffic(2, 0, 300);
    // Mean 0.925, deviation 0.19843, threshold 0.5480.
    assert_eq!(world.swept(), said(2, "success rate 40.0 % below 54.8 %"));
}

#[test]
fn a_small_difference_ejects_only_without_the_margin() {
    let published = SuccessRateDetector::new().margin(0);
    assert_eq!(first_fails(none().success_rate(Some(published)), 5, 100, 1).len(), 1);
    let ours = || none().success_rate(Some(SuccessRateDetector::new()));
    assert_eq!(first_fails(ours(), 5, 100, 1), []);
    // The mean of five is lower by a fifth of what the one fails: 4 points at 5, 5 at 6.25.
    assert_eq!(first_fails(ours(), 5, 10_000, 624), []);
    assert_eq!(first_fails(ours(), 5, 10_000, 625), said(1, "success rate 93.8 % below 93.8 %"));
}

#[test]
fn equal_rates_are_no_outliers_whatever_is_rounded() {
    for failed in 0..100 {
        let rule = SuccessRateDetector::new().margin(0).deviations(0.001);
        let mut world = World::new(none().success_rate(Some(rule)), 7);
        (1..=7).for_each(|serial| world.traffic(serial, 100 - failed, failed));
        assert_eq!(world.swept(), [], "{failed}");
    }
}

/// The mean goes blind where several fail together; the percentage does not.
#[test]
fn two_of_five_are_found_by_the_percentage_alone() {
    let both_fail = |rules: EjectionPolicy| {
        let mut world = World::new(rules.max_ejected_percent(40), 5);
        (1..=2).for_each(|serial| world.traffic(serial, 0, 100));
        (3..=5).for_each(|serial| world.traffic(serial, 100, 0));
        world.swept().len()
    };
    assert_eq!(both_fail(none().success_rate(Some(SuccessRateDetector::new()))), 0);
    assert_eq!(both_fail(none().failure_percentage(Some(FailurePercentageDetector::new()))), 2);
    assert_eq!(both_fail(EjectionPolicy::new()), 2);
}

fn first_slow(rule: LatencyDetector, members: u64, answers: u64, slow: u64) -> Vec<(u64, String)> {
    let mut world = World::new(none().latency(Some(rule)), members);
    for serial in 1..=members {
        world.traffic(serial, answers, 0);
        world.latency(serial, millis(if serial == 1 { slow } else { 43 + serial }));
    }
    world.swept()
}

#[test]
fn a_latency_above_the_factor_ejects_and_one_at_it_does_not() {
    let rule = LatencyDetector::new(4.0);
    // The others' median of 45, 46, 47, 48 is 46.5.
    assert_eq!(first_slow(rule, 5, 100, 186), []);
    let why = "mean latency 187 ms, the others' median 46 ms";
    assert_eq!(first_slow(rule, 5, 100, 187), said(1, why));
    assert_eq!(first_slow(rule, 5, 99, 900), []);
    assert_eq!(first_slow(rule, 4, 100, 900), []);
    assert_eq!(first_slow(rule.min_hosts(2), 2, 100, 900).len(), 1);
}

#[test]
fn a_latency_at_the_floor_ejects_nobody() {
    let rule = LatencyDetector::new(4.0);
    assert_eq!(first_slow(rule.floor(millis(900)), 5, 100, 900), []);
    assert_eq!(first_slow(rule.floor(millis(900)), 5, 100, 901).len(), 1);
}

#[test]
fn failures_are_no_answers_to_compare() {
    let mut world = World::new(none().latency(Some(LatencyDetector::new(4.0))), 5);
    for serial in 1..=5 {
        world.traffic(serial, if serial == 1 { 99 } else { 100 }, 1);
        world.latency(serial, millis(if serial == 1 { 900 } else { 45 }));
    }
    assert_eq!(world.swept(), []);
}

#[test]
fn what_was_before_the_last_sweep_does_not_count() {
    let mut world = World::new(EjectionPolicy::new(), 5);
    world.traffic(1, 0, 49);
    (2..=5).for_each(|serial| world.traffic(serial, 100, 0));
    assert_eq!(world.swept(), []);
    world.traffic(1, 0, 49);
    (2..=5).for_each(|serial| world.traffic(serial, 100, 0));
    assert_eq!(world.swept(), []);
}

#[test]
fn the_first_sample_is_not_judged() {
    let mut world = World::new(EjectionPolicy::new(), 5);
    world.join(6);
    world.traffic(6, 0, 1_000_000);
    (1..=5).for_each(|serial| world.traffic(serial, 100, 0));
    assert_eq!(world.swept(), []);
    world.traffic(6, 0, 100);
    (1..=5).for_each(|serial| world.traffic(serial, 100, 0));
    assert_eq!(world.swept().len(), 1);
}

#[test]
fn what_was_cancelled_counts_neither_way() {
    let mut world = World::new(EjectionPolicy::new(), 5);
    (2..=5).for_each(|serial| world.traffic(serial, 100, 0));
    world.traffic(1, 0, 49);
    world.members.get_mut(&1).expect("a member").outcomes.cancelled += 1000;
    assert_eq!(world.swept(), []);
}

#[test]
fn connects_and_timeouts_are_failures_too() {
    let mut world = World::new(EjectionPolicy::new(), 5);
    (2..=5).for_each(|serial| world.traffic(serial, 100, 0));
    let outcomes = &mut world.members.get_mut(&1).expect("a member").outcomes;
    (outcomes.app_error, outcomes.connect_error, outcomes.timeout) = (20, 20, 20);
    assert_eq!(world.swept(), said(1, "failed 100 % of 60 requests"));
}

#[test]
fn counters_that_go_back_or_are_enormous_judge_nobody_and_do_not_panic() {
    let mut world = World::new(EjectionPolicy::new(), 5);
    let huge = |outcomes: &mut OutcomeCounts| {
        (outcomes.ok, outcomes.app_error) = (u64::MAX, u64::MAX);
        (outcomes.connect_error, outcomes.timeout) = (u64::MAX, u64::MAX);
    };
    world.members.values_mut().for_each(|member| huge(&mut member.outcomes));
    assert_eq!(world.swept(), []);
    world.members.values_mut().for_each(|member| member.outcomes = OutcomeCounts::default());
    assert_eq!(world.swept(), [], "all went back");
    (2..=5).for_each(|serial| world.traffic(serial, 100, 0));
    world.traffic(1, 0, 100);
    assert_eq!(world.swept().len(), 1, "judged again from then on");
}

#[test]
fn who_cannot_serve_is_not_judged_and_no_part_of_the_mean() {
    let mut world = World::new(EjectionPolicy::new(), 5);
    world.up(5, false);
    world.traffic(1, 0, 100);
    (2..=5).for_each(|serial| world.traffic(serial, 100, 0));
    assert_eq!(world.swept(), [], "four hosts are left");
    assert_eq!(world.accuse(5, 9, 9), None);
}
