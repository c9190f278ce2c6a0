//! The pair of directors, as processes in a network of their own: what becomes of the virtual address
//! and of what the active one knew, whatever happens to it.
//!
//! Needs root and `ip`; skipped elsewhere, with the reason.
#![cfg(all(feature = "director", target_os = "linux"))]

mod world;

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::world::{Process, VIRTUAL, VIRTUAL_V6, World, config, until};

/// A pair that is up: `a` is active, and `b` knows what it knows.
struct Pair {
    a: Process,
    b: Process,
    world: World,
}

impl Pair {
    fn start() -> Option<Self> {
        let mut world = World::new()?;
        world.servers(&[9001, 9002]);
        let a = world.director("a", &both_families("a"));
        until("a is active", || is_active(&world, "a"));
        let b = world.director("b", &both_families("b"));
        let pair = Self { a, b, world };
        pair.settle("a", "b");
        Some(pair)
    }

    /// Waits until one is active and the other follows it.
    #[track_caller]
    fn settle(&self, active: &str, standby: &str) {
        until("one is active", || is_active(&self.world, active));
        until("the other is not", || !is_active(&self.world, standby));
        until("it has the addresses", || self.world.has_all(active));
        until("the other has none", || self.world.has_none(standby));
        until("the other follows", || {
            let status = self.world.status(standby);
            status.is_some_and(|it| it["sync"]["in_sync"] == true)
        });
        until("clients find it", || self.world.ask(80).is_ok());
        until("clients know where it is", || {
            self.world.neighbour(VIRTUAL).contains(&self.world.mac(active))
        });
    }

    fn weight(&self, side: &str, place: usize) -> Option<u64> {
        self.world.status(side)?["services"][0]["servers"][place]["weight"].as_u64()
    }

    fn total(&self, side: &str) -> Option<u64> {
        self.world.status(side)?["services"][0]["totals"]["accepted"].as_u64()
    }
}

/// The configuration of one that has addresses of IPv6 too, which are in its hands with the other.
fn both_families(side: &str) -> String {
    let four = format!("\"{VIRTUAL}/24\"");
    let six = VIRTUAL_V6.map(|address| format!("\"{address}/64\"")).join(", ");
    config(side, 50, "").replace(&four, &format!("{four}, {six}"))
}

fn is_active(world: &World, side: &str) -> bool {
    world.status(side).is_some_and(|it| it["active"] == true)
}

#[test]
fn whoever_dies_is_replaced_and_what_it_knew_is_known() {
    let Some(mut pair) = Pair::start() else { return };
    let server = pair.world.ask(80).expect("a serves");
    let metrics = pair.world.page("a", "/metrics").expect("it answers");
    for line in [
        "lvs_active 1",
        r#"lvs_vrrp_state{router="51@eth0",state="master"} 1"#,
        r#"lvs_vrrp_transitions_total{router="51@eth0",state="master"} 1"#,
        r#"lvs_server_eligible{service="web",server="10.88.0.3:9001"} 1"#,
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}:\n{metrics}");
    }
    assert_eq!(pair.world.page("b", "/healthz").as_deref(), Some("standby\n"));
    for _ in 0..4 {
        assert_eq!(pair.world.ask(80).expect("a serves"), server, "a client stays");
    }
    pair.world.change("a", "10.88.0.3:9001", r#"{"weight": 7}"#);
    until("b knows of the weight", || pair.weight("b", 0) == Some(7));
    let total = pair.total("a").expect("it answers");
    assert!(total >= 5);
    until("b knows of the counts", || pair.total("b") == Some(total));

    let [_, six] = VIRTUAL_V6;
    pair.world.knock(six);
    assert!(pair.world.neighbour(six).contains(&pair.world.mac("a")));

    pair.a.kill();
    until("b is active", || is_active(&pair.world, "b"));
    // By word of b alone: nobody has asked.
    let mac = pair.world.mac("b");
    until("clients know where b is", || pair.world.neighbour(VIRTUAL).contains(&mac));
    until("over IPv6 too", || pair.world.neighbour(six).contains(&mac));
    // The dead one's machine goes on answering for the address until its lifetime ends.
    until("the dead one's addresses go by themselves", || pair.world.has_none("a"));
    until("clients are served", || pair.world.ask(80).is_ok());
    assert_eq!(pair.world.ask(80).expect("b serves"), server, "the client is known");
    assert!(pair.total("b").expect("it answers") > total, "counts go on");
    assert_eq!(pair.weight("b", 0), Some(7));

    pair.a = pair.world.director("a", &both_families("a"));
    pair.settle("a", "b");
    assert_eq!(pair.world.ask(80).expect("a serves"), server, "a was told when it came back");
    assert_eq!(pair.weight("a", 0), Some(7));
    assert!(pair.total("a").expect("it answers") > total);
}

#[test]
fn a_graceful_stop_hands_over() {
    let Some(mut pair) = Pair::start() else { return };
    pair.a.stop();
    assert!(pair.world.has_none("a"), "it gave the addresses up");
    until("b is active", || is_active(&pair.world, "b"));
    assert!(pair.a.log().contains("backup -> master"), "{}", pair.a.log());
    assert!(pair.b.log().contains("the master resigned"), "{}", pair.b.log());
    until("clients are served", || pair.world.ask(80).is_ok());
}

#[test]
fn one_that_was_held_up_steps_down_before_it_acts() {
    let Some(pair) = Pair::start() else { return };
    pair.a.signal(Signal::STOP);
    until("b is active", || is_active(&pair.world, "b"));
    until("the addresses of the one that is held up go by themselves", || pair.world.has_none("a"));
    pair.a.signal(Signal::CONT);
    // It has the higher priority, and takes over again by way of the election.
    pair.settle("a", "b");
    assert!(pair.a.log().contains("master -> backup"), "{}", pair.a.log());
    assert!(pair.a.log().contains("stalled, sent no advertisement for"), "{}", pair.a.log());
}

#[test]
fn one_without_a_link_is_no_master() {
    let Some(pair) = Pair::start() else { return };
    pair.world.link("a", false);
    until("b is active", || is_active(&pair.world, "b"));
    until("a gave the addresses up", || pair.world.has_none("a"));
    let state = |side: &str| {
        let status = pair.world.status(side).expect("it answers");
        status["vrrp"]["routers"][0]["state"].as_str().expect("text").to_owned()
    };
    assert_eq!(state("a"), "fault");
    until("clients are served", || pair.world.ask(80).is_ok());
    pair.world.link("a", true);
    pair.settle("a", "b");
}

#[test]
fn a_split_network_has_two_masters_and_one_when_it_is_whole_again() {
    let Some(pair) = Pair::start() else { return };
    pair.world.split(true);
    // Each believes the other to be dead: nothing that either could do tells that from a split.
    until("b is active too", || is_active(&pair.world, "b"));
    assert!(is_active(&pair.world, "a") && pair.world.has("a", VIRTUAL));
    until("clients reach one of them", || pair.world.ask(80).is_ok());
    pair.world.split(false);
    pair.settle("a", "b");
    // And it stays so: no address twice, and clients know the right one.
    for _ in 0..20 {
        assert!(!pair.world.has("b", VIRTUAL) && pair.world.has("a", VIRTUAL));
        pair.world.ask(80).expect("a serves");
        assert!(pair.world.neighbour(VIRTUAL).contains(&pair.world.mac("a")));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(pair.b.log().contains("master -> backup"), "{}", pair.b.log());
}

#[test]
fn a_service_without_servers_gives_way() {
    let Some(world) = World::new() else { return };
    let config = |side| {
        let text = config(side, 50, "service_weight = 60");
        text.replace("10.88.0.3:9001", "127.0.0.1:9001").replace("10.88.0.3:9002", "127.0.0.1:9002")
    };
    // The servers are reached from b alone.
    let server = world.within("b", || std::net::TcpListener::bind("127.0.0.1:9001"));
    let _server = server.expect("loopback");
    let a = world.director("a", &config("a"));
    let b = world.director("b", &config("b"));
    until("b is active", || is_active(&world, "b"));
    until("a is not", || !is_active(&world, "a"));
    let priority = |side: &str| {
        let status = world.status(side).expect("it answers");
        status["vrrp"]["routers"][0]["priority"].as_u64().expect("a number")
    };
    assert_eq!((priority("a"), priority("b")), (90, 100));
    drop((a, b));
}

#[test]
fn what_is_missing_is_named() {
    let Some(world) = World::new() else { return };
    let says = |config: &str, what: &str| {
        let director = world.director("a", config);
        until(what, || director.log().contains(what));
    };
    let sound = config("a", 50, "");
    says(&sound.replace("eth0", "eth7"), "there is no interface \"eth7\"");
    says(&sound.replace("[admin]", "[admn]"), "unknown field `admn`");
    world.on("a", &["addr", "add", &format!("{VIRTUAL}/24"), "dev", "eth0"]);
    says(&sound, "virtual address 10.88.0.100 is on interface");
}
