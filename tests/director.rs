//! The `director` example as a process.
#![cfg(all(feature = "director", target_os = "linux"))]

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

/// Ample time for a process to start, to answer or to end.
const BOUND: Duration = Duration::from_secs(60);

/// A running director, killed if a test takes too long or fails.
struct Director {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _watchdog: Sender<()>,
}

impl Director {
    fn start(arguments: &[&str]) -> Self {
        let mut child = command()
            .args(if arguments.contains(&"--config") { &[][..] } else { &["--admin", "none"] })
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("built by `cargo test`, or by `cargo build --example director`");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { _watchdog: watch(child.id()), child, lines }
    }

    /// Reads lines until `parse` returns something.
    fn find<R>(&mut self, parse: impl Fn(&str) -> Option<R>) -> R {
        self.lines
            .by_ref()
            .map(|line| line.expect("utf-8"))
            .find_map(|line| parse(&line))
            .expect("the director prints such a line before it ends")
    }

    fn address(&mut self) -> SocketAddr {
        self.find(|line| {
            let (address, _) = line.strip_prefix("listening on http://")?.split_once('/')?;
            Some(address.parse().expect("an address"))
        })
    }

    fn interrupt(&self) {
        signal("INT", self.child.id());
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child of ours")
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo puts examples beside the folder of the test executables.
fn command() -> Command {
    let test = std::env::current_exe().expect("this test");
    let target: PathBuf = test.ancestors().nth(2).expect("target/<profile>/deps/<test>").into();
    Command::new(target.join("examples/director"))
}

/// Kills a process unless the returned sender is dropped in time.
fn watch(id: u32) -> Sender<()> {
    let (keep, gone) = mpsc::channel();
    thread::spawn(move || {
        if gone.recv_timeout(BOUND) == Err(mpsc::RecvTimeoutError::Timeout) {
            signal("KILL", id);
        }
    });
    keep
}

fn signal(name: &str, id: u32) {
    let sent = Command::new("kill").args([format!("-{name}"), id.to_string()]).status();
    assert!(sent.expect("a kill command").success());
}

/// Sends an HTTP request on a new connection; returns the body.
fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the director listens");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: director\r\n\r\n").expect("open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server closes the connection");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

/// Parses `served: alpha 2 beta 2 gamma 2, refused 0`.
fn served(line: &str) -> Option<Vec<(String, u64)>> {
    let (counts, _) = line.strip_prefix("served: ")?.split_once(',')?;
    let words: Vec<&str> = counts.split(' ').collect();
    let pairs = words.chunks(2).map(|pair| (pair[0].into(), pair[1].parse().expect("a number")));
    Some(pairs.collect())
}

/// Recognizes the last line, if no connection was cut.
///
/// How many were finished is uncertain: a client sees the end of its connection before the director
/// has counted it.
fn drained_whole(line: &str) -> Option<()> {
    (line.starts_with("drained: ") && line.ends_with(" finished, 0 cut")).then_some(())
}

#[test]
fn three_servers_answer_counters_are_shown_and_ctrl_c_ends_the_director() {
    // Round robin: a scheduler that goes by load would find the first server idle each time.
    let mut director = Director::start(&["--listen", "127.0.0.1:0", "--scheduler", "rr"]);
    let address = director.address();
    let answers: Vec<String> = (0..12).map(|_| get(address)).collect();
    for name in ["alpha", "beta", "gamma"] {
        assert!(answers.contains(&format!("Hello from {name}, request 1.\n")), "{answers:?}");
    }

    let total = |counts: &Vec<(String, u64)>| counts.iter().map(|(_, count)| count).sum::<u64>();
    let counts = director.find(|line| served(line).filter(|counts| total(counts) == 12));
    let names: Vec<&str> = counts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["alpha", "beta", "gamma"]);
    assert!(counts.iter().all(|&(_, count)| count > 0), "{counts:?}");

    director.interrupt();
    director.find(drained_whole);
    assert_eq!(director.wait().code(), Some(0));
}

#[test]
fn a_drain_waits_for_the_client_and_a_second_ctrl_c_does_not() {
    let mut director = Director::start(&["--listen", "127.0.0.1:0"]);
    let address = director.address();
    // An incomplete request keeps its connection open; the answer to a later request shows that the
    // connection was accepted.
    let mut slow = TcpStream::connect(address).expect("the director listens");
    slow.write_all(b"GET / HTTP/1.1\r\n").expect("open");
    get(address);

    director.interrupt();
    director.find(|line| line.starts_with("draining").then_some(()));
    slow.write_all(b"Host: director\r\n\r\n").expect("the connection is still open");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("the server closes the connection");
    assert!(answer.contains("Hello from"), "{answer}");
    drop(slow);
    director.find(drained_whole);
    assert_eq!(director.wait().code(), Some(0));

    let mut director = Director::start(&["--listen", "127.0.0.1:0"]);
    let address = director.address();
    let _held = TcpStream::connect(address).expect("the director listens");
    get(address);
    director.interrupt();
    director.find(|line| line.starts_with("draining").then_some(()));
    director.interrupt();
    assert_eq!(director.wait().code(), Some(130));
}

#[test]
fn sigterm_ends_the_director_as_ctrl_c_does() {
    let mut director = Director::start(&["--listen", "127.0.0.1:0"]);
    director.address();
    signal("TERM", director.child.id());
    assert_eq!(director.wait().code(), Some(0));
}

/// A folder with a configuration, and the files that the configuration names.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("lvs-director-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }

    /// Writes a configuration with a service on `listen` and one server; returns its path.
    fn configure(&self, more: &str, listen: SocketAddr, server: SocketAddr) -> String {
        let text = format!(
            "{more}\n[[service]]\nname = \"web\"\nlisten = \"{listen}\"\n[[service.server]]\n\
             address = \"{server}\"\n"
        );
        std::fs::write(self.path("director.toml"), text).expect("a file");
        self.path("director.toml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a server that sends a byte to every client, as long as the test runs.
fn server(byte: u8) -> SocketAddr {
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

fn ask(address: SocketAddr) -> u8 {
    let mut byte = [0];
    let mut stream = TcpStream::connect(address).expect("the director listens");
    stream.read_exact(&mut byte).expect("the connection is served");
    byte[0]
}

/// Returns free ports. All are held until the last is found: a port that is closed may be given out
/// again.
fn free<const N: usize>() -> [SocketAddr; N] {
    let bind = |()| TcpListener::bind("127.0.0.1:0").expect("loopback");
    [(); N].map(bind).map(|listener| listener.local_addr().expect("bound"))
}

/// The socket of a service manager, for notifications.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(folder: &Folder) -> Self {
        let path = folder.path("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        Self { socket, path }
    }

    fn until(&self, notification: &str) {
        let mut buffer = [0; 4096];
        loop {
            let len = self.socket.recv(&mut buffer).expect("a notification arrives");
            if String::from_utf8_lossy(&buffer[..len]).contains(notification) {
                return;
            }
        }
    }
}

#[test]
fn sighup_reloads_and_an_invalid_configuration_changes_nothing() {
    let folder = Folder::new("reload");
    let manager = Manager::new(&folder);
    let ([listen], a, b) = (free(), server(b'a'), server(b'b'));
    let config = folder.configure("", listen, a);
    let mut child = command()
        .args(["--config", &config])
        .env("NOTIFY_SOCKET", &manager.path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("built");
    let _watchdog = watch(child.id());
    manager.until("READY=1");
    assert_eq!(ask(listen), b'a');
    for (more, server, answer) in [("no_such_key = 1", b, b'a'), ("", b, b'b'), ("", a, b'a')] {
        folder.configure(more, listen, server);
        signal("HUP", child.id());
        manager.until("RELOADING=1");
        manager.until("READY=1");
        assert_eq!(ask(listen), answer);
    }
    signal("TERM", child.id());
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("utf-8");
    assert_eq!(child.wait().expect("a child of ours").code(), Some(0));
    assert!(stderr.contains("not reloaded: ") && stderr.contains("no_such_key"), "{stderr}");
    assert!(stderr.contains("reloaded: service web: updated servers"), "{stderr}");

    folder.configure("", listen, a);
    let checked = command().args(["--config", &config, "--check"]).output().expect("built");
    assert_eq!(checked.status.code(), Some(0));
    folder.configure("no_such_key = 1", listen, a);
    let checked = command().args(["--config", &config, "--check"]).output().expect("built");
    assert_eq!(checked.status.code(), Some(1));
    let stderr = String::from_utf8(checked.stderr).expect("utf-8");
    assert!(stderr.contains("director.toml:1:1: no_such_key: unknown field"), "{stderr}");
}

#[test]
fn a_second_process_takes_over_from_the_first() {
    let folder = Folder::new("handover");
    let ([listen], a) = (free(), server(b'a'));
    let more = format!("handover = {:?}", folder.path("handover.sock"));
    let config = folder.configure(&more, listen, a);
    let mut first = Director::start(&["--config", &config]);
    first.find(|line| line.starts_with("web: ").then_some(()));
    let mut second = Director::start(&["--config", &config]);
    second.find(|line| line.starts_with("web: ").then_some(()));
    first.find(drained_whole);
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(ask(listen), b'a');
    second.interrupt();
    assert_eq!(second.wait().code(), Some(0));
}

#[test]
fn a_service_manager_is_notified_and_its_sockets_are_used() {
    let folder = Folder::new("manager");
    let manager = Manager::new(&folder);
    let ([listen], a) = (free(), server(b'a'));
    let config = folder.configure("", listen, a);
    // Held open as a service manager does; a shell passes it on as descriptor 3.
    let held = TcpListener::bind(listen).expect("it is free");
    let shell = format!(
        "export LISTEN_PID=$$ LISTEN_FDS=1 WATCHDOG_PID=$$; exec {} --config {config} 3<&0 </dev/null",
        command().get_program().to_str().expect("text")
    );
    let mut child = Command::new("sh")
        .args(["-c", &shell])
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "200000")
        .stdin(Stdio::from(OwnedFd::from(held)))
        .stdout(Stdio::null())
        .spawn()
        .expect("a shell");
    let _watchdog = watch(child.id());
    manager.until("READY=1");
    assert_eq!(ask(listen), b'a', "the address was taken, and not bound again");
    manager.until("WATCHDOG=1");
    signal("TERM", child.id());
    manager.until("STOPPING=1");
    assert_eq!(child.wait().expect("a child of ours").code(), Some(0));
}

#[test]
fn other_configurations_are_imported() {
    let folder = Folder::new("import");
    let saved = folder.path("saved");
    let text = "-A -t 10.0.0.1:80 -s wrr\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w 3\n";
    std::fs::write(&saved, text).expect("a file");
    let output = command().args(["--import", &saved]).output().expect("built");
    assert_eq!(output.status.code(), Some(0));
    std::fs::write(folder.path("director.toml"), output.stdout).expect("a file");
    let checked = command().args(["--config", &folder.path("director.toml"), "--check"]).output();
    assert_eq!(checked.expect("built").status.code(), Some(0));
    std::fs::write(&saved, "what is this").expect("a file");
    let output = command().args(["--import", &saved]).output().expect("built");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1: the text is neither"));
}

#[test]
fn ctl_lists_and_changes_servers() {
    let folder = Folder::new("ctl");
    let ([listen, admin], a, b) = (free(), server(b'a'), server(b'b'));
    let more = format!("[admin]\nlisten = \"{admin}\"\ntoken = \"0123456789abcdef\"");
    let mut director = Director::start(&["--config", &folder.configure(&more, listen, a)]);
    director.find(|line| line.starts_with("status: ").then_some(()));
    let ctl = |words: &[&str]| {
        let mut command = command();
        command.args(["ctl", "--admin", &admin.to_string()]).args(words);
        let output = command.env("LVS_TOKEN", "0123456789abcdef").output().expect("built");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), String::from_utf8(output.stdout).expect("utf-8"), stderr)
    };
    let (a, b) = (a.to_string(), b.to_string());
    assert_eq!(ctl(&["add", "web", &b, "-w", "2", "-x", "5"]).0, Some(0));
    assert_eq!(ctl(&["drain", "web", &a]).0, Some(0));
    assert_eq!(ask(listen), b'b');
    assert_eq!(ctl(&["edit", "web", &b, "-w", "7"]).0, Some(0));
    let (_, list, _) = ctl(&["list"]);
    let row = |list: &str, server: &str| {
        let row = list.lines().find(|line| line.contains(server)).expect("a row").to_owned();
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row(&list, &a)[..4], ["->", &a, "draining*", "1"]);
    assert_eq!(row(&list, &b)[..4], ["->", &b, "eligible*", "7"]);
    let (_, stats, _) = ctl(&["list", "web", "--stats"]);
    assert_eq!(row(&stats, &b)[2], "1");
    assert_eq!(ctl(&["zero"]).0, Some(0));
    assert_eq!(row(&ctl(&["list", "--stats"]).1, &b)[2], "0");
    assert_eq!(ctl(&["list", "--rate"]).0, Some(0));
    assert_eq!(ctl(&["list", "--clients"]).0, Some(0));
    let held = TcpStream::connect(listen).expect("served");
    // A connection is listed once a worker has accepted it.
    let list = |_| ctl(&["list", "-c"]).1.lines().nth(1).map(str::to_owned);
    let listed = (0..100).find_map(list).expect("the connection is listed");
    let client = held.local_addr().expect("bound").to_string();
    let listed: Vec<_> = listed.split_whitespace().collect();
    assert_eq!(listed[..4], ["web", &client, &listen.to_string(), &b]);
    assert_eq!(ctl(&["up", "web", &a]).0, Some(0));
    assert_eq!(ctl(&["delete", "web", &b]).0, Some(0));
    let (code, _, stderr) = ctl(&["delete", "web", &b]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&format!("has no server \"{b}\"")), "{stderr}");
    let (code, _, stderr) = ctl(&["--token", "wrong", "list"]);
    assert_eq!((code, stderr.contains("token")), (Some(1), true), "{stderr}");
}

#[test]
fn an_address_in_use_is_a_clear_error() {
    let mut first = Director::start(&["--listen", "127.0.0.1:0"]);
    let address = first.address();
    let second = command()
        .args(["--admin", "none", "--listen", &address.to_string()])
        .output()
        .expect("built");
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8(second.stderr).expect("utf-8");
    assert!(
        stderr.starts_with(&format!("error: service web: cannot listen on {address}")),
        "{stderr}"
    );
    assert!(stderr.matches("in use").count() < 2, "the cause is printed once: {stderr}");
}

#[test]
fn an_unknown_scheduler_is_named() {
    let output = command().args(["--scheduler", "fastest"]).output().expect("built");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("fastest"));
}
