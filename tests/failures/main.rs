//! Requests that clients lose when a server fails, through a forwarder and through the director.
//!
//! ```text
//! cargo test --release --test failures -- --nocapture
//! ```
//! prints the table of the README. There are four servers, each a process, and 200 requests a second,
//! each on a new connection and sent whether or not earlier requests were answered. After a second the
//! first server fails.
#![cfg(all(feature = "cli", target_os = "linux", not(lvs_loom)))]

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
use lvs::{BackendId, BackendSet, Balancer, RuntimeError};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::director::Director;
use self::load::{Fate, Load, Request};
use self::server::{Mode, Server};

/// The time before the fault.
const TIME_BEFORE_FAULT: Duration = Duration::from_secs(1);
/// The time after the fault.
const TIME_AFTER_FAULT: Duration = Duration::from_secs(3);

/// The health detection that is used.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Care {
    Nobody,
    Checks,
    ChecksAndEjection,
    /// The program `lvs` as a process, with both.
    Director,
}

const CARES: [Care; 4] = [Care::Nobody, Care::Checks, Care::ChecksAndEjection, Care::Director];

/// The interval of the checks, and their timeout.
const INTERVAL: Duration = Duration::from_millis(250);
/// The path that the checks request.
const HEALTH: &str = "/health";

/// The result of a run.
struct Outcome {
    requests: Vec<Request>,
    fault: Instant,
    /// When the fault was complete.
    done: Instant,
    /// When the set marked the server as down or ejected; `None` if never.
    known: Option<Instant>,
}

impl Outcome {
    fn lost(&self) -> usize {
        self.requests.iter().filter(|it| it.fate.is_loss()).count()
    }

    /// Returns the lost requests that were sent after the server was marked.
    fn lost_after(&self, known: Instant) -> Vec<&Request> {
        let late = self.requests.iter().filter(|it| it.sent > known);
        late.filter(|it| it.fate.is_loss()).collect()
    }

    /// Returns how many requests that were sent after the server was marked had a slow answer.
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
            "{fault:10} {:22} {:4} of {sent} lost, marked down after {known:>8}, {later:3} sent later",
            format!("{care:?}"),
            self.lost(),
        );
    }
}

/// Runs every detection at the same time, but one fault after the other, for small machines.
async fn run_all(name: &str, fault: impl AsyncFn(&mut Server)) -> Vec<(Care, Outcome)> {
    static FAULT_LOCK: Mutex<()> = Mutex::const_new(());
    let _guard = FAULT_LOCK.lock().await;
    let [no_detection, checks, both, director] = CARES.map(|care| run(care, &fault));
    let (no_detection, checks, both, director) = tokio::join!(no_detection, checks, both, director);
    let outcomes = CARES.into_iter().zip([no_detection, checks, both, director]);
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
    tokio::time::sleep(TIME_BEFORE_FAULT).await;
    let failing = servers[0].address;
    let begun = Instant::now();
    fault(&mut servers[0]).await;
    let done = Instant::now();
    let mut known = None;
    let until = tokio::time::sleep(TIME_AFTER_FAULT);
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => break,
            () = balancer.wait_until_marked(failing), if known.is_none() => known = Some(Instant::now()),
        }
    }
    let requests = load.stop().await;
    if let Running::Here(parts) = balancer {
        parts.stop().await;
    }
    Outcome { requests, fault: begun, done, known }
}

/// The balancer under test.
enum Running {
    Here(Parts),
    Process(Box<Director>),
}

impl Running {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Here(parts) => parts.handle.local_addr().expect("the forwarder listens on TCP"),
            Self::Process(director) => director.address,
        }
    }

    /// Waits until the balancer has marked a server as down or ejected.
    async fn wait_until_marked(&mut self, failing: SocketAddr) {
        match self {
            Self::Here(parts) => parts.wait_until_marked(failing).await,
            Self::Process(director) => director.wait_until_marked(failing).await,
        }
    }
}

/// A forwarder and a monitor in this process.
struct Parts {
    handle: TcpHandle,
    forwarding: JoinHandle<Result<DrainReport, ForwardError>>,
    monitor: Monitor,
    watching: JoinHandle<Result<(), RuntimeError>>,
    events: HealthEvents,
}

impl Parts {
    fn start(care: Care, servers: &[SocketAddr]) -> Self {
        let set = BackendSet::<SocketAddr>::new();
        for &server in servers {
            set.insert(server).expect("each server has a port of its own");
        }
        let monitor = Monitor::new();
        let mut plan = HealthPlan::new("web");
        if care != Care::Nobody {
            let check = TimedCheck::new(HttpCheck::get(HEALTH).expect("the path is valid"));
            plan = plan.check(check.interval(INTERVAL).timeout(INTERVAL));
        }
        if care == Care::ChecksAndEjection {
            plan = plan.ejection(EjectionPolicy::new());
        }
        monitor.watch(&set, plan).expect("the plan is valid");
        let events = monitor.events();
        let watching = tokio::spawn(monitor.run());
        let balancer = Balancer::new(&set, RoundRobin::new()).expect("round robin accepts any set");
        let forwarder =
            Forwarder::bind(([127, 0, 0, 1], 0).into(), balancer).expect("loopback can be bound");
        let handle = forwarder.handle();
        let forwarding = tokio::spawn(forwarder.run());
        Self { handle, forwarding, monitor, watching, events }
    }

    async fn wait_until_marked(&mut self, failing: SocketAddr) {
        let failing = BackendId::from(failing);
        loop {
            let event =
                self.events.next().await.expect("the monitor runs").expect("no event is missed");
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
        self.watching.await.expect("the task does not panic").expect("a whole runtime");
        self.forwarding
            .await
            .expect("the task does not panic")
            .expect("the forwarder ends without an error");
    }
}

/// Asserts that the server was marked, and that no later request was lost.
fn assert_no_loss_once_known(outcome: &Outcome) -> Instant {
    let known = outcome.known.expect("the server was marked as down or ejected");
    let lost = outcome.lost_after(known);
    assert!(lost.is_empty(), "{lost:?}");
    known
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_server_loses_only_requests_sent_before() {
    for (care, outcome) in run_all("killed", async |server| server.kill().await).await {
        // A refused connection is retried on another server, with any detection: only requests that
        // were sent before are lost.
        let lost = outcome.lost_after(outcome.done);
        assert!(lost.is_empty(), "{lost:?}");
        if care != Care::Nobody {
            assert_no_loss_once_known(&outcome);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_server_loses_requests_until_it_is_marked_down() {
    for (care, outcome) in run_all("stopped", async |server| server.stop()).await {
        match care {
            Care::Nobody => {
                assert!(outcome.lost() > 50, "the kernel still accepts connections for the process")
            }
            _ => drop(assert_no_loss_once_known(&outcome)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_server_loses_no_request_and_gets_no_new_ones() {
    for (care, outcome) in run_all("slow", async |server| server.set(Mode::Slow).await).await {
        assert_eq!(outcome.lost(), 0);
        if care != Care::Nobody {
            let known = assert_no_loss_once_known(&outcome);
            assert_eq!(outcome.slow_after(known), 0, "no request goes to the slow server");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_with_error_answers_loses_requests_until_it_is_marked_down() {
    for (care, outcome) in run_all("errors", async |server| server.set(Mode::Errors).await).await {
        match care {
            Care::Nobody => assert!(outcome.lost() > 50, "a forwarder does not read the answers"),
            _ => drop(assert_no_loss_once_known(&outcome)),
        }
    }
}
