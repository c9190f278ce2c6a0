//! A director's services by firewall mark. Clients of this machine mark their packets by themselves.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lvs::director::{BackendAdminState, Director, DirectorConfig, ServerChange};
use socket2::{Domain, Socket, Type};

use super::director::{in_namespace, until};
use super::sync::enter_peer;
use super::traffic::{answer_directly, build_world, count_answers};
use super::{run, saved};
use crate::guest;

const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a server that answers with its letter, at two ports of TCP and one of UDP.
fn serve(letter: u8, ip: &str) {
    for port in [80, 443] {
        let listener = TcpListener::bind((ip, port)).expect("a free port");
        thread::spawn(move || {
            for client in listener.incoming() {
                let _ = client.and_then(|mut client| client.write_all(&[letter]));
            }
        });
    }
    let socket = UdpSocket::bind((ip, 53)).expect("a free port");
    thread::spawn(move || {
        while let Ok((_, client)) = socket.recv_from(&mut [0]) {
            let _ = socket.send_to(&[letter], client);
        }
    });
}

/// Asks as the client `source`, with a mark, and returns the letter of the server; `None` if nobody answers.
fn ask(source: &str, mark: u32, target: &str, kind: Type) -> Option<char> {
    let target: SocketAddr = target.parse().expect("an address");
    let source = SocketAddr::new(source.parse().expect("an address"), 0);
    let mut socket = Socket::new(Domain::for_address(target), kind, None).expect("a socket");
    socket.set_mark(mark).expect("the first process may");
    socket.set_read_timeout(Some(PATIENCE)).expect("a valid time");
    socket.bind(&source.into()).expect("an address of this machine");
    socket.connect(&target.into()).ok()?;
    if kind == Type::DGRAM {
        socket.write_all(b"?").ok()?;
    }
    let mut letter = [0];
    socket.read_exact(&mut letter).ok()?;
    Some(char::from(letter[0]))
}

/// Returns who serves a client at both ports of TCP and at that of UDP.
fn ask_all(source: &str) -> [Option<char>; 3] {
    [
        ask(source, 7, "10.0.0.1:80", Type::STREAM),
        ask(source, 7, "10.0.0.1:443", Type::STREAM),
        ask(source, 7, "10.0.0.1:53", Type::DGRAM),
    ]
}

fn config(listen: &str, lines: &str, servers: &[&str]) -> DirectorConfig {
    let mut text = format!(
        "[[service]]\nname = \"web\"\nlisten = {listen}\nengine = \"ipvs\"\nscheduler = \"rr\"\n{lines}\n"
    );
    for server in servers {
        text += &format!("[[service.server]]\naddress = \"{server}\"\n");
    }
    DirectorConfig::parse(&text).expect("a valid configuration")
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_client_has_one_server_for_all_ports_and_protocols_of_a_mark() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        serve(b'a', "127.0.0.2");
        serve(b'b', "127.0.0.3");
        let lines = "persistence = { timeout = \"300s\" }\n\
            health = { type = \"tcp\", port = 80, interval = \"50ms\" }";
        let servers = ["127.0.0.2:0", "127.0.0.3:0"];
        let director = Director::start(config("\"fwmark:7\"", lines, &servers)).await;
        let director = director.expect("IPVS is there");
        let expected = |weight| {
            vec![
                "-A -f 7 -s rr -p 300".to_owned(),
                format!("-a -f 7 -r 127.0.0.2:0 -m -w {weight}"),
                "-a -f 7 -r 127.0.0.3:0 -m -w 1".to_owned(),
            ]
        };
        until("both servers are up", || saved() == expected(1)).await;
        assert_eq!(ask("127.0.1.1", 0, "10.0.0.1:80", Type::STREAM), None, "without the mark");
        assert_eq!(ask("127.0.1.1", 8, "10.0.0.1:80", Type::STREAM), None, "with another mark");
        let clients = ["127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4"];
        let mut letters = Vec::new();
        for client in clients {
            let [first, second, datagram] = ask_all(client);
            assert!(first.is_some(), "{client} is served");
            assert_eq!([second, datagram], [first, first], "{client}");
            letters.extend(first);
        }
        letters.sort_unstable();
        assert_eq!(letters, ['a', 'a', 'b', 'b']);

        let status = || director.status().services[0].clone();
        assert_eq!((status().protocol, &*status().listen), ("any", &["fwmark:7".to_owned()][..]));
        until("connections and flows are counted", || status().totals.accepted == 12).await;

        let drain = ServerChange::new().with_state(BackendAdminState::Draining);
        director.change_server("web", "127.0.0.2:0", drain).expect("it is there");
        until("the drained server has weight 0", || saved() == expected(0)).await;
        for client in ["127.0.1.5", "127.0.1.6"] {
            assert_eq!(ask_all(client), [Some('b'); 3]);
        }
        let enable = ServerChange::new().with_state(BackendAdminState::Enabled);
        director.change_server("web", "127.0.0.2:0", enable).expect("it is there");
        until("the server is back", || saved() == expected(1)).await;
        director.stop(Duration::ZERO).await;
        assert_eq!(saved(), [""; 0]);
    });
}

/// Starts a server in a namespace that answers with its name at two ports.
fn serve_elsewhere(name: &'static str) {
    for address in ["[::]:80", "[::]:443"] {
        let (is_ready, ready) = mpsc::channel();
        thread::spawn(move || {
            enter_peer(name);
            let listener = TcpListener::bind(address).expect("a listener");
            is_ready.send(()).expect("somebody waits");
            for client in listener.incoming() {
                let _ = client.and_then(|mut client| client.write_all(name.as_bytes()));
            }
        });
        ready.recv().expect("the server starts");
    }
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn packets_that_a_filter_has_marked_go_to_the_servers_directly() {
    if !guest::enter() {
        return;
    }
    let _world = build_world();
    answer_directly();
    ["server1", "server2"].into_iter().for_each(serve_elsewhere);
    run("tc", "qdisc add dev eth0 clsact");
    for (protocol, address) in [("ip", "10.8.0.100"), ("ipv6", "fd08::100")] {
        let filter = format!("dev eth0 ingress protocol {protocol} flower dst_ip {address}");
        run("tc", &format!("filter add {filter} action skbedit mark 7"));
    }
    in_namespace(async {
        let service = |name: &str, mark: &str, lines: &str, servers: [&str; 2]| {
            let mut text = format!(
                "[[service]]\nname = \"{name}\"\nlisten = \"{mark}\"\nengine = \"ipvs\"\n\
                 scheduler = \"rr\"\n{lines}\n"
            );
            for server in servers {
                text += &format!("[[service.server]]\naddress = \"{server}\"\nmethod = \"dr\"\n");
            }
            text
        };
        let four = ["10.9.0.11:0", "10.9.0.12:0"];
        let persistence = "persistence = { timeout = \"300s\" }";
        let text = service("shop", "fwmark:7", persistence, four)
            + &service("six", "fwmark:7/ipv6", "", ["[fd09::11]:0", "[fd09::12]:0"]);
        let config = DirectorConfig::parse(&text).expect("a valid configuration");
        let director = Director::start(config).await.expect("IPVS is there");
        let answers = count_answers("10.8.0.100:80");
        assert!(
            [&["server1"], &["server2"]].iter().any(|one| answers.keys().eq(*one)),
            "{answers:?}"
        );
        assert_eq!(count_answers("10.8.0.100:443"), answers, "at the other port");
        let both = ["server1", "server2"].map(|name| (name.to_owned(), 3));
        for port in [80, 443] {
            assert_eq!(count_answers(&format!("[fd08::100]:{port}")), both.clone().into());
        }
        director.stop(Duration::ZERO).await;
    });
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn marks_of_both_families_and_addresses_are_changed_by_reloads() {
    if !guest::enter() {
        return;
    }
    run("ip", "address add 2001:db8::1/128 dev lo nodad");
    in_namespace(async {
        serve(b'a', "127.0.0.2");
        serve(b'b', "::1");
        serve(b's', "127.0.0.9");
        let listen = "[\"fwmark:7\", \"10.0.0.1:80\"]";
        let four = config(listen, "sorry_server = \"127.0.0.9:80\"", &["127.0.0.2:80"]);
        let director = Director::start(four).await.expect("IPVS is there");
        let server = |key: &str| format!("-a {key} -r 127.0.0.2:80 -m -w 1");
        let service = |key: &str| format!("-A {key} -s rr");
        let (mark, address) = ("-f 7", "-t 10.0.0.1:80");
        let expected = [service(mark), service(address), server(mark), server(address)];
        assert_eq!(saved(), expected);
        assert_eq!(director.status().services[0].protocol, "tcp");
        // The server has a port: every port of the mark leads to it.
        assert_eq!(ask("127.0.1.1", 7, "10.0.0.1:9999", Type::STREAM), Some('a'));
        assert_eq!(ask("127.0.1.1", 0, "10.0.0.1:80", Type::STREAM), Some('a'));
        let disable = ServerChange::new().with_state(BackendAdminState::Disabled);
        director.change_server("web", "127.0.0.2:80", disable).expect("it is there");
        let has_sorry_server = || saved().contains(&"-a -f 7 -r 127.0.0.9:80 -m -w 1".to_owned());
        until("the sorry server serves", has_sorry_server).await;
        assert_eq!(ask("127.0.1.1", 7, "10.0.0.1:9999", Type::STREAM), Some('s'));

        // The same number is another mark for IPv6. The first service drains.
        let six = config("\"fwmark:7/ipv6\"", "", &["[::1]:0"]);
        director.reload(six).await.expect("a valid configuration");
        let has_six = || {
            let saved = saved();
            ["-A -f 7 -6 -s rr", "-a -f 7 -6 -r [::1]:0 -m -w 1"]
                .iter()
                .all(|line| saved.contains(&(*line).to_owned()))
        };
        assert!(has_six(), "{:?}", saved());
        assert_eq!(ask("::1", 7, "[2001:db8::1]:443", Type::STREAM), Some('b'));

        // Another service takes the mark over.
        let text = "[[service]]\nname = \"other\"\nprotocol = \"udp\"\nlisten = \"fwmark:7/ipv6\"\n\
            engine = \"ipvs\"\nscheduler = \"wrr\"\nudp = { one_packet = true }\n\
            [[service.server]]\naddress = \"[::1]:0\"\n";
        let other = DirectorConfig::parse(text).expect("a valid configuration");
        director.reload(other).await.expect("a valid configuration");
        let is_taken_over = || saved().contains(&"-A -f 7 -6 -s wrr -o".to_owned());
        until("the other service has the mark", is_taken_over).await;
        assert_eq!(ask("::1", 7, "[2001:db8::1]:443", Type::STREAM), Some('b'));
        until("the first service has drained", || saved().len() == 2).await;
        director.stop(Duration::ZERO).await;
        assert_eq!(saved(), [""; 0]);
    });
}
