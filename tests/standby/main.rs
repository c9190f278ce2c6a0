//! An active and a standby director, as processes in network namespaces: what becomes of the virtual
//! address and of the active director's state after each kind of failure.
//!
//! It needs root and `ip`, and is skipped without them, with the reason.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod world;

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use lvs::director::{Director, DirectorConfig, DirectorError};
use rustix::process::Signal;

use crate::world::machines::{Process, until};
use crate::world::{VIRTUAL, VIRTUAL_V6, World, config};

/// A running pair: `a` is active, and `b` has its state.
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

    /// Waits until `active` is active and `standby` follows it.
    #[track_caller]
    fn settle(&self, active: &str, standby: &str) {
        until("the first is active", || is_active(&self.world, active));
        until("the second is standby", || !is_active(&self.world, standby));
        until("the active director has the addresses", || self.world.has_all(active));
        until("the standby has no address", || self.world.has_none(standby));
        until("the standby is in sync", || {
            let status = self.world.status(standby);
            status.is_some_and(|status| status["sync"]["in_sync"] == true)
        });
        until("clients are served", || self.world.ask(80).is_ok());
        until("clients have the MAC address of the active director", || {
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

/// Returns a configuration with IPv6 addresses too, which one director has together with the IPv4 ones.
fn both_families(side: &str) -> String {
    let four = format!("\"{VIRTUAL}/24\"");
    let six = VIRTUAL_V6.map(|address| format!("\"{address}/64\"")).join(", ");
    config(side, 50, "").replace(&four, &format!("{four}, {six}"))
}

fn is_active(world: &World, side: &str) -> bool {
    world.status(side).is_some_and(|status| status["active"] == true)
}

#[test]
fn the_standby_takes_over_with_the_state_of_a_director_that_died() {
    let Some(mut pair) = Pair::start() else { return };
    let server = pair.world.ask(80).expect("a serves");
    let metrics = pair.world.page("a", "/metrics").expect("the director answers");
    for line in [
        "lvs_active 1",
        r#"lvs_vrrp_state{router="51@eth0",state="master"} 1"#,
        r#"lvs_vrrp_transitions_total{router="51@eth0",state="master"} 1"#,
        r#"lvs_server_eligible{service="web",server="10.88.0.3:9001"} 1"#,
    ] {
        assert!(metrics.lines().any(|metric| metric == line), "{line}:\n{metrics}");
    }
    assert_eq!(pair.world.page("b", "/healthz").as_deref(), Some("standby\n"));
    for _ in 0..4 {
        assert_eq!(pair.world.ask(80).expect("a serves"), server, "the client stays on its server");
    }
    let answer = pair.world.change("a", "10.88.0.3:9001", r#"{"weight": 7}"#);
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    until("b has the weight", || pair.weight("b", 0) == Some(7));
    // The standby refuses a change, and says where to make it.
    let answer = pair.world.change("b", "10.88.0.3:9002", r#"{"weight": 1}"#);
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    assert!(answer.contains("change the servers at the active one"), "{answer}");
    let total = pair.total("a").expect("the director answers");
    assert!(total >= 5);
    until("b has the totals", || pair.total("b") == Some(total));

    let [_, six] = VIRTUAL_V6;
    pair.world.knock(six);
    assert!(pair.world.neighbour(six).contains(&pair.world.mac("a")));

    pair.a.kill();
    until("b is active", || is_active(&pair.world, "b"));
    // By the announcements of b alone: no client has sent a request.
    let mac = pair.world.mac("b");
    until("clients know where b is", || pair.world.neighbour(VIRTUAL).contains(&mac));
    until("over IPv6 too", || pair.world.neighbour(six).contains(&mac));
    // The machine of the dead director answers for the address until the address's lifetime ends.
    until("the addresses of the dead director expire", || pair.world.has_none("a"));
    until("clients are served", || pair.world.ask(80).is_ok());
    assert_eq!(pair.world.ask(80).expect("b serves"), server, "the client is known");
    assert!(pair.total("b").expect("the director answers") > total, "totals continue");
    assert_eq!(pair.weight("b", 0), Some(7));

    pair.a = pair.world.director("a", &both_families("a"));
    pair.settle("a", "b");
    assert_eq!(
        pair.world.ask(80).expect("a serves"),
        server,
        "a received the state when it came back"
    );
    assert_eq!(pair.weight("a", 0), Some(7));
    assert!(pair.total("a").expect("the director answers") > total);
}

#[test]
fn a_graceful_stop_hands_over() {
    let Some(mut pair) = Pair::start() else { return };
    pair.a.stop();
    assert!(pair.world.has_none("a"), "a has released the addresses");
    until("b is active", || is_active(&pair.world, "b"));
    assert!(pair.a.log().contains("backup -> master"), "{}", pair.a.log());
    assert!(pair.b.log().contains("the master resigned"), "{}", pair.b.log());
    until("clients are served", || pair.world.ask(80).is_ok());
}

#[test]
fn a_director_that_was_stalled_steps_down_first() {
    let Some(pair) = Pair::start() else { return };
    pair.a.signal(Signal::STOP);
    until("b is active", || is_active(&pair.world, "b"));
    until("the addresses of the stalled director expire", || pair.world.has_none("a"));
    pair.a.signal(Signal::CONT);
    // It has the higher priority, and takes over again in the election.
    pair.settle("a", "b");
    assert!(pair.a.log().contains("master -> backup"), "{}", pair.a.log());
    assert!(pair.a.log().contains("stalled, sent no advertisement for"), "{}", pair.a.log());
}

#[test]
fn a_director_without_a_link_is_not_master() {
    let Some(pair) = Pair::start() else { return };
    pair.world.link("a", false);
    until("b is active", || is_active(&pair.world, "b"));
    until("a has released the addresses", || pair.world.has_none("a"));
    let state = |side: &str| {
        let status = pair.world.status(side).expect("the director answers");
        status["vrrp"]["routers"][0]["state"].as_str().expect("text").to_owned()
    };
    assert_eq!(state("a"), "fault");
    until("clients are served", || pair.world.ask(80).is_ok());
    pair.world.link("a", true);
    pair.settle("a", "b");
}

#[test]
fn a_network_partition_has_two_masters_and_a_repaired_network_has_one() {
    let Some(pair) = Pair::start() else { return };
    pair.world.split(true);
    // Neither director can tell a split network from a dead director.
    until("b is active too", || is_active(&pair.world, "b"));
    assert!(is_active(&pair.world, "a") && pair.world.has("a", VIRTUAL));
    until("clients reach a or b", || pair.world.ask(80).is_ok());
    pair.world.split(false);
    pair.settle("a", "b");
    // It stays so: one director has the address, and clients have its MAC address.
    for _ in 0..20 {
        assert!(!pair.world.has("b", VIRTUAL) && pair.world.has("a", VIRTUAL));
        pair.world.ask(80).expect("a serves");
        assert!(pair.world.neighbour(VIRTUAL).contains(&pair.world.mac("a")));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(pair.b.log().contains("master -> backup"), "{}", pair.b.log());
}

#[test]
fn a_director_whose_service_has_no_server_gives_way() {
    let Some(world) = World::new() else { return };
    let config = |side| {
        let text = config(side, 50, "service_weight = 60");
        text.replace("10.88.0.3:9001", "127.0.0.1:9001").replace("10.88.0.3:9002", "127.0.0.1:9002")
    };
    // Only b can reach the servers.
    let server = world.within("b", || std::net::TcpListener::bind("127.0.0.1:9001"));
    let _server = server.expect("loopback");
    let a = world.director("a", &config("a"));
    let b = world.director("b", &config("b"));
    until("b is active", || is_active(&world, "b"));
    until("a is not", || !is_active(&world, "a"));
    let priority = |side: &str| {
        let status = world.status(side).expect("the director answers");
        status["vrrp"]["routers"][0]["priority"].as_u64().expect("a number")
    };
    assert_eq!((priority("a"), priority("b")), (90, 100));
    drop((a, b));
}

#[test]
fn an_error_names_what_is_missing() {
    let Some(world) = World::new() else { return };
    let says = |config: &str, what: &str| {
        let director = world.director("a", config);
        until(what, || director.log().contains(what));
    };
    let sound = config("a", 50, "");
    says(&sound.replace("eth0", "eth7"), "there is no interface \"eth7\"");
    says(&sound.replace("[admin]", "[admn]"), "unknown field `admn`");
    world.on("a", &["addr", "add", &format!("{VIRTUAL}/24"), "dev", "eth0"]);
    says(&sound, "virtual address 10.88.0.100 is permanently on the interface");
}

/// The threads of this process that a director starts.
fn director_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let is_ours = |name: &String| name.starts_with("lvs-") || name.trim() == "vrrp";
    names.filter(is_ours).collect()
}

#[test]
fn dropping_the_last_handle_gives_back_addresses_sockets_and_threads() {
    let Some(mut world) = World::new() else { return };
    world.servers(&[9001, 9002]);
    world.within("a", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let text = config("a", 50, "");
            let sound = || DirectorConfig::parse(&text).expect("sound");
            let director = Director::start(sound()).await.expect("the director starts");
            assert!(until_async(async || director.status().active).await, "the director is active");
            assert!(world.has("a", VIRTUAL));

            // An election that cannot be started: the one before goes on, and nothing else changes.
            let other = text.replace("\"eth0\"", "\"eth7\"").replace("\"rr\"", "\"wrr\"");
            let other = DirectorConfig::parse(&other).expect("sound");
            let error = director.reload(other).await.expect_err("there is no such interface");
            assert!(matches!(error, DirectorError::Vrrp(_)), "{error}");
            assert!(
                until_async(async || director.status().active).await,
                "the director is active again"
            );
            assert_eq!(director.status().services[0].scheduler, "rr");
            assert!(director.reload(sound()).await.expect("sound").is_unchanged());

            assert!(director_threads().len() > 3, "{:?}", director_threads());
            drop(director);
            let has_ended = until_async(async || !world.has("a", VIRTUAL)).await;
            assert!(has_ended, "the address is released");
            for address in ["10.88.0.1:8849", "127.0.0.1:9000"] {
                let is_free = until_async(async || std::net::TcpListener::bind(address).is_ok());
                assert!(is_free.await, "{address} is free");
            }
            let have_ended = until_async(async || director_threads().is_empty()).await;
            assert!(have_ended, "{:?}", director_threads());
        });
    });
}

/// Waits until something is so, without blocking the runtime; `false` if it takes too long.
async fn until_async(mut is_so: impl AsyncFnMut() -> bool) -> bool {
    for _ in 0..2000 {
        if is_so().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

#[test]
fn a_standby_that_does_not_read_holds_nothing_up() {
    let Some(pair) = Pair::start() else { return };
    pair.b.signal(Signal::STOP);
    // A hundred clients, changes of servers, and what the standby should be told of each.
    for n in 0..100 {
        pair.world.ask(80).expect("a serves");
        if n % 10 == 0 {
            let weight = format!("{{\"weight\": {}}}", n / 10 + 1);
            let answer = pair.world.change("a", "10.88.0.3:9001", &weight);
            assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        }
    }
    assert!(is_active(&pair.world, "a"));
    assert_eq!(pair.weight("a", 0), Some(10));
    pair.b.signal(Signal::CONT);
    pair.settle("a", "b");
    until("b has the weight", || pair.weight("b", 0) == Some(10));
    let total = pair.total("a");
    until("b has the totals", || pair.total("b") >= total);
}

#[test]
fn strangers_at_the_sync_port_keep_no_standby_out() {
    let Some(mut pair) = Pair::start() else { return };
    pair.b.kill();
    let port = SocketAddr::from(([10, 88, 0, 1], 8849));
    let connect = || TcpStream::connect(port).expect("a listens");
    // Others hold connections without a word, and so did the dead standby.
    let hold =
        |side, count| pair.world.within(side, || (0..count).map(|_| connect()).collect::<Vec<_>>());
    let strangers = [hold("c", 40), hold("b", 3)];
    pair.b = pair.world.director("b", &both_families("b"));
    pair.settle("a", "b");
    assert!(pair.a.log().contains("is refused: too many connections without the key"));
    drop(strangers);
}

#[test]
fn a_standby_with_another_key_is_named_by_both() {
    let Some(mut pair) = Pair::start() else { return };
    pair.b.kill();
    let other_key = both_families("b").replace("key = \"00", "key = \"ff");
    pair.b = pair.world.director("b", &other_key);
    until("b says it", || pair.b.log().contains("both need the same `key`"));
    until("a says it", || pair.a.log().contains("the other side has another `key`"));
    assert!(is_active(&pair.world, "a"), "the election has a key of its own");
}

#[test]
fn a_director_that_comes_back_takes_over_when_it_knows_what_the_other_knows() {
    let Some(mut pair) = Pair::start() else { return };
    pair.a.kill();
    until("b is active", || is_active(&pair.world, "b"));
    until("the addresses of the dead director expire", || pair.world.has_none("a"));
    let server = pair.world.ask(80).expect("b serves");
    pair.a = pair.world.director("a", &both_families("a"));
    pair.settle("a", "b");
    let log = pair.a.log();
    let (_, last) = log.rsplit_once("lvs started").expect("a start is logged");
    let at = |words| last.find(words).unwrap_or_else(|| panic!("{words}:\n{log}"));
    assert!(at("sync: follows the director") < at("backup -> master"), "{log}");
    assert_eq!(pair.world.ask(80).expect("a serves"), server, "the client stays on its server");
}

#[test]
fn a_standby_reports_that_it_would_choose_by_another_table() {
    let Some(mut world) = World::new() else { return };
    world.servers(&[9001, 9002]);
    let other_weight = "address = \"10.88.0.3:9001\"\n        weight = 3";
    let differing = config("b", 50, "").replace("address = \"10.88.0.3:9001\"", other_weight);
    let (_a, mut b) = (world.director("a", &config("a", 50, "")), world.director("b", &differing));
    let tables = |side: &str| {
        let status = world.status(side)?;
        Some(status["sync"]["different_tables"].as_array()?.len())
    };
    until("b reports the difference", || tables("b") == Some(1));
    assert!(b.log().contains("choose servers by different tables: fingerprint"), "{}", b.log());
    let fingerprint = |side: &str| {
        let status = world.status(side).expect("the director answers");
        status["services"][0]["fingerprint"].as_str().expect("text").to_owned()
    };
    assert_ne!(fingerprint("a"), fingerprint("b"));
    world.file("b.toml", &format!("drain_timeout = \"0s\"\n{}", config("b", 50, "")));
    b.signal(Signal::HUP);
    until("the tables are the same", || tables("b") == Some(0));
    assert_eq!(fingerprint("a"), fingerprint("b"));
    b.stop();
}
