//! A value out of its range is refused by the builder, and by the configuration at its key, in the same
//! words.

use std::time::Duration;

use lvs::backend::FailMode;
use lvs::balancer::Persistence;
use lvs::discovery::FileSource;
use lvs::forward::{ConnectionRate, ForwardError, Forwarder, UdpForwarder};
use lvs::health::{EjectionPolicy, GrpcCheck, SuccessRateDetector};
use lvs::scheduler::RoundRobin;
use lvs::{BackendSet, Balancer, Limits, SlowStart, Spec};

use crate::*;

const SECOND: Duration = Duration::from_secs(1);

/// Parses a service with more keys and tables; returns the key and the reason of the error.
fn refusal(tables: &str, protocol: &str) -> (String, String) {
    let text = format!("[[service]]\nname = \"web\"\nprotocol = \"{protocol}\"\n{tables}\n");
    refusal_of(&text)
}

fn refusal_of(text: &str) -> (String, String) {
    match DirectorConfig::parse(text).expect_err(text) {
        lvs::director::DirectorConfigError::Invalid { key, reason, .. } => (key, reason),
        other => panic!("{text}: {other}"),
    }
}

fn setting_of(error: ForwardError) -> String {
    assert!(matches!(error, ForwardError::Setting(_)), "{error}");
    error.to_string()
}

fn balancer() -> Balancer<SocketAddr> {
    Balancer::new(&BackendSet::new(), RoundRobin::new()).expect("an empty set")
}

#[tokio::test]
async fn a_tcp_forwarder_refuses_what_its_table_refuses() {
    let listen = ANY;
    type Setter = fn(Forwarder) -> Forwarder;
    let rows: [(&str, Setter, &str, &str); 13] = [
        (
            "max_connections = 0",
            |f| f.max_connections(0),
            "max_connections",
            "0, must be at least 1",
        ),
        (
            "max_connections_per_client = 0",
            |f| f.max_connections_per_client(0),
            "max_connections_per_client",
            "0, must be at least 1",
        ),
        (
            "client_prefix = 33",
            |f| f.client_prefixes(33, 64),
            "client_prefixes.ipv4",
            "33, must be from 0 to 32",
        ),
        (
            "client_prefix_v6 = 129",
            |f| f.client_prefixes(32, 129),
            "client_prefixes.ipv6",
            "129, must be from 0 to 128",
        ),
        (
            "connect_attempts = 0",
            |f| f.connect_attempts(0),
            "connect_attempts",
            "0, must be at least 1",
        ),
        (
            "keepalive = \"0s\"",
            |f| f.keepalive(Duration::ZERO),
            "keepalive",
            "0ns, must be whole seconds from 1s to 32767s",
        ),
        (
            "keepalive = \"1500ms\"",
            |f| f.keepalive(SECOND * 3 / 2),
            "keepalive",
            "1.5s, must be whole seconds from 1s to 32767s",
        ),
        (
            "keepalive = \"32768s\"",
            |f| f.keepalive(32_768 * SECOND),
            "keepalive",
            "32768s, must be whole seconds from 1s to 32767s",
        ),
        (
            "user_timeout = \"0s\"",
            |f| f.user_timeout(Duration::ZERO),
            "user_timeout",
            "0ns, must be from 1ms to 2147483.647s",
        ),
        (
            "user_timeout = \"2147484s\"",
            |f| f.user_timeout(2_147_484 * SECOND),
            "user_timeout",
            "2147484s, must be from 1ms to 2147483.647s",
        ),
        (
            "fastopen = 2147483648",
            |f| f.fastopen(1 << 31),
            "fastopen",
            "2147483648, must be from 0 to 2147483647",
        ),
        ("workers = 0", |f| f.workers(0), "workers", "0, must be from 1 to 1024"),
        ("workers = 1025", |f| f.workers(1025), "workers", "1025, must be from 1 to 1024"),
    ];
    for (toml, set, setting, rest) in rows {
        let forwarder = Forwarder::bind(listen, balancer()).expect("a free port");
        let error = setting_of(set(forwarder).run().await.expect_err(toml));
        assert_eq!(error, format!("{setting} is {rest}"));
        let name = toml.split(' ').next().expect("a key");
        let (key, reason) = match name {
            "workers" => refusal(toml, "tcp"),
            _ => refusal(&format!("listen = \"{listen}\"\n[service.tcp]\n{toml}"), "tcp"),
        };
        let table = if name == "workers" { "service.web" } else { "service.web.tcp" };
        assert_eq!(key, format!("{table}.{name}"));
        assert_eq!(reason, error.replace(setting, name), "{toml}");
    }
    let (key, reason) = refusal_of("workers = 0\n[[service]]\nname = \"web\"");
    assert_eq!((&*key, &*reason), ("workers", "workers is 0, must be from 1 to 1024"));
}

#[tokio::test]
async fn a_udp_forwarder_refuses_what_its_table_refuses() {
    type Setter = fn(UdpForwarder) -> UdpForwarder;
    let rows: [(&str, Setter, &str); 7] = [
        ("max_flows = 0", |f| f.max_flows(0), "max_flows is 0, must be from 1 to 16777216"),
        (
            "max_flows = 16777217",
            |f| f.max_flows((1 << 24) + 1),
            "max_flows is 16777217, must be from 1 to 16777216",
        ),
        (
            "max_flows_per_client = 0",
            |f| f.max_flows_per_client(0),
            "max_flows_per_client is 0, must be at least 1",
        ),
        ("attempts = 0", |f| f.attempts(0), "attempts is 0, must be at least 1"),
        ("replies = 0", |f| f.replies(0), "replies is 0, must be at least 1"),
        (
            "idle_timeout = \"6s\"\none_packet = true",
            |f| f.idle_timeout(6 * SECOND).one_packet(true),
            "idle_timeout is 6s, must be at most 5s with `one_packet`",
        ),
        ("workers = 0", |f| f.workers(0), "workers is 0, must be from 1 to 1024"),
    ];
    for (toml, set, expected) in rows {
        let forwarder = UdpForwarder::bind(ANY, balancer());
        let running = set(forwarder.expect("a free port")).run();
        assert_eq!(setting_of(running.await.expect_err(toml)), expected);
        let name = toml.split(' ').next().expect("a key");
        if name != "workers" {
            let (key, reason) = refusal(&format!("[service.udp]\n{toml}"), "udp");
            assert_eq!((key, &*reason), (format!("service.web.udp.{name}"), expected));
        }
    }
}

#[test]
fn other_parts_refuse_what_their_tables_refuse() {
    let text = |error: Option<lvs::SettingError>| error.expect("refused").to_string();
    let persistence =
        |builder: lvs::balancer::PersistenceBuilder| text(builder.build(balancer()).err());
    let hour = Persistence::builder(3600 * SECOND);
    let ejection = |policy: lvs::health::EjectionPolicyBuilder| text(policy.build().err());
    let slow_start = SlowStart::new(SECOND);
    let set = BackendSet::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let fail_mode = |percent| {
        set.set_fail_mode(FailMode::PanicBelow(percent)).expect_err("refused").to_string()
    };
    let insert = |spec: Spec<SocketAddr>| {
        let error = set.insert(spec).expect_err("refused").to_string();
        error.strip_prefix("backend 127.0.0.1:1: ").expect("the backend's name").to_owned()
    };
    let rows = [
        (
            "persistence = { timeout = \"1h\", netmask = 33 }",
            "persistence.netmask",
            persistence(hour.ipv4_prefix(33)).replace("ipv4_prefix", "netmask"),
        ),
        (
            "persistence = { timeout = \"1h\", netmask_v6 = 129 }",
            "persistence.netmask_v6",
            persistence(hour.ipv6_prefix(129)).replace("ipv6_prefix", "netmask_v6"),
        ),
        (
            "persistence = { timeout = \"4294967297s\" }",
            "persistence.timeout",
            persistence(Persistence::builder(Duration::from_secs((1 << 32) + 1))),
        ),
        ("fail_mode = 0", "fail_mode", fail_mode(0)),
        ("fail_mode = 101", "fail_mode", fail_mode(101)),
        (
            "slow_start = { window = \"1s\", min_percent = 0 }",
            "slow_start.min_percent",
            text(slow_start.with_min_percent(0).err()),
        ),
        (
            "slow_start = { window = \"1s\", aggression = 0.0 }",
            "slow_start.aggression",
            text(slow_start.with_aggression(0.0).err()),
        ),
        (
            "ejection = { max_ejection_time = \"1s\" }",
            "ejection.max_ejection_time",
            ejection(EjectionPolicy::builder().max_ejection_time(SECOND)),
        ),
        (
            "ejection = { success_rate = { margin = 101 } }",
            "ejection.success_rate.margin",
            ejection(
                EjectionPolicy::builder()
                    .success_rate(Some(SuccessRateDetector::new().margin(101))),
            ),
        ),
        (
            "ejection = { ramp = { window = \"1s\", min_percent = 101 } }",
            "ejection.ramp.min_percent",
            text(slow_start.with_min_percent(101).err()),
        ),
        (
            "tcp = { accept_rate = 0 }",
            "tcp.accept_rate",
            text(ConnectionRate::new(0).err()).replace("per_second", "accept_rate"),
        ),
        (
            "tcp = { accept_rate = 9, accept_burst = 0 }",
            "tcp.accept_burst",
            text(ConnectionRate::new(9).and_then(|rate| rate.with_burst(0)).err())
                .replace("burst", "accept_burst"),
        ),
        (
            "discovery = { file = \"members\", interval = \"99ms\" }",
            "discovery.interval",
            text(FileSource::new("members").interval(Duration::from_millis(99)).err()),
        ),
        (
            "health = { type = \"grpc\", authority = \"a b\" }",
            "health.authority",
            text(GrpcCheck::new("").authority("a b").err()),
        ),
        (
            "[[service.server]]\naddress = \"127.0.0.1:1\"\nweight = 65536",
            "server.127.0.0.1:1.weight",
            insert(Spec::from(address).weight(65_536)),
        ),
        (
            "[[service.server]]\naddress = \"127.0.0.1:1\"\nmax_connections = 1073741825",
            "server.127.0.0.1:1.max_connections",
            insert(Spec::from(address).limits(Limits::new((1 << 30) + 1))),
        ),
        (
            "[[service.server]]\naddress = \"127.0.0.1:1\"\nmax_connections = 1\nresume_connections = 2",
            "server.127.0.0.1:1.resume_connections",
            insert(Spec::from(address).limits(Limits::new(1).with_resume_below(2)))
                .replace("resume_below", "resume_connections"),
        ),
    ];
    for (tables, path, expected) in rows {
        let (key, reason) = refusal(tables, "tcp");
        assert_eq!((key, reason), (format!("service.web.{path}"), expected), "{tables}");
    }
    let (key, reason) = refusal_of(
        "[admin]\nlisten = \"127.0.0.1:0\"\nmax_connections = 0\n[[service]]\nname = \"w\"",
    );
    assert_eq!(
        (&*key, &*reason),
        ("admin.max_connections", "max_connections is 0, must be at least 1")
    );
}

#[tokio::test]
async fn a_service_listens_on_an_address_that_is_not_there_yet() {
    let text = |freebind: bool| {
        format!(
            "[[service]]\nname = \"web\"\nlisten = \"192.0.2.77:0\"\nfreebind = {freebind}\n\
             [[service]]\nname = \"dns\"\nprotocol = \"udp\"\nlisten = \"192.0.2.77:0\"\nfreebind = \
             {freebind}\n"
        )
    };
    Director::start(read(&text(false))).await.expect_err("this machine does not have the address");
    let director = start(&text(true)).await;
    assert!(listens(&director).to_string().starts_with("192.0.2.77:"));
    director.stop(Duration::ZERO).await;
}

/// The health before the first result is that of the server's own checks, at the start, and when a reload
/// adds the server together with another `init` of the service.
#[tokio::test]
async fn a_server_with_checks_of_its_own_starts_with_their_initial_health() {
    // Nothing accepts, so that no check has a result within the test.
    let listeners = [(); 4].map(|()| std::net::TcpListener::bind(ANY).expect("loopback"));
    let addresses = listeners.each_ref().map(|it| it.local_addr().expect("bound").to_string());
    let check = |init: &str| {
        let key = "health = { type = \"tcp\", expect = \"x\", interval = \"1h\", timeout = \"1h\"";
        format!("{key}, init = \"{init}\" }}\n")
    };
    let service = |init: &str, servers: &[(usize, Option<&str>)]| {
        let servers = servers.iter().map(|(n, own)| {
            let own = own.map(check).unwrap_or_default();
            format!("[[service.server]]\naddress = \"{}\"\n{own}", addresses[*n])
        });
        config(ANY, &[]) + &check(init) + &servers.collect::<String>()
    };
    let states = |director: &Director| {
        let servers = director.status().services.remove(0).servers;
        addresses.each_ref().map(|address| {
            servers.iter().find(|server| server.address == *address).map(|server| server.state)
        })
    };
    let (up, down) = (Some("eligible"), Some("down"));

    let director = start(&service("down", &[(0, None), (1, Some("up")), (2, Some("down"))])).await;
    assert_eq!(states(&director), [down, up, down, None]);
    director.stop(Duration::ZERO).await;

    let director = start(&service("up", &[(0, None)])).await;
    assert_eq!(states(&director), [up, None, None, None]);
    let mut events = director.events();
    let next = service("down", &[(0, None), (1, Some("up")), (2, Some("fully-down")), (3, None)]);
    director.reload(read(&next)).await.expect("sound");
    assert_eq!(states(&director), [up, up, down, down]);
    while let Some(event) = events.try_next() {
        let event = event.expect("few events").to_string();
        assert!(!event.contains("was eligible"), "a new server was up for a moment: {event}");
    }
    director.stop(Duration::ZERO).await;
}
