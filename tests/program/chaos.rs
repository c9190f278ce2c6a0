//! What a director needs for its own observation fails while it serves: the reader of its log, a visitor
//! of its admin server, its name server. Connections, checks, reloads and the end go on, and nothing is
//! silent.

use std::io::{PipeReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::world::{Folder, Manager, admin, ask, lvs, server, signal, until, watch};

/// A director with its output in one pipe, as a service manager or a shell gives it.
struct Observed {
    child: Child,
    manager: Manager,
    output: PipeReader,
    listen: SocketAddr,
    page: SocketAddr,
    _watchdog: Sender<()>,
}

impl Observed {
    fn start(folder: &Folder, config: &str) -> Self {
        let manager = Manager::new(folder);
        let (mut output, writer) = std::io::pipe().expect("a pipe");
        let child = lvs()
            .args(["run", "--config", config])
            .env("NOTIFY_SOCKET", &manager.path)
            .stdout(writer.try_clone().expect("a pipe"))
            .stderr(writer)
            .spawn()
            .expect("built");
        let watchdog = watch(child.id());
        // No byte more than these lines: what follows is not read.
        let mut address_after = |start: &str| loop {
            let (mut line, mut byte) = (Vec::new(), [0]);
            while byte != *b"\n" {
                output.read_exact(&mut byte).expect("the director prints its addresses");
                line.extend(byte);
            }
            let line = String::from_utf8(line).expect("utf-8");
            if let Some((_, rest)) = line.split_once(start) {
                let address = rest.split(['/', ',']).next().expect("an address");
                break address.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        };
        let listen = address_after("service web: listening on ");
        let page = address_after("status: http://");
        manager.until("READY=1");
        Self { child, manager, output, listen, page, _watchdog: watchdog }
    }

    fn reload(&self) {
        signal("HUP", self.child.id());
        self.manager.until("RELOADING=1");
        self.manager.until("READY=1");
    }

    /// Ends the director; returns its exit code.
    fn end(&mut self) -> Option<i32> {
        signal("TERM", self.child.id());
        self.child.wait().expect("a child of ours").code()
    }
}

/// Clients that connect one after the other until this is dropped, and are all served.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    client: Option<JoinHandle<()>>,
}

impl Load {
    fn start(listen: SocketAddr) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&served));
        let client = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                ask(listen);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, served, client: Some(client) }
    }

    /// Waits until another hundred clients are served.
    fn goes_on(&self) {
        let before = self.served.load(Ordering::Relaxed);
        until("clients are served", || self.served.load(Ordering::Relaxed) > before + 100);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.client.take().expect("dropped once").join();
        assert!(ended.is_ok() || thread::panicking(), "a client was not served");
    }
}

/// Returns the value of a metric without labels, or with the labels in its name.
fn metric(address: SocketAddr, name: &str) -> u64 {
    let metrics = admin(address, "/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect("a metric").parse().expect("a number")
}

/// Writes a configuration whose service uses the first server while that is up.
fn configure(folder: &Folder, servers: &[SocketAddr]) {
    let mut text = "[log]\nconnections = true\nformat = \"json\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[service]]\n\
        name = \"web\"\nlisten = \"127.0.0.1:0\"\nscheduler = \"fo\"\n\
        health = { type = \"tcp\", interval = \"50ms\", timeout = \"50ms\", fall = 1 }\n"
        .to_owned();
    for (server, weight) in servers.iter().zip((1..9).rev()) {
        text += &format!("[[service.server]]\naddress = \"{server}\"\nweight = {weight}\n");
    }
    std::fs::write(folder.path("lvs.toml"), text).expect("a file");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    for is_read_again in [true, false] {
        let folder = Folder::new(if is_read_again { "unread-log" } else { "stuck-log" });
        let (a, c) = (server(b'a'), server(b'c'));
        let b = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let dying = b.local_addr().expect("bound");
        configure(&folder, &[a, dying]);
        let mut director = Observed::start(&folder, &folder.path("lvs.toml"));
        let (listen, page) = (director.listen, director.page);
        let load = Load::start(listen);
        until("the queue of the log is full", || metric(page, "lvs_log_dropped_lines_total") > 0);
        load.goes_on();

        drop(b);
        let eligible = format!("lvs_server_eligible{{service=\"web\",server=\"{dying}\"}}");
        until("a check finds that the server is down", || metric(page, &eligible) == 0);
        drop(load);
        configure(&folder, &[c]);
        director.reload();
        assert_eq!(ask(listen), b'c');

        let mut log = String::new();
        if is_read_again {
            let mut output = director.output.try_clone().expect("a pipe");
            let reader = thread::spawn(move || {
                let mut text = String::new();
                output.read_to_string(&mut text).expect("utf-8");
                text
            });
            assert_eq!(director.end(), Some(0));
            log = reader.join().expect("no panic");
        } else {
            assert_eq!(director.end(), Some(0));
        }
        if let Some(line) = log.lines().find(|line| line.contains("connection ended")) {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(
                (&record["service"], &record["end"]),
                (&"web".into(), &"--".into()),
                "{line}"
            );
            assert!(record["client"].as_str().expect(line).starts_with("127.0.0.1:"));
            assert!(record["total_ms"].is_number() && record["attempts"] == 1, "{line}");
            assert!(record.get("refusal").is_none() && !line.contains("Some("), "{line}");
        } else {
            assert!(!is_read_again, "{log}");
        }
        let reports = log.matches("lines were dropped").count();
        assert_eq!(reports > 0, is_read_again, "{reports}");
    }
}

#[test]
fn a_visitor_that_never_reads_stops_nothing() {
    let folder = Folder::new("visitor");
    let a = server(b'a');
    configure(&folder, &[a]);
    let mut director = Observed::start(&folder, &folder.path("lvs.toml"));
    let (listen, page) = (director.listen, director.page);
    let load = Load::start(listen);
    let mut visitor = TcpStream::connect(page).expect("it listens");
    visitor.set_write_timeout(Some(Duration::from_secs(1))).expect("a time");
    // Until the director takes no more: its answers fill the buffers of the connection.
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    for _ in 0..200 {
        if visitor.write_all(&request).is_err() {
            break;
        }
    }
    load.goes_on();
    assert!(metric(page, "lvs_service_accepted_total{service=\"web\"}") > 100);
    director.reload();
    load.goes_on();
    drop(load);
    assert_eq!(director.end(), Some(0));
}

/// Answers queries for addresses with 127.0.0.1, until it is mute; then, when it has failed, by SERVFAIL.
fn name_server(mute: Arc<AtomicBool>, failed: Arc<AtomicBool>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let address = socket.local_addr().expect("bound");
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            if mute.load(Ordering::Relaxed) {
                continue;
            }
            // The name ends at the first zero; its type and class follow. Additional records are left out.
            let name = query[12..length].iter().position(|byte| *byte == 0).expect("a name");
            let end = 12 + name + 5;
            let has_failed = failed.load(Ordering::Relaxed);
            let is_a = query[end - 4..end - 2] == [0, 1] && !has_failed;
            let code = if has_failed { 0x82 } else { 0x80 };
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, code, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            answer.extend(&query[12..end]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, client);
        }
    });
    address
}

#[test]
fn a_name_server_that_does_not_answer_removes_no_server() {
    let folder = Folder::new("names");
    let a = server(b'a');
    let (mute, has_failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let names = name_server(Arc::clone(&mute), Arc::clone(&has_failed));
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\n\
         [service.discovery]\ndns = \"web.example.org\"\nport = {}\nname_servers = [\"{names}\"]\n\
         interval = \"1s\"\n",
        a.port()
    );
    std::fs::write(folder.path("lvs.toml"), text).expect("a file");
    let mut director = Observed::start(&folder, &folder.path("lvs.toml"));
    let (listen, page) = (director.listen, director.page);
    until("the name is resolved", || {
        metric(page, "lvs_service_eligible_servers{service=\"web\"}") == 1
    });
    let load = Load::start(listen);
    mute.store(true, Ordering::Relaxed);
    load.goes_on();
    has_failed.store(true, Ordering::Relaxed);
    mute.store(false, Ordering::Relaxed);
    let mut output = director.output.try_clone().expect("a pipe");
    let (line, failed) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut part) {
            text += &String::from_utf8_lossy(&part[..length]);
            if text.contains(" WARN ") && text.contains("web.example.org") {
                let _ = line.send(text.clone());
            }
        }
    });
    let log = failed.recv_timeout(Duration::from_secs(60)).expect("the failure is logged");
    assert!(log.contains("WARN service web"), "{log}");
    load.goes_on();
    director.reload();
    assert_eq!(metric(page, "lvs_service_eligible_servers{service=\"web\"}"), 1);
    load.goes_on();
    drop(load);
    assert_eq!(director.end(), Some(0));
}
