//! Services whose scheduler has a table, which decides in the kernel.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use lvs::backend::Health;
use lvs::engine::{EngineProtocol, NewConnections};
use lvs::scheduler::{Maglev, RoundRobin};

use crate::carried::{ask_name, begin, connect, settings, start_engine};
use crate::flows::{active, serve_both, until, virtual_address};
use crate::world::World;

#[test]
fn a_keyed_scheduler_decides_in_the_kernel() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (set, _service) = begin(&engine, EngineProtocol::Tcp, 0, Maglev::new());
    let mut streams: Vec<_> = (0..4).map(|_| connect(&world, virtual_address())).collect();
    let names: String = streams.iter_mut().map(ask_name).collect();
    assert!(names == "aaaa" || names == "bbbb", "one client has one server: {names}");
    until("each has a lease", || active(&set) == 4);
    let snapshot = set.snapshot();
    let home = snapshot.backends().iter().find(|backend| backend.load().active == 4);
    set.set_health(home.expect("one has all").id(), Health::Down).expect("known");
    let ask_new = || ask_name(&mut connect(&world, virtual_address()));
    until("another server is chosen", || !names.contains(ask_new()));
    assert_eq!(ask_name(&mut streams[0]).to_string(), names[..1], "a connection stays");
    until("the decisions are counted", || engine.statistics().keyed_decisions > 4);
    let statistics = engine.statistics();
    assert_eq!((statistics.upcalls, statistics.table_decisions), (0, 0), "{statistics:?}");
    // The same engine, with a scheduler that the table is not of.
    let (_set, _service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let names = [ask_new(), ask_new()];
    assert!(names.contains(&'a') && names.contains(&'b'), "by turns, not {names:?}");
}

#[test]
fn a_connection_that_is_not_known_goes_on_by_the_table_of_a_keyed_scheduler() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, Maglev::new());
    let mut stream = connect(&world, virtual_address());
    let name = ask_name(&mut stream);
    // Its flow is forgotten, as if another director had it.
    service.drain(Duration::ZERO, NewConnections::Refused);
    let (set, _service) = begin(&engine, EngineProtocol::Tcp, 0, Maglev::new());
    assert_eq!(ask_name(&mut stream), name);
    until("it has a lease", || active(&set) == 1);
}

#[test]
fn a_connection_of_a_socket_of_the_director_stays_its_own() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let listen = || TcpListener::bind(virtual_address()).expect("a listener");
    let listener = world.within("director", listen);
    let mut client = connect(&world, virtual_address());
    let (mut local, _) = listener.accept().expect("the connection");
    let engine = start_engine(&world, settings(&world));
    let (_set, _service) = begin(&engine, EngineProtocol::Tcp, 0, Maglev::new());
    client.write_all(b"own").expect("sent");
    let mut received = [0; 3];
    local.read_exact(&mut received).expect("it comes here");
    assert_eq!(&received, b"own");
    // A new one is the service's.
    ask_name(&mut connect(&world, virtual_address()));
}
