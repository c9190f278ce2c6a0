//! The `director` example as a process: what a newcomer sees of it.
#![cfg(all(feature = "director", target_os = "linux"))]

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

/// Ample for a process to start, answer or end.
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
            .args(["--admin", "none"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("built by `cargo test`, or by `cargo build --example director`");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { _watchdog: watch(child.id()), child, lines }
    }

    /// Reads on to a line that says something.
    fn find<R>(&mut self, say: impl Fn(&str) -> Option<R>) -> R {
        self.lines
            .by_ref()
            .map(|line| line.expect("utf-8"))
            .find_map(|line| say(&line))
            .expect("the director says so before it ends")
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

/// Kills a process that is still watched after the bound.
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

/// One HTTP request on a connection of its own; gives the body.
fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the director listens");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: director\r\n\r\n").expect("open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an end in order");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

/// Takes `served: alpha 2 beta 2 gamma 2, refused 0` apart.
fn served(line: &str) -> Option<Vec<(String, u64)>> {
    let (counts, _) = line.strip_prefix("served: ")?.split_once(',')?;
    let words: Vec<&str> = counts.split(' ').collect();
    let pairs = words.chunks(2).map(|pair| (pair[0].into(), pair[1].parse().expect("a number")));
    Some(pairs.collect())
}

/// The last word, if nothing was cut.
///
/// How many were still running is not for a client to know: it sees the end before the director
/// has made a tick behind it.
fn drained_whole(line: &str) -> Option<()> {
    (line.starts_with("drained: ") && line.ends_with(" finished, 0 cut")).then_some(())
}

#[test]
fn three_servers_answer_the_counts_are_shown_and_ctrl_c_ends_it_cleanly() {
    // In turn: a rule that goes by load would find the first server idle each time.
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
    // A request that is not whole keeps its connection; the answer to one made after it shows that
    // it was accepted.
    let mut slow = TcpStream::connect(address).expect("the director listens");
    slow.write_all(b"GET / HTTP/1.1\r\n").expect("open");
    get(address);

    director.interrupt();
    director.find(|line| line.starts_with("draining").then_some(()));
    slow.write_all(b"Host: director\r\n\r\n").expect("still carried");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an end in order");
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
fn sigterm_is_as_good_as_ctrl_c() {
    let mut director = Director::start(&["--listen", "127.0.0.1:0"]);
    director.address();
    signal("TERM", director.child.id());
    assert_eq!(director.wait().code(), Some(0));
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
    let said = String::from_utf8(second.stderr).expect("utf-8");
    assert!(
        said.starts_with(&format!("error: service \"web\": cannot listen on {address}: ")),
        "{said}"
    );
}

#[test]
fn an_unknown_scheduler_is_named() {
    let output = command().args(["--scheduler", "fastest"]).output().expect("built");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("fastest"));
}
