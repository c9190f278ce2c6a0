//! Two directors: flows go on at the one that takes over.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lvs::director::{Director, DirectorConfig, DirectorStatus};
use lvs::packet::PacketKernelState;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::carried::{ask_name, connect, download, serve_tcp};
use crate::direct::prepare_servers;
use crate::flows::until;
use crate::world::{SERVERS, VIRTUAL, World, socket_address};

/// The service of a port is scheduled by one of these.
pub(crate) const SCHEDULERS: [(u16, &str); 3] = [(80, "wlc"), (81, "p2c"), (82, "maglev")];
/// Connections to each service, beside a download.
const CONNECTIONS: usize = 6;

/// A director on a machine, in a thread of its own.
pub(crate) struct PairedDirector {
    questions: UnboundedSender<mpsc::SyncSender<DirectorStatus>>,
    thread: Option<JoinHandle<()>>,
    pin_folder: PathBuf,
}

impl PairedDirector {
    /// Starts the first director or the second one, by its number.
    pub(crate) fn start(world: &World, number: u8, method: &str) -> Self {
        let machine = ["director", "second"][usize::from(number)];
        let pin_folder = world.pin_folder().with_file_name(machine);
        let text = config_text(number, method, &pin_folder);
        let config = DirectorConfig::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let namespace = world.namespace(machine);
        let (questions, mut received) = unbounded_channel::<mpsc::SyncSender<_>>();
        let (is_started, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            World::enter_namespace(&namespace);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let director = Director::start(config).await.expect("the director starts");
                is_started.send(()).expect("the test waits");
                while let Some(answer) = received.recv().await {
                    answer.send(director.status()).expect("the test waits");
                }
                director.stop(Duration::ZERO).await;
            });
        });
        started.recv().expect("the director starts");
        Self { questions, thread: Some(thread), pin_folder }
    }

    pub(crate) fn status(&self) -> DirectorStatus {
        let (answer, status) = mpsc::sync_channel(1);
        self.questions.send(answer).expect("the director runs");
        status.recv().expect("the director runs")
    }

    /// Waits until it is active, or the standby that knows everything.
    pub(crate) fn wait_until(&self, what: &str, is_active: bool) {
        until(what, || {
            let status = self.status();
            status.active == is_active
                && (is_active || status.sync.is_some_and(|sync| sync.in_sync))
        });
    }

    /// Returns the flows that the kernel has.
    pub(crate) fn flows(&self) -> u64 {
        let state = PacketKernelState::read(&self.pin_folder).expect("maps");
        state.map_or(0, |state| state.flows)
    }
}

impl Drop for PairedDirector {
    fn drop(&mut self) {
        // Without a questioner it ends.
        (self.questions, _) = unbounded_channel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the director has panicked");
        }
    }
}

fn config_text(number: u8, method: &str, pin_folder: &Path) -> String {
    let (host, other) = [(11, 12), (12, 11)][usize::from(number)];
    let priority = [200, 100][usize::from(number)];
    let mut text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\
         [packet]\nflows = 4096\nipv6_flows = 4096\nalive_for = \"1m\"\npin_folder = \"{}\"\n\
         [sync]\nlisten = \"10.1.0.{host}:7000\"\npeer = \"10.1.0.{other}:7000\"\nkey = \"{}\"\n",
        pin_folder.display(),
        "5a".repeat(32),
    );
    for (port, scheduler) in SCHEDULERS {
        text += &format!(
            "[[service]]\nname = \"{scheduler}\"\nlisten = \"{}\"\nengine = \"packet\"\n\
             scheduler = \"{scheduler}\"\n",
            socket_address(VIRTUAL[0], port),
        );
        for server in SERVERS[0] {
            let port = if method == "nat" { 8080 } else { port };
            text += &format!(
                "[[service.server]]\naddress = \"{server}:{port}\"\nmethod = \"{method}\"\n"
            );
        }
    }
    for (n, machine) in [(1, "client"), (2, "a"), (3, "b")] {
        let more = if n == 1 { format!(", \"{}/32\"", VIRTUAL[0]) } else { String::new() };
        text += &format!(
            "[[vrrp]]\ninterface = \"to-{machine}\"\nvirtual_router_id = {n}\npriority = {priority}\n\
             advert_interval = \"100ms\"\naddresses = [\"10.{n}.0.1/24\"{more}]\n"
        );
    }
    text
}

/// Makes the machines of a pair, with servers for all services.
pub(crate) fn build(method: &str) -> Option<World> {
    let world = World::build_pair()?;
    if method != "nat" {
        prepare_servers(&world);
    }
    for (machine, address) in ["a", "b"].into_iter().zip(SERVERS[0]) {
        if method == "nat" {
            serve_tcp(&world, machine, socket_address(address, 8080));
        } else {
            for (port, _) in SCHEDULERS {
                serve_tcp(&world, machine, socket_address("0.0.0.0", port));
            }
        }
    }
    Some(world)
}

/// Starts both directors, of which the first one is active.
pub(crate) fn start_both(world: &World, method: &str) -> [PairedDirector; 2] {
    let first = PairedDirector::start(world, 0, method);
    first.wait_until("the first director is active", true);
    let second = PairedDirector::start(world, 1, method);
    second.wait_until("the second director is the standby", false);
    [first, second]
}

fn service_address(port: u16) -> SocketAddr {
    socket_address(VIRTUAL[0], port)
}

/// A connection that was served by a machine.
struct OpenConnection(TcpStream, char);

impl OpenConnection {
    fn open(world: &World, port: u16) -> Self {
        let mut stream = connect(world, service_address(port));
        let name = ask_name(&mut stream);
        Self(stream, name)
    }

    #[track_caller]
    fn check(&mut self) {
        assert_eq!(ask_name(&mut self.0), self.1, "the same server");
    }
}

fn open_all(world: &World) -> Vec<OpenConnection> {
    let ports = SCHEDULERS.into_iter().flat_map(|(port, _)| [port; CONNECTIONS]);
    ports.map(|port| OpenConnection::open(world, port)).collect()
}

/// Ends the downloads.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn lose_the_active_director(method: &str) {
    let Some(world) = build(method) else { return };
    let [first, second] = start_both(&world, method);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let downloads = SCHEDULERS.map(|(port, _)| {
            let mut stream = connect(&world, service_address(port));
            let is_over = &is_over;
            scope.spawn(move || {
                let mut is_last = false;
                // Once more after the end, so that all of one goes by the last director.
                while !is_last {
                    is_last = is_over.load(Ordering::Relaxed);
                    download(&mut stream);
                }
            })
        });
        // If the test fails they end, too.
        let _end = EndOnDrop(&is_over);
        let mut open = open_all(&world);
        let count = (open.len() + downloads.len()) as u64;
        until("the standby has all flows", || second.flows() >= count);
        let leases = |director: &PairedDirector| {
            director.status().services.iter().map(|service| service.active).sum::<u64>()
        };
        until("it counts them as the active one does", || leases(&second) == count);

        world.set_links("director", "down");
        second.wait_until("the second director takes over", true);
        open.iter_mut().for_each(OpenConnection::check);
        let newer = open_all(&world);
        let ended = open.drain(..SCHEDULERS.len()).collect::<Vec<_>>();
        drop(ended);
        open.extend(newer);
        open.iter_mut().for_each(OpenConnection::check);

        world.set_links("director", "up");
        first.wait_until("the first director is active again", true);
        second.wait_until("and the second one the standby", false);
        open.iter_mut().for_each(OpenConnection::check);
        is_over.store(true, Ordering::Relaxed);
        for download in downloads {
            download.join().expect("all octets");
        }
        drop(open);
        until("both count no flow", || leases(&first) + leases(&second) == 0);
    });
}

#[test]
fn connections_outlive_the_stop_of_the_active_director() {
    let Some(world) = build("nat") else { return };
    let [first, second] = start_both(&world, "nat");
    let mut open = open_all(&world);
    until("the standby has all flows", || second.flows() >= open.len() as u64);
    // Some are too young for the standby to know them.
    open.extend(open_all(&world));
    drop(first);
    second.wait_until("the second director is active", true);
    open.iter_mut().for_each(OpenConnection::check);
}

#[test]
fn connections_outlive_a_split_of_the_network() {
    let Some(world) = build("nat") else { return };
    let [first, second] = start_both(&world, "nat");
    let mut open = open_all(&world);
    until("the standby has all flows", || second.flows() >= open.len() as u64);
    world.split_directors(true);
    second.wait_until("both are active", true);
    assert!(first.status().active);
    open.iter_mut().for_each(OpenConnection::check);
    // These begin at either.
    let mut keyed: Vec<_> = (0..CONNECTIONS).map(|_| OpenConnection::open(&world, 82)).collect();
    world.split_directors(false);
    second.wait_until("the second director is the standby again", false);
    assert!(first.status().active);
    open.iter_mut().chain(&mut keyed).for_each(OpenConnection::check);
}

#[test]
fn connections_outlive_the_active_director_by_nat() {
    lose_the_active_director("nat");
}

#[test]
fn connections_outlive_the_active_director_by_direct_routing() {
    lose_the_active_director("dr");
}
