//! Processes of the program, and what they need: configurations, servers, a service manager.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use crate::loopback::own_address;

/// Ample time for a process to start, to answer or to end.
const BOUND: Duration = Duration::from_secs(60);

/// A running director, killed if a test takes too long or fails.
pub(crate) struct Director {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _watchdog: Sender<()>,
}

impl Director {
    /// Runs `lvs run`; without a configuration, without a status page.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = lvs()
            .arg("run")
            .args(if arguments.contains(&"--config") { &[][..] } else { &["--admin", "none"] })
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("built by `cargo test`");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { _watchdog: watch(child.id()), child, lines }
    }

    /// Reads lines until `parse` returns something.
    pub(crate) fn find<R>(&mut self, parse: impl Fn(&str) -> Option<R>) -> R {
        self.lines
            .by_ref()
            .map(|line| line.expect("utf-8"))
            .find_map(|line| parse(&line))
            .expect("the director prints such a line before it ends")
    }

    pub(crate) fn address(&mut self) -> SocketAddr {
        self.find(|line| {
            let (address, _) = line.strip_prefix("listening on http://")?.split_once('/')?;
            Some(address.parse().expect("an address"))
        })
    }

    pub(crate) fn interrupt(&self) {
        signal("INT", self.child.id());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child of ours")
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, without what the environment of the test says to it.
pub(crate) fn lvs() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lvs"));
    for variable in ["LVS_ADMIN", "LVS_TOKEN", "NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC"] {
        command.env_remove(variable);
    }
    command
}

/// Runs the program to its end; returns its exit code, standard output and standard error.
pub(crate) fn output(words: &[&str]) -> (Option<i32>, String, String) {
    let output = lvs().args(words).output().expect("built by `cargo test`");
    let text = |bytes| String::from_utf8(bytes).expect("utf-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Kills a process unless the returned sender is dropped in time.
pub(crate) fn watch(id: u32) -> Sender<()> {
    let (keep, gone) = mpsc::channel();
    thread::spawn(move || {
        if gone.recv_timeout(BOUND) == Err(mpsc::RecvTimeoutError::Timeout) {
            signal("KILL", id);
        }
    });
    keep
}

pub(crate) fn signal(name: &str, id: u32) {
    let sent = Command::new("kill").args([format!("-{name}"), id.to_string()]).status();
    assert!(sent.expect("a kill command").success());
}

/// Sends an HTTP request on a new connection; returns the body.
pub(crate) fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the director listens");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: director\r\n\r\n").expect("open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server closes the connection");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

/// Returns a page of the admin server.
pub(crate) fn admin(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the director listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the director answers, and closes the connection");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..BOUND.as_millis() / 20 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("not within {BOUND:?}: {what}");
}

/// Recognizes the last line, if no connection was cut.
///
/// How many were finished is uncertain: a client sees the end of its connection before the director
/// has counted it.
pub(crate) fn drained_whole(line: &str) -> Option<()> {
    (line.starts_with("drained: ") && line.ends_with(" connections finished, 0 cut")).then_some(())
}

/// A folder with a configuration, and the files that the configuration names.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("lvs-program-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }

    /// Writes a configuration with a service on `listen` and one server; returns its path.
    pub(crate) fn configure(&self, more: &str, listen: SocketAddr, server: SocketAddr) -> String {
        let text = format!(
            "{more}\n[[service]]\nname = \"web\"\nlisten = \"{listen}\"\n[[service.server]]\n\
             address = \"{server}\"\n"
        );
        std::fs::write(self.path("lvs.toml"), text).expect("a file");
        self.path("lvs.toml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a server that sends a byte to every client, as long as the test runs.
pub(crate) fn server(byte: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that has gone needs no answer.
            let _ = stream.and_then(|mut stream| stream.write_all(&[byte]));
        }
    });
    address
}

pub(crate) fn ask(address: SocketAddr) -> u8 {
    let mut byte = [0];
    let mut stream = TcpStream::connect(address).expect("the director listens");
    stream.read_exact(&mut byte).expect("the connection is served");
    byte[0]
}

/// Returns free ports of an address of the test's own: another test would take a port that is closed.
pub(crate) fn free<const N: usize>() -> [SocketAddr; N] {
    let address = own_address();
    // All are held until the last is found.
    let bind = |()| TcpListener::bind(address).expect("loopback");
    [(); N].map(bind).map(|listener| listener.local_addr().expect("bound"))
}

/// The socket of a service manager, for notifications.
pub(crate) struct Manager {
    socket: UnixDatagram,
    pub(crate) path: String,
}

impl Manager {
    pub(crate) fn new(folder: &Folder) -> Self {
        let path = folder.path("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        Self { socket, path }
    }

    pub(crate) fn until(&self, notification: &str) {
        let mut buffer = [0; 4096];
        loop {
            let len = self.socket.recv(&mut buffer).expect("a notification arrives");
            if String::from_utf8_lossy(&buffer[..len]).contains(notification) {
                return;
            }
        }
    }
}
