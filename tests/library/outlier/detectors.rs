//! Each detector at its thresholds, and just below them.

use lvs::backend::OutcomeCounts;
use lvs::health::outlier::EjectionReason;
use lvs::health::{
    EjectionPolicy, EjectionPolicyBuilder, FailurePercentageDetector, LatencyDetector,
    SuccessRateDetector,
};

use super::test_bed::{EjectorTestBed, build, ejected, millis};

/// Returns a builder of a policy with every detector off.
fn no_detectors() -> EjectionPolicyBuilder {
    EjectionPolicy::builder()
        .consecutive_failures(None)
        .consecutive_connect_failures(None)
        .failure_percentage(None)
        .success_rate(None)
}

/// Returns one ejected member with its reason, as `sweep_reasons` does.
fn ejection(serial: u64, reason: &str) -> Vec<(u64, String)> {
    vec![(serial, reason.to_owned())]
}

#[test]
fn five_failures_in_a_row_eject_and_four_do_not() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 2);
    assert_eq!(bed.report_streak(1, 4, 2), None);
    let (_, reason) = ejected(bed.report_streak(1, 5, 2).expect("5 failures reach the threshold"));
    assert_eq!(reason, EjectionReason::ConsecutiveFailures { failures: 5 });
    assert_eq!(reason.to_string(), "5 failures in a row");
    assert_eq!(bed.report_streak(1, 6, 0), None, "the member is ejected already");
}

#[test]
fn three_failed_connects_in_a_row_eject_and_two_do_not() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 2);
    assert_eq!(bed.report_streak(1, 2, 2), None);
    let (_, reason) =
        ejected(bed.report_streak(1, 3, 3).expect("3 failed connects reach the threshold"));
    assert_eq!(reason.to_string(), "3 failed connects in a row");
}

#[test]
fn detectors_that_are_off_eject_no_member() {
    let mut bed = EjectorTestBed::new(build(no_detectors()), 10);
    assert_eq!(bed.report_streak(1, u32::MAX, u32::MAX), None);
    bed.add_traffic(1, 0, 1000);
    (2..=10).for_each(|serial| bed.add_traffic(serial, 1000, 0));
    assert_eq!(bed.sweep_reasons(), []);
}

#[test]
fn tracked_member_can_be_ejected_before_its_first_sweep() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 2);
    bed.join(3);
    assert!(bed.report_streak(3, 5, 0).is_some());
    assert_eq!(bed.report_streak(4, 5, 0), None, "the member is not tracked");
}

/// Returns the ejections when the first of some members fails some of its requests.
fn first_fails(
    policy: EjectionPolicyBuilder,
    members: u64,
    requests: u64,
    failed: u64,
) -> Vec<(u64, String)> {
    let mut bed = EjectorTestBed::new(build(policy), members);
    bed.add_traffic(1, requests - failed, failed);
    (2..=members).for_each(|serial| bed.add_traffic(serial, requests, 0));
    bed.sweep_reasons()
}

#[test]
fn failure_percentage_of_85_ejects_and_84_does_not() {
    let policy = || no_detectors().failure_percentage(Some(FailurePercentageDetector::new()));
    assert_eq!(first_fails(policy(), 5, 100, 84), []);
    assert_eq!(first_fails(policy(), 5, 100, 85), ejection(1, "failed 85 % of 100 requests"));
    assert_eq!(first_fails(policy(), 5, 1000, 849), []);
    assert_eq!(first_fails(policy(), 5, 1000, 850), ejection(1, "failed 85 % of 1000 requests"));
}

#[test]
fn failure_percentage_needs_five_hosts_with_50_requests() {
    let policy = || no_detectors().failure_percentage(Some(FailurePercentageDetector::new()));
    assert_eq!(first_fails(policy(), 5, 50, 50), ejection(1, "failed 100 % of 50 requests"));
    assert_eq!(first_fails(policy(), 5, 49, 49), []);
    assert_eq!(first_fails(policy(), 4, 50, 50), []);
}

#[test]
fn member_without_enough_requests_is_not_counted_as_host() {
    let policy = no_detectors().failure_percentage(Some(FailurePercentageDetector::new()));
    let mut bed = EjectorTestBed::new(build(policy), 5);
    bed.add_traffic(1, 0, 50);
    (2..=4).for_each(|serial| bed.add_traffic(serial, 50, 0));
    bed.add_traffic(5, 49, 0);
    assert_eq!(bed.sweep_reasons(), []);
}

/// A single outlier of five is 2.0 deviations below the mean, of four 1.73; the threshold is 1.9.
#[test]
fn success_rate_needs_five_hosts_with_100_requests() {
    let policy = || no_detectors().success_rate(Some(SuccessRateDetector::new()));
    assert_eq!(
        first_fails(policy(), 5, 100, 100),
        ejection(1, "success rate of 0.0 % is below the threshold of 4.0 %")
    );
    assert_eq!(first_fails(policy(), 5, 99, 99), []);
    assert_eq!(first_fails(policy(), 4, 100, 100), []);
    let four = SuccessRateDetector::new().min_hosts(4);
    assert_eq!(first_fails(no_detectors().success_rate(Some(four)), 4, 100, 100), []);
    let fewer_deviations = four.deviations(1.7);
    assert_eq!(
        first_fails(no_detectors().success_rate(Some(fewer_deviations)), 4, 100, 100).len(),
        1
    );
}

#[test]
fn deviation_is_that_of_the_whole_population() {
    // Two of eight at 40 %: 1.73 deviations below; one of eight at 40 %: 2.65.
    let policy = no_detectors().success_rate(Some(SuccessRateDetector::new()));
    let mut bed = EjectorTestBed::new(build(policy), 8);
    (1..=8).for_each(|serial| bed.add_traffic(serial, 200, 0));
    bed.add_traffic(1, 0, 300);
    bed.add_traffic(2, 0, 300);
    assert_eq!(bed.sweep_reasons(), []);
    (1..=8).for_each(|serial| bed.add_traffic(serial, 200, 0));
    bed.add_traffic(2, 0, 300);
    // Mean 0.925, deviation 0.19843, threshold 0.5480.
    assert_eq!(
        bed.sweep_reasons(),
        ejection(2, "success rate of 40.0 % is below the threshold of 54.8 %")
    );
}

#[test]
fn small_difference_ejects_only_without_the_margin() {
    let published = SuccessRateDetector::new().margin(0);
    assert_eq!(first_fails(no_detectors().success_rate(Some(published)), 5, 100, 1).len(), 1);
    let default = || no_detectors().success_rate(Some(SuccessRateDetector::new()));
    assert_eq!(first_fails(default(), 5, 100, 1), []);
    // A fifth of the failures lowers the mean too: 5 % are 4 points below it, 6.25 % are 5 points.
    assert_eq!(first_fails(default(), 5, 10_000, 624), []);
    assert_eq!(
        first_fails(default(), 5, 10_000, 625),
        ejection(1, "success rate of 93.8 % is below the threshold of 93.8 %")
    );
}

#[test]
fn equal_rates_are_not_outliers_despite_rounding() {
    for failed in 0..100 {
        let detector = SuccessRateDetector::new().margin(0).deviations(0.001);
        let mut bed = EjectorTestBed::new(build(no_detectors().success_rate(Some(detector))), 7);
        (1..=7).for_each(|serial| bed.add_traffic(serial, 100 - failed, failed));
        assert_eq!(bed.sweep_reasons(), [], "{failed}");
    }
}

/// The success rate detector misses members of a small set that fail together.
#[test]
fn two_of_five_are_found_by_the_failure_percentage_alone() {
    let both_fail = |policy: EjectionPolicyBuilder| {
        let mut bed = EjectorTestBed::new(build(policy.max_ejected_percent(40)), 5);
        (1..=2).for_each(|serial| bed.add_traffic(serial, 0, 100));
        (3..=5).for_each(|serial| bed.add_traffic(serial, 100, 0));
        bed.sweep_reasons().len()
    };
    assert_eq!(both_fail(no_detectors().success_rate(Some(SuccessRateDetector::new()))), 0);
    assert_eq!(
        both_fail(no_detectors().failure_percentage(Some(FailurePercentageDetector::new()))),
        2
    );
    assert_eq!(both_fail(EjectionPolicy::builder()), 2);
}

/// Returns the ejections when the first of some members is slow, in milliseconds.
fn first_is_slow(
    detector: LatencyDetector,
    members: u64,
    answers: u64,
    slow: u64,
) -> Vec<(u64, String)> {
    let mut bed = EjectorTestBed::new(build(no_detectors().latency(Some(detector))), members);
    for serial in 1..=members {
        bed.add_traffic(serial, answers, 0);
        bed.set_latency(serial, millis(if serial == 1 { slow } else { 43 + serial }));
    }
    bed.sweep_reasons()
}

#[test]
fn latency_above_the_factor_ejects_and_at_it_does_not() {
    let detector = LatencyDetector::new(4.0);
    // The median of the others, 45, 46, 47 and 48, is 46.5.
    assert_eq!(first_is_slow(detector, 5, 100, 186), []);
    let reason = "mean latency of 187 ms, median of the other backends 46 ms";
    assert_eq!(first_is_slow(detector, 5, 100, 187), ejection(1, reason));
    assert_eq!(first_is_slow(detector, 5, 99, 900), []);
    assert_eq!(first_is_slow(detector, 4, 100, 900), []);
    assert_eq!(first_is_slow(detector.min_hosts(2), 2, 100, 900).len(), 1);
}

#[test]
fn latency_at_the_floor_ejects_no_member() {
    let detector = LatencyDetector::new(4.0);
    assert_eq!(first_is_slow(detector.floor(millis(900)), 5, 100, 900), []);
    assert_eq!(first_is_slow(detector.floor(millis(900)), 5, 100, 901).len(), 1);
}

#[test]
fn failures_do_not_count_as_answers_for_the_latency() {
    let policy = no_detectors().latency(Some(LatencyDetector::new(4.0)));
    let mut bed = EjectorTestBed::new(build(policy), 5);
    for serial in 1..=5 {
        bed.add_traffic(serial, if serial == 1 { 99 } else { 100 }, 1);
        bed.set_latency(serial, millis(if serial == 1 { 900 } else { 45 }));
    }
    assert_eq!(bed.sweep_reasons(), []);
}

#[test]
fn traffic_before_the_previous_sweep_does_not_count() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 5);
    bed.add_traffic(1, 0, 49);
    (2..=5).for_each(|serial| bed.add_traffic(serial, 100, 0));
    assert_eq!(bed.sweep_reasons(), []);
    bed.add_traffic(1, 0, 49);
    (2..=5).for_each(|serial| bed.add_traffic(serial, 100, 0));
    assert_eq!(bed.sweep_reasons(), []);
}

#[test]
fn first_sample_is_not_judged() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 5);
    bed.join(6);
    bed.add_traffic(6, 0, 1_000_000);
    (1..=5).for_each(|serial| bed.add_traffic(serial, 100, 0));
    assert_eq!(bed.sweep_reasons(), []);
    bed.add_traffic(6, 0, 100);
    (1..=5).for_each(|serial| bed.add_traffic(serial, 100, 0));
    assert_eq!(bed.sweep_reasons().len(), 1);
}

#[test]
fn cancelled_requests_do_not_count() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 5);
    (2..=5).for_each(|serial| bed.add_traffic(serial, 100, 0));
    bed.add_traffic(1, 0, 49);
    bed.members.get_mut(&1).expect("a tracked member").outcomes.cancelled += 1000;
    assert_eq!(bed.sweep_reasons(), []);
}

#[test]
fn failed_connects_and_timeouts_count_as_failures() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 5);
    (2..=5).for_each(|serial| bed.add_traffic(serial, 100, 0));
    let outcomes = &mut bed.members.get_mut(&1).expect("a tracked member").outcomes;
    (outcomes.app_error, outcomes.connect_error, outcomes.timeout) = (20, 20, 20);
    assert_eq!(bed.sweep_reasons(), ejection(1, "failed 100 % of 60 requests"));
}

#[test]
fn counters_that_decrease_or_overflow_eject_no_member() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 5);
    let huge = |outcomes: &mut OutcomeCounts| {
        (outcomes.ok, outcomes.app_error) = (u64::MAX, u64::MAX);
        (outcomes.connect_error, outcomes.timeout) = (u64::MAX, u64::MAX);
    };
    bed.members.values_mut().for_each(|member| huge(&mut member.outcomes));
    assert_eq!(bed.sweep_reasons(), []);
    bed.members.values_mut().for_each(|member| member.outcomes = OutcomeCounts::default());
    assert_eq!(bed.sweep_reasons(), [], "every counter decreased");
    (2..=5).for_each(|serial| bed.add_traffic(serial, 100, 0));
    bed.add_traffic(1, 0, 100);
    assert_eq!(bed.sweep_reasons().len(), 1, "judged again from the next sweep on");
}

#[test]
fn unavailable_member_is_not_judged_and_not_part_of_the_mean() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 5);
    bed.set_up(5, false);
    bed.add_traffic(1, 0, 100);
    (2..=5).for_each(|serial| bed.add_traffic(serial, 100, 0));
    assert_eq!(bed.sweep_reasons(), [], "four hosts are available");
    assert_eq!(bed.report_streak(5, 9, 9), None);
}
