//! Laws over random schedules of everything that can happen to an ejector.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs::health::outlier::{
    EjectionAction, EjectionDecision, EjectionPhase, EjectionPolicy, EjectionReasonKind, Ejector,
    LatencyDetector, SavedEjection,
};
use lvs::scheduler::Rng;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::world::{World, millis, secs};

#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Sweep,
    Traffic { serial: u64, ok: u64, failed: u64, millis: u64 },
    Accuse { serial: u64, consecutive: u32, connect: u32 },
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
            |(serial, consecutive, connect)| Op::Accuse { serial, consecutive, connect }
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

fn any_rules() -> impl Strategy<Value = EjectionPolicy> {
    (0..=100_u8, 0..3_u64, any::<bool>(), any::<bool>()).prop_map(
        |(share, jitter, slow, returns)| {
            EjectionPolicy::new()
                .max_ejected_percent(share)
                .jitter(secs(jitter * 7))
                .latency(slow.then(|| LatencyDetector::new(3.0)))
                .check_ends_ejection(returns)
        },
    )
}

/// What the set looks like to who carries the decisions out: in, out until, or on trial.
type Carried = BTreeMap<u64, Option<Duration>>;

fn serving(world: &World) -> Vec<u64> {
    world.members.values().filter(|it| it.enabled && it.up).map(|it| it.serial).collect()
}

fn out(world: &World) -> usize {
    serving(world).into_iter().filter(|&serial| !world.is_in(serial)).count()
}

/// Checks one decision against what was carried out before, and carries it out.
fn carry_out(
    world: &World,
    carried: &mut Carried,
    decision: EjectionDecision,
    longest: Duration,
) -> Result<(), TestCaseError> {
    let serial = decision.serial;
    prop_assert!(world.members.contains_key(&serial), "a decision for a stranger: {decision:?}");
    match decision.action {
        EjectionAction::Eject { until, reason: why } => {
            let before = carried.insert(serial, Some(until - world.now));
            let time = until - world.now;
            prop_assert!(time >= secs(30) && time <= longest, "out for {time:?}");
            let again = why.kind() == EjectionReasonKind::TrialFailed;
            prop_assert_eq!(before, if again { Some(None) } else { None });
        }
        EjectionAction::StartTrial => {
            let before = carried.insert(serial, None);
            prop_assert!(matches!(before, Some(Some(_))), "a trial for who was not out");
        }
        EjectionAction::Return => prop_assert!(carried.remove(&serial).is_some(), "it was in"),
        other => prop_assert!(false, "{other:?}"),
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
    fn caps_times_and_trials_hold_on_every_schedule(
        rules in any_rules(),
        share in 0..=100_u8,
        members in 1..=MEMBERS,
        ops in prop::collection::vec(any_op(), 0..120),
        jitter in 0..10_u64,
    ) {
        let rules = rules.max_ejected_percent(share).jitter(secs(jitter));
        let longest = secs(300 + jitter);
        let mut world = World::new(rules, members);
        let mut carried = Carried::new();
        let mut next_serial = 1000;
        for op in ops {
            let known = |serial: u64| world.members.contains_key(&serial);
            let before = out(&world);
            let mut decisions = Vec::new();
            let mut may_put_out = true;
            match op {
                Op::Wait(time) => {
                    let target = world.now + millis(time);
                    while let Some(end) = world.ejector.poll_timeout().filter(|&end| end <= target) {
                        world.now = end;
                        let trials = world.ejector.handle_timeout(end);
                        prop_assert!(!trials.is_empty(), "every timeout comes to something");
                        for decision in trials {
                            carry_out(&world, &mut carried, decision, longest)?;
                        }
                    }
                    world.now = target;
                    prop_assert_eq!(world.ejector.handle_timeout(target), []);
                }
                Op::Sweep => decisions = world.sweep(),
                Op::Traffic { serial, ok, failed, millis: latency } => if known(serial) {
                    world.traffic(serial, ok, failed);
                    world.latency(serial, millis(latency));
                },
                Op::Accuse { serial, consecutive, connect } => {
                    let decision = world.accuse(serial, consecutive, connect);
                    prop_assert!(decision.is_none() || consecutive >= 5 || connect >= 3);
                    decisions.extend(decision);
                }
                Op::Up { serial, up } => if known(serial) {
                    world.up(serial, up);
                    may_put_out = false;
                },
                Op::Enabled { serial, enabled } => if let Some(it) = world.members.get_mut(&serial) {
                    it.enabled = enabled;
                    world.ejector.track(serial, enabled, it.up);
                    may_put_out = false;
                },
                Op::Trial { serial, ok } => {
                    decisions.extend(world.ejector.handle_trial_end(world.now, serial, ok));
                }
                Op::CheckPassed { serial } => decisions.extend(world.ejector.handle_check_passed(serial)),
                Op::Release { serial } => decisions.extend(world.ejector.release(serial)),
                Op::Leave { serial } => {
                    world.members.remove(&serial);
                    carried.remove(&serial);
                    world.ejector.forget(serial);
                    may_put_out = false;
                }
                Op::Join { serial } => {
                    // A name that comes back is another backend.
                    let serial = if known(serial) { next_serial } else { serial };
                    next_serial += 1;
                    world.join(serial);
                }
                Op::Reset { serial } => if let Some(it) = world.members.get_mut(&serial) {
                    it.outcomes = Default::default();
                },
            }
            for decision in decisions {
                carry_out(&world, &mut carried, decision, longest)?;
            }
            let (total, after) = (serving(&world).len(), out(&world));
            if may_put_out && after > before {
                let cap = (total * usize::from(share) / 100).max(1);
                prop_assert!(after <= cap && after < total, "{after} of {total} at {share} %");
            }
            check_standing(&world, &carried)?;
            check_round_trip(&world, share, jitter)?;
        }
        // Everybody who is out comes to a trial in time.
        world.now += longest;
        for decision in world.ejector.handle_timeout(world.now) {
            carry_out(&world, &mut carried, decision, longest)?;
        }
        prop_assert_eq!(world.ejector.poll_timeout(), None);
        prop_assert!(carried.values().all(Option::is_none));
    }

    #[test]
    fn members_that_are_alike_and_never_fail_are_never_ejected(
        members in 1..=MEMBERS,
        sweeps in prop::collection::vec(prop::collection::vec(0..100_000_u64, MEMBERS as usize), 1..20),
        latency in 1..10_000_u64,
    ) {
        let mut world = World::new(EjectionPolicy::new().latency(Some(LatencyDetector::new(1.0))), members);
        for traffic in sweeps {
            for serial in 1..=members {
                world.traffic(serial, traffic[serial as usize - 1], 0);
                world.latency(serial, millis(latency));
            }
            prop_assert_eq!(world.sweep(), []);
        }
    }
}

/// The machine's own word, what was carried out and the counters agree.
fn check_standing(world: &World, carried: &Carried) -> Result<(), TestCaseError> {
    for &serial in world.members.keys() {
        let phase = world.standing(serial).phase;
        let agrees = match carried.get(&serial) {
            None => phase == EjectionPhase::NotEjected,
            Some(None) => matches!(phase, EjectionPhase::OnTrial { .. }),
            Some(Some(_)) => {
                matches!(phase, EjectionPhase::Ejected { until, .. } if until > world.now)
            }
        };
        prop_assert!(agrees, "{serial}: {phase:?}");
        prop_assert!(world.standing(serial).multiplier <= 10);
    }
    let counters = world.ejector.counters();
    let on_trial = carried.values().filter(|it| it.is_none()).count() as u64;
    prop_assert_eq!(
        (counters.currently_ejected + counters.currently_on_trial, counters.currently_on_trial),
        (carried.len() as u64, on_trial)
    );
    let gone = counters.returned + counters.forgotten;
    prop_assert_eq!(
        counters.new_ejections() + counters.imported,
        gone + counters.currently_ejected + counters.currently_on_trial
    );
    Ok(())
}

/// What is exported is the same after a restart, where the cap still allows as many to be out.
fn check_round_trip(world: &World, share: u8, jitter: u64) -> Result<(), TestCaseError> {
    let (total, gone) = (serving(world).len(), out(world));
    let cap = (total * usize::from(share) / 100).max(1);
    if gone > cap || (gone > 0 && gone >= total) {
        return Ok(());
    }
    let rules = EjectionPolicy::new().max_ejected_percent(share).jitter(secs(jitter));
    let mut restarted = Ejector::new(rules, Rng::with_seed(9)).expect("they make sense");
    for it in world.members.values() {
        restarted.track(it.serial, it.enabled, it.up);
    }
    let saved: Vec<(u64, SavedEjection)> = world.ejector.export(world.now).collect();
    let later = world.now + secs(12_345);
    for &(serial, it) in &saved {
        let _ = restarted.import(later, serial, it);
    }
    prop_assert_eq!(restarted.export(later).collect::<Vec<_>>(), saved);
    Ok(())
}
