//! Flows outlive the process that decided them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lvs::engine::EngineProtocol;
use lvs::packet::{PacketKernelState, detach};
use lvs::scheduler::RoundRobin;

use crate::carried::{ask_name, begin, connect, download, settings, start_engine};
use crate::flows::{active, serve_both, until, virtual_address};
use crate::process::EngineProcess;
use crate::world::World;

#[test]
fn flows_are_handed_over_to_the_next_engine() {
    if let Some(world) = World::build() {
        hand_over(&world);
    }
}

pub(crate) fn hand_over(world: &World) {
    serve_both(world);
    let engine = start_engine(world, settings(world));
    let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let mut old = connect(world, virtual_address());
    let name = ask_name(&mut old);
    service.hand_over();
    drop((service, engine));
    assert_eq!(ask_name(&mut old), name, "without an engine");
    let mut between = connect(world, virtual_address());
    ask_name(&mut between);
    let state =
        PacketKernelState::read(&world.pin_folder()).expect("maps").expect("they are there");
    assert_eq!((state.flows, state.statistics.table_decisions), (2, 1), "{state:?}");
    assert!(!state.services[0].is_claimed && state.services[0].address == virtual_address());
    let servers = &state.services[0].servers;
    assert!(servers.len() == 2 && servers.iter().all(|server| server.is_available), "{state:?}");
    assert_eq!(servers.iter().map(|server| server.flows).sum::<u64>(), 2);

    let engine = start_engine(world, settings(world));
    let (set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    until("the leases are there again", || active(&set) == 2);
    assert_eq!(ask_name(&mut old), name, "with the next engine");
    let mut new: Vec<_> = (0..2).map(|_| connect(world, virtual_address())).collect();
    let names: String = new.iter_mut().map(ask_name).collect();
    assert!(names == "ab" || names == "ba", "by turns, not {names}");
    drop((old, between));
    until("the leases have ended", || active(&set) == 2);

    // What nobody was given is removed with the engine.
    drop(service);
    drop(engine);
    until("nothing is left", || !world.pin_folder().exists());
    assert_eq!(PacketKernelState::read(&world.pin_folder()).expect("no maps"), None);

    // What a process leaves is removed by hand.
    let engine = start_engine(world, settings(world));
    let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    service.hand_over();
    drop((service, engine));
    until("it is left", || {
        let state = PacketKernelState::read(&world.pin_folder()).expect("maps");
        state.is_some_and(|state| !state.services[0].is_claimed)
    });
    let folder = world.pin_folder();
    world.within("director", || detach(&folder).expect("it is removed"));
    assert!(!folder.exists());
}

#[test]
fn a_service_that_nobody_has_claimed_yet_is_served() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    service.hand_over();
    drop((service, engine));
    let engine = start_engine(&world, settings(&world));
    until("the engine has looked around", || !engine.devices().is_empty());
    // No server has a flow, which would keep it.
    ask_name(&mut connect(&world, virtual_address()));
}

#[test]
fn flows_outlive_a_killed_process() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let process = EngineProcess::start(&world);
    let address: SocketAddr = virtual_address();
    let mut old = connect(&world, address);
    let name = ask_name(&mut old);
    process.kill();
    assert_eq!(ask_name(&mut old), name, "an old connection");
    // At first the program believes that the process lives, and a client repeats its SYN.
    let mut new: Vec<_> = (0..8).map(|_| connect(&world, address)).collect();
    for stream in &mut new {
        ask_name(stream);
    }

    let process = EngineProcess::start(&world);
    assert_eq!(ask_name(&mut old), name, "an old connection, with the next process");
    for stream in &mut new {
        ask_name(stream);
    }
    let mut newest = connect(&world, address);
    ask_name(&mut newest);
    process.kill();
}

/// Asks on an old connection and on a new one in turn, and counts, until it is told to stop.
fn ask_until(world: &World, is_over: &AtomicBool, count: &AtomicU32) {
    let mut old = connect(world, virtual_address());
    let name = ask_name(&mut old);
    while !is_over.load(Ordering::Relaxed) {
        assert_eq!(ask_name(&mut old), name);
        ask_name(&mut connect(world, virtual_address()));
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until each client has been served once more.
fn until_served(counts: &[AtomicU32]) {
    let read = |count: &AtomicU32| count.load(Ordering::Relaxed);
    let before: Vec<_> = counts.iter().map(read).collect();
    until("each client is served", || {
        counts.iter().zip(&before).all(|(count, before)| read(count) > *before)
    });
}

#[test]
fn processes_that_are_killed_in_turn_lose_nothing() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let mut process = EngineProcess::start(&world);
    let is_over = AtomicBool::new(false);
    let counts = [const { AtomicU32::new(0) }; 4];
    thread::scope(|scope| {
        let clients = counts.each_ref().map(|count| {
            let (world, is_over) = (&world, &is_over);
            scope.spawn(move || ask_until(world, is_over, count))
        });
        let download = scope.spawn(|| {
            let mut stream = connect(&world, virtual_address());
            let mut is_last = false;
            // Once more after the end, so that all of one is after the last process began.
            while !is_last {
                is_last = is_over.load(Ordering::Relaxed);
                download(&mut stream);
            }
        });
        for _ in 0..4 {
            until_served(&counts);
            process.kill();
            until_served(&counts);
            process = EngineProcess::start(&world);
        }
        until_served(&counts);
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("nothing is lost");
        }
        download.join().expect("all octets");
    });
}

#[test]
fn a_device_that_is_made_again_carries_packets() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, _service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    ask_name(&mut connect(&world, virtual_address()));
    world.at("director", "link delete to-client");
    world.connect_machine(1, "client");
    // The device is looked for every second; until then the stack refuses.
    until("new connections are served", || {
        world.within("client", || {
            std::net::TcpStream::connect_timeout(&virtual_address(), Duration::from_secs(5)).is_ok()
        })
    });
    ask_name(&mut connect(&world, virtual_address()));
}
