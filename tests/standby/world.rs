//! Two machines for directors and one for clients and servers, on a switch of their own: network
//! namespaces `a`, `b` and `c`, with their links in a bridge in `s`.
#![allow(dead_code, reason = "tests and the bench use what they need of it")]

#[path = "../common/namespaces.rs"]
pub(crate) mod namespaces;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// How long a condition may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The virtual address.
pub(crate) const VIRTUAL: &str = "10.88.0.100";
/// The IPv6 virtual addresses, where a test has some.
pub(crate) const VIRTUAL_V6: [&str; 2] = ["fe80::100", "fd00:88::100"];

/// The network namespaces; dropped, they are deleted.
pub(crate) struct World {
    name: String,
    pub(crate) folder: PathBuf,
    servers: Vec<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl World {
    /// Returns `None` without root or `ip`, and prints the reason.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !namespaces::can_run(&["ip"]) {
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lvs{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir(&folder).expect("a folder for this process alone");
        let world = Self { name, folder, servers: Vec::new() };
        for side in ["s", "a", "b", "c"] {
            world.ip(&["netns", "add", &world.space(side)]);
            world.on(side, &["link", "set", "lo", "up"]);
        }
        world.on("s", &["link", "add", "sw", "type", "bridge"]);
        world.on("s", &["link", "set", "sw", "up"]);
        for (side, number) in [("a", 1), ("b", 2), ("c", 3)] {
            let (space, switch) = (world.space(side), world.space("s"));
            world.ip(&[
                "link", "add", "eth0", "netns", &space, "type", "veth", "peer", "name", side,
                "netns", &switch,
            ]);
            world.on("s", &["link", "set", "dev", side, "master", "sw", "up"]);
            world.on(side, &["link", "set", "eth0", "addrgenmode", "none", "up"]);
            let address = format!("10.88.0.{number}/24");
            world.on(side, &["addr", "add", &address, "dev", "eth0"]);
            let address = format!("fe80::{number}/64");
            world.on(side, &["addr", "add", &address, "dev", "eth0", "nodad"]);
            let address = format!("fd00:88::{number}/64");
            world.on(side, &["addr", "add", &address, "dev", "eth0", "nodad"]);
        }
        Some(world)
    }

    pub(crate) fn space(&self, side: &str) -> String {
        format!("{}-{side}", self.name)
    }

    /// Runs a function in a namespace; its sockets stay in that namespace.
    pub(crate) fn within<R: Send>(&self, side: &str, act: impl FnOnce() -> R + Send) -> R {
        let space = format!("/run/netns/{}", self.space(side));
        thread::scope(|scope| {
            let act = scope.spawn(move || {
                enter(&space);
                act()
            });
            act.join().expect("no panic")
        })
    }

    /// Starts a thread in a namespace.
    pub(crate) fn thread<R: Send + 'static>(
        &self,
        side: &str,
        act: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let space = format!("/run/netns/{}", self.space(side));
        thread::spawn(move || {
            enter(&space);
            act()
        })
    }

    /// Starts a program in a namespace, with its output in a file.
    pub(crate) fn start(&self, side: &str, name: &str, program: &Path, words: &[&str]) -> Process {
        let log = self.folder.join(format!("{name}-{side}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a file");
        let child = Command::new("ip")
            .args(["netns", "exec", &self.space(side)])
            .arg(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .spawn()
            .expect("`ip`, of the package iproute2");
        Process { child, log }
    }

    /// Writes a file; returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let file = self.folder.join(name);
        fs::write(&file, text).expect("a file");
        file.to_str().expect("text").to_owned()
    }

    /// Starts a director in a namespace.
    pub(crate) fn director(&self, side: &str, config: &str) -> Process {
        let file = self.file(&format!("{side}.toml"), &format!("drain_timeout = \"0s\"\n{config}"));
        let program = Path::new(env!("CARGO_BIN_EXE_lvs"));
        self.start(side, "director", program, &["run", "--config", &file])
    }

    /// Starts real servers in the namespace of the clients, which answer with their names.
    pub(crate) fn servers(&mut self, ports: &[u16]) {
        for &port in ports {
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            let listener = self.within("c", || TcpListener::bind(("10.88.0.3", port)));
            let listener = listener.expect("the address is there");
            let server = thread::spawn(move || serve(&listener, &stopped));
            self.servers.push((stop, server));
        }
    }

    /// Sends a request to the virtual address; returns the body.
    pub(crate) fn ask(&self, port: u16) -> std::io::Result<String> {
        let address = SocketAddr::new(VIRTUAL.parse().expect("an address"), port);
        self.within("c", || get(address, "/"))
    }

    /// Returns the status of a director.
    pub(crate) fn status(&self, side: &str) -> Option<serde_json::Value> {
        serde_json::from_str(&self.page(side, "/api/v1/status")?).ok()
    }

    /// Returns a page of the admin server of a director.
    pub(crate) fn page(&self, side: &str, path: &str) -> Option<String> {
        let admin = "127.0.0.1:9000".parse().expect("an address");
        self.within(side, || get(admin, path)).ok()
    }

    /// Changes a server at a director; returns its answer.
    pub(crate) fn change(&self, side: &str, server: &str, body: &str) -> String {
        let admin: SocketAddr = "127.0.0.1:9000".parse().expect("an address");
        let path = format!("/api/v1/services/web/servers/{server}");
        let answer = self.within(side, || exchange(admin, "PATCH", &path, body));
        answer.expect("the director answers")
    }

    pub(crate) fn has_all(&self, side: &str) -> bool {
        self.has(side, VIRTUAL) && VIRTUAL_V6.iter().all(|address| self.has(side, address))
    }

    pub(crate) fn has_none(&self, side: &str) -> bool {
        !self.has(side, VIRTUAL) && !VIRTUAL_V6.iter().any(|address| self.has(side, address))
    }

    pub(crate) fn has(&self, side: &str, address: &str) -> bool {
        let space = self.space(side);
        let output = Command::new("ip").args(["-n", &space, "-br", "addr"]).output().expect("`ip`");
        String::from_utf8_lossy(&output.stdout).contains(&format!("{address}/"))
    }

    pub(crate) fn mac(&self, side: &str) -> String {
        let path = "/sys/class/net/eth0/address";
        let space = self.space(side);
        let output = Command::new("ip").args(["netns", "exec", &space, "cat", path]).output();
        String::from_utf8_lossy(&output.expect("`ip`").stdout).trim().to_owned()
    }

    /// Sends a packet to an address from the clients' namespace, which resolves its MAC address.
    pub(crate) fn knock(&self, address: &str) {
        let address = SocketAddr::new(address.parse().expect("an address"), 9);
        // No process listens there.
        let _ = self.within("c", || TcpStream::connect_timeout(&address, Duration::from_secs(1)));
    }

    /// Returns the clients' neighbour entry of an address.
    pub(crate) fn neighbour(&self, address: &str) -> String {
        let space = self.space("c");
        let words = ["-n", &space, "neigh", "show", address];
        let output = Command::new("ip").args(words).output().expect("`ip`");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Takes a machine's link at the switch down, or up.
    pub(crate) fn link(&self, side: &str, is_up: bool) {
        self.on("s", &["link", "set", "dev", side, if is_up { "up" } else { "down" }]);
    }

    /// Isolates the directors from each other, or ends that; clients reach both.
    pub(crate) fn split(&self, is_split: bool) {
        for side in ["a", "b"] {
            let value = if is_split { "1" } else { "0" };
            let path = format!("/sys/class/net/{side}/brport/isolated");
            let write = format!("echo {value} > {path}");
            let space = self.space("s");
            let words = ["netns", "exec", &space, "sh", "-c", &write];
            self.ip(&words);
        }
    }

    pub(crate) fn on(&self, side: &str, words: &[&str]) {
        let space = self.space(side);
        self.ip(&[&["-n", &space], words].concat());
    }

    /// Runs a command as [`on`](Self::on) does, and returns its failure.
    pub(crate) fn try_on(&self, side: &str, words: &[&str]) -> Result<(), String> {
        let space = self.space(side);
        run_ip(&[&["-n", &space], words].concat())
    }

    fn ip(&self, words: &[&str]) {
        run_ip(words).expect("as root");
    }
}

fn run_ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output().expect("`ip`, of the package iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {words:?}: {error}")) }
}

impl Drop for World {
    fn drop(&mut self) {
        for (stop, server) in self.servers.drain(..) {
            stop.store(true, Ordering::Relaxed);
            let _ = server.join();
        }
        for side in ["a", "b", "c", "s"] {
            let _ = Command::new("ip").args(["netns", "del", &self.space(side)]).status();
        }
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn enter(space: &str) {
    let space = File::open(space).expect("a namespace");
    setns(space, CloneFlags::CLONE_NEWNET).expect("as root");
}

/// A running program. `ip netns exec` replaces itself by the program, so that this is its process.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).expect("the process runs");
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM, and waits until the program has ended.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        until("the process ends", || self.child.try_wait().expect("a child of ours").is_some());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that was stopped by a signal does not end by itself.
        self.kill();
        if thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
    }
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = now();
    while !is_so() {
        assert!(now() - begun < PATIENCE, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "other processes are timed: real time")]
    Instant::now()
}

fn serve(listener: &TcpListener, stop: &AtomicBool) {
    let name = listener.local_addr().expect("bound").port();
    listener.set_nonblocking(true).expect("a socket");
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A thread for each connection: a client that has vanished delays no other.
            Ok((stream, _)) => drop(thread::spawn(move || answer(stream, name))),
            Err(_) => thread::sleep(Duration::from_micros(200)),
        }
    }
}

fn answer(mut stream: TcpStream, name: u16) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 1024];
    let _ = stream.read(&mut request)?;
    let text = format!("server {name}");
    let length = text.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all((head + &text).as_bytes())
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let text = exchange(address, "GET", path, "")?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| std::io::Error::other(text))
}

fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let length = body.len();
    // In one write: the server may answer a part of the request before the rest arrives.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Returns the configuration of one of the two directors.
pub(crate) fn config(side: &str, interval_ms: u64, more: &str) -> String {
    let (own, other, priority) = match side {
        "a" => (1, 2, 150),
        _ => (2, 1, 100),
    };
    format!(
        r#"
        workers = 1
        [admin]
        listen = "127.0.0.1:9000"
        [[service]]
        name = "web"
        listen = "{VIRTUAL}:80"
        scheduler = "rr"
        persistence = {{ timeout = "5m" }}
        health = {{ type = "tcp", interval = "200ms" }}
        [[service.server]]
        address = "10.88.0.3:9001"
        [[service.server]]
        address = "10.88.0.3:9002"
        [vrrp]
        interface = "eth0"
        virtual_router_id = 51
        priority = {priority}
        advert_interval = "{interval_ms}ms"
        addresses = ["{VIRTUAL}/24"]
        {more}
        [sync]
        listen = "10.88.0.{own}:8849"
        peer = "10.88.0.{other}:8849"
        key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        "#
    )
}
