//! The process that decides is stopped for longer than the program waits for it.

use std::net::UdpSocket;
use std::ops::Range;

use lvs::packet::{PacketKernelState, PacketStatistics};
use rustix::process::Signal;

use crate::carried::{ask_name, connect, download_long};
use crate::flows::{serve_both, until, virtual_address};
use crate::process::EngineProcess;
use crate::world::World;

/// More flows than there is room for events of them.
const MANY_PORTS: Range<u16> = 20_000..34_000;

/// Returns what the program has counted until now.
pub(crate) fn statistics(world: &World) -> PacketStatistics {
    let state = PacketKernelState::read(&world.pin_folder()).expect("maps");
    state.expect("they are there").statistics
}

/// Sends a datagram from each of some ports of the client to the service.
pub(crate) fn send_from_ports(world: &World, ports: Range<u16>) {
    world.within("client", || {
        for port in ports {
            let socket = UdpSocket::bind(("10.1.0.2", port)).expect("a free port");
            socket.send_to(b"?", virtual_address()).expect("sent");
        }
    });
}

#[test]
fn flows_go_on_and_a_table_decides_while_the_process_is_stopped() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let mut process = EngineProcess::load(&world, 65_536);
    process.ask("claim");
    let mut old: Vec<_> = (0..8).map(|_| connect(&world, virtual_address())).collect();
    let names: String = old.iter_mut().map(ask_name).collect();
    let before = statistics(&world);
    assert_eq!((before.upcalls, before.table_decisions), (8, 0));

    process.signal(Signal::STOP);
    download_long(&mut old[0]);
    // The first SYNs wait for the process; the client repeats them, and the table decides.
    let mut new: Vec<_> = (0..8).map(|_| connect(&world, virtual_address())).collect();
    let new_names: String = new.iter_mut().map(ask_name).collect();
    assert_eq!(old.iter_mut().map(ask_name).collect::<String>(), names);
    send_from_ports(&world, MANY_PORTS);
    let stopped = statistics(&world);
    let decided = stopped.table_decisions;
    assert!(decided >= 8 + MANY_PORTS.len() as u64, "{stopped:?}");
    assert!(stopped.events_lost > 0, "{stopped:?}");

    process.signal(Signal::CONT);
    until("there is a lease for each flow", || u64::from(process.active()) == 8 + decided);
    assert_eq!(old.iter_mut().map(ask_name).collect::<String>(), names);
    assert_eq!(new.iter_mut().map(ask_name).collect::<String>(), new_names);
    let mut newest: Vec<_> = (0..4).map(|_| connect(&world, virtual_address())).collect();
    let newest: String = newest.iter_mut().map(ask_name).collect();
    assert!(newest == "abab" || newest == "baba", "by turns, not {newest}");
    let after = statistics(&world);
    assert_eq!((after.table_decisions, after.upcalls), (decided, stopped.upcalls + 4));
    old.clear();
    until("leases end", || u64::from(process.active()) == decided + 4);
}
