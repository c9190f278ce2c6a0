//! What clients lose when a server fails, through a forwarder and through the director.
//!
//! ```text
//! cargo test --release --test failures -- --nocapture
//! ```
//! prints the table of the README. Four servers, each a process of its own; 200 requests a second,
//! each on a connection of its own and sent whether or not those before were answered. After a
//! second one server fails.
#![cfg(all(feature = "forward", feature = "health", target_os = "linux", not(lvs_loom)))]

mod director;
mod load;
mod server;

use std::net::SocketAddr;
use std::time::Duration;

use lvs::backend::BackendState;
use lvs::forward::{DrainReport, ForwardError, Forwarder, TcpHandle};
use lvs::health::{
    EjectionPolicy, HealthEventKind, HealthEvents, HealthPlan, HttpCheck, Monitor, TimedCheck,
};
use lvs::scheduler::RoundRobin;
use lvs::{BackendId, BackendSet, Balancer};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::director::Director;
use self::load::{Fate, Load, Request};
use self::server::{Mode, Server};

/// Before the fault, and after it.
const WELL: Duration = Duration::from_secs(1);
const ILL: Duration = Duration::from_secs(3);

/// Who looks after the set.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Care {
    Nobody,
    Checks,
    ChecksAndEjection,
    /// The example's process, which does both.
    Director,
}

const CARES: [Care; 4] = [Care::Nobody, Care::Checks, Care::ChecksAndEjection, Care::Director];

/// From one check to the next, and how long it may take.
const INTERVAL: Duration = Duration::from_millis(250);
/// What is asked for.
const HEALTH: &str = "/health";

/// What a run came to.
struct Outcome {
    requests: Vec<Request>,
    fault: Instant,
    /// When the server was as it was to be.
    done: Instant,
    /// When the set knew; `None` if it never did.
    known: Option<Instant>,
}

impl Outcome {
    fn lost(&self) -> usize {
        self.requests.iter().filter(|it| it.fate.is_loss()).count()
    }

    /// Those that were sent when the set knew.
    fn lost_after(&self, known: Instant) -> Vec<&Request> {
        let late = self.requests.iter().filter(|it| it.sent > known);
        late.filter(|it| it.fate.is_loss()).collect()
    }

    /// How many that were sent when the set knew were answered slowly.
    fn slow_after(&self, known: Instant) -> usize {
        let late = self.requests.iter().filter(|it| it.sent > known);
        late.filter(|it| it.fate == Fate::Slowly).count()
    }

    fn print(&self, fault: &str, care: Care) {
        let since = |at: Instant| at.saturating_duration_since(self.fault).as_millis();
        let known = self.known.map_or_else(|| "never".to_owned(), |at| format!("{} ms", since(at)));
        let later = self.known.map_or(self.lost(), |at| self.lost_after(at).len());
        let sent = self.requests.len();
        println!(
            "{fault:10} {:22} {:4} of {sent} lost, known after {known:>8}, {later:3} sent later",
            format!("{care:?}"),
            self.lost(),
        );
    }
}

/// All at once, and one fault after the other: the machine may be small.
async fn run_all(name: &str, fault: impl AsyncFn(&mut Server)) -> Vec<(Care, Outcome)> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    let [nobody, checks, both, director] = CARES.map(|care| run(care, &fault));
    let (nobody, checks, both, director) = tokio::join!(nobody, checks, both, director);
    let outcomes = CARES.into_iter().zip([nobody, checks, both, director]);
    outcomes.inspect(|(care, outcome)| outcome.print(name, *care)).collect()
}

async fn run(care: Care, fault: &impl AsyncFn(&mut Server)) -> Outcome {
    let mut servers: Vec<Server> = (0..4).map(|_| Server::start()).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let mut balancer = match care {
        Care::Director => Running::Process(Box::new(Director::start(&addresses).await)),
        _ => Running::Here(Parts::start(care, &addresses)),
    };

    let load = Load::start(balancer.address());
    tokio::time::sleep(WELL).await;
    let failing = servers[0].address;
    let begun = Instant::now();
    fault(&mut servers[0]).await;
    let done = Instant::now();
    let mut known = None;
    let until = tokio::time::sleep(ILL);
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => break,
            () = balancer.knows(failing), if known.is_none() => known = Some(Instant::now()),
        }
    }
    let requests = load.stop().await;
    if let Running::Here(parts) = balancer {
        parts.stop().await;
    }
    Outcome { requests, fault: begun, done, known }
}

/// What carries the requests.
enum Running {
    Here(Parts),
    Process(Box<Director>),
}

impl Running {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Here(parts) => parts.handle.local_addr().expect("by TCP"),
            Self::Process(director) => director.address,
        }
    }

    /// Waits until it knows that a server fails.
    async fn knows(&mut self, failing: SocketAddr) {
        match self {
            Self::Here(parts) => parts.knows(failing).await,
            Self::Process(director) => director.knows(failing).await,
        }
    }
}

/// A forwarder and a monitor in this process.
struct Parts {
    handle: TcpHandle,
    forwarding: JoinHandle<Result<DrainReport, ForwardError>>,
    monitor: Monitor,
    watching: JoinHandle<()>,
    events: HealthEvents,
}

impl Parts {
    fn start(care: Care, servers: &[SocketAddr]) -> Self {
        let set = BackendSet::<SocketAddr>::new();
        for &server in servers {
            set.insert(server).expect("a port of its own");
        }
        let monitor = Monitor::new();
        let mut plan = HealthPlan::new("web");
        if care != Care::Nobody {
            let check = TimedCheck::new(HttpCheck::get(HEALTH).expect("a path"));
            plan = plan.check(check.interval(INTERVAL).timeout(INTERVAL));
        }
        if care == Care::ChecksAndEjection {
            plan = plan.ejection(EjectionPolicy::new());
        }
        monitor.watch(&set, plan).expect("a sound plan");
        let events = monitor.events();
        let watching = tokio::spawn(monitor.run());
        let balancer = Balancer::new(&set, RoundRobin).expect("a rule");
        let forwarder = Forwarder::bind(([127, 0, 0, 1], 0).into(), balancer).expect("loopback");
        let handle = forwarder.handle();
        let forwarding = tokio::spawn(forwarder.run());
        Self { handle, forwarding, monitor, watching, events }
    }

    async fn knows(&mut self, failing: SocketAddr) {
        let failing = BackendId::from(failing);
        loop {
            let event = self.events.next().await.expect("the monitor lives").expect("a few events");
            if let HealthEventKind::State {
                id,
                to: Some(BackendState::Down | BackendState::Ejected),
                ..
            } = event.kind
                && id == failing
            {
                return;
            }
        }
    }

    async fn stop(self) {
        self.monitor.shutdown();
        self.handle.shutdown(Duration::ZERO);
        self.watching.await.expect("no panic");
        self.forwarding.await.expect("no panic").expect("it ran");
    }
}

/// The set knows, and from then on nothing is lost.
fn assert_nothing_is_lost_once_known(outcome: &Outcome) -> Instant {
    let known = outcome.known.expect("a check told");
    let lost = outcome.lost_after(known);
    assert!(lost.is_empty(), "{lost:?}");
    known
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_costs_what_was_in_its_hands() {
    for (care, outcome) in run_all("killed", async |server| server.kill().await).await {
        // A refused connection is tried elsewhere, whoever looks after the set: what is lost was
        // sent before.
        let lost = outcome.lost_after(outcome.done);
        assert!(lost.is_empty(), "{lost:?}");
        if care != Care::Nobody {
            assert_nothing_is_lost_once_known(&outcome);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_costs_what_it_was_given_until_it_was_known() {
    for (care, outcome) in run_all("stopped", async |server| server.stop()).await {
        match care {
            Care::Nobody => assert!(outcome.lost() > 50, "the kernel connects for it"),
            _ => drop(assert_nothing_is_lost_once_known(&outcome)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_loses_nothing_and_is_left_out() {
    for (care, outcome) in run_all("slow", async |server| server.set(Mode::Slow).await).await {
        assert_eq!(outcome.lost(), 0);
        if care != Care::Nobody {
            let known = assert_nothing_is_lost_once_known(&outcome);
            assert_eq!(outcome.slow_after(known), 0, "nobody waits for it any more");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_errors_is_out_once_a_check_has_seen_them() {
    for (care, outcome) in run_all("errors", async |server| server.set(Mode::Errors).await).await {
        match care {
            Care::Nobody => assert!(outcome.lost() > 50, "a forwarder does not read answers"),
            _ => drop(assert_nothing_is_lost_once_known(&outcome)),
        }
    }
}
