//! What a reload changes, and what it does not.

use std::time::Duration;

use lvs::director::{BackendAdminState, DirectorConfig, DirectorError, ReloadPart, ServerChange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::load::Load;
use crate::{ANY, ask, config, listens, read, server, start};

#[tokio::test]
async fn a_reload_changes_the_differences_only() {
    let servers = [server(b'a').await, server(b'b').await, server(b'c').await];
    let before = config(ANY, &servers[..2]);
    let director = start(&before).await;
    let listen = listens(&director);
    for _ in 0..4 {
        ask(listen).await.expect("served");
    }
    assert!(director.reload(read(&before)).await.expect("sound").is_unchanged());
    let after = config(ANY, &servers[1..]).replace("\"rr\"", "\"wrr\"");
    let reloaded = director.reload(read(&after)).await.expect("sound");
    assert_eq!(reloaded.to_string(), "service web: updated servers, scheduler");
    assert_eq!(listens(&director), listen);
    let mut answers = [ask(listen).await.expect("served"), ask(listen).await.expect("served")];
    answers.sort_unstable();
    assert_eq!(answers, *b"bc");
    let status = director.status();
    let service = &status.services[0];
    assert_eq!((&*service.scheduler, service.totals.accepted), ("wrr", 6));
    let kept = service.servers.iter().find(|server| server.address == servers[1].to_string());
    assert_eq!(kept.expect("the server stays").totals.connections, 3, "its counters stay");
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn an_override_stays_unless_a_reload_changes_the_same_value() {
    let servers = [server(b'a').await, server(b'b').await];
    let text = config(ANY, &servers);
    let director = start(&text).await;
    let name = servers[0].to_string();
    director
        .change_server("web", &name, ServerChange::new().with_weight(7))
        .expect("the server exists");
    director
        .change_server("web", &name, ServerChange::new().with_state(BackendAdminState::Draining))
        .expect("the server exists");
    let state = || {
        let status = director.status();
        let found = status.services[0].servers.iter().find(|server| server.address == name);
        found.map(|server| (server.state, server.weight)).expect("the server exists")
    };
    director.reload(read(&text.replace("\"rr\"", "\"lc\""))).await.expect("sound");
    assert_eq!(state(), ("draining", 7));
    let first = format!("address = \"{name}\"\n");
    let heavier = text.replace(&first, &format!("{first}weight = 3\n"));
    director.reload(read(&heavier)).await.expect("sound");
    assert_eq!(state(), ("draining", 3));
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn an_impossible_configuration_changes_nothing() {
    let servers = [server(b'a').await];
    let text = config(ANY, &servers);
    let director = start(&text).await;
    let listen = listens(&director);
    let taken = TcpListener::bind(ANY).await.expect("loopback");
    let taken = (taken.local_addr().expect("bound"), taken);
    let other = text.replace("\"rr\"", "\"wrr\"") + &config(taken.0, &[]).replace("web", "mail");
    let error = director.reload(read(&other)).await.expect_err("the address is taken");
    assert!(matches!(error, DirectorError::Service { service, .. } if service == "mail"));
    // A scheduler whose table is too small for the servers.
    let crowd: Vec<_> = (0..300).map(|n| ([10, 0, 1, (n % 250) as u8], 1 + n).into()).collect();
    let other = config(ANY, &crowd).replace("\"rr\"", "\"maglev(size=251)\"");
    let error = director.reload(read(&other)).await.expect_err("the table is too small");
    assert!(matches!(error, DirectorError::Service { service, .. } if service == "web"));
    let status = director.status();
    assert_eq!((status.services.len(), &*status.services[0].scheduler), (1, "rr"));
    assert_eq!((status.services[0].servers.len(), ask(listen).await.expect("served")), (1, b'a'));
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn connections_outlive_their_forwarder() {
    let echo = TcpListener::bind(ANY).await.expect("loopback");
    let server = echo.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let text = config(ANY, &[server]);
    let director = start(&text).await;
    let listen = listens(&director);
    let mut stream = TcpStream::connect(listen).await.expect("served");
    stream.write_all(b"a").await.expect("open");
    assert_eq!(stream.read_u8().await.expect("open"), b'a');
    let other = text.replace("scheduler", "tcp = { max_connections = 5 }\nscheduler");
    let reloaded = director.reload(read(&other)).await.expect("sound");
    assert_eq!(reloaded.to_string(), "service web: updated forwarding");
    stream.write_all(b"b").await.expect("still open");
    assert_eq!(stream.read_u8().await.expect("still open"), b'b');
    let mut second = TcpStream::connect(listen).await.expect("served");
    second.write_all(b"c").await.expect("open");
    assert_eq!(second.read_u8().await.expect("open"), b'c');
    assert_eq!(director.status().services[0].active, 2, "both are counted");
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_reload_opens_closes_and_moves_listeners() {
    let servers = [server(b'a').await];
    let [one, two] = free();
    let director = start(&config(one, &servers)).await;
    let both =
        config(one, &servers).replace(&format!("\"{one}\""), &format!("[\"{one}\", \"{two}\"]"));
    assert_eq!(reload(&director, &both).await, "service web: updated listen");
    assert_eq!((ask(one).await.expect("served"), ask(two).await.expect("served")), (b'a', b'a'));
    // The address moves to another service, and no client is refused.
    let load = Load::start(two);
    load.more(200).await;
    let renamed = config(two, &servers).replace("web", "mail");
    assert_eq!(reload(&director, &renamed).await, "service web: removed\nservice mail: added");
    load.more(200).await;
    load.stop().await;
    ask(one).await.expect_err("the listener is closed");
    director.stop(Duration::ZERO).await;
}

/// Returns free ports. All are held until the last is found, as a port that is closed may be given out
/// again; the address is this test's own, so that no other test takes the ports meanwhile.
fn free<const N: usize>() -> [std::net::SocketAddr; N] {
    let bind = |()| std::net::TcpListener::bind("127.0.7.1:0").expect("loopback");
    [(); N].map(bind).map(|listener| listener.local_addr().expect("bound"))
}

async fn reload(director: &lvs::director::Director, text: &str) -> String {
    director.reload(read(text)).await.unwrap_or_else(|error| panic!("{error}")).to_string()
}

/// Returns configurations that each change something else about a service.
fn variants(text: &str, more: std::net::SocketAddr) -> Vec<DirectorConfig> {
    let with = |extra: &str| read(&text.replace("scheduler", &format!("{extra}\nscheduler")));
    vec![
        with("tcp = { idle_timeout = \"1m\" }"),
        with("persistence = { timeout = \"5m\" }"),
        with("persistence = { timeout = \"1m\" }\nworkers = 3"),
        with("health = { type = \"tcp\", interval = \"100ms\" }"),
        with("slow_start = { window = \"1s\" }\nquorum = { weight = 1 }"),
        read(&text.replace("\"rr\"", "\"maglev\"")),
        read(&format!("{text}[[service.server]]\naddress = \"{more}\"\nweight = 2\n")),
        read(&format!("log.connections = true\n{text}")),
        read(text),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_fails_because_of_a_reload() {
    let servers = [server(b'a').await, server(b'b').await];
    let more = server(b'c').await;
    let text = config(ANY, &servers);
    let director = start(&text).await;
    let load = Load::start(listens(&director));
    load.more(500).await;
    for _ in 0..3 {
        for variant in variants(&text, more) {
            director.reload(variant).await.expect("sound");
            load.more(200).await;
        }
    }
    let connections = load.stop().await;
    let status = director.status();
    let totals = status.services[0].totals;
    assert_eq!(
        (totals.accepted, totals.refused),
        (connections, Some(0)),
        "each connection is counted once"
    );
    director.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn forwarders_of_earlier_configurations_are_bounded() {
    let silent = TcpListener::bind(ANY).await.expect("loopback");
    let text = config(ANY, &[silent.local_addr().expect("bound")]);
    let text = format!("drain_timeout = \"10ms\"\n{text}");
    let director = start(&text).await;
    let mut held = Vec::new();
    for n in 0..30 {
        held.push(TcpStream::connect(listens(&director)).await.expect("served"));
        while director.status().services[0].active < (n + 1).min(12) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let tcp = format!("tcp = {{ max_connections = {} }}\nscheduler", 100 + n);
        director.reload(read(&text.replace("scheduler", &tcp))).await.expect("sound");
    }
    // The oldest connections have been cut, and the last go on. Those between are not certain: the
    // forwarder before the newest may have accepted one more, and then has two connections.
    for (n, stream) in held.iter_mut().enumerate().filter(|(n, _)| *n < 3 || *n >= 20) {
        let is_ended = n < 3;
        let patience = Duration::from_millis(if is_ended { 10_000 } else { 20 });
        let read = tokio::time::timeout(patience, stream.read_u8()).await;
        assert_eq!(read.is_ok(), is_ended, "connection {n}");
    }
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn datagrams_reach_the_same_server_during_reloads() {
    let echo = UdpSocket::bind(ANY).await.expect("loopback");
    let server = echo.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((len, from)) = echo.recv_from(&mut buffer).await {
            let _ = echo.send_to(&buffer[..len], from).await;
        }
    });
    let text = config(ANY, &[server]).replace("scheduler", "protocol = \"udp\"\nscheduler");
    let director = start(&text).await;
    let client = UdpSocket::bind(ANY).await.expect("loopback");
    client.connect(listens(&director)).await.expect("loopback");
    let mut buffer = [0; 64];
    for n in 0..40_u8 {
        if n % 4 == 0 {
            let udp = format!("udp = {{ max_flows = {} }}\nscheduler", 100 + u32::from(n));
            // Every eighth time the address moves to another service.
            let name = if n % 8 == 0 { "\"mail\"" } else { "\"web\"" };
            let other = text.replace("scheduler", &udp).replace("\"web\"", name);
            director.reload(read(&other)).await.expect("sound");
        }
        for m in 0..10 {
            client.send(&[n, m]).await.expect("loopback");
            let len = tokio::time::timeout(Duration::from_secs(10), client.recv(&mut buffer)).await;
            let len = len.expect("no datagram is lost").expect("no ICMP error");
            assert_eq!(buffer[..len], [n, m]);
        }
    }
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_part_that_failed_is_tried_again_by_the_same_configuration() {
    let text = config(ANY, &[server(b'a').await]);
    let director = start(&text).await;
    // A folder is in the way: the socket can be bound beside it, and not moved to its path.
    let path = std::env::temp_dir().join(format!("lvs-{}-in-the-way", std::process::id()));
    std::fs::create_dir(&path).expect("a folder");
    let with_handover = format!("handover = {path:?}\n{text}");
    for _ in 0..2 {
        let summary =
            director.reload(read(&with_handover)).await.expect("the handover socket is prepared");
        assert_eq!(summary.to_string(), "handover: updated");
        assert!(!summary.is_complete());
        let failure = &summary.failures()[0];
        assert_eq!(failure.part, ReloadPart::Handover);
        let status = director.status();
        assert_eq!(status.failed_parts[0].part, "handover");
        assert_eq!(status.failed_parts[0].reason, failure.error.to_string());
    }
    std::fs::remove_dir(&path).expect("an empty folder");
    let summary = director.reload(read(&with_handover)).await.expect("the path can be bound now");
    assert_eq!(
        (summary.to_string(), summary.is_complete()),
        ("handover: updated".to_owned(), true)
    );
    assert!(path.exists() && director.status().failed_parts.is_empty());
    assert!(director.reload(read(&with_handover)).await.expect("the same").is_unchanged());
    director.stop(Duration::ZERO).await;
    let _ = std::fs::remove_file(path);
}

#[tokio::test]
async fn a_handover_path_that_cannot_be_bound_changes_nothing() {
    let text = config(ANY, &[server(b'a').await]);
    let director = start(&text).await;
    let folder = std::env::temp_dir().join(format!("lvs-{}-missing", std::process::id()));
    let with_handover =
        format!("handover = {:?}\n{}", folder.join("sock"), text.replace("\"rr\"", "\"wrr\""));
    let error = director.reload(read(&with_handover)).await.expect_err("there is no such folder");
    assert!(matches!(error, DirectorError::Handover { .. }), "{error}");
    assert_eq!(director.status().services[0].scheduler, "rr");
    std::fs::create_dir(&folder).expect("a folder");
    let summary = director.reload(read(&with_handover)).await.expect("the folder is there now");
    assert_eq!(summary.to_string(), "service web: updated scheduler\nhandover: updated");
    director.stop(Duration::ZERO).await;
    let _ = std::fs::remove_dir_all(folder);
}

#[tokio::test]
async fn listeners_move_between_a_wildcard_and_a_single_address() {
    let servers = [server(b'a').await];
    let [one, admin] = free();
    let text = |listen: &str, page: &str| {
        format!(
            "[admin]\nlisten = \"{page}:{}\"\ntoken = \"0123456789abcdef\"\n[[service]]\nname = \
             \"web\"\nlisten = \"{listen}:{port}\"\n[[service.server]]\naddress = \"{}\"\n\
             [[service]]\nname = \"dns\"\nprotocol = \"udp\"\nlisten = \"{listen}:{port}\"\n",
            admin.port(),
            servers[0],
            port = one.port(),
        )
    };
    let director = start(&text("0.0.0.0", "127.0.7.1")).await;
    for (listen, page) in [
        ("127.0.7.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.7.1"),
        ("[::]", "[::]"),
        ("127.0.7.1", "127.0.7.1"),
    ] {
        let moved = director.reload(read(&text(listen, page))).await.expect(listen);
        assert!(moved.is_complete(), "{moved:?}");
        for _ in 0..20 {
            assert_eq!(ask(one).await.expect("served"), b'a');
        }
        // The thread of the one before has the lowest priority: until it closes its listener, it may get the connection,
        // which ends with it.
        let connect = async { while TcpStream::connect(admin).await.is_err() {} };
        let connected = tokio::time::timeout(Duration::from_secs(10), connect).await;
        connected.expect("the admin server listens");
        let local = director.status().services[0].listen[0].clone();
        assert_eq!(local, format!("{listen}:{}", one.port()));
    }
    // The port of another program is refused as before.
    let taken = TcpListener::bind("127.0.0.2:0").await.expect("loopback");
    let port = taken.local_addr().expect("bound").port();
    let other = text("0.0.0.0", "127.0.7.1").replace(&one.port().to_string(), &port.to_string());
    director.reload(read(&other)).await.expect_err("the port is in use");
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_reload_of_options_leaves_udp_clients_at_their_servers() {
    let mut text = "[[service]]\nname = \"udp\"\nprotocol = \"udp\"\nscheduler = \"rr\"\nlisten = \
                    \"127.0.0.1:0\"\n"
        .to_owned();
    for name in *b"abc" {
        let socket = UdpSocket::bind(ANY).await.expect("loopback");
        text +=
            &format!("[[service.server]]\naddress = \"{}\"\n", socket.local_addr().expect("bound"));
        tokio::spawn(async move {
            let mut buffer = [0; 16];
            while let Ok((_, client)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(&[name], client).await;
            }
        });
    }
    let director = start(&text).await;
    let listen = listens(&director);
    let mut clients = Vec::new();
    for _ in 0..12 {
        let socket = UdpSocket::bind(ANY).await.expect("loopback");
        socket.connect(listen).await.expect("loopback");
        clients.push(socket);
    }
    let mut seen = Vec::new();
    for options in ["", "[service.udp]\nidle_timeout = \"55s\"\n", ""] {
        director.reload(read(&(text.clone() + options))).await.expect("sound");
        let mut servers = Vec::new();
        for socket in &clients {
            socket.send(b"?").await.expect("loopback");
            let mut buffer = [0; 16];
            socket.recv(&mut buffer).await.expect("an answer");
            servers.push(buffer[0]);
        }
        seen.push(servers);
    }
    assert_eq!((&seen[1], &seen[2]), (&seen[0], &seen[0]));
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_server_has_checks_and_programs_of_its_own() {
    let servers = [server(b'a').await, server(b'b').await, server(b'c').await];
    let folder = std::env::temp_dir().join(format!("lvs-own-checks-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (file, output) = (folder.join("down"), folder.join("output"));
    std::fs::write(&file, "0").expect("a file");
    let program = |word: &str| {
        let script = format!("echo {word} >> {}", output.display());
        format!("[\"/bin/sh\", \"-c\", \"{script}\"]")
    };
    let checks = |interval: &str| {
        format!(
            "health = {{ type = \"file\", file = \"{}\", interval = \"{interval}\", fall = 1, rise = 1 }}\n",
            file.display()
        )
    };
    // The service's own check fails for the server that has no other.
    let refused = "health = { type = \"command\", command = \"false\", interval = \"20ms\", fall = 1 }\n\
        quorum = { weight = 2, advisory = true }\n";
    let text = config(ANY, &servers).replace("scheduler", &format!("{refused}scheduler"));
    let line = |n: usize| format!("address = \"{}\"\n", servers[n]);
    let text = text.replace(&line(0), &format!("{}health = []\n", line(0))).replace(
        &line(1),
        &format!(
            "{}{}notify_down = {}\nnotify_up = {}\n",
            line(1),
            checks("20ms"),
            program("down"),
            program("up")
        ),
    );
    let text = text.replace("quorum =", &format!("quorum_down = {}\nquorum =", program("lost")));
    let director = start(&text).await;
    let states = || {
        let status = director.status();
        let state = |address: &std::net::SocketAddr| {
            let servers = &status.services[0].servers;
            let found = servers.iter().find(|server| server.address == address.to_string());
            found.expect("the server exists").state
        };
        servers.each_ref().map(state)
    };
    let until = async |condition: &dyn Fn() -> bool| {
        let deadline = Duration::from_secs(20);
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(deadline, wait).await.expect("the condition is met");
    };
    until(&|| states() == ["eligible", "eligible", "down"]).await;
    std::fs::write(&file, "1").expect("a file");
    until(&|| states() == ["eligible", "down", "down"]).await;
    let lines = || std::fs::read_to_string(&output).unwrap_or_default();
    let has = |word: &str| lines().lines().any(|line| line == word);
    until(&|| has("down") && has("lost")).await;
    assert!(!has("up"), "{}", lines());
    std::fs::write(&file, "0").expect("a file");
    until(&|| states() == ["eligible", "eligible", "down"] && has("up")).await;
    // A reload of one server's check changes that check.
    director
        .reload(read(&text.replace(
            "health = []",
            "health = { type = \"command\", command = \"false\", interval = \"20ms\", fall = 1 }",
        )))
        .await
        .expect("sound");
    until(&|| states() == ["down", "eligible", "down"]).await;
    director.stop(Duration::ZERO).await;
    // A program that still runs may write into it.
    let _ = std::fs::remove_dir_all(&folder);
}
