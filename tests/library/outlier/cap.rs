//! The limit on ejected members, and the order in which members are ejected.

use lvs::health::outlier::EjectionReasonKind;
use lvs::health::{EjectionPolicy, LatencyDetector};

use super::test_bed::{EjectorTestBed, build, millis};

/// Returns how many members are ejected when all of them fail.
fn ejected_of(policy: EjectionPolicy, members: u64) -> usize {
    let mut bed = EjectorTestBed::new(policy, members);
    (1..=members).filter(|&serial| bed.report_streak(serial, 5, 5).is_some()).count()
}

#[test]
fn a_tenth_is_ejected_at_least_one_and_never_the_last() {
    let cases = [(1, 0), (2, 1), (3, 1), (10, 1), (19, 1), (20, 2), (99, 9), (100, 10)];
    for (members, expected) in cases {
        assert_eq!(ejected_of(EjectionPolicy::new(), members), expected, "of {members}");
    }
}

#[test]
fn other_percentages_above_0_eject_at_least_one_and_never_the_last() {
    for (percent, members, expected) in
        [(0, 100, 0), (1, 50, 1), (50, 3, 1), (50, 4, 2), (100, 1, 0), (100, 2, 1), (100, 100, 99)]
    {
        let policy = build(EjectionPolicy::builder().max_ejected_percent(percent));
        assert_eq!(ejected_of(policy, members), expected, "{percent} % of {members}");
    }
}

#[test]
fn unavailable_member_counts_neither_as_member_nor_as_ejected() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    bed.set_up(2, false);
    bed.set_up(3, false);
    assert_eq!(bed.report_streak(1, 5, 0), None, "the last available member");
    bed.set_up(2, true);
    assert!(bed.report_streak(1, 5, 0).is_some());
    bed.set_up(3, true);
    assert_eq!(bed.report_streak(2, 5, 0), None, "one of three is ejected already");
    bed.set_up(1, false);
    assert!(bed.report_streak(2, 5, 0).is_some(), "the ejected member is down by its checks too");
}

#[test]
fn member_on_trial_counts_as_ejected() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    bed.eject(1);
    bed.run_until_trial();
    assert_eq!(bed.report_streak(2, 5, 0), None);
    assert_eq!(bed.ejector.counters().refused(EjectionReasonKind::ConsecutiveFailures), 1);
    let _ = bed.ejector.handle_trial_end(bed.now, 1, true);
    assert!(bed.report_streak(2, 5, 0).is_some());
}

#[test]
fn failed_trial_ejects_regardless_of_the_limit() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 3);
    bed.eject(1);
    bed.run_until_trial();
    bed.set_up(2, false);
    bed.set_up(3, false);
    assert!(bed.ejector.handle_trial_end(bed.now, 1, false).is_some());
}

#[test]
fn worst_members_are_ejected_first() {
    let latency = LatencyDetector::new(4.0);
    let policy = build(EjectionPolicy::builder().latency(Some(latency)).max_ejected_percent(50));
    let mut bed = EjectorTestBed::new(policy, 12);
    for serial in 1..=12 {
        bed.set_latency(serial, millis(20));
        bed.add_traffic(serial, 1000, 0);
    }
    bed.set_latency(1, millis(200));
    bed.set_latency(2, millis(300));
    bed.add_traffic(3, 0, 9000);
    bed.add_traffic(4, 0, 10_000_000);
    bed.add_traffic(5, 0, 9000);
    bed.add_traffic(5, 1000, 9000);
    bed.add_traffic(6, 0, 9000);
    let order: Vec<u64> = bed.sweep().iter().map(|decision| decision.serial).collect();
    // By the share of failures, their number, and the serial; slow members last.
    assert_eq!(order, [4, 5, 3, 6, 2, 1]);
}

#[test]
fn ejections_beyond_the_limit_are_counted_as_refused() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 20);
    for serial in 1..=20 {
        bed.add_traffic(serial, if serial <= 4 { 100 - 2 * serial } else { 1000 }, 0);
        bed.add_traffic(serial, 0, if serial <= 4 { 900 + 2 * serial } else { 0 });
    }
    let order: Vec<u64> = bed.sweep().iter().map(|decision| decision.serial).collect();
    assert_eq!(order, [4, 3]);
    let counters = bed.ejector.counters();
    assert_eq!(counters.ejected(EjectionReasonKind::FailurePercentage), 2);
    assert_eq!(counters.refused(EjectionReasonKind::FailurePercentage), 2);
    assert_eq!((counters.currently_ejected, counters.new_ejections()), (2, 2));
}
