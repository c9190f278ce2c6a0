//! What floods do to those who are there, and to those who come: the figures of `docs/measurements.md`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use lvs::engine::{EngineProtocol, NewConnections};
use lvs::packet::PacketSettings;
use lvs::scheduler::{Maglev, Scheduler, WeightedLeastConnections};

use crate::carried::{ask_name, begin, connect, start_engine};
use crate::flood::{
    Flood, FloodKind, answer_datagrams, ask_datagram, datagram_client, route_answers,
};
use crate::flows::{now, serve_both, virtual_address};
use crate::stopped::statistics;
use crate::world::World;

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(10);
/// Connections that were opened before, and are quiet while it lasts.
const QUIET: usize = 500;
/// The longest time that a request may take.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Requests of one kind.
#[derive(Default)]
struct Asked {
    failed: usize,
    times: Vec<Duration>,
}

impl Asked {
    fn count<T>(&mut self, ask: impl FnOnce() -> io::Result<T>) {
        let begun = now();
        match ask() {
            Ok(_) => self.times.push(now().saturating_duration_since(begun)),
            Err(_) => self.failed += 1,
        }
    }

    /// Returns those of all that have failed, the median time and that of 99 %.
    fn columns(&mut self) -> String {
        self.times.sort_unstable();
        let at = |part: usize| {
            let time = self.times.get(self.times.len() * part / 100).copied();
            time.unwrap_or_default().as_secs_f64() * 1000.0
        };
        let all = self.failed + self.times.len();
        format!("{} of {all} | {:.2} | {:.2}", self.failed, at(50), at(99))
    }
}

fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(MAX_TIME))?;
    stream.write_all(b"w")?;
    stream.read_exact(&mut [0])
}

/// Returns the processor time that the engine's thread has taken, in hundredths of a second.
fn thread_ticks() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("threads").flatten();
    let ticks = tasks.filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let time: u64 =
            fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        (name.trim() == "lvs-packet").then_some(time)
    });
    ticks.sum()
}

fn measure(
    world: &World,
    kind: Option<FloodKind>,
    name: &str,
    rule: impl Scheduler + Clone + 'static,
) {
    let mut settings = PacketSettings::default();
    settings.pin_folder = world.pin_folder();
    let engine = start_engine(world, settings);
    let (_tcp, tcp_service) = begin(&engine, EngineProtocol::Tcp, 0, rule.clone());
    let (_udp, udp_service) = begin(&engine, EngineProtocol::Udp, 0, rule);
    let mut quiet: Vec<_> = (0..QUIET).map(|_| connect(world, virtual_address())).collect();
    for stream in &mut quiet {
        ask_name(stream);
    }
    let client = || {
        let socket = datagram_client(world);
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        socket
    };
    let datagrams: Vec<_> = (0..QUIET).map(|_| client()).collect();
    let mut servers = Vec::new();
    for socket in &datagrams {
        let name = ask_datagram(socket, 10).expect("an answer");
        assert_eq!(ask_datagram(socket, 10).expect("an answer"), name);
        servers.push(name);
    }
    let mut busy = connect(world, virtual_address());
    let busy_datagrams = client();
    ask_datagram(&busy_datagrams, 10).expect("an answer");
    let before = statistics(world);
    let (begun, ticks) = (now(), thread_ticks());
    let flood = kind.map(|kind| Flood::begin(world, kind));
    let [mut old, mut fragmented, mut new] = [(); 3].map(|()| Asked::default());
    while now() < begun + FLOOD {
        old.count(|| ask(&mut busy));
        fragmented.count(|| ask_datagram(&busy_datagrams, 4000));
        new.count(|| {
            let mut stream = world
                .within("client", || TcpStream::connect_timeout(&virtual_address(), MAX_TIME))?;
            ask(&mut stream)
        });
    }
    let seconds = now().saturating_duration_since(begun).as_secs_f64();
    let sent = flood.as_ref().map_or(0, Flood::sent);
    drop(flood);
    let used = (thread_ticks() - ticks) as f64 / seconds;
    let lost = quiet.iter_mut().map(ask).filter(Result::is_err).count();
    let moved = datagrams.iter().zip(servers);
    let moved = moved.filter(|(socket, name)| ask_datagram(socket, 10).ok() != Some(*name)).count();
    let after = statistics(world);
    println!(
        "| {name}, {} | {:.0} | {lost} of {QUIET} | {moved} of {QUIET} | {} | {} | {} | {:.0} | {used:.0} |",
        kind.map_or("none".to_owned(), |kind| format!("{kind:?}")),
        sent as f64 / seconds,
        old.columns(),
        fragmented.columns(),
        new.columns(),
        (after.upcalls - before.upcalls) as f64 / seconds,
    );
    println!("{after:?}");
    for service in [tcp_service, udp_service] {
        service.drain(Duration::ZERO, NewConnections::Refused);
    }
    drop(engine);
}

#[test]
#[ignore = "prints figures, and takes a minute"]
fn figures() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    answer_datagrams(&world);
    route_answers(&world);
    println!(
        "| flood | packets a second | quiet connections lost | quiet UDP flows moved | requests failed | median, ms | 99 %, ms | datagrams in fragments lost | median, ms | 99 %, ms | new connections failed | median, ms | 99 %, ms | upcalls a second | processor of the thread, % |"
    );
    for kind in [
        None,
        Some(FloodKind::Syns),
        Some(FloodKind::Acknowledgements),
        Some(FloodKind::Datagrams),
        Some(FloodKind::FirstFragments),
    ] {
        measure(&world, kind, "wlc", WeightedLeastConnections::new());
        if kind == Some(FloodKind::Syns) {
            measure(&world, kind, "maglev", Maglev::new());
        }
    }
}
