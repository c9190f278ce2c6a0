//! Health checks at the virtual address on the servers: they go the way of clients' packets, from a director that has the
//! address and from one that does not.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use lvs::director::{Director, DirectorConfig};

use crate::direct::prepare_servers;
use crate::director::on_director;
use crate::tunnels::unpack;
use crate::world::{SERVERS, VIRTUAL, World, socket_address};

/// No step of these tests takes so long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The keys of a server with a method.
const METHODS: [&str; 3] = [
    "method = \"dr\"",
    "method = \"tunnel\"",
    "method = \"tunnel\"\ntunnel = { kind = \"gue\", port = 6080 }",
];

/// Has a machine say its name to whoever connects to an address of it.
fn greet(world: &World, machine: &'static str) {
    let listener = world.within(machine, || TcpListener::bind("[::]:80").expect("a listener"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(machine.as_bytes()));
        }
    });
}

fn config(world: &World, family: usize, method: &str) -> DirectorConfig {
    let text = config_text(world, family, method);
    DirectorConfig::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn config_text(world: &World, family: usize, method: &str) -> String {
    let servers: String = SERVERS[family]
        .map(|server| {
            let address = socket_address(server, 80);
            format!("[[service.server]]\naddress = \"{address}\"\n{method}\n")
        })
        .concat();
    format!(
        "[packet]\nflows = 4096\nipv6_flows = 4096\nalive_for = \"1m\"\npin_folder = \"{}\"\n\
         [[service]]\nname = \"web\"\nlisten = \"{}\"\nengine = \"packet\"\nscheduler = \"rr\"\n\
         health = {{ type = \"tcp\", interval = \"500ms\", init = \"down\", rise = 1, \
         fall = 2, virtual_address = true }}\n{servers}",
        world.pin_folder().display(),
        socket_address(VIRTUAL[family], 80),
    )
}

/// Returns the states of both servers, and the reason for that of the second.
fn states(director: &Director) -> ([&'static str; 2], String) {
    let status = director.status();
    let servers = &status.services[0].servers;
    let reason = servers[1].reason.clone().unwrap_or_default();
    ([servers[0].state, servers[1].state], reason)
}

async fn until_states_are(director: &Director, expected: [&str; 2], what: &str) {
    let wait = async {
        while states(director).0 != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("{what}: {:?}, and not {expected:?}", states(director));
    }
}

/// Returns the rules and routes that lead packets of checks.
fn rules(world: &World) -> String {
    let shown = ["rule show", "-6 rule show", "route show table all", "-6 route show table all"]
        .map(|what| world.output("director", "ip", what))
        .concat();
    // The mark, and the table with its number.
    let is_of_checks = |line: &&str| line.contains("0x6c764000") || line.contains("1819688960");
    shown.lines().filter(is_of_checks).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_a_director_leaves_with_its_services_is_removed_by_the_detachment() {
    let Some(world) = World::build() else { return };
    let keep = |text: String| text.replacen("[packet]\n", "[packet]\nkeep_at_stop = true\n", 1);
    on_director(&world, async || {
        let text = keep(config_text(&world, 0, METHODS[0]));
        let config = DirectorConfig::parse(&text).expect("a valid configuration");
        let director = Director::start(config).await.expect("it starts");
        assert_eq!(rules(&world).lines().count(), 2, "{}", rules(&world));
        director.stop(Duration::ZERO).await;
        assert_eq!(rules(&world).lines().count(), 2, "for a successor: {}", rules(&world));
        lvs::packet::detach(&world.pin_folder()).expect("nobody else has it");
    });
    assert_eq!(rules(&world), "");
}

#[test]
fn a_check_sees_whether_a_server_has_the_virtual_address() {
    let Some(world) = World::build() else { return };
    let _unpacking = unpack(&world);
    check_virtual_addresses(&world, &METHODS);
}

/// Has a director see by checks which servers have the virtual address, as the active one and as a standby.
pub(crate) fn check_virtual_addresses(world: &World, methods: &[&str]) {
    prepare_servers(world);
    // Its kernel takes answers from an address of its own.
    world.within("director", || {
        fs::write("/proc/sys/net/ipv4/conf/all/accept_local", "1").expect("a setting");
    });
    for machine in ["a", "b"] {
        greet(world, machine);
    }
    for family in [0, 1] {
        let address = VIRTUAL[family];
        for method in methods {
            on_director(world, async || {
                let config = config(world, family, method);
                let director = Director::start(config).await.expect("it starts");
                until_states_are(&director, ["eligible"; 2], method).await;
                world.at("b", &format!("address del {address} dev lo"));
                until_states_are(&director, ["eligible", "down"], "one without the address").await;
                let reason = states(&director).1;
                assert!(reason.contains(address), "{reason}");
                // As a standby.
                world.at("director", &format!("address del {address} dev lo"));
                world.at("b", &format!("address add {address} dev lo"));
                until_states_are(&director, ["eligible"; 2], "from a standby").await;
                world.at("a", &format!("address del {address} dev lo"));
                until_states_are(&director, ["down", "eligible"], "seen by a standby").await;
                world.at("a", &format!("address add {address} dev lo"));
                world.at("director", &format!("address add {address} dev lo"));
                until_states_are(&director, ["eligible"; 2], "active again").await;
                director.stop(Duration::ZERO).await;
            });
            assert_eq!(rules(world), "", "it leaves none");
        }
    }
}
