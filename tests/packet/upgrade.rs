//! An engine is replaced under load, ten times, and stopped: requests and downloads go on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use lvs::engine::{EngineEntryKind, EngineProtocol};
use lvs::packet::{PacketKernelState, PacketStatistics};
use lvs::scheduler::RoundRobin;

use crate::carried::{ask_name, begin, connect, download_long, serve_tcp, settings, start_engine};
use crate::flows::{now, serve_both, until, virtual_address};
use crate::process::EngineProcess;
use crate::world::{SERVERS, World, socket_address};

/// The keep-alive connections of each thread that asks.
const CONNECTIONS: usize = 48;
/// The requests that each of them sends without waiting for an answer, so that many a second are served by two
/// cores, which client, servers, director and kernel share.
const PIPELINED: usize = 8;
const ASKING_THREADS: usize = 2;

/// What goes on while engines come and go.
#[derive(Debug, Default)]
struct Load {
    is_over: AtomicBool,
    /// The rounds of each asking thread: each connection is asked [`PIPELINED`] times in a round.
    rounds: [AtomicU64; ASKING_THREADS],
    connections: AtomicU64,
    downloads: AtomicU64,
}

impl Load {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Asks on connections that stay, all of which have requests on the way at the same time.
    fn ask(&self, world: &World, rounds: &AtomicU64) {
        let mut streams: Vec<_> =
            (0..CONNECTIONS).map(|_| connect(world, virtual_address())).collect();
        let names: Vec<_> = streams.iter_mut().map(ask_name).collect();
        while !self.is_over() {
            for stream in &mut streams {
                stream.write_all(&[b'w'; PIPELINED]).expect("the connection is open");
            }
            for (stream, name) in streams.iter_mut().zip(&names) {
                let mut answers = [0; PIPELINED];
                stream.read_exact(&mut answers).expect("answers");
                assert!(answers.iter().all(|it| char::from(*it) == *name), "the same server");
            }
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connects anew again and again.
    fn connect(&self, world: &World) {
        world.within("client", || {
            while !self.is_over() {
                let mut stream = TcpStream::connect(virtual_address()).expect("a connection");
                ask_name(&mut stream);
                self.connections.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Downloads by a connection that stays, again after so many rounds of requests. All of the last download is
    /// after the last engine began.
    fn download(&self, world: &World) {
        let mut stream = connect(world, virtual_address());
        let mut is_last = false;
        while !is_last {
            is_last = self.is_over();
            download_long(&mut stream);
            self.downloads.fetch_add(1, Ordering::Relaxed);
            let rounds = || self.rounds[0].load(Ordering::Relaxed);
            let wanted = rounds() + 50;
            until("rounds go on", || self.is_over() || rounds() >= wanted);
        }
    }

    /// Waits until each connection that asks, and a new one, were served once more.
    fn until_served(&self) {
        let counts = || {
            let connections = self.connections.load(Ordering::Relaxed);
            self.rounds.iter().map(|it| it.load(Ordering::Relaxed)).chain([connections])
        };
        // The round that goes on may have begun before.
        let wanted: Vec<_> = counts().map(|count| count + 2).collect();
        until("each is served", || counts().zip(&wanted).all(|(count, wanted)| count >= *wanted));
    }
}

#[test]
fn ten_upgrades_in_place_lose_nothing() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let mut process = EngineProcess::start(&world);
    let load = Load::default();
    let begun_at = now();
    thread::scope(|scope| {
        let (load, world) = (&load, &world);
        let mut threads =
            vec![scope.spawn(|| load.connect(world)), scope.spawn(|| load.download(world))];
        threads
            .extend(load.rounds.each_ref().map(|rounds| scope.spawn(|| load.ask(world, rounds))));
        for upgrade in 0..10 {
            load.until_served();
            if upgrade % 2 == 0 {
                // The next engine serves before the last one leaves its services, as directors do it.
                let mut next = EngineProcess::load(world, 4096);
                load.until_served();
                next.ask("claim");
                load.until_served();
                process.hand_over();
                process = next;
            } else {
                process.kill();
                load.until_served();
                process = EngineProcess::start(world);
            }
        }
        load.until_served();
        load.is_over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("nothing is lost");
        }
    });
    let requests: u64 = load.rounds.iter().map(|it| it.load(Ordering::Relaxed)).sum();
    let (requests, took) = (requests * (CONNECTIONS * PIPELINED) as u64, now() - begun_at);
    let rate = requests as f64 / took.as_secs_f64();
    println!("{load:?}: in {took:?} {requests} requests, {rate:.0} a second");
}

/// Returns the statistics of the program.
fn statistics(world: &World) -> PacketStatistics {
    let state = PacketKernelState::read(&world.pin_folder()).expect("maps");
    state.expect("they are there").statistics
}

#[test]
fn an_engine_that_claims_late_has_a_lease_for_each_flow() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let process = EngineProcess::start(&world);
    let connect = || connect(&world, virtual_address());
    let mut streams = vec![connect(), connect()];
    let mut next = EngineProcess::load(&world, 4096);
    // The last process still decides; the next one did not find these in the kernel.
    streams.extend([connect(), connect()]);
    assert_eq!(statistics(&world).upcalls, 4);
    process.hand_over();
    streams.extend([connect(), connect()]);
    next.ask("claim");
    streams.extend([connect(), connect()]);
    until("there is a lease for each", || next.active() == 8);
    let statistics = statistics(&world);
    assert_eq!((statistics.upcalls, statistics.table_decisions), (6, 2));
    streams.truncate(3);
    until("leases end", || next.active() == 3);
}

#[test]
fn an_engine_that_resumes_knows_the_servers_of_its_successor() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    serve_tcp(&world, "a", socket_address(SERVERS[0][0], 8081));
    let engine = start_engine(&world, settings(&world));
    let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let mut next = EngineProcess::load(&world, 4096);
    next.ask("claim with one more server");
    let mut streams = [(); 3].map(|()| connect(&world, virtual_address()));
    for stream in &mut streams {
        ask_name(stream);
    }
    until("the successor has decided", || next.active() == 3);
    next.kill();
    until("the flows are known", || {
        let entries = service.entries(EngineEntryKind::Connection, 10).expect("a list");
        entries.len() == 3
    });
    // And this one decides again.
    ask_name(&mut connect(&world, virtual_address()));
}

#[test]
fn an_engine_that_claims_before_the_last_one_has_left_decides() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let process = EngineProcess::start(&world);
    let connect = || connect(&world, virtual_address());
    let mut streams = vec![connect(), connect()];
    let mut next = EngineProcess::load(&world, 4096);
    streams.extend([connect(), connect()]);
    next.ask("claim");
    streams.extend([connect(), connect()]);
    process.hand_over();
    streams.extend([connect(), connect()]);
    until("there is a lease for each", || next.active() == 8);
    let statistics = statistics(&world);
    assert_eq!((statistics.upcalls, statistics.table_decisions), (8, 0));
    streams.truncate(3);
    until("leases end", || next.active() == 3);
}
