//! More flows, of clients that are there, than the table has room for.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::UdpSocket;
use std::ops::Range;
use std::time::Duration;

use lvs::engine::EngineProtocol;
use lvs::packet::PacketKernelState;
use lvs::scheduler::RoundRobin;

use crate::carried::{ask_name, begin, connect, settings, start_engine};
use crate::flood::{answer_datagrams, ask_datagram};
use crate::flows::{active, serve_both, until, virtual_address};
use crate::world::World;

/// After this time without an answer a client asks again.
const RETRY_TIME: Duration = Duration::from_secs(1);
/// The room of the table.
const ROOM: u32 = 2048;
const BATCH: u16 = 256;
/// Four times as many flows.
const BATCHES: u16 = 32;

/// Asks twice from each of some ports of the client: by the second datagram the flow is one of a client that is there.
fn ask_from_ports(world: &World, ports: Range<u16>) {
    world.within("client", || {
        for port in ports {
            let socket = UdpSocket::bind(("10.1.0.2", port)).expect("a free port");
            socket.set_read_timeout(Some(RETRY_TIME)).expect("a timeout");
            socket.connect(virtual_address()).expect("a route");
            for _ in 0..2 {
                // The first answer may be lost: a table that is full may forget the way back at once.
                let answer = ask_datagram(&socket, 1).or_else(|_| ask_datagram(&socket, 1));
                answer.expect("an answer");
            }
        }
    });
}

#[test]
fn a_full_table_forgets_the_quiet_flows_and_counts_them() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    answer_datagrams(&world);
    let mut settings = settings(&world);
    (settings.flows, settings.ipv6_flows) = (ROOM, ROOM);
    let engine = start_engine(&world, settings);
    let (_tcp, _tcp_service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let (udp, _udp_service) = begin(&engine, EngineProtocol::Udp, 0, RoundRobin::new());
    let mut quiet = connect(&world, virtual_address());
    ask_name(&mut quiet);
    let mut busy = connect(&world, virtual_address());
    let name = ask_name(&mut busy);
    for batch in 0..BATCHES {
        let first = 20_000 + batch * BATCH;
        ask_from_ports(&world, first..first + BATCH);
        let sent = 2 + u64::from(batch) + u64::from(batch + 1) * u64::from(BATCH);
        until("each new flow is decided", || {
            let state = PacketKernelState::read(&world.pin_folder()).expect("maps");
            state.expect("they are there").statistics.upcalls == sent
        });
        // What is used stays.
        assert_eq!(ask_name(&mut busy), name);
        // A new connection is served.
        ask_name(&mut connect(&world, virtual_address()));
    }
    // The process keeps no more leases than there are flows, but for an eighth.
    until("forgotten flows have no lease", || active(&udp) <= ROOM + ROOM / 8);
    let sent = u64::from(BATCHES) * u64::from(BATCH);
    until("forgotten flows are counted", || {
        let counted = engine.statistics();
        // Some before their client has said a second time that it is there.
        let forgotten = counted.flows_forgotten + counted.unassured_forgotten;
        forgotten >= sent - u64::from(ROOM + ROOM / 8)
    });
    let state =
        PacketKernelState::read(&world.pin_folder()).expect("maps").expect("they are there");
    // An entry for each direction is there, or for one of a flow whose other one is forgotten.
    assert!(state.flows <= u64::from(2 * ROOM), "{state:?}");
    assert_eq!(state.statistics.table_full, 0);
    println!("{} flows of {sent} are left; {:?}", state.flows, state.statistics);
    assert_eq!(ask_name(&mut busy), name);
    // The machine's own stack answers for what is forgotten.
    quiet.write_all(b"w").expect("the socket takes it");
    let error = quiet.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(error, Err(ErrorKind::ConnectionReset));
    assert!(engine.statistics().refused_without_server == 0);
}
