//! Machines in network namespaces, and the programs that run on them.
#![allow(dead_code, reason = "tests and benches use what they need of it")]

#[path = "namespaces.rs"]
pub(crate) mod namespaces;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
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

/// Network namespaces, each with its loopback interface up; dropped, they are deleted.
pub(crate) struct Machines {
    name: String,
    names: Vec<&'static str>,
    pub(crate) folder: PathBuf,
    servers: Vec<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Machines {
    /// Returns `None` without root or one of the programs, and prints the reason.
    pub(crate) fn new(names: &[&'static str], programs: &[&str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !namespaces::can_run(programs) {
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lvs{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir(&folder).expect("a folder for this process alone");
        let machines = Self { name, names: names.to_vec(), folder, servers: Vec::new() };
        for side in names {
            machines.ip(&["netns", "add", &machines.space(side)]);
            machines.on(side, &["link", "set", "lo", "up"]);
        }
        Some(machines)
    }

    /// Makes a switch in a namespace: a bridge named `sw`.
    pub(crate) fn add_switch(&self, switch: &str) {
        self.on(switch, &["link", "add", "sw", "type", "bridge"]);
        self.on(switch, &["link", "set", "sw", "up"]);
    }

    /// Connects an interface of a machine to the switch, where the port has the machine's name.
    pub(crate) fn plug_in(&self, side: &str, interface: &str, switch: &str) {
        let (space, of_switch) = (self.space(side), self.space(switch));
        self.ip(&[
            "link", "add", interface, "netns", &space, "type", "veth", "peer", "name", side,
            "netns", &of_switch,
        ]);
        self.on(switch, &["link", "set", "dev", side, "master", "sw", "up"]);
        self.on(side, &["link", "set", interface, "addrgenmode", "none", "up"]);
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

    /// Starts real servers at an address of a machine, which answer with their ports.
    pub(crate) fn servers(&mut self, side: &str, ip: IpAddr, ports: &[u16]) {
        for &port in ports {
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            let listener = self.within(side, || TcpListener::bind((ip, port)));
            let listener = listener.expect("the address is there");
            let server = thread::spawn(move || serve(&listener, &stopped));
            self.servers.push((stop, server));
        }
    }

    /// Ends all real servers.
    pub(crate) fn stop_servers(&mut self) {
        for (stop, server) in self.servers.drain(..) {
            stop.store(true, Ordering::Relaxed);
            let _ = server.join();
        }
    }

    /// Returns a page of the admin server of a machine's director.
    pub(crate) fn page(&self, side: &str, path: &str) -> Option<String> {
        self.within(side, || get(admin(), path)).ok()
    }

    /// Returns the status of a machine's director.
    pub(crate) fn status(&self, side: &str) -> Option<serde_json::Value> {
        serde_json::from_str(&self.page(side, "/api/v1/status")?).ok()
    }

    /// Sends a change to a machine's director; returns its answer.
    pub(crate) fn patch(&self, side: &str, path: &str, body: &str) -> String {
        let answer = self.within(side, || exchange(admin(), "PATCH", path, body));
        answer.expect("the director answers")
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

    /// Runs `ip` on a machine, and returns what it prints.
    pub(crate) fn show(&self, side: &str, words: &[&str]) -> String {
        let space = self.space(side);
        let words = [&["-n", &space], words].concat();
        let output = Command::new("ip").args(words).output().expect("`ip`");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn ip(&self, words: &[&str]) {
        run_ip(words).expect("as root");
    }
}

pub(crate) fn run_ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output().expect("`ip`, of the package iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {words:?}: {error}")) }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.stop_servers();
        for side in &self.names {
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
        until("the process ends", || self.has_ended());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
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

/// How long a connection and an answer may take.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(2);

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    get_by(TcpStream::connect_timeout(&address, EXCHANGE_LIMIT)?, path)
}

/// Gets a page by a connection.
pub(crate) fn get_by(stream: TcpStream, path: &str) -> std::io::Result<String> {
    let text = exchange_by(stream, "GET", path, "")?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| std::io::Error::other(text))
}

fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    exchange_by(TcpStream::connect_timeout(&address, EXCHANGE_LIMIT)?, method, path, body)
}

fn exchange_by(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<String> {
    stream.set_read_timeout(Some(EXCHANGE_LIMIT))?;
    let (host, length) = (stream.peer_addr()?, body.len());
    // In one write: the server may answer a part of the request before the rest arrives.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn admin() -> SocketAddr {
    "127.0.0.1:9000".parse().expect("an address")
}
