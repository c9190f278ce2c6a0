//! Decisions by the table, and the number of decisions that the director is asked for.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::compared::ROUTE;
use super::frames::{ACK, FIN, RST, SYN, tcp};
use super::model_state::{ModelDirector, TapDevice};
use super::{
    CLIENT, ComparedProgram, OTHER_SERVER, SERVER, SERVICE, address, ends, establish, with_services,
};
use crate::packet::layout::{PROTOCOL_TCP, RawControl, RawPeer};
use crate::packet::statistics::PacketStatistics;

/// Keeps this thread on one processor: each has a window of its own.
pub(super) fn stay_on_one_processor() {
    let allowed = sched_getaffinity(None).expect("the processors");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).expect("a processor");
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).expect("this thread may stay on one processor");
}

/// Returns the number of the window that the program counts in.
pub(super) fn window() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    (now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64) >> 24
}

#[test]
fn the_director_is_asked_for_as_many_flows_as_it_wants_in_a_window() {
    const LIMIT: u32 = 5;
    let Some(mut compared) = with_services() else { return };
    let (client, service, _) = ends(0);
    stay_on_one_processor();
    let (tap_ifindex, upcalls_per_window) = (compared.tap, LIMIT);
    let alive_until = u64::MAX;
    let control =
        RawControl { alive_until, tap_ifindex, upcalls_per_window, ..RawControl::default() };
    compared.maps.set_control(&control).expect("the control");
    let mut port = 1;
    // Sends in two windows, each time until a batch has begun and ended in one of them that is new.
    for expected in [LIMIT, 2 * LIMIT] {
        loop {
            let before = window();
            while window() == before {
                std::hint::spin_loop();
            }
            let statistics = || PacketStatistics::read(&compared.maps).expect("the statistics");
            let (begun_in, begun) = (window(), statistics());
            for _ in 0..10 {
                let mut client = client;
                client.set_port(port);
                port += 1;
                assert_eq!(compared.program.test_run(&tcp(client, service, SYN)).0, 7);
            }
            if window() == begun_in {
                let ended = PacketStatistics::read(&compared.maps).expect("the statistics");
                let expected = u64::from(expected.min(LIMIT));
                assert_eq!(ended.upcalls - begun.upcalls, expected);
                assert_eq!(ended.table_decisions - begun.table_decisions, 10 - expected);
                break;
            }
        }
    }
}

#[test]
fn a_service_that_sheds_refuses_what_the_director_cannot_decide() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, _) = ends(0);
    compared.change_service(SERVICE[0], PROTOCOL_TCP, |service| service.sheds = true);
    compared.leave(&tcp(client, service, SYN));
    compared.set_director(ModelDirector {
        is_alive: true,
        tap: TapDevice::Present,
        has_budget: false,
        answers: true,
    });
    compared.leave(&tcp(client, service, SYN));
    assert_eq!(compared.model.statistics.refused_at_limit, 2);
    compared.compare_state();
}

#[test]
fn servers_that_cannot_have_a_flow_are_passed_over() {
    let Some(mut compared) = ComparedProgram::load() else { return };
    let service = address(SERVICE[0]);
    let addresses: Vec<_> = (1..=8).map(|n| format!("10.2.0.{n}:8080")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let servers = compared.serve(SERVICE[0], PROTOCOL_TCP, &addresses);
    compared.change_server(servers[0], |server| server.is_available = false);
    compared.change_server(servers[1], |server| server.has_route = false);
    compared.change_server(servers[2], |server| server.service = 77);
    for port in 1..=800 {
        let client = std::net::SocketAddr::new(address(CLIENT[0]).ip(), port);
        compared.run(&tcp(client, service, SYN));
    }
    // Each of eight slots that are tried is one of those three in three of eight cases.
    assert!(compared.model.statistics.refused_without_server < 5, "probed past");
    for server in &servers[3..] {
        let connections = compared.model.counters[server].connections;
        assert!((100..=220).contains(&connections), "{connections} of 160 for {server}");
    }
    compared.compare_state();
}

#[test]
fn a_flow_without_any_server_is_refused() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, _) = ends(0);
    compared.change_server(0, |server| server.is_available = false);
    compared.leave(&tcp(client, service, SYN));
    compared.change_server(0, |server| server.is_available = true);
    // A map has one slot at least, which is of server 0 then.
    compared.change_service(SERVICE[0], PROTOCOL_TCP, |service| service.slots.clear());
    compared.leave(&tcp(client, service, SYN));
    assert_eq!(compared.model.statistics.refused_without_server, 2);
    compared.compare_state();
}

#[test]
fn a_frame_to_a_peer_has_its_addresses() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, server) = ends(0);
    establish(&mut compared, 0);
    let frame = tcp(client, service, ACK);
    let (_, there) = compared.program.test_run(&frame);
    let peer = RawPeer { destination: [2, 0, 0, 0, 0, 7], source: [2, 0, 0, 0, 0, 9] };
    compared.maps.set_peer(ROUTE, &peer).expect("a peer");
    let (verdict, output) = compared.program.test_run(&frame);
    assert_eq!(
        (verdict, &output[..6], &output[6..12]),
        (7, &peer.destination[..], &peer.source[..])
    );
    assert_eq!(output[12..], there[12..], "all the rest");
    // The client's device has no peer.
    let (_, back) = compared.program.test_run(&tcp(server, client, ACK));
    assert_ne!(back[..6], peer.destination);
}

#[test]
fn a_server_without_a_route_gets_no_flow() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, _) = ends(0);
    compared.change_server(0, |server| server.has_route = false);
    compared.leave(&tcp(client, service, SYN));
    assert_eq!(compared.model.statistics.refused_without_server, 1);
    compared.compare_state();
}

/// Two services with the same servers, of which a client uses both with one port.
fn with_shared_server(servers: &[&str]) -> Option<ComparedProgram> {
    let mut compared = ComparedProgram::load()?;
    compared.serve(SERVICE[0], PROTOCOL_TCP, &[SERVER[0]]);
    compared.serve("10.9.0.2:80", PROTOCOL_TCP, servers);
    establish(&mut compared, 0);
    Some(compared)
}

#[test]
fn a_way_back_is_not_taken_from_another_flow() {
    let Some(mut compared) = with_shared_server(&[SERVER[0]]) else { return };
    let (client, _, server) = ends(0);
    compared.leave(&tcp(client, address("10.9.0.2:80"), SYN));
    // A connection of which one end has closed its half lives.
    compared.pass(&tcp(client, address(SERVICE[0]), FIN | ACK));
    compared.leave(&tcp(client, address("10.9.0.2:80"), SYN));
    compared.pass(&tcp(server, client, ACK));
    assert_eq!(compared.model.statistics.refused_without_server, 2);
    compared.compare_state();
}

#[test]
fn another_server_is_found_when_the_way_back_of_one_is_taken() {
    let Some(mut compared) = with_shared_server(&[SERVER[0], OTHER_SERVER[0]]) else { return };
    let (client, service) = (address(CLIENT[0]), address("10.9.0.2:80"));
    let there = compared.pass(&tcp(client, service, SYN));
    assert_eq!(there[30..34], [10, 3, 0, 2]);
    compared.pass(&tcp(address(OTHER_SERVER[0]), client, SYN | ACK));
    compared.compare_state();
}

#[test]
fn the_way_back_of_a_flow_that_has_ended_is_free() {
    let Some(mut compared) = with_shared_server(&[SERVER[0]]) else { return };
    let (client, first, server) = ends(0);
    let second = address("10.9.0.2:80");
    compared.pass(&tcp(client, first, RST));
    compared.pass(&tcp(client, second, SYN));
    let back = compared.pass(&tcp(server, client, SYN | ACK));
    assert_eq!(back[26..30], [10, 9, 0, 2], "from the second service");
    // A late packet of the first flow does not end the second.
    compared.pass(&tcp(client, first, FIN | ACK));
    let state = crate::packet::layout::flow_state::ANSWERED;
    assert_eq!(compared.states((client, second, PROTOCOL_TCP)), [state; 2]);
    compared.compare_state();
}
