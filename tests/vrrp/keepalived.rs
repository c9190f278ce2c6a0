//! Beside keepalived, each in each role, on a link of their own between two network namespaces.
//!
//! Needs root, `ip` and keepalived; skipped elsewhere, with the reason.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lvs::vrrp::{Advert, AdvertSocket, Checksum, Heard, Message, Output, Router, RouterConfig};
use lvs::vrrp::{SocketError, State, Transition, Version};
use nix::sched::{CloneFlags, setns};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before it is held to be lost.
const PATIENCE: Duration = Duration::from_secs(20);
const ROUTER: u8 = 51;

/// Two namespaces with a link between them: `a` for keepalived, `b` for ours.
struct Link {
    name: String,
    folder: PathBuf,
}

impl Link {
    /// `None` where it cannot be, which is said; root must be able to.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::getuid().is_root() {
            println!("skipped: network namespaces need root");
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lvs{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir(&folder).expect("a folder for this process alone");
        let link = Self { name, folder };
        for side in ["a", "b"] {
            link.ip(&["netns", "add", &link.space(side)]);
            link.ip(&["-n", &link.space(side), "link", "set", "lo", "up"]);
        }
        let (a, b) = (link.space("a"), link.space("b"));
        link.ip(&[
            "link", "add", "v", "netns", &a, "type", "veth", "peer", "name", "v", "netns", &b,
        ]);
        for (side, number) in [("a", 1), ("b", 2)] {
            let space = link.space(side);
            link.ip(&["-n", &space, "link", "set", "v", "addrgenmode", "none", "up"]);
            for address in ["10.88.0.N/24", "fd00:88::N/64", "fe80::N/64"] {
                let address = address.replace('N', &number.to_string());
                let v6 = if address.contains(':') { "nodad" } else { "scope" };
                let mut words = vec!["-n", &space, "addr", "add", &address, "dev", "v", v6];
                words.extend((v6 == "scope").then_some("global"));
                link.ip(&words);
            }
        }
        Some(link)
    }

    fn space(&self, side: &str) -> String {
        format!("{}-{side}", self.name)
    }

    fn ip(&self, words: &[&str]) {
        let output =
            Command::new("ip").args(words).output().expect("`ip`, of the package iproute2");
        assert!(
            output.status.success(),
            "ip {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for side in ["a", "b"] {
            let _ = Command::new("ip").args(["netns", "del", &self.space(side)]).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// How the two talk.
#[derive(Clone, Copy)]
struct Talk {
    version: Version,
    interval: Duration,
    is_v6: bool,
    unicast: bool,
}

impl Talk {
    fn addresses(self) -> [IpAddr; 3] {
        let texts = match (self.is_v6, self.unicast) {
            (false, _) => ["10.88.0.1", "10.88.0.2", "10.88.0.100"],
            (true, false) => ["fe80::1", "fe80::2", "fe80::100"],
            (true, true) => ["fd00:88::1", "fd00:88::2", "fe80::100"],
        };
        texts.map(|text| text.parse().expect("an address"))
    }

    fn keepalived(self, priority: u8) -> String {
        let [theirs, ours, shared] = self.addresses();
        let version = if self.version == Version::V2 { 2 } else { 3 };
        let peers = match self.unicast {
            true => format!("unicast_src_ip {theirs}\n unicast_peer {{\n {ours}\n }}"),
            false => String::new(),
        };
        let (interval, length) = (self.interval.as_secs_f64(), if self.is_v6 { 64 } else { 24 });
        format!(
            "global_defs {{\n vrrp_version {version}\n }}\nvrrp_instance V {{\n interface v\n \
             virtual_router_id {ROUTER}\n priority {priority}\n advert_int {interval}\n {peers}\n \
             virtual_ipaddress {{\n {shared}/{length}\n }}\n}}\n"
        )
    }
}

/// A keepalived that runs.
struct Keepalived {
    process: Child,
    log: PathBuf,
    /// Where the number of the process stands that does the work.
    child: PathBuf,
}

impl Keepalived {
    fn start(link: &Link, talk: Talk, priority: u8) -> Self {
        let file = |name: &str| link.folder.join(name);
        fs::write(file("conf"), talk.keepalived(priority)).expect("a file");
        let log = File::create(file("log")).expect("a file");
        let process = Command::new("ip")
            .args(["netns", "exec", &link.space("a"), "keepalived", "-n", "-l", "-P", "-f"])
            .arg(file("conf"))
            .arg("-p")
            .arg(file("pid"))
            .arg("-r")
            .arg(file("vrrp.pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("keepalived, of the package of that name");
        Self { process, log: file("log"), child: file("vrrp.pid") }
    }

    /// Waits until it has said something so often.
    fn says(&self, what: &str, times: usize) {
        let begun = now();
        loop {
            let log = fs::read_to_string(&self.log).expect("a file");
            if log.matches(what).count() >= times {
                return;
            }
            assert!(now() - begun < PATIENCE, "it does not say {what:?} {times} times:\n{log}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills what has the addresses, before its parent can tell it to say farewell.
    fn kill(&mut self) {
        let child = fs::read_to_string(&self.child).unwrap_or_default();
        if let Some(child) = child.trim().parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Where nobody reaps orphans, the number stays taken.
        let _ = fs::remove_file(&self.child);
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ours, in a thread that lives in the other namespace.
struct Ours {
    thread: Option<JoinHandle<()>>,
    stop: Sender<()>,
    states: Receiver<Transition>,
}

impl Ours {
    fn start(link: &Link, talk: Talk, priority: u8) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (sender, states) = mpsc::channel();
        let space = format!("/run/netns/{}", link.space("b"));
        let thread = thread::spawn(move || {
            let space = File::open(space).expect("a namespace");
            setns(space, CloneFlags::CLONE_NEWNET).expect("as root");
            run(talk, priority, &stopped, &sender);
        });
        Self { thread: Some(thread), stop, states }
    }

    fn becomes(&self, state: State) {
        match self.states.recv_timeout(PATIENCE) {
            Ok(change) => assert_eq!(change.to, state, "{change:?}"),
            Err(RecvTimeoutError::Timeout) => panic!("it does not become {state:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("it has ended"),
        }
    }

    fn stays(&self, time: Duration) {
        if let Ok(change) = self.states.recv_timeout(time) {
            panic!("{change:?}");
        }
    }

    /// Ends with a farewell.
    fn stop(mut self) {
        self.stop.send(()).expect("it runs");
        self.thread.take().expect("once").join().expect("no panic");
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a shell: it reads the clock")]
    Instant::now()
}

fn run(talk: Talk, priority: u8, stopped: &Receiver<()>, states: &Sender<Transition>) {
    let [theirs, ours, shared] = talk.addresses();
    let peers = if talk.unicast { vec![theirs] } else { vec![] };
    let mut socket = AdvertSocket::open("v", ours, &peers).expect("as root");
    let config = RouterConfig::new(ROUTER, ours)
        .version(talk.version)
        .priority(priority)
        .interval(talk.interval);
    let mut router = Router::new(config).expect("sound");
    router.start(now());
    loop {
        let over = stopped.try_recv().is_ok();
        if over {
            router.stop(now());
        }
        while let Some(output) = router.poll_output() {
            match output {
                Output::Send { priority } => {
                    let message = Message {
                        version: talk.version,
                        router: ROUTER,
                        priority,
                        interval: talk.interval,
                        addresses: &[shared],
                    };
                    let write = |to| message.write(ours, to, Checksum::default()).expect("sound");
                    socket.send(write).expect("sent");
                }
                Output::Changed(change) => drop(states.send(change)),
                _ => {}
            }
        }
        if over {
            return;
        }
        // Looks for its end now and then.
        let due =
            router.poll_timeout().map_or(PATIENCE, |due| due.saturating_duration_since(now()));
        let wait = Timespec::try_from(due.min(Duration::from_millis(20))).expect("short");
        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
        poll(&mut fds, Some(&wait)).expect("a socket");
        while let Some((mut envelope, bytes)) = socket.receive().expect("a socket") {
            if talk.unicast {
                envelope.ttl = None;
            }
            let advert = Advert::read(bytes, &envelope).expect("keepalived's");
            assert_eq!(advert.addresses().collect::<Vec<_>>(), [shared]);
            router.handle_advert(now(), &Heard::new(&advert, envelope.source));
        }
        router.handle_timeout(now());
    }
}

/// Takes turns with keepalived: by priority, by farewell, by death.
fn take_turns(talk: Talk) {
    let Some(link) = Link::new() else { return };
    let mut theirs = Keepalived::start(&link, talk, 100);
    theirs.says("Entering MASTER STATE", 1);

    let ours = Ours::start(&link, talk, 150);
    ours.becomes(State::Backup);
    ours.becomes(State::Master);
    theirs.says("Entering BACKUP STATE", 2);
    ours.stop();
    theirs.says("Entering MASTER STATE", 2);

    let ours = Ours::start(&link, talk, 50);
    ours.becomes(State::Backup);
    ours.stays(6 * talk.interval);
    let killed = now();
    theirs.kill();
    ours.becomes(State::Master);
    assert!(now() - killed >= 2 * talk.interval, "it waits for three, one of which is under way");

    let theirs = Keepalived::start(&link, talk, 100);
    theirs.says("Entering MASTER STATE", 1);
    ours.becomes(State::Backup);
    let mut theirs = theirs;
    theirs.kill();
    ours.becomes(State::Master);
    ours.stop();
}

const SECOND: Duration = Duration::from_secs(1);
const HUNDREDTH: Duration = Duration::from_millis(10);

#[test]
fn version_2() {
    take_turns(Talk { version: Version::V2, interval: SECOND, is_v6: false, unicast: false });
}

#[test]
fn version_2_unicast() {
    take_turns(Talk { version: Version::V2, interval: SECOND, is_v6: false, unicast: true });
}

#[test]
fn version_3() {
    for interval in [10 * HUNDREDTH, HUNDREDTH] {
        take_turns(Talk { version: Version::V3, interval, is_v6: false, unicast: false });
    }
}

#[test]
fn version_3_unicast() {
    for interval in [SECOND, 10 * HUNDREDTH] {
        take_turns(Talk { version: Version::V3, interval, is_v6: false, unicast: true });
    }
}

#[test]
fn version_3_over_ipv6() {
    for interval in [10 * HUNDREDTH, HUNDREDTH] {
        take_turns(Talk { version: Version::V3, interval, is_v6: true, unicast: false });
    }
}

#[test]
fn version_3_over_ipv6_unicast() {
    for interval in [SECOND, 10 * HUNDREDTH] {
        take_turns(Talk { version: Version::V3, interval, is_v6: true, unicast: true });
    }
}

#[test]
fn what_is_missing_is_named() {
    let four: IpAddr = "10.88.0.2".parse().expect("an address");
    let six: IpAddr = "fe80::1".parse().expect("an address");
    let refused = |interface, source, peers: &[IpAddr]| {
        AdvertSocket::open(interface, source, peers).expect_err("refused")
    };
    assert!(
        matches!(refused("nosuch", four, &[]), SocketError::Interface(name) if name == "nosuch")
    );
    assert!(matches!(refused("lo", four, &[six]), SocketError::Peer(..)));
    let error = refused("lo", "192.0.2.9".parse().expect("an address"), &[]);
    match rustix::process::getuid().is_root() {
        true => assert!(matches!(error, SocketError::Source(_)), "{error:?}"),
        false => assert!(matches!(error, SocketError::Privilege), "{error:?}"),
    }
}
