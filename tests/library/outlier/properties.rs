//! Properties of an ejector over random schedules of all its inputs.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs::health::outlier::{
    EjectionAction, EjectionDecision, EjectionPhase, EjectionReasonKind, Ejector, SavedEjection,
};
use lvs::health::{EjectionPolicy, EjectionPolicyBuilder, LatencyDetector};
use lvs::scheduler::Rng;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::test_bed::{EjectorTestBed, build, millis, secs};

/// An input of the ejector, or a change of its set.
#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Sweep,
    Traffic { serial: u64, ok: u64, failed: u64, millis: u64 },
    Streak { serial: u64, failures: u32, connect_failures: u32 },
    Up { serial: u64, up: bool },
    Enabled { serial: u64, enabled: bool },
    Trial { serial: u64, ok: bool },
    CheckPassed { serial: u64 },
    Release { serial: u64 },
    Leave { serial: u64 },
    Join { serial: u64 },
    Reset { serial: u64 },
}

const MEMBERS: u64 = 24;

fn any_op() -> impl Strategy<Value = Op> {
    let serial = || 1..=MEMBERS + 2;
    prop_oneof![
        6 => (1..60_000_u64).prop_map(Op::Wait),
        3 => Just(Op::Sweep),
        12 => (serial(), 0..200_u64, prop_oneof![Just(0), 0..2000_u64], 1..500_u64).prop_map(
            |(serial, ok, failed, millis)| Op::Traffic { serial, ok, failed, millis }
        ),
        8 => (serial(), 0..10_u32, 0..6_u32).prop_map(
            |(serial, failures, connect_failures)| {
                Op::Streak { serial, failures, connect_failures }
            }
        ),
        2 => (serial(), any::<bool>()).prop_map(|(serial, up)| Op::Up { serial, up }),
        1 => (serial(), any::<bool>()).prop_map(|(serial, enabled)| Op::Enabled { serial, enabled }),
        6 => (serial(), any::<bool>()).prop_map(|(serial, ok)| Op::Trial { serial, ok }),
        1 => serial().prop_map(|serial| Op::CheckPassed { serial }),
        1 => serial().prop_map(|serial| Op::Release { serial }),
        1 => serial().prop_map(|serial| Op::Leave { serial }),
        1 => serial().prop_map(|serial| Op::Join { serial }),
        1 => serial().prop_map(|serial| Op::Reset { serial }),
    ]
}

fn any_policy() -> impl Strategy<Value = EjectionPolicyBuilder> {
    (0..=100_u8, 0..3_u64, any::<bool>(), any::<bool>()).prop_map(
        |(share, jitter, slow, returns)| {
            EjectionPolicy::builder()
                .max_ejected_percent(share)
                .jitter(secs(jitter * 7))
                .latency(slow.then(|| LatencyDetector::new(3.0)))
                .check_ends_ejection(returns)
        },
    )
}

/// The members that are ejected or on trial after the decisions were applied: `Some` holds the
/// ejection time, `None` is a trial.
type AppliedStates = BTreeMap<u64, Option<Duration>>;

fn available(bed: &EjectorTestBed) -> Vec<u64> {
    let available = bed.members.values().filter(|member| member.enabled && member.up);
    available.map(|member| member.serial).collect()
}

/// Returns how many available members are ejected or on trial.
fn ejected_count(bed: &EjectorTestBed) -> usize {
    available(bed).into_iter().filter(|&serial| !bed.is_not_ejected(serial)).count()
}

/// Checks a decision against the decisions before, and applies it.
fn apply(
    bed: &EjectorTestBed,
    applied: &mut AppliedStates,
    decision: EjectionDecision,
    longest: Duration,
) -> Result<(), TestCaseError> {
    let serial = decision.serial;
    prop_assert!(
        bed.members.contains_key(&serial),
        "a decision about an unknown member: {decision:?}"
    );
    match decision.action {
        EjectionAction::Eject { until, reason } => {
            let before = applied.insert(serial, Some(until - bed.now));
            let time = until - bed.now;
            prop_assert!(time >= secs(30) && time <= longest, "ejected for {time:?}");
            let trial_failed = reason.kind() == EjectionReasonKind::TrialFailed;
            prop_assert_eq!(before, if trial_failed { Some(None) } else { None });
        }
        EjectionAction::StartTrial => {
            let before = applied.insert(serial, None);
            prop_assert!(
                matches!(before, Some(Some(_))),
                "a trial of a member that was not ejected"
            );
        }
        EjectionAction::Return => {
            prop_assert!(applied.remove(&serial).is_some(), "the member was not ejected")
        }
        action => prop_assert!(false, "unknown action: {action:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(4),
        ..ProptestConfig::default()
    })]

    #[test]
    fn limits_times_and_trials_hold_on_every_schedule(
        policy in any_policy(),
        share in 0..=100_u8,
        members in 1..=MEMBERS,
        ops in prop::collection::vec(any_op(), 0..120),
        jitter in 0..10_u64,
    ) {
        let policy = build(policy.max_ejected_percent(share).jitter(secs(jitter)));
        let longest = secs(300 + jitter);
        let mut bed = EjectorTestBed::new(policy, members);
        let mut applied = AppliedStates::new();
        let mut next_serial = 1000;
        for op in ops {
            let known = |serial: u64| bed.members.contains_key(&serial);
            let before = ejected_count(&bed);
            let mut decisions = Vec::new();
            let mut may_eject = true;
            match op {
                Op::Wait(time) => {
                    let target = bed.now + millis(time);
                    while let Some(end) = bed.ejector.poll_timeout().filter(|&end| end <= target) {
                        bed.now = end;
                        let trials = bed.ejector.handle_timeout(end);
                        prop_assert!(!trials.is_empty(), "every timeout starts a trial");
                        for decision in trials {
                            apply(&bed, &mut applied, decision, longest)?;
                        }
                    }
                    bed.now = target;
                    prop_assert_eq!(bed.ejector.handle_timeout(target), []);
                }
                Op::Sweep => decisions = bed.sweep(),
                Op::Traffic { serial, ok, failed, millis: latency } => if known(serial) {
                    bed.add_traffic(serial, ok, failed);
                    bed.set_latency(serial, millis(latency));
                },
                Op::Streak { serial, failures, connect_failures } => {
                    let decision = bed.report_streak(serial, failures, connect_failures);
                    prop_assert!(decision.is_none() || failures >= 5 || connect_failures >= 3);
                    decisions.extend(decision);
                }
                Op::Up { serial, up } => if known(serial) {
                    bed.set_up(serial, up);
                    may_eject = false;
                },
                Op::Enabled { serial, enabled } => if let Some(member) = bed.members.get_mut(&serial) {
                    member.enabled = enabled;
                    bed.ejector.track(serial, enabled, member.up);
                    may_eject = false;
                },
                Op::Trial { serial, ok } => {
                    decisions.extend(bed.ejector.handle_trial_end(bed.now, serial, ok));
                }
                Op::CheckPassed { serial } => decisions.extend(bed.ejector.handle_check_passed(serial)),
                Op::Release { serial } => decisions.extend(bed.ejector.release(serial)),
                Op::Leave { serial } => {
                    bed.members.remove(&serial);
                    applied.remove(&serial);
                    bed.ejector.forget(serial);
                    may_eject = false;
                }
                Op::Join { serial } => {
                    // A backend that is added again gets a new serial.
                    let serial = if known(serial) { next_serial } else { serial };
                    next_serial += 1;
                    bed.join(serial);
                }
                Op::Reset { serial } => if let Some(member) = bed.members.get_mut(&serial) {
                    member.outcomes = Default::default();
                },
            }
            for decision in decisions {
                apply(&bed, &mut applied, decision, longest)?;
            }
            let (total, after) = (available(&bed).len(), ejected_count(&bed));
            if may_eject && after > before {
                let cap = (total * usize::from(share) / 100).max(usize::from(share > 0));
                prop_assert!(after <= cap && after < total, "{after} of {total} at {share} %");
            }
            check_state(&bed, &applied)?;
            check_round_trip(&bed, share, jitter)?;
        }
        // The trial of every ejected member starts in time.
        bed.now += longest;
        for decision in bed.ejector.handle_timeout(bed.now) {
            apply(&bed, &mut applied, decision, longest)?;
        }
        prop_assert_eq!(bed.ejector.poll_timeout(), None);
        prop_assert!(applied.values().all(Option::is_none));
    }

    #[test]
    fn equal_members_without_failures_are_never_ejected(
        members in 1..=MEMBERS,
        sweeps in prop::collection::vec(prop::collection::vec(0..100_000_u64, MEMBERS as usize), 1..20),
        latency in 1..10_000_u64,
    ) {
        let policy = build(EjectionPolicy::builder().latency(Some(LatencyDetector::new(1.0))));
        let mut bed = EjectorTestBed::new(policy, members);
        for traffic in sweeps {
            for serial in 1..=members {
                bed.add_traffic(serial, traffic[serial as usize - 1], 0);
                bed.set_latency(serial, millis(latency));
            }
            prop_assert_eq!(bed.sweep(), []);
        }
    }
}

/// Checks that the state of the ejector, the applied decisions and the counters agree.
fn check_state(bed: &EjectorTestBed, applied: &AppliedStates) -> Result<(), TestCaseError> {
    for &serial in bed.members.keys() {
        let phase = bed.state(serial).phase;
        let agrees = match applied.get(&serial) {
            None => phase == EjectionPhase::NotEjected,
            Some(None) => matches!(phase, EjectionPhase::OnTrial { .. }),
            Some(Some(_)) => {
                matches!(phase, EjectionPhase::Ejected { until, .. } if until > bed.now)
            }
        };
        prop_assert!(agrees, "{serial}: {phase:?}");
        prop_assert!(bed.state(serial).multiplier <= 10);
    }
    let counters = bed.ejector.counters();
    let on_trial = applied.values().filter(|state| state.is_none()).count() as u64;
    prop_assert_eq!(
        (counters.currently_ejected + counters.currently_on_trial, counters.currently_on_trial),
        (applied.len() as u64, on_trial)
    );
    let gone = counters.returned + counters.forgotten;
    prop_assert_eq!(
        counters.new_ejections() + counters.imported,
        gone + counters.currently_ejected + counters.currently_on_trial
    );
    Ok(())
}

/// Checks that an import restores what was exported, if the limit still allows as many ejections.
fn check_round_trip(bed: &EjectorTestBed, share: u8, jitter: u64) -> Result<(), TestCaseError> {
    let (total, ejected) = (available(bed).len(), ejected_count(bed));
    let cap = (total * usize::from(share) / 100).max(usize::from(share > 0));
    if ejected > cap || (ejected > 0 && ejected >= total) {
        return Ok(());
    }
    let policy = EjectionPolicy::builder().max_ejected_percent(share).jitter(secs(jitter));
    let mut restarted = Ejector::new(build(policy), Rng::with_seed(9));
    for member in bed.members.values() {
        restarted.track(member.serial, member.enabled, member.up);
    }
    let saved: Vec<(u64, SavedEjection)> = bed.ejector.export(bed.now).collect();
    let later = bed.now + secs(12_345);
    for &(serial, saved) in &saved {
        let _ = restarted.import(later, serial, saved);
    }
    prop_assert_eq!(restarted.export(later).collect::<Vec<_>>(), saved);
    Ok(())
}
