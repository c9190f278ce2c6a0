//! Requests that clients lose when servers fail, drain, change weight, are added and removed under load:
//! through the kernel by network address translation and by direct routing, and through the proxy, at the
//! same time and to the same servers.
//!
//! ```text
//! lost-nat 10.8.0.1 ----+-- lost-director 10.8.0.4, 10.8.0.100 (nat), 10.8.0.101 (dr), 10.8.0.102 (proxy)
//! lost-dr 10.8.0.2 -----+-- lost-a 10.8.0.11
//! lost-proxy 10.8.0.3 --+-- lost-b 10.8.0.12
//!                       +-- lost-c 10.8.0.13
//!                       +-- lost-d 10.8.0.14
//! ```

mod load;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use lvs::director::{BackendAdminState, Director, DirectorConfig, ServerChange};

use self::load::{CLIENTS, Load, Request};
use super::director::until;
use super::sync::enter_peer;
use super::traffic::{ip, set, within};
use super::wire::Wire;
use super::{TestProcess, saved};
use crate::guest;

const MACHINES: [(&str, u8); 8] = [
    ("lost-nat", 1),
    ("lost-dr", 2),
    ("lost-proxy", 3),
    ("lost-director", 4),
    ("lost-a", 11),
    ("lost-b", 12),
    ("lost-c", 13),
    ("lost-d", 14),
];
/// Each service with its address and the machine of its clients.
const SERVICES: [(&str, &str, &str); 3] = [
    ("nat", "10.8.0.100:80", "lost-nat"),
    ("dr", "10.8.0.101:80", "lost-dr"),
    ("proxy", "10.8.0.102:80", "lost-proxy"),
];
const A: &str = "10.8.0.11:80";
const B: &str = "10.8.0.12:80";
const C: &str = "10.8.0.13:80";
const D: &str = "10.8.0.14:80";

/// The variable that makes a process of this program a server.
const ROLE: &str = "LVS_TEST_WEB";

/// Starts a server in a process of its own, in the namespace of a machine.
fn start_web_server(machine: &'static str) -> TestProcess {
    within(machine, || TestProcess::start("inside::lost::the_server_of_a_test", ROLE, "1"))
}

/// Answers each request until it is killed; for other tests, which start it.
#[test]
#[ignore = "started by other tests"]
fn the_server_of_a_test() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let listener = TcpListener::bind("0.0.0.0:80").expect("a listener");
    for connection in listener.incoming() {
        // A health check sends nothing, and must not keep the requests of clients waiting.
        thread::spawn(move || connection.and_then(answer));
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    stream.write_all(b"well")
}

fn build_world() -> Wire {
    let wire = Wire::connect(&MACHINES);
    for (_, address, _) in SERVICES {
        let address = address.trim_end_matches(":80");
        ip(&format!("lost-director: address add {address}/32 dev eth0"));
    }
    within("lost-director", || {
        set("ipv4/ip_forward", "1");
        for interface in ["all", "eth0"] {
            set(&format!("ipv4/conf/{interface}/send_redirects"), "0");
        }
    });
    for (name, _) in &MACHINES[4..] {
        within(name, || {
            set("ipv4/conf/all/arp_ignore", "1");
            set("ipv4/conf/all/arp_announce", "2");
        });
        // The answers of network address translation return through the director.
        ip(&format!(
            "{name}: address add 10.8.0.101/32 dev lo
             {name}: route add 10.8.0.1/32 via 10.8.0.4"
        ));
    }
    wire
}

fn config(servers: &[(&str, u32)]) -> DirectorConfig {
    let mut text = String::new();
    for (name, listen, _) in SERVICES {
        let (engine, method) = match name {
            "proxy" => ("proxy", String::new()),
            method => ("ipvs", format!("method = \"{method}\"\n")),
        };
        text += &format!(
            "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\nengine = \"{engine}\"\n\
             scheduler = \"rr\"\nhealth = {{ type = \"tcp\", interval = \"250ms\", rise = 1, \
             fall = 3 }}\n"
        );
        if name == "proxy" {
            text += "[service.tcp]\nconnect_timeout = \"1s\"\n";
        }
        for (address, weight) in servers {
            text += "[[service.server]]\n";
            text += &format!("address = \"{address}\"\nweight = {weight}\n{method}");
        }
    }
    DirectorConfig::parse(&text).expect("a valid configuration")
}

/// Tells whether the kernel has a server with this weight in both services; without one, whether it does not
/// have the server.
fn has_weight(server: &str, weight: Option<u32>) -> bool {
    let lines = saved();
    let of_server: Vec<_> =
        lines.iter().filter(|line| line.contains(&format!(" -r {server} "))).collect();
    match weight {
        Some(weight) => {
            let end = format!(" -w {weight}");
            of_server.len() == 2 && of_server.iter().all(|line| line.ends_with(&end))
        }
        None => of_server.is_empty(),
    }
}

/// Returns the state of a server of the proxy's.
fn proxy_state(director: &Director, server: &str) -> &'static str {
    let status = director.status();
    let proxy = status.services.iter().find(|service| service.name == "proxy").expect("a service");
    let server = proxy.servers.iter().find(|status| status.address == server);
    server.map_or("absent", |server| server.state)
}

/// Waits until all services know that a server is down.
async fn until_down(director: &Director, server: &str) {
    let is_down = || has_weight(server, Some(0)) && proxy_state(director, server) == "down";
    until("the server is down", is_down).await;
}

async fn set_state(director: &Director, server: &str, state: BackendAdminState) {
    for (name, ..) in SERVICES {
        let change = ServerChange::new().with_state(state);
        director.change_server(name, server, change).expect("it is there");
    }
    let weight = u32::from(state == BackendAdminState::Enabled);
    until("the kernel knows", || has_weight(server, Some(weight))).await;
}

/// What happened in some phases.
struct Happening {
    what: &'static str,
    /// The phase in which it began, and the last one of it.
    phases: (usize, usize),
    /// The last phase in which a request may begin that is lost, for the kernel and for the proxy; `None` if
    /// none may be lost.
    losses_until: Option<(usize, usize)>,
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn requests_are_lost_only_by_the_death_of_a_server() {
    if !guest::enter() {
        return;
    }
    let _wire = build_world();
    let mut servers = ["lost-a", "lost-b", "lost-c", "lost-d"].map(start_web_server);
    enter_peer("lost-director");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (requests, happenings) = runtime.expect("a runtime").block_on(async {
        for server in [A, B, C, D] {
            until("the server listens", || TcpStream::connect(server).is_ok()).await;
        }
        let three = [(A, 1), (B, 1), (C, 1)];
        let director = Director::start(config(&three)).await.expect("IPVS is there");
        until("all are up", || [A, B, C].iter().all(|server| has_weight(server, Some(1)))).await;
        let mut happenings = Vec::new();
        let load = Load::start();
        load.more().await;

        let begun = load.begin_phase();
        servers[0].kill();
        let killed = load.begin_phase();
        until_down(&director, A).await;
        let known = load.begin_phase();
        load.more().await;
        // The proxy tries another server for a connection that is refused, the kernel does not.
        let losses_until = Some((killed, begun));
        happenings.push(Happening { what: "killed", phases: (begun, known), losses_until });

        let mut without_loss = |what, phase| {
            let happening = Happening { what, phases: (phase, phase), losses_until: None };
            happenings.push(happening);
        };
        without_loss("started again", load.begin_phase());
        servers[0] = start_web_server("lost-a");
        until("it is up", || has_weight(A, Some(1)) && proxy_state(&director, A) == "eligible")
            .await;
        load.more().await;
        without_loss("drained, and enabled", load.begin_phase());
        set_state(&director, B, BackendAdminState::Draining).await;
        load.more().await;
        set_state(&director, B, BackendAdminState::Enabled).await;
        load.more().await;
        without_loss("given another weight: 5, 0, 1", load.begin_phase());
        for weight in [5, 0, 1] {
            let servers = [(A, 1), (B, weight), (C, 1)];
            director.reload(config(&servers)).await.expect("valid");
            until("the kernel knows", || has_weight(B, Some(weight))).await;
            load.more().await;
        }
        without_loss("added", load.begin_phase());
        let four = [(A, 1), (B, 1), (C, 1), (D, 1)];
        director.reload(config(&four)).await.expect("valid");
        until("the kernel knows", || has_weight(D, Some(1))).await;
        load.more().await;
        without_loss("removed", load.begin_phase());
        director.reload(config(&[(A, 1), (C, 1), (D, 1)])).await.expect("valid");
        until("it is gone", || has_weight(B, None)).await;
        load.more().await;

        let requests = load.stop().await;
        director.stop(Duration::ZERO).await;
        (requests, happenings)
    });
    judge(&requests, &happenings);
}

/// Prints the table, and checks that nothing was lost but what had to be.
fn judge(requests: &[Vec<Request>], happenings: &[Happening]) {
    println!(
        "| one of three servers is | `ipvs`, `nat` | `ipvs`, `dr` | `proxy` |\n|---|---|---|---|"
    );
    let mut explained = 0;
    for happening in happenings {
        let (first, last) = happening.phases;
        let mut row = format!("| {} |", happening.what);
        for ((service, ..), requests) in SERVICES.iter().zip(requests) {
            let during: Vec<_> =
                requests.iter().filter(|it| (first..=last).contains(&it.ended)).collect();
            let lost: Vec<_> = during.iter().filter(|it| it.error.is_some()).collect();
            explained += lost.len();
            row += &format!(" {} of {} |", lost.len(), during.len());
            let limit = match (happening.losses_until, *service) {
                (None, _) => None,
                (Some((_, limit)), "proxy") => Some(limit),
                (Some((limit, _)), _) => Some(limit),
            };
            let may_be_lost = |it: &Request| limit.is_some_and(|limit| it.begun <= limit);
            assert!(
                lost.iter().all(|it| may_be_lost(it)),
                "{} {service}: {lost:?}",
                happening.what
            );
            // Of the requests that began before the director knew, every third is the server's.
            let at_risk = during.iter().filter(|it| may_be_lost(it)).count();
            assert!(
                lost.len() <= at_risk / 3 + CLIENTS + 1,
                "{} {service}: {lost:?}",
                happening.what
            );
        }
        println!("{row}");
    }
    let all = requests.iter().flatten().filter(|it| it.error.is_some()).count();
    assert_eq!(all, explained, "no request is lost at another time");
}
