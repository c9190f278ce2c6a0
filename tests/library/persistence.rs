//! What persistence promises: a client stays with its backend for a time, and no longer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lvs::balancer::{AffinityPolicy, Persistence, PersistenceBuilder, SavedTemplate};
use lvs::scheduler::{Rng, RoundRobin};
use lvs::{BackendId, BackendSet, Balancer, Flow, Health, Lease, Limits, PickError, Spec};

const TIMEOUT: Duration = Duration::from_secs(300);

struct World {
    set: BackendSet<()>,
    sticky: Persistence<()>,
    start: Instant,
}

/// A set of `a` and `b`, in turn, under persistence.
fn world(rule: PersistenceBuilder) -> World {
    let set = BackendSet::new();
    for name in ["b", "a"] {
        set.insert(Spec::new(name, ())).expect("new");
    }
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("takes any list");
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    let start = Instant::now();
    World { set, sticky: rule.build(balancer).expect("in range"), start }
}

fn id(name: &str) -> BackendId {
    BackendId::from(name)
}

impl World {
    fn lease(&self, client: &str, seconds: u64) -> Result<Lease<()>, PickError> {
        self.lease_for(Flow::new(), client, seconds)
    }

    fn lease_for(&self, flow: Flow, client: &str, seconds: u64) -> Result<Lease<()>, PickError> {
        let client = SocketAddr::new(client.parse().expect("an address"), 5000);
        let now = self.start + Duration::from_secs(seconds);
        self.sticky.pick_with_rng(&flow.source(client), &mut Rng::with_seed(1), now)
    }

    fn pick(&self, client: &str, seconds: u64) -> String {
        self.lease(client, seconds).expect("an eligible backend").id().to_string()
    }
}

#[test]
fn a_client_stays_while_it_comes_back_in_time() {
    let it = world(Persistence::builder(TIMEOUT));
    assert_eq!(it.pick("192.0.2.1", 0), "a");
    assert_eq!(it.pick("192.0.2.2", 0), "b");
    assert_eq!(it.pick("192.0.2.1", 299), "a");
    assert_eq!(it.pick("192.0.2.1", 598), "a", "each use starts the time anew");
    assert_eq!(it.pick("192.0.2.2", 300), "a", "the template has ended, the turn has come to a");
    assert_eq!(it.pick("192.0.2.2", 301), "a");
}

#[test]
fn a_network_shares_one_backend() {
    let it = world(Persistence::builder(TIMEOUT).ipv4_prefix(24).ipv6_prefix(64));
    assert_eq!(it.pick("192.0.2.1", 0), "a");
    assert_eq!(it.pick("192.0.2.254", 0), "a");
    assert_eq!(it.pick("192.0.3.1", 0), "b");
    assert_eq!(it.pick("2001:db8::1", 0), "a");
    assert_eq!(it.pick("2001:db8::ffff:1", 0), "a");
    assert_eq!(it.pick("2001:db8:0:1::1", 0), "b");
    assert_eq!(it.sticky.len(), 4);
}

#[test]
fn a_backend_of_weight_0_keeps_its_clients_unless_configured_otherwise() {
    let kernel = world(Persistence::builder(TIMEOUT));
    let strict = world(Persistence::builder(TIMEOUT).quiesced(AffinityPolicy::End));
    for (it, expected) in [(&kernel, "a"), (&strict, "b")] {
        assert_eq!(it.pick("192.0.2.1", 0), "a");
        it.set.set_weight(&id("a"), 0).expect("known");
        assert_eq!(it.pick("192.0.2.1", 1), expected);
        assert_eq!(it.pick("192.0.2.9", 1), "b", "no new client in either case");
    }
}

type Change = fn(&BackendSet<()>);
type Policy = fn(PersistenceBuilder, AffinityPolicy) -> PersistenceBuilder;

/// The two ways in which an operator lets a backend run empty, and the policy of each.
const WAYS_OUT: [(Change, Policy); 2] = [
    (|set| set.drain(&id("a")).expect("known"), PersistenceBuilder::draining),
    (|set| set.set_weight(&id("a"), 0).expect("known"), PersistenceBuilder::quiesced),
];

#[test]
fn affinity_that_ends_is_not_followed_once() {
    for (change, policy) in WAYS_OUT {
        let it = world(policy(Persistence::builder(TIMEOUT), AffinityPolicy::End));
        assert_eq!(it.pick("192.0.2.1", 0), "a");
        change(&it.set);
        assert_eq!(it.pick("192.0.2.1", 1), "b");
        it.set.enable(&id("a")).expect("known");
        it.set.set_weight(&id("a"), 1).expect("known");
        assert_eq!(it.pick("192.0.2.1", 2), "b", "the new template holds");
    }
}

#[test]
fn affinity_that_runs_out_is_followed_and_not_renewed() {
    for (change, policy) in WAYS_OUT {
        let it = world(policy(Persistence::builder(TIMEOUT), AffinityPolicy::Expire));
        assert_eq!(it.pick("192.0.2.1", 0), "a");
        assert_eq!(it.pick("192.0.2.1", 100), "a");
        change(&it.set);
        for seconds in [101, 200, 300, 399] {
            assert_eq!(it.pick("192.0.2.1", seconds), "a");
        }
        assert_eq!(it.pick("192.0.2.2", 200), "b", "no new client");
        assert_eq!(it.pick("192.0.2.1", 400), "b", "the time since the last renewal is over");

        it.set.enable(&id("a")).expect("known");
        it.set.set_weight(&id("a"), 1).expect("known");
        assert_eq!(it.pick("192.0.2.1", 500), "b");
    }
}

#[test]
fn affinity_that_ran_out_for_a_while_is_renewed_again() {
    let it = world(Persistence::builder(TIMEOUT).draining(AffinityPolicy::Expire));
    assert_eq!(it.pick("192.0.2.1", 0), "a");
    it.set.drain(&id("a")).expect("known");
    assert_eq!(it.pick("192.0.2.1", 200), "a");
    it.set.enable(&id("a")).expect("known");
    assert_eq!(it.pick("192.0.2.1", 250), "a");
    assert_eq!(it.pick("192.0.2.1", 500), "a", "renewed at 250");
}

#[test]
fn affinity_that_stays_is_renewed_with_each_use() {
    for (change, policy) in WAYS_OUT {
        let it = world(policy(Persistence::builder(TIMEOUT), AffinityPolicy::Keep));
        assert_eq!(it.pick("192.0.2.1", 0), "a");
        change(&it.set);
        for seconds in [299, 598, 897] {
            assert_eq!(it.pick("192.0.2.1", seconds), "a");
        }
        assert_eq!(it.pick("192.0.2.2", 900), "b", "no new client");
        assert_eq!(it.pick("192.0.2.1", 1197), "b", "unused for the timeout");
    }
}

#[test]
fn no_policy_follows_a_backend_that_is_down_or_disabled() {
    let everything =
        Persistence::builder(TIMEOUT).draining(AffinityPolicy::Keep).quiesced(AffinityPolicy::Keep);
    let changes: [Change; 2] = [
        |set| set.set_health(&id("a"), Health::Down).expect("known"),
        |set| set.disable(&id("a")).expect("known"),
    ];
    for change in changes {
        let it = world(everything);
        assert_eq!(it.pick("192.0.2.1", 0), "a");
        it.set.drain(&id("a")).expect("known");
        assert_eq!(it.pick("192.0.2.1", 1), "a");
        it.set.enable(&id("a")).expect("known");
        change(&it.set);
        assert_eq!(it.pick("192.0.2.1", 2), "b");
    }
}

#[test]
fn services_that_share_a_table_share_affinity_and_others_do_not() {
    let set = BackendSet::new();
    for name in ["b", "a"] {
        set.insert(Spec::new(name, ())).expect("new");
    }
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("takes any list");
    let group = Persistence::builder(TIMEOUT).build(balancer.clone()).expect("in range");
    let alone = Persistence::builder(TIMEOUT).build(balancer).expect("in range");
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    let now = Instant::now();
    let pick = |sticky: &Persistence<()>, client: &str, local: &str| {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let lease = sticky.pick(&Flow::from(address(client)).destination(address(local)), now);
        lease.expect("an eligible backend").id().to_string()
    };
    // Other ports and addresses of one group, as under one firewall mark.
    for local in ["198.51.100.1:80", "198.51.100.1:443", "198.51.100.2:8080"] {
        assert_eq!(pick(&group, "192.0.2.1:5000", local), "a");
    }
    assert_eq!(pick(&alone, "192.0.2.1:5000", "198.51.100.1:80"), "b", "the turn has come to b");
    assert_eq!(pick(&alone, "192.0.2.1:5001", "198.51.100.1:80"), "b");
    assert_eq!((group.len(), alone.len()), (1, 1));
}

#[test]
fn threads_that_share_a_table_agree_on_each_client() {
    let it = world(Persistence::builder(TIMEOUT));
    let picks: Vec<Vec<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let it = &it;
                scope.spawn(move || (0..200).map(|n| it.pick(&format!("192.0.2.{n}"), 0)).collect())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(picks.iter().all(|of_one| *of_one == picks[0]));
    assert_eq!(it.sticky.len(), 200);
}

#[test]
fn drain_disablement_failure_and_removal_end_affinity() {
    let changes: [(&str, Change); 4] = [
        ("drain", |set| set.drain(&id("a")).expect("known")),
        ("disable", |set| set.disable(&id("a")).expect("known")),
        ("down", |set| set.set_health(&id("a"), Health::Down).expect("known")),
        ("remove", |set| drop(set.remove(&id("a")).expect("known"))),
    ];
    for (name, change) in changes {
        let it = world(Persistence::builder(TIMEOUT));
        assert_eq!(it.pick("192.0.2.1", 0), "a");
        change(&it.set);
        assert_eq!(it.pick("192.0.2.1", 1), "b", "{name}");
        let _ = it.set.enable(&id("a"));
        let _ = it.set.set_health(&id("a"), Health::Up);
        assert_eq!(it.pick("192.0.2.1", 2), "b", "{name}: the new template holds");
    }
}

#[test]
fn a_backend_that_comes_back_under_its_name_is_not_followed() {
    let it = world(Persistence::builder(TIMEOUT));
    assert_eq!(it.pick("192.0.2.1", 0), "a");
    it.set.remove(&id("a")).expect("known");
    it.set.insert(Spec::new("a", ())).expect("free");
    it.set.drain(&id("a")).expect("known");
    assert_eq!(it.pick("192.0.2.1", 1), "b");
}

#[test]
fn affinity_is_past_limits_but_not_past_what_was_tried() {
    let it = world(Persistence::builder(TIMEOUT));
    it.set.set_limits(&id("a"), Limits::new(1)).expect("sound");
    let first = it.lease("192.0.2.1", 0).expect("room");
    let second = it.lease("192.0.2.1", 1).expect("past the limit");
    assert_eq!((first.id(), second.id()), (&id("a"), &id("a")));
    assert_eq!(it.pick("192.0.2.2", 1), "b");

    let retry = Flow::new().excluding(first.backend());
    drop((first, second));
    let lease = it.lease_for(retry, "192.0.2.1", 2).expect("b is left");
    assert_eq!(lease.id(), &id("b"));
    assert_eq!(it.pick("192.0.2.1", 3), "b", "the client stays at b");
}

#[test]
fn a_failed_pick_leaves_no_template() {
    let it = world(Persistence::builder(TIMEOUT));
    it.set.disable(&id("a")).expect("known");
    it.set.disable(&id("b")).expect("known");
    assert_eq!(it.lease("192.0.2.1", 0).map(drop), Err(PickError::AllQuiesced));
    assert!(it.sticky.is_empty());
}

#[test]
fn a_full_table_schedules_new_clients_each_time_and_keeps_known_ones() {
    let it = world(Persistence::builder(TIMEOUT).capacity(32));
    let client = |i: u32| format!("10.0.{}.{}", i / 256, i % 256);
    let first = it.pick(&client(0), 0);
    for i in 1..1000 {
        it.pick(&client(i), 0);
    }
    assert_eq!(it.sticky.len(), 32);
    assert_eq!(it.pick(&client(0), 1), first);
    it.pick("192.0.2.1", 400);
    assert!(it.sticky.len() < 32, "expired templates make room");

    let none = world(Persistence::builder(TIMEOUT).capacity(0));
    let picks = [0, 1, 2].map(|seconds| none.pick("192.0.2.1", seconds));
    assert_eq!((picks.concat().as_str(), none.sticky.len()), ("aba", 0));
}

#[test]
fn the_shortest_and_the_longest_timeout_work() {
    let none = world(Persistence::builder(Duration::ZERO));
    assert_eq!((none.pick("192.0.2.1", 0), none.pick("192.0.2.1", 0)), ("a".into(), "b".into()));
    let ever = world(Persistence::builder(Duration::from_secs(1 << 32)));
    assert_eq!(
        (ever.pick("192.0.2.1", 0), ever.pick("192.0.2.1", 1 << 31)),
        ("a".into(), "a".into())
    );
}

#[test]
fn a_table_restores_what_another_exported() {
    let rule = Persistence::builder(TIMEOUT).ipv4_prefix(24);
    let (it, other) = (world(rule), world(rule));
    let at = |seconds| it.start + Duration::from_secs(seconds);
    assert_eq!((it.pick("192.0.2.1", 0), it.pick("198.51.100.1", 100)), ("a".into(), "b".into()));
    let all = it.sticky.export(at(100), None);
    assert_eq!(all.len(), 2);
    assert_eq!(other.sticky.restore(all, other.start), 2);
    // The scheduler of `other` begins with `a`, and does so for a client without a template.
    assert_eq!(
        (other.pick("198.51.100.9", 0), other.pick("203.0.113.1", 0)),
        ("b".into(), "a".into())
    );
    assert_eq!(other.pick("192.0.2.9", 199), "a");

    let since = it.sticky.export(at(200), Some(at(100)));
    let backends: Vec<_> = since.iter().map(|saved| saved.backend.to_string()).collect();
    assert_eq!(backends, ["b"], "only templates used since then are exported");
    assert_eq!(since[0].remaining, TIMEOUT - Duration::from_secs(100));
    assert!(it.sticky.export(at(401), None).is_empty(), "expired templates are not exported");
}

#[test]
fn restored_templates_obey_the_timeout_and_capacity_of_the_table() {
    let it = world(Persistence::builder(TIMEOUT).capacity(16));
    let saved = |number: u8, backend: &str| SavedTemplate {
        network: [192, 0, 2, number].into(),
        backend: id(backend),
        remaining: 10 * TIMEOUT,
    };
    assert_eq!(it.sticky.restore([saved(1, "unknown")], it.start), 0);
    assert_eq!(it.sticky.restore([saved(1, "b")], it.start), 1);
    assert_eq!(it.pick("192.0.2.1", 301), "a", "the restored template expired");
    let many = (0..=255).map(|number| saved(number, "b"));
    assert!(it.sticky.restore(many, it.start) <= 16);
    assert!(it.sticky.len() <= 16);
}
