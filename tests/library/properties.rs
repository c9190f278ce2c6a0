//! Any sequence of operations on a set, its balancer and its leases, against a simple model.

use lvs::backend::{BackendAdminState, MAX_WEIGHT};
use lvs::scheduler::{SchedulerRegistry, parse};
use lvs::{BackendSet, Balancer, Flow, Health, Limits, Outcome, PickError};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::common::schedulers::ALL;
use crate::model::{End, NAMES, Op, Wanted, World, names_in};

/// Rules that may refuse a flow although a backend is usable: those that give a flow one home and
/// do not look further, and those that leave room at the top.
pub(crate) const REFUSING: &[&str] = &["bounded", "dh", "mh", "ovf", "sh", "subset"];

/// How many sequences run in all, over all schedulers; a few seconds in a debug build.
const SEQUENCES: u32 = 360;

fn any_op() -> impl Strategy<Value = Op> {
    let name = || prop::sample::select(&NAMES[..]);
    let weight = || prop_oneof![2 => Just(0), 6 => 1..5_u32, 1 => Just(MAX_WEIGHT), 1 => Just(MAX_WEIGHT + 1)];
    let limits = || {
        prop_oneof![
            3 => Just(Limits::NONE),
            3 => (1..4_u32).prop_map(Limits::new),
            2 => (0..4_u32, 0..5_u32).prop_map(|(max, resume)| Limits::new(max).with_resume_below(resume)),
        ]
    };
    let tier = || 0..3_u8;
    let health = || prop::sample::select(&[Health::Up, Health::Up, Health::Down][..]);
    let admin = prop::sample::select(
        &[
            BackendAdminState::Enabled,
            BackendAdminState::Enabled,
            BackendAdminState::Draining,
            BackendAdminState::Disabled,
        ][..],
    );
    let outcome = || prop::sample::select(&Outcome::ALL[..]);
    let end = prop_oneof![
        Just(End::Drop),
        outcome().prop_map(End::Complete),
        (outcome(), 0..2000_u64).prop_map(|(outcome, millis)| End::CompleteAfter(outcome, millis)),
    ];
    let flow = (
        prop::option::of(any::<u8>()),
        prop::option::of(0..4_u8),
        prop::option::of(any::<u64>()),
        any::<bool>(),
        prop_oneof![3 => Just(vec![]), 1 => prop::sample::subsequence(&NAMES[..], 0..=NAMES.len())],
    );
    let flow = flow.prop_map(|(source, destination, key, timed, tried)| Wanted {
        source,
        destination,
        key,
        timed,
        tried,
    });
    prop_oneof![
        6 => (name(), weight(), tier(), limits(), health()).prop_map(
            |(name, weight, tier, limits, health)| Op::Insert { name, weight, tier, limits, health }
        ),
        2 => name().prop_map(|name| Op::Remove { name }),
        1 => name().prop_map(|name| Op::SetTarget { name }),
        2 => (name(), weight()).prop_map(|(name, weight)| Op::SetWeight { name, weight }),
        2 => (name(), limits()).prop_map(|(name, limits)| Op::SetLimits { name, limits }),
        1 => (name(), tier()).prop_map(|(name, tier)| Op::SetTier { name, tier }),
        3 => (name(), admin).prop_map(|(name, admin)| Op::SetAdmin { name, admin }),
        3 => (name(), health()).prop_map(|(name, health)| Op::SetHealth { name, health }),
        1 => (name(), weight()).prop_map(|(name, weight)| Op::RefusedEdit { name, weight }),
        1 => prop::option::of(0..30_u64).prop_map(|seconds| Op::SlowStart { seconds }),
        2 => (0..10_u64).prop_map(|seconds| Op::Tick { seconds }),
        1 => Just(Op::SetScheduler),
        24 => flow.prop_map(|flow| Op::Pick { flow }),
        1 => name().prop_map(|name| Op::PickId { name }),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(lease, active)| Op::SetActive { lease, active }),
        12 => (any::<usize>(), end).prop_map(|(lease, how)| Op::End { lease, how }),
    ]
}

fn config(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6c76_7301),
        ..Config::default()
    }
}

#[test]
fn any_sequence_of_operations_agrees_with_the_model() {
    let cases = (SEQUENCES / ALL.len() as u32).max(8);
    for &expression in ALL {
        let sequences = prop::collection::vec(any_op(), 1..120);
        let result = TestRunner::new(config(cases)).run(&sequences, |ops| {
            let mut world = World::new(expression);
            for op in &ops {
                world.apply(op)?;
            }
            world.finish()
        });
        if let Err(error) = result {
            panic!("{expression}: {error}");
        }
    }
}

#[test]
fn every_built_in_scheduler_is_in_the_list() {
    for name in SchedulerRegistry::default().names() {
        assert!(
            ALL.iter().any(|expression| names_in(expression).any(|it| it == name)),
            "{name} is not tested here"
        );
    }
}

/// Pieces of expressions, well put together only by chance.
fn any_expression() -> impl Strategy<Value = String> {
    let names: Vec<String> = SchedulerRegistry::default().names().map(str::to_owned).collect();
    let piece = prop_oneof![
        4 => prop::sample::select(names),
        4 => prop::sample::select(&["(", ")", ", ", "=", ")", " "][..]).prop_map(str::to_owned),
        2 => prop::sample::select(&["panic", "factor", "seed", "sh-port", "decay", "size"][..])
            .prop_map(str::to_owned),
        2 => prop::sample::select(&["0", "1", "-1", "1.25", "1e99", "NaN", "5s", "0ms", "18446744073709551616"][..])
            .prop_map(str::to_owned),
        1 => "\\PC{0,3}",
    ];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

#[test]
fn no_expression_panics_and_what_parses_works_on_an_empty_set() {
    let result = TestRunner::new(config(1_000)).run(&any_expression(), |text| {
        if let Ok(scheduler) = parse(&text) {
            let balancer = Balancer::new(&BackendSet::<()>::new(), scheduler);
            let balancer = balancer.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(balancer.pick(&Flow::new()).map(drop), Err(PickError::NoBackends));
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
