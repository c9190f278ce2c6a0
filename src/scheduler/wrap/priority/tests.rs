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

/// A set with members `local` and `remote` of two zones, and `old` of no zone.
fn zones(local: u8, remote: u8, old: u8) -> BackendSet<()> {
    let set = BackendSet::new();
    let zone = |name| Zone::new(name).expect("a name");
    for (name, count, zone) in [
        ("local", local, Some(zone("eu-1a"))),
        ("remote", remote, Some(zone("eu-1b"))),
        ("old", old, None),
    ] {
        for n in 0..count {
            set.insert(Spec { zone, ..Spec::new(format!("{name}{n}"), ()) }).expect("new");
        }
    }
    set
}

fn prefers_eu_1a() -> PriorityTiers<RoundRobin> {
    PriorityTiers::new(RoundRobin::new()).zone(Zone::new("eu-1a").expect("a name"))
}

/// The percentage of the work that stays in the zone.
fn local_percent(balancer: &Balancer<()>) -> usize {
    let tally = tally(balancer, 20_000);
    let local = tally.iter().filter(|(name, _)| name.starts_with("local"));
    (local.map(|(_, count)| count).sum::<usize>() + 100) / 200
}

/// The tables of Envoy's priority levels, of which a zone is the first.
#[test]
fn work_leaves_a_zone_by_as_much_as_it_is_not_healthy() {
    let set = zones(20, 20, 0);
    let balancer = Balancer::new(&set, prefers_eu_1a()).expect("few members");
    // Of 20: available in the zone, elsewhere; the percentage that stays.
    for (local, remote, stays) in [
        (20, 20, 100),
        (15, 20, 100),
        (14, 20, 98),
        (10, 20, 70),
        (5, 20, 35),
        (0, 20, 0),
        (20, 0, 100),
    ] {
        for (name, available) in [("local", local), ("remote", remote)] {
            for n in 0..20 {
                let health = if n < available { Health::Up } else { Health::Down };
                set.set_health(&format!("{name}{n}").as_str().into(), health).expect("known");
            }
        }
        let percent = local_percent(&balancer);
        assert!(percent.abs_diff(stays) <= 1, "{local} {remote}: {percent}, not {stays}");
    }
}

#[test]
fn a_zone_goes_before_members_elsewhere_and_before_those_of_no_zone_within_each_tier() {
    let set = zones(1, 1, 1);
    set.insert(Spec::new("spare", ()).tier(1).zone(Zone::new("eu-1a").expect("a name")))
        .expect("new");
    let rule = prefers_eu_1a().panic_threshold(0).expect("a percentage");
    let balancer = Balancer::new(&set, rule).expect("few members");
    assert_eq!(tally(&balancer, 9).keys().collect::<Vec<_>>(), ["local0"]);
    down(&set, &["local0"]);
    assert_eq!(tally(&balancer, 9).keys().collect::<Vec<_>>(), ["old0", "remote0"]);
    down(&set, &["old0", "remote0"]);
    assert_eq!(tally(&balancer, 9).keys().collect::<Vec<_>>(), ["spare"]);
    // A member that moves to the zone.
    set.set_health(&"remote0".into(), Health::Up).expect("known");
    set.set_health(&"old0".into(), Health::Up).expect("known");
    set.edit(|edit| edit.set_zone(&"old0".into(), Some(Zone::new("eu-1a").expect("a name"))))
        .expect("known");
    assert_eq!(local_or_old(&balancer), ["old0", "remote0"]);
    // Without the zone, all of the tier serve.
    balancer.set_scheduler(PriorityTiers::new(RoundRobin::new())).expect("few members");
    assert_eq!(tally(&balancer, 9).keys().collect::<Vec<_>>(), ["old0", "remote0"]);
}

fn local_or_old(balancer: &Balancer<()>) -> Vec<String> {
    tally(balancer, 200).into_keys().collect()
}

/// As Envoy routes by zone: the share that the zone has of the weight, over that which it has of the traffic.
#[test]
fn a_zone_that_is_weaker_than_its_traffic_keeps_its_share() {
    for (local, remote, traffic, stays) in
        [(1, 3, 50, 50), (2, 2, 50, 100), (3, 1, 50, 100), (1, 3, 25, 100), (1, 9, 100, 10)]
    {
        let set = zones(local, remote, 0);
        let rule = prefers_eu_1a().traffic(traffic).expect("a percentage");
        let balancer = Balancer::new(&set, rule).expect("few members");
        let percent = local_percent(&balancer);
        assert!(percent.abs_diff(stays) <= 1, "{local} {remote} {traffic}: {percent}");
    }
    // Where nobody else is left, it keeps all.
    let set = zones(1, 3, 0);
    let rule = prefers_eu_1a().traffic(50).expect("a percentage");
    let balancer = Balancer::new(&set, rule).expect("few members");
    down(&set, &["remote0", "remote1", "remote2"]);
    assert_eq!(local_percent(&balancer), 100);
    let refused = prefers_eu_1a().traffic(0).expect_err("none");
    assert_eq!(refused.to_string(), "priority: traffic=0 is not a whole number from 1 to 100");
}

/// A key stays in its tier, and at its member there, while the percentages stay.
#[test]
fn hash_rules_prefer_a_zone_too() {
    let set = zones(4, 4, 0);
    let zone = Zone::new("eu-1a").expect("a name");
    let rule = PriorityTiers::new(crate::scheduler::Maglev::new()).zone(zone);
    let balancer = Balancer::new(&set, rule).expect("few members");
    let choice = |key: u64| {
        let lease = balancer.pick(&Flow::new().key(key)).expect("a usable member");
        lease.id().to_string()
    };
    let before: Vec<_> = (0..2000).map(choice).collect();
    assert!(before.iter().all(|name| name.starts_with("local")));
    down(&set, &["local0", "local1"]);
    let after: Vec<_> = (0..2000).map(choice).collect();
    let left = after.iter().filter(|name| name.starts_with("remote")).count();
    assert!((500..700).contains(&left), "70 % stay: {left}");
    for (before, after) in before.iter().zip(&after) {
        let had_failed = ["local0", "local1"].contains(&&**before);
        assert!(had_failed || before == after || after.starts_with("remote"), "{before} {after}");
    }
}
