//! Several directors with the same members choose the same one for a key, whatever the order in which the members came.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lvs::backend::{BackendSet, Health, Spec};
use lvs::{Balancer, Flow, scheduler};

const KEYS: u32 = 1_000_000;
const MEMBERS: u8 = 20;
/// The keyed schedulers, those of IPVS in the order that all directors have in common.
const RULES: [&str; 7] = [
    "maglev",
    "ring",
    "rendezvous",
    "rendezvous(table)",
    "mh(sorted)",
    "sh(sorted, sh-fallback)",
    "dh(sorted)",
];

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 80))
}

/// Returns a director's balancer, with members in this order.
fn director(rule: &str, order: impl IntoIterator<Item = u8>) -> Balancer<SocketAddr> {
    let set = BackendSet::new();
    for number in order {
        let weight = u32::from(number % 4) + 1;
        set.insert(Spec::from(address(number)).weight(weight)).expect("another address");
    }
    let rule = scheduler::parse(rule).expect("a known rule");
    Balancer::new(&set, rule).expect("few members")
}

/// Returns three directors whose members came in different orders.
fn directors(rule: &str) -> [Balancer<SocketAddr>; 3] {
    let in_order = director(rule, 1..=MEMBERS);
    let reversed = director(rule, (1..=MEMBERS).rev());
    // One that was removed and added again, and one that had another weight.
    let mixed = director(rule, (1..=MEMBERS).map(|number| number * 8 % (MEMBERS + 1)));
    let set = mixed.backend_set();
    set.remove(&address(3).to_string().as_str().into()).expect("a member");
    set.insert(Spec::from(address(3)).weight(4)).expect("another address");
    set.set_weight(&address(5).to_string().as_str().into(), 9).expect("a member");
    set.set_weight(&address(5).to_string().as_str().into(), 2).expect("a member");
    [in_order, reversed, mixed]
}

/// Returns a client's flow; the rules read its source, its destination, or a key.
fn flow(key: u32) -> Flow {
    // Spread over all addresses.
    let ip = IpAddr::V4(Ipv4Addr::from(key.wrapping_mul(0x9e37_79b1)));
    let client = SocketAddr::new(ip, (key % 50_000 + 1024) as u16);
    Flow::from(client).destination(client)
}

fn choice(balancer: &Balancer<SocketAddr>, key: u32) -> SocketAddr {
    *balancer.pick(&flow(key)).expect("members serve").target()
}

/// Returns how many of the keys have another member at the second director.
fn count_different(one: &Balancer<SocketAddr>, other: &Balancer<SocketAddr>, keys: u32) -> u32 {
    (0..keys).map(|key| u32::from(choice(one, key) != choice(other, key))).sum()
}

#[test]
fn a_million_keys_have_the_same_member_at_three_directors() {
    for rule in RULES {
        let [one, two, three] = directors(rule);
        assert_eq!(count_different(&one, &two, KEYS), 0, "{rule}");
        assert_eq!(count_different(&one, &three, KEYS), 0, "{rule}");
        let fingerprints = [&one, &two, &three].map(Balancer::fingerprint);
        assert!(fingerprints.iter().all(|it| *it == fingerprints[0]), "{rule}: {fingerprints:?}");
    }
}

#[test]
fn rules_that_follow_the_order_of_the_list_differ_and_their_fingerprints_say_so() {
    for rule in ["mh", "sh", "dh"] {
        let [one, two, _] = directors(rule);
        assert_ne!(count_different(&one, &two, 10_000), 0, "{rule}");
        assert_ne!(one.fingerprint(), two.fingerprint(), "{rule}");
    }
}

/// Health is each director's own: where one finds a member down, only the keys of this member go elsewhere.
#[test]
fn a_member_that_one_director_finds_down_moves_only_its_own_keys() {
    let keys = 100_000;
    for rule in RULES {
        let [one, two, _] = directors(rule);
        let down = address(7);
        two.backend_set()
            .set_health(&down.to_string().as_str().into(), Health::Down)
            .expect("a member");
        assert_eq!(one.fingerprint(), two.fingerprint(), "{rule}: health is not in it");
        let mut moved = 0;
        for key in 0..keys {
            let (with, without) = (choice(&one, key), choice(&two, key));
            assert!(with == without || with == down, "{rule}: key {key} of {with} moved");
            moved += u32::from(with != without);
        }
        let all = (0..keys).filter(|key| choice(&one, *key) == down).count() as u32;
        assert_eq!((moved, moved > 0), (all, true), "{rule}");
    }
}

/// While a weight is changed at one director after the other, the share of keys that differ between the two tables.
#[test]
#[ignore = "figures, for docs/scale.md"]
fn figures_of_a_rolling_change() {
    println!("| rule | weight 4 to 5 | weight 4 to 8 | one server added | one server removed |");
    println!("|---|---|---|---|---|");
    for rule in RULES {
        let share = |change: &dyn Fn(&BackendSet<SocketAddr>)| {
            let [one, two, _] = directors(rule);
            change(two.backend_set());
            f64::from(count_different(&one, &two, KEYS)) / f64::from(KEYS) * 100.0
        };
        let id = |number: u8| address(number).to_string();
        let weight = |weight: u32| {
            share(&|set| set.set_weight(&id(3).as_str().into(), weight).expect("a member"))
        };
        let added = share(&|set| {
            set.insert(Spec::from(address(100)).weight(2)).map(drop).expect("another address");
        });
        let removed = share(&|set| {
            set.remove(&id(3).as_str().into()).map(drop).expect("a member");
        });
        println!(
            "| `{rule}` | {:.2} % | {:.2} % | {added:.2} % | {removed:.2} % |",
            weight(5),
            weight(8)
        );
    }
}
