//! Published pitfalls of the kernel's IPVS: each test shows what goes wrong with the kernel's own settings or
//! counters, and that the engine's are right.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lvs::director::{BackendAdminState, Director, DirectorConfig, ServerChange};
use lvs::ipvs::{IpvsDestination, IpvsForwarding, IpvsService, IpvsTimeouts};
use socket2::{Domain, Socket, Type};

use super::director::{Client, Server, VIRTUAL, config_text, in_namespace, until};
use super::sync::enter_peer;
use super::traffic::{ip, set, within};
use super::wire::Wire;
use super::{client, ipvsadm, run, saved, tcp, udp, wait_for};
use crate::guest;

/// A port that a client uses again and again.
const PORT: u16 = 40_000;

fn config(text: &str) -> DirectorConfig {
    DirectorConfig::parse(text).expect("a valid configuration")
}

/// Reads a setting of IPVS in this network namespace.
fn setting(name: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/vs/{name}");
    std::fs::read_to_string(path).expect("a readable file").trim().to_owned()
}

fn set_ipvs(name: &str, value: &str) {
    set(&format!("ipv4/vs/{name}"), value);
}

/// Connects to the virtual service from `PORT` of this address.
fn connect_from(source: &str, service: &str) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    let source = SocketAddr::new(source.parse().expect("an address"), PORT);
    socket.bind(&source.into())?;
    let service: SocketAddr = service.parse().expect("an address");
    socket.connect(&service.into())?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(socket.into())
}

/// Returns the letter of the server that a connection from `PORT` leads to, and resets it, after which the
/// port is free at once and the kernel remembers the connection for ten seconds.
fn ask_from_port() -> char {
    let mut stream = connect_from("10.0.0.1", VIRTUAL).expect("the service accepts");
    stream.write_all(b"\n").expect("the connection is open");
    let mut letter = [0];
    stream.read_exact(&mut letter).expect("the server answers");
    Socket::from(stream).set_linger(Some(Duration::ZERO)).expect("a valid time");
    char::from(letter[0])
}

/// kubernetes#81775: connections from a port that was used before go to the server that the old connection
/// had, although it drains.
#[test]
#[ignore = "runs in a kernel of its own"]
fn a_port_that_is_used_again_does_not_lead_to_a_server_that_drains() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [a, b] = [b'a', b'b'].map(Server::start);
        let text = config_text("\"ipvs\"", &[(&a, ""), (&b, "")]);
        let director = Director::start(config(&text)).await.expect("IPVS is there");
        assert_eq!(
            (setting("expire_nodest_conn"), setting("conn_reuse_mode")),
            ("1".into(), "1".into())
        );
        let first = ask_from_port();
        // An old connection that has ended is none, by the kernel's default.
        let second = ask_from_port();
        assert_ne!(first, second);
        set_ipvs("conn_reuse_mode", "0");
        assert_eq!(ask_from_port(), second);

        let drained = if second == 'a' { &a } else { &b };
        let drain = ServerChange::new().with_state(BackendAdminState::Draining);
        director.change_server("web", &drained.address.to_string(), drain).expect("it is there");
        until("it has no weight", || saved().iter().any(|line| line.ends_with("-w 0"))).await;
        set_ipvs("expire_nodest_conn", "0");
        assert_eq!(ask_from_port(), second, "the kernel's default");
        set_ipvs("expire_nodest_conn", "1");
        assert_eq!(ask_from_port(), first, "the engine's setting");
        director.stop(Duration::ZERO).await;
    });
}

/// With direct routing the director sees only the clients' packets: to it a connection from a port that is
/// used again has not ended, and a client with few ports, such as a proxy, stays with the servers it knows.
#[test]
#[ignore = "runs in a kernel of its own"]
fn a_port_that_is_used_again_is_scheduled_anew_by_direct_routing_with_mode_3() {
    if !guest::enter() {
        return;
    }
    let _wire = Wire::connect(&[
        ("reuse-client", 1),
        ("reuse-director", 2),
        ("reuse-a", 11),
        ("reuse-b", 12),
    ]);
    ip("reuse-director: address add 10.8.0.100/32 dev eth0");
    for name in ["reuse-a", "reuse-b"] {
        within(name, || {
            set("ipv4/conf/all/arp_ignore", "1");
            set("ipv4/conf/all/arp_announce", "2");
        });
        ip(&format!("{name}: address add 10.8.0.100/32 dev lo"));
        let (is_ready, ready) = mpsc::channel();
        thread::spawn(move || {
            enter_peer(name);
            let listener = TcpListener::bind("0.0.0.0:80").expect("a listener");
            is_ready.send(()).expect("somebody waits");
            for connection in listener.incoming() {
                // The server closes first, so that the client has its port back at once.
                let _ = connection.and_then(|mut stream| stream.write_all(name.as_bytes()));
            }
        });
        ready.recv().expect("the server starts");
    }
    within("reuse-director", || {
        let mut ipvs = client();
        let key = tcp("10.8.0.100:80");
        ipvs.add_service(&IpvsService::new(key, "rr")).unwrap();
        for server in ["10.8.0.11:80", "10.8.0.12:80"] {
            let method = IpvsForwarding::DirectRouting;
            let server = IpvsDestination::new(server.parse().unwrap(), method);
            ipvs.add_destination(&key, &server).unwrap();
        }
    });
    let ask = || {
        within("reuse-client", || {
            // The port is free when the server has acknowledged the end of the last connection.
            let mut stream = wait_for(|| connect_from("10.8.0.1", "10.8.0.100:80").ok());
            let mut name = String::new();
            stream.read_to_string(&mut name).expect("the server answers");
            name
        })
    };
    let first = ask();
    assert_eq!((ask(), ask()), (first.clone(), first.clone()), "mode 1");
    within("reuse-director", || set_ipvs("conn_reuse_mode", "3"));
    let second = ask();
    assert_ne!(second, first, "mode 3");
    assert_eq!(ask(), first, "mode 3");
}

/// A persistent client returns to a server that drains, and renews its persistence: the drain never ends.
#[test]
#[ignore = "runs in a kernel of its own"]
fn persistent_clients_leave_a_server_that_drains_with_expire_quiescent_template() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [a, b] = [b'a', b'b'].map(Server::start);
        let text = |weights: [&str; 2], expire: bool| {
            let servers = [(&a, weights[0]), (&b, weights[1])];
            let text = config_text("\"ipvs\"", &servers).replacen(
                "scheduler",
                "persistence = { timeout = \"5m\" }\nscheduler",
                1,
            );
            config(&format!("{text}[ipvs]\nexpire_quiescent_template = {expire}\n"))
        };
        let director = Director::start(text(["", ""], false)).await.expect("IPVS is there");
        let letter = Client::connect().ask();
        assert_eq!(Client::connect().ask(), letter);
        let weights = if letter == 'a' { ["weight = 0", ""] } else { ["", "weight = 0"] };
        director.reload(text(weights, false)).await.expect("valid");
        until("it has no weight", || saved().iter().any(|line| line.ends_with("-w 0"))).await;
        assert_eq!(Client::connect().ask(), letter, "the kernel's default");
        director.reload(text(weights, true)).await.expect("valid");
        until("it is set", || setting("expire_quiescent_template") == "1").await;
        assert_ne!(Client::connect().ask(), letter, "with the key");
        director.stop(Duration::ZERO).await;
    });
}

/// A server of UDP that does not answer.
fn start_receiver() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_nonblocking(true).expect("a socket");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

fn udp_config(servers: &[SocketAddr]) -> DirectorConfig {
    let mut text = "[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nlisten = \"10.0.0.1:53\"\n\
                    engine = \"ipvs\"\nscheduler = \"rr\"\n"
        .to_owned();
    for server in servers {
        text += &format!("[[service.server]]\naddress = \"{server}\"\n");
    }
    config(&text)
}

/// Sends a datagram to the UDP service.
fn send(client: &UdpSocket, text: &str) {
    client.send_to(text.as_bytes(), "10.0.0.1:53").expect("sent");
}

/// Returns the next datagram that one of the sockets has, with its number.
fn receive(sockets: &[&UdpSocket]) -> (usize, String) {
    let mut buffer = [0; 100];
    wait_for(|| {
        sockets.iter().enumerate().find_map(|(number, socket)| {
            let len = socket.recv(&mut buffer).ok()?;
            Some((number, String::from_utf8_lossy(&buffer[..len]).into_owned()))
        })
    })
}

/// kubernetes#71514, #76664: the datagrams of a flow go on to a server that is removed, and are dropped, for as long
/// as the client sends.
#[test]
#[ignore = "runs in a kernel of its own"]
fn a_udp_flow_goes_to_another_server_when_its_own_is_removed() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [(a, address_a), (b, address_b)] = [start_receiver(), start_receiver()];
        let both = udp_config(&[address_a, address_b]);
        let director = Director::start(both).await.expect("IPVS is there");
        let flow = UdpSocket::bind("10.0.0.1:0").expect("a free port");
        for expires in [false, true] {
            send(&flow, "begun");
            let (first, text) = receive(&[&a, &b]);
            assert_eq!(text, "begun");
            set_ipvs("expire_nodest_conn", if expires { "1" } else { "0" });
            let address = [address_a, address_b][first].to_string();
            let set_state = |state| {
                let change = ServerChange::new().with_state(state);
                director.change_server("dns", &address, change).expect("it is there");
            };
            set_state(BackendAdminState::Disabled);
            until("it is removed", || saved().len() == 2).await;
            if expires {
                send(&flow, "goes on");
                assert_eq!(receive(&[&a, &b]), (1 - first, "goes on".to_owned()));
            } else {
                // Of a client on another machine it would be lost without a word.
                let dropped = flow.send_to(b"goes on", "10.0.0.1:53").expect_err("it is dropped");
                assert_eq!(dropped.kind(), io::ErrorKind::PermissionDenied, "the kernel's default");
            }
            set_state(BackendAdminState::Enabled);
            until("it is back", || saved().len() == 3).await;
        }
        director.stop(Duration::ZERO).await;
    });
}

/// A connection to a persistent server that is removed hangs until the client's own timeout.
#[test]
#[ignore = "runs in a kernel of its own"]
fn a_connection_of_a_server_that_is_removed_is_reset_and_does_not_hang() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [a, b] = [b'a', b'b'].map(Server::start);
        let text = |servers: &[(&Server, &str)]| {
            let text = config_text("\"ipvs\"", servers);
            config(&text.replacen("scheduler", "persistence = { timeout = \"5m\" }\nscheduler", 1))
        };
        let director = Director::start(text(&[(&a, ""), (&b, "")])).await.expect("IPVS is there");
        let mut stream = TcpStream::connect(VIRTUAL).expect("the service accepts");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a valid time");
        let mut letter = [0];
        stream.write_all(b"\n").expect("the connection is open");
        stream.read_exact(&mut letter).expect("the server answers");
        let left = if letter == *b"a" { &b } else { &a };
        director.reload(text(&[(left, "")])).await.expect("valid");
        until("it is removed", || saved().len() == 2).await;
        stream.write_all(b"\n").expect("the connection is open to the client");
        let error = stream.read_exact(&mut letter).expect_err("there is no server any more");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_ne!(Client::connect().ask(), char::from(letter[0]));
        director.stop(Duration::ZERO).await;
    });
}

/// A destination that is removed and added again within two minutes comes back with its old counts.
#[test]
#[ignore = "runs in a kernel of its own"]
fn the_counts_of_a_server_that_comes_back_are_not_counted_twice() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let (a, address) = start_receiver();
        let director = Director::start(udp_config(&[address])).await.expect("IPVS is there");
        let status = || director.status().services.remove(0);
        let counted = || status().servers[0].totals.connections;
        let send_flows = |count| {
            for _ in 0..count {
                send(&UdpSocket::bind("10.0.0.1:0").expect("a free port"), "flow");
                receive(&[&a]);
            }
        };
        send_flows(3);
        until("three flows are counted", || counted() == 3).await;
        for (state, lines) in [(BackendAdminState::Disabled, 1), (BackendAdminState::Enabled, 2)] {
            let change = ServerChange::new().with_state(state);
            director.change_server("dns", &address.to_string(), change).expect("it is there");
            until("it is removed, or back", || saved().len() == lines).await;
        }
        let again = client().destinations(&udp("10.0.0.1:53")).expect("a list");
        assert_eq!(again[0].stats.connections, 3, "the kernel's count goes on");
        send_flows(2);
        until("two more are counted", || counted() == 5).await;
        assert_eq!(status().totals.accepted, 5);
        director.stop(Duration::ZERO).await;
    });
}

/// kubernetes#57841: a server that is removed loses its connections. It stays until they have ended, and what
/// that goes by are the open connections, which the kernel counts at once; its counters of traffic follow
/// after up to two seconds.
#[test]
#[ignore = "runs in a kernel of its own"]
fn a_server_with_a_connection_that_is_not_counted_yet_is_not_removed() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let [a, b] = [b'a', b'b'].map(Server::start);
        let text = |servers: &[(&Server, &str)]| config(&config_text("\"ipvs\"", servers));
        let director = Director::start(text(&[(&a, "")])).await.expect("IPVS is there");
        let key = tcp(VIRTUAL);
        let mut opened = 0;
        // The counters may catch up right when they are read.
        let mut held = wait_for(|| {
            let mut held = Client::connect();
            assert_eq!(held.ask(), 'a');
            opened += 1;
            let destination = client().destinations(&key).expect("a list").remove(0);
            assert!(destination.active_connections >= 1);
            (destination.stats.connections < opened).then_some(held)
        });
        director.reload(text(&[(&b, "")])).await.expect("valid");
        let line = format!("-a -t {VIRTUAL} -r {} -m -w 0", a.address);
        until("it has no weight", || saved().contains(&line)).await;
        assert_eq!((held.ask(), Client::connect().ask()), ('a', 'b'));
        assert!(saved().contains(&line));
        drop(held);
        until("it is removed", || saved().len() == 2).await;
        director.stop(Duration::ZERO).await;
    });
}

/// Settings and timeouts are those of a network namespace: a director changes none of another.
#[test]
#[ignore = "runs in a kernel of its own"]
fn settings_are_those_of_one_network_namespace() {
    if !guest::enter() {
        return;
    }
    let names =
        ["expire_nodest_conn", "expire_quiescent_template", "sloppy_tcp", "conn_reuse_mode"];
    run("ip", "netns add neighbour");
    in_namespace(async {
        let a = Server::start(b'a');
        let text = config_text("\"ipvs\"", &[(&a, "")])
            + "[ipvs]\nexpire_quiescent_template = true\nsloppy_tcp = true\nconn_reuse_mode = 3\n\
               tcp_timeout = \"100s\"\ntcp_fin_timeout = \"20s\"\nudp_timeout = \"30s\"\n";
        let director = Director::start(config(&text)).await.expect("IPVS is there");
        until("all are set", || names.map(setting) == ["1", "1", "1", "3"]).await;
        assert_eq!(client().timeouts().expect("timeouts"), IpvsTimeouts::new(100, 20, 30));
        director.stop(Duration::ZERO).await;
    });
    within("neighbour", move || {
        assert_eq!(names.map(setting), ["0", "0", "0", "1"]);
        assert_eq!(ipvsadm("-L --timeout").trim(), "Timeout (tcp tcpfin udp): 900 120 300");
    });
    run("ip", "netns delete neighbour");
}
