//! The time without service when the active director fails, compared with keepalived and HAProxy in
//! the same network.
//!
//! ```text
//! cargo bench --bench failover
//! cargo bench --bench failover -- --rounds 5 --interval 100
//! ```
//! Two machines for directors, one for clients and servers, on a switch: network namespaces, which
//! need root. A client opens a connection each millisecond, sends a line and reads an answer, for
//! which it waits 250 ms. The time without service is that from the first attempt that failed to the
//! last one, by when they began; what is printed is of all rounds.
//!
//! Both pairs advertise at the same interval, and in threads that go before others
//! (`vrrp_rt_priority`); both check servers at the same interval, and start from the same place: the
//! machine with the higher priority is active.

#[path = "../tests/standby/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use lvs::director::{Director, DirectorConfig};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::world::machines::{Process, now, until};
use crate::world::{VIRTUAL, World, config};

/// Makes directors fail, and measures the time without service.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds of each failure for each pair.
    #[arg(long, default_value_t = 25)]
    rounds: usize,
    /// The advertisement interval, in milliseconds: 10, and 100 in `cargo test`, whose machine may be
    /// so busy that a director is late by more than three intervals of 10.
    #[arg(long)]
    interval: Option<u64>,
    /// Runs a director with this configuration; the bench starts itself so.
    #[arg(long, hide = true)]
    director: Option<PathBuf>,
    /// Passed by `cargo bench`. Without it, as in `cargo test`, there is one round.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(250);
/// The measured time before a failure, and after it.
const BEFORE: Duration = Duration::from_millis(100);
const AFTER: Duration = Duration::from_millis(900);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(config) = &args.director {
        return direct(config);
    }
    let (rounds, usual) = if args.bench { (args.rounds, 10) } else { (1, 100) };
    let interval = args.interval.unwrap_or(usual);
    let Some(mut world) = World::new() else { return ExitCode::SUCCESS };
    world.servers(&[9001, 9002]);
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(Ours::new(interval))];
    if is_there("keepalived") && is_there("haproxy") {
        subjects.push(Box::new(Theirs::new(interval)));
    } else {
        println!("no keepalived and haproxy: left out");
    }
    let mut gaps: BTreeMap<(Fault, &str), Vec<Gap>> = BTreeMap::new();
    for round in 1..=rounds {
        for fault in FAULTS {
            for subject in &mut subjects {
                let gap = fail(&world, subject.as_mut(), fault);
                gaps.entry((fault, subject.name())).or_default().push(gap);
            }
        }
        eprint!("\rround {round} of {rounds}");
    }
    eprintln!();
    println!("adverts every {interval} ms; times in ms, by when attempts began");
    println!("failure,subject,rounds,median,p90,longest,attempts_lost_median");
    for ((fault, name), mut gaps) in gaps {
        gaps.sort_by_key(|gap| gap.time);
        let at = |part: f64| gaps[((gaps.len() - 1) as f64 * part).round() as usize].time;
        let [median, p90, longest] = [at(0.5), at(0.9), at(1.0)].map(|time| time.as_millis());
        let mut lost: Vec<_> = gaps.iter().map(|gap| gap.lost).collect();
        lost.sort_unstable();
        let (count, lost) = (gaps.len(), lost[lost.len() / 2]);
        println!("{},{name},{count},{median},{p90},{longest},{lost}", fault.name());
    }
    ExitCode::SUCCESS
}

/// What happens to the active director.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fault {
    Killed,
    Stalled,
    LinkDown,
    Stopped,
}

const FAULTS: [Fault; 4] = [Fault::Killed, Fault::Stalled, Fault::LinkDown, Fault::Stopped];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Killed => "kill -9",
            Self::Stalled => "SIGSTOP",
            Self::LinkDown => "link down",
            Self::Stopped => "graceful stop",
        }
    }
}

/// A pair of directors.
trait Subject {
    fn name(&self) -> &'static str;
    /// Starts what does not run on that side.
    fn start(&mut self, world: &World, side: &'static str);
    fn signal(&self, side: &str, signal: Signal);
    /// Takes away what is left of it.
    fn end(&mut self, side: &str);
}

/// One failure of `a`, and all as it was before.
fn fail(world: &World, subject: &mut dyn Subject, fault: Fault) -> Gap {
    for side in ["a", "b"] {
        subject.start(world, side);
    }
    settle(world);
    let client = Client::start(world);
    thread::sleep(BEFORE);
    until("a client is served before the fault", || client.is_served.load(Ordering::Relaxed));
    let failed = now();
    match fault {
        Fault::Killed => subject.signal("a", Signal::KILL),
        Fault::Stalled => subject.signal("a", Signal::STOP),
        Fault::LinkDown => world.link("a", false),
        Fault::Stopped => subject.signal("a", Signal::TERM),
    }
    thread::sleep(AFTER);
    let gap = client.stop(failed);
    match fault {
        Fault::LinkDown => world.link("a", true),
        Fault::Stalled => subject.signal("a", Signal::CONT),
        Fault::Killed | Fault::Stopped => {}
    }
    // The next round is the other pair's.
    for side in ["a", "b"] {
        subject.end(side);
        until("nothing is left of the address", || {
            let _ = world.try_on(side, &["addr", "del", &format!("{VIRTUAL}/24"), "dev", "eth0"]);
            !world.has(side, VIRTUAL)
        });
    }
    gap
}

/// Until `a` has the address, `b` has not, and clients are served.
fn settle(world: &World) {
    until("a has the address", || world.has("a", VIRTUAL));
    until("b does not have the address", || !world.has("b", VIRTUAL));
    until("clients reach the address", || world.ask(80).is_ok());
    let mac = world.mac("a");
    until("clients have the MAC address of a", || world.neighbour(VIRTUAL).contains(&mac));
    // Late announcements of a start are over.
    thread::sleep(Duration::from_millis(300));
}

/// What clients noticed of a failure.
struct Gap {
    time: Duration,
    lost: usize,
}

/// A client that opens a connection each millisecond.
struct Client {
    stop: Arc<AtomicBool>,
    is_served: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Attempt>>,
}

struct Attempt {
    begun: Instant,
    ended: Instant,
    ok: bool,
}

impl Client {
    fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_served = Arc::new(AtomicBool::new(false));
        let (stopped, served) = (Arc::clone(&stop), Arc::clone(&is_served));
        let thread = world.thread("c", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(attempts(&stopped, &served))
        });
        Self { stop, is_served, thread }
    }

    fn stop(self, failed: Instant) -> Gap {
        self.stop.store(true, Ordering::Relaxed);
        let attempts = self.thread.join().expect("no panic");
        // Those that were under way when it failed may be lost.
        let before = attempts.iter().filter(|attempt| attempt.ended < failed);
        let lost = before.filter(|attempt| !attempt.ok).count();
        assert!(lost == 0, "{lost} attempts were lost before the fault");
        let lost = attempts.iter().filter(|attempt| !attempt.ok);
        let lost: Vec<_> = lost.map(|attempt| attempt.begun).collect();
        let time = match (lost.iter().min(), lost.iter().max()) {
            (Some(first), Some(last)) => *last - *first + Duration::from_millis(1),
            _ => Duration::ZERO,
        };
        Gap { time, lost: lost.len() }
    }
}

async fn attempts(stop: &AtomicBool, is_served: &Arc<AtomicBool>) -> Vec<Attempt> {
    let address = SocketAddr::new(VIRTUAL.parse().expect("an address"), 80);
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut tasks = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let is_served = Arc::clone(is_served);
        tasks.push(tokio::spawn(async move {
            let begun = now();
            let done = timeout(PATIENCE, attempt(address)).await;
            let ok = matches!(done, Ok(Ok(())));
            is_served.fetch_or(ok, Ordering::Relaxed);
            Attempt { begun, ended: now(), ok }
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.expect("no panic"));
    }
    all
}

async fn attempt(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.ends_with(b"server 9001") || answer.ends_with(b"server 9002") {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// This program as a director.
fn direct(config: &Path) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .expect("a signal");
        let config = DirectorConfig::load(config).expect("sound");
        let director = Director::start(config).await.expect("the director starts");
        terminate.recv().await;
        director.stop(Duration::ZERO).await;
    });
    ExitCode::SUCCESS
}

/// An active and a standby director of this crate.
struct Ours {
    interval: u64,
    running: BTreeMap<&'static str, Process>,
}

impl Ours {
    fn new(interval: u64) -> Self {
        Self { interval, running: BTreeMap::new() }
    }
}

impl Subject for Ours {
    fn name(&self) -> &'static str {
        "lvs"
    }

    fn start(&mut self, world: &World, side: &'static str) {
        let text = config(side, self.interval, "");
        let text = text.replace("persistence = { timeout = \"5m\" }", "");
        let file = world.file(&format!("{side}.toml"), &text);
        let program = std::env::current_exe().expect("this program");
        let process = world.start(side, "lvs", &program, &["--director", &file]);
        self.running.insert(side, process);
    }

    fn signal(&self, side: &str, signal: Signal) {
        self.running[side].signal(signal);
    }

    fn end(&mut self, side: &str) {
        self.running.remove(side);
    }
}

/// A pair of keepalived and HAProxy.
struct Theirs {
    interval: u64,
    running: BTreeMap<&'static str, [Process; 2]>,
    children: BTreeMap<&'static str, PathBuf>,
}

impl Theirs {
    fn new(interval: u64) -> Self {
        Self { interval, running: BTreeMap::new(), children: BTreeMap::new() }
    }

    /// The process of keepalived that has the addresses: its child.
    fn child(&self, side: &str) -> Option<rustix::process::Pid> {
        let text = std::fs::read_to_string(&self.children[side]).ok()?;
        rustix::process::Pid::from_raw(text.trim().parse().ok()?)
    }
}

impl Subject for Theirs {
    fn name(&self) -> &'static str {
        "keepalived+HAProxy"
    }

    fn start(&mut self, world: &World, side: &'static str) {
        let priority = if side == "a" { 150 } else { 100 };
        let interval = Duration::from_millis(self.interval).as_secs_f64();
        let keepalived = format!(
            "global_defs {{\n vrrp_version 3\n vrrp_rt_priority 10\n}}\nvrrp_instance V {{\n \
             interface eth0\n virtual_router_id 51\n priority {priority}\n advert_int {interval}\n \
             virtual_ipaddress {{\n {VIRTUAL}/24\n }}\n}}\n"
        );
        let keepalived = world.file(&format!("{side}.keepalived"), &keepalived);
        let haproxy = format!(
            "global\n nbthread 1\ndefaults\n mode tcp\n timeout connect 1s\n timeout client 60s\n \
             timeout server 60s\nlisten web\n bind {VIRTUAL}:80 transparent\n balance roundrobin\n \
             default-server check inter 200ms\n server one 10.88.0.3:9001\n \
             server two 10.88.0.3:9002\n"
        );
        let haproxy = world.file(&format!("{side}.haproxy"), &haproxy);
        let pid = |name: &str| world.folder.join(format!("{side}.{name}.pid"));
        let (parent, child) = (pid("keepalived"), pid("vrrp"));
        for stale in [&parent, &child] {
            let _ = std::fs::remove_file(stale);
        }
        let [parent, child_text] =
            [&parent, &child].map(|path| path.to_str().expect("text").to_owned());
        let words = ["-n", "-l", "-P", "-f", &keepalived, "-p", &parent, "-r", &child_text];
        self.children.insert(side, child);
        let balancer = world.start(side, "haproxy", Path::new("haproxy"), &["-db", "-f", &haproxy]);
        let router = world.start(side, "keepalived", Path::new("keepalived"), &words);
        self.running.insert(side, [balancer, router]);
    }

    fn signal(&self, side: &str, signal: Signal) {
        let [balancer, router] = &self.running[side];
        if signal == Signal::TERM {
            // Clients are served until the address is removed.
            router.signal(signal);
            return;
        }
        // The child is killed first: the death of its parent would make it resign. The parent is
        // stopped meanwhile: it would start another child.
        router.signal(Signal::STOP);
        if let Some(child) = self.child(side) {
            let _ = rustix::process::kill_process(child, signal);
        }
        router.signal(signal);
        balancer.signal(signal);
    }

    fn end(&mut self, side: &str) {
        let child = self.child(side);
        self.signal(side, Signal::KILL);
        self.running.remove(side);
        // It is not a child of this process: it is gone, or a zombie.
        let is_alive = |child: rustix::process::Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        until("the process has ended", || child.is_none_or(|child| !is_alive(child)));
    }
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("-v").output().is_ok_and(|output| output.status.success())
}
