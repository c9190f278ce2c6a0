use std::collections::BTreeMap;

use super::*;
use crate::scheduler::{Rng, RoundRobin};
use crate::{Backend, BackendId, BackendSet, Balancer, Flow, Health, Limits, PickError, Spec};

#[test]
fn impossible_parameters_are_refused() {
    let rule = PriorityTiers::new(RoundRobin::new());
    let over = rule.overprovisioning(0).expect_err("none");
    assert_eq!(
        over.to_string(),
        "priority: overprovisioning=0 is not a whole number from 1 to 10000"
    );
    let panic = rule.panic_threshold(101).expect_err("more than all");
    assert_eq!(panic.to_string(), "priority: panic=101 is not a whole number from 0 to 100");
    assert!(rule.overprovisioning(10_000).is_ok() && rule.panic_threshold(100).is_ok());
}

/// A set with `sizes[t]` members in tier `t`, named `t` and a letter.
fn world(sizes: &[u8]) -> (BackendSet<()>, Balancer<()>) {
    let set = BackendSet::new();
    for (tier, &size) in sizes.iter().enumerate() {
        for letter in (b'a'..b'a' + size).rev().map(char::from) {
            set.insert(Spec::new(format!("{tier}{letter}"), ()).tier(tier as u8)).expect("new");
        }
    }
    let balancer =
        Balancer::new(&set, PriorityTiers::new(RoundRobin::new())).expect("rr takes any list");
    (set, balancer)
}

fn down(set: &BackendSet<()>, names: &[&str]) {
    for &name in names {
        set.set_health(&name.into(), Health::Down).expect("known");
    }
}

/// How often each member is picked by `n` flows with neither key nor source.
fn tally(balancer: &Balancer<()>, n: usize) -> BTreeMap<String, usize> {
    let mut rng = Rng::with_seed(1);
    let mut tally = BTreeMap::new();
    for _ in 0..n {
        let lease = balancer.pick_with_rng(&Flow::new(), &mut rng).expect("a usable member");
        *tally.entry(lease.id().to_string()).or_default() += 1;
    }
    tally
}

#[test]
fn the_second_tier_takes_over_and_returns_the_work() {
    let (set, balancer) = world(&[2, 1]);
    assert_eq!(tally(&balancer, 4), [("0a", 2), ("0b", 2)].map(|(k, n)| (k.into(), n)).into());
    down(&set, &["0a", "0b"]);
    assert_eq!(tally(&balancer, 4).keys().collect::<Vec<_>>(), ["1a"]);
    set.set_health(&"0b".into(), Health::Up).expect("known");
    set.set_health(&"0a".into(), Health::Up).expect("known");
    assert_eq!(tally(&balancer, 4).len(), 2);
}

#[test]
fn flows_without_a_key_are_divided_at_random_and_flows_with_a_key_stay() {
    let (set, balancer) = world(&[4, 4]);
    down(&set, &["0a", "0b"]);
    let second: usize = tally(&balancer, 10_000)
        .iter()
        .filter_map(|(name, &n)| name.starts_with('1').then_some(n))
        .sum();
    assert!((2_800..3_200).contains(&second), "30 % of 10 000, got {second}");

    let tier = |key: u64| {
        let lease = balancer.pick(&Flow::new().key(key)).expect("a usable member");
        lease.id().as_str().as_bytes()[0]
    };
    let moved = (0..1_000).filter(|&key| tier(key) != tier(key)).count();
    assert_eq!(moved, 0);
    let second = (0..10_000).filter(|&key| tier(key) == b'1').count();
    assert!((2_800..3_200).contains(&second), "consecutive keys spread, too: {second}");
}

#[test]
fn the_keys_of_a_tier_come_from_the_whole_range() {
    let (set, balancer) = world(&[4, 4]);
    down(&set, &["0a", "0b"]);
    let mut quarters = [0; 4];
    for key in (0..10_000).map(mix_bits) {
        let lease = balancer.pick(&Flow::new().key(key)).expect("a usable member");
        if lease.id().as_str().starts_with('1') {
            quarters[scale_to_range(key, 4)] += 1;
        }
    }
    assert!(quarters.iter().all(|n| (650..850).contains(n)), "{quarters:?}");
}

#[test]
fn in_panic_members_that_are_down_serve_by_weight_except_those_the_operator_took_out() {
    let (set, balancer) = world(&[6]);
    set.set_weight(&"0a".into(), 0).expect("known");
    set.drain(&"0b".into()).expect("known");
    set.disable(&"0c".into()).expect("known");
    down(&set, &["0a", "0b", "0c", "0d", "0e", "0f"]);
    assert_eq!(tally(&balancer, 9).keys().collect::<Vec<_>>(), ["0d", "0e", "0f"]);
    down(&set, &["0d", "0e", "0f"]);
    set.set_weight(&"0d".into(), 0).expect("known");
    set.set_weight(&"0e".into(), 0).expect("known");
    set.set_weight(&"0f".into(), 0).expect("known");
    assert_eq!(balancer.pick(&Flow::new()).expect_err("all at 0"), PickError::AllQuiesced);
}

#[test]
fn members_taken_out_by_the_operator_are_no_reason_for_panic() {
    let (set, balancer) = world(&[4]);
    set.drain(&"0a".into()).expect("known");
    set.disable(&"0b".into()).expect("known");
    down(&set, &["0c"]);
    assert_eq!(tally(&balancer, 4).keys().collect::<Vec<_>>(), ["0d"], "1 of 2 is 50 %");
}

#[test]
fn a_full_or_tried_tier_is_followed_by_the_other_tiers() {
    let (set, balancer) = world(&[1, 1]);
    let exclude = |names: &[&str]| {
        let backend = |&name: &&str| -> std::sync::Arc<Backend<()>> {
            let snapshot = set.snapshot();
            snapshot.find(&BackendId::from(name)).expect("known").clone()
        };
        names.iter().map(backend).fold(Flow::new(), |flow, backend| flow.excluding(&*backend))
    };
    let pick = |flow: &Flow| balancer.pick(flow).map(|lease| lease.id().to_string());
    assert_eq!(pick(&exclude(&["0a"])).as_deref(), Ok("1a"));
    assert_eq!(pick(&exclude(&["0a", "1a"])), Err(PickError::AllTried));

    set.set_limits(&"0a".into(), Limits::new(1)).expect("sound");
    set.set_limits(&"1a".into(), Limits::new(1)).expect("sound");
    let first = balancer.pick(&Flow::new()).expect("room");
    let second = balancer.pick(&Flow::new()).expect("room in the next tier");
    assert_eq!((first.id().as_str(), second.id().as_str()), ("0a", "1a"));
    assert_eq!(balancer.pick(&Flow::new()).map(drop), Err(PickError::AllAtLimit));
    drop(first);
    assert_eq!(pick(&Flow::new()).as_deref(), Ok("0a"));
}

#[test]
fn a_tier_keeps_its_cursor_when_another_changes() {
    let (set, balancer) = world(&[3, 1]);
    let next = || balancer.pick(&Flow::new()).expect("a usable member").id().to_string();
    assert_eq!(next(), "0a");
    down(&set, &["1a"]);
    assert_eq!(next(), "0b");
}
