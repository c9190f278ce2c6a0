//! Flows: who decides them, how their packets change, and what becomes of their state.

use super::frames::{
    ACK, FIN, RST, SYN, tcp, udp, udp_without_checksum, with_extensions, with_hop_limit,
};
use super::model::FrameVerdict;
use super::model_state::{ModelDirector, TEST_DEVICE, TapDevice};
use super::{
    CLIENT, ComparedProgram, OTHER_SERVER, SERVER, SERVICE, address, ends, establish, with_services,
};
use crate::packet::flow_direction::FlowDirection;
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP, RawTuple, flow_state};

const ANSWERED: u32 = flow_state::ANSWERED;

#[test]
fn a_connection_is_decided_by_the_table_and_answered() {
    let Some(mut compared) = with_services() else { return };
    for family in [0, 1] {
        let (client, service, server) = ends(family);
        let there = compared.pass(&tcp(client, service, SYN));
        assert_eq!(there, with_hop_limit(&tcp(client, server, SYN), 63));
        assert_eq!(compared.states((client, service, PROTOCOL_TCP)), [0, 0]);
        let back = compared.pass(&tcp(server, client, SYN | ACK));
        assert_eq!(back, with_hop_limit(&tcp(service, client, SYN | ACK), 63));
        assert_eq!(compared.states((client, service, PROTOCOL_TCP)), [ANSWERED; 2]);
    }
    compared.compare_state();
}

/// Has the table forget one direction of a flow, passes a packet of the other one, which was quiet for long, and
/// asserts that the direction is back, with what the packet says of the flow.
fn forget_and_pass(compared: &mut ComparedProgram, family: usize, stays: usize, flags: u8) {
    let (client, service, server) = ends(family);
    let keys = [(client, service, PROTOCOL_TCP), (server, client, PROTOCOL_TCP)];
    let tuples = keys.map(|(from, to, protocol)| RawTuple::new(from, to, protocol));
    let flows = tuples.map(|tuple| compared.maps.flow(&tuple).expect("the flows"));
    let flows = flows.map(|flow| flow.expect("the flow"));
    let goes = 1 - stays;
    compared.maps.remove_flow(&tuples[goes]).expect("it is removed");
    // Its octets are counted anew, and the client has to show anew that it is there.
    let forgotten = compared.model.flows.get_mut(&keys[goes]).expect("it is there");
    (forgotten.bytes, forgotten.place) = (0, 0);
    forgotten.state &= !flow_state::ASSURED;
    let bytes = compared.model.flows[&keys[stays]].bytes;
    let quiet = FlowDirection { seen_at: 0, bytes, ..flows[stays] };
    compared.maps.insert_flow(quiet).expect("it is changed");
    let (from, to, _) = keys[stays];
    compared.pass(&tcp(from, to, flags));
    let found = compared.maps.flow(&tuples[goes]).expect("the flows").expect("it is back");
    let (seen_at, state) = (found.seen_at, compared.model.flows[&keys[goes]].state);
    assert_eq!(found, FlowDirection { seen_at, bytes: 0, state, place: 0, ..flows[goes] });
}

#[test]
fn a_direction_that_a_full_table_has_forgotten_returns() {
    let Some(mut compared) = with_services() else { return };
    for (family, stays) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (client, service, server) = ends(family);
        for flags in [ACK, FIN | ACK, RST] {
            establish(&mut compared, family);
            forget_and_pass(&mut compared, family, stays, flags);
            let goes = [tcp(server, client, flags), tcp(client, service, flags)];
            compared.pass(&goes[stays]);
            assert_eq!(
                compared.states((client, service, PROTOCOL_TCP)).map(|it| it & ANSWERED),
                [ANSWERED; 2]
            );
        }
        // A new connection with the port of the one that was reset: its first answer.
        compared.pass(&tcp(client, service, SYN));
        forget_and_pass(&mut compared, family, 1, SYN | ACK);
        assert_eq!(compared.states((client, service, PROTOCOL_TCP)), [ANSWERED; 2]);
        compared.pass(&tcp(client, service, RST));
    }
    compared.compare_state();
}

#[test]
fn fins_of_both_ends_and_resets_of_either_are_kept_in_both_directions() {
    let Some(mut compared) = with_services() else { return };
    let service = address(SERVICE[0]);
    let server = address(SERVER[0]);
    for (port, flags, bits) in [
        (1, [FIN | ACK, 0], flow_state::CLIENT_FIN),
        (2, [0, FIN | ACK], flow_state::SERVER_FIN),
        (3, [FIN | ACK, FIN | ACK], flow_state::FINS),
        (4, [RST, 0], flow_state::CLIENT_RESET),
        (5, [0, RST | ACK], flow_state::SERVER_RESET),
    ] {
        let mut client = address(CLIENT[0]);
        client.set_port(port);
        compared.pass(&tcp(client, service, SYN));
        compared.pass(&tcp(server, client, SYN | ACK));
        if flags[0] != 0 {
            compared.pass(&tcp(client, service, flags[0]));
        }
        if flags[1] != 0 {
            compared.pass(&tcp(server, client, flags[1]));
        }
        assert_eq!(compared.states((client, service, PROTOCOL_TCP)), [bits | ANSWERED; 2]);
        // What comes late passes all the same.
        compared.pass(&tcp(client, service, ACK));
        compared.pass(&tcp(server, client, ACK));
    }
    compared.compare_state();
}

#[test]
fn a_server_that_refuses_has_not_answered() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, server) = ends(0);
    compared.pass(&tcp(client, service, SYN));
    compared.pass(&tcp(server, client, RST | ACK));
    let state = flow_state::SERVER_RESET;
    assert_eq!(compared.states((client, service, PROTOCOL_TCP)), [state; 2]);
    compared.compare_state();
}

#[test]
fn a_port_is_used_anew_after_the_end_alone() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, server) = ends(0);
    establish(&mut compared, 0);
    let key = (client, service, PROTOCOL_TCP);
    compared.pass(&tcp(client, service, SYN));
    assert_eq!(compared.states(key), [ANSWERED; 2], "a late copy of the first packet");
    compared.pass(&tcp(client, service, FIN | ACK));
    compared.pass(&tcp(server, client, SYN | ACK));
    compared.pass(&tcp(client, service, SYN | ACK));
    assert_eq!(compared.states(key), [ANSWERED | flow_state::CLIENT_FIN; 2]);
    compared.pass(&tcp(client, service, SYN));
    assert_eq!(compared.states(key), [0; 2], "a new flow");
    assert_eq!(compared.model.statistics.table_decisions, 2);
    compared.compare_state();
}

#[test]
fn late_packets_of_an_earlier_server_are_of_no_flow() {
    let Some(mut compared) = ComparedProgram::load() else { return };
    let (client, service, earlier) = ends(0);
    let servers = compared.serve(SERVICE[0], PROTOCOL_TCP, &[SERVER[0], OTHER_SERVER[0]]);
    compared.change_server(servers[1], |server| server.is_available = false);
    compared.change_service(SERVICE[0], PROTOCOL_TCP, |service| service.slots = vec![servers[0]]);
    establish(&mut compared, 0);
    compared.pass(&tcp(client, service, FIN | ACK));
    compared.change_server(servers[1], |server| server.is_available = true);
    compared.change_service(SERVICE[0], PROTOCOL_TCP, |service| service.slots = vec![servers[1]]);
    compared.pass(&tcp(client, service, SYN));
    compared.leave(&tcp(earlier, client, FIN | ACK));
    compared.leave(&tcp(earlier, client, RST));
    assert_eq!(compared.states((client, service, PROTOCOL_TCP)), [0; 2]);
    assert_eq!(compared.model.flows.len(), 2);
    compared.compare_state();
}

#[test]
fn datagrams_pass_with_and_without_a_checksum() {
    let Some(mut compared) = ComparedProgram::load() else { return };
    for family in [0, 1] {
        compared.serve(SERVICE[family], PROTOCOL_UDP, &[SERVER[family]]);
        let (client, service, server) = ends(family);
        for payload in [&b""[..], b"1", b"22", b"odd number", &[0xff; 1400]] {
            compared.pass(&udp(client, service, payload));
            let back = compared.pass(&udp(server, client, payload));
            assert_eq!(back, with_hop_limit(&udp(service, client, payload), 63));
        }
        let there = compared.pass(&udp_without_checksum(client, service));
        assert_eq!(there, with_hop_limit(&udp_without_checksum(client, server), 63));
        compared.pass(&udp_without_checksum(server, client));
        assert_eq!(compared.states((client, service, PROTOCOL_UDP)), [ANSWERED; 2]);
    }
    compared.compare_state();
}

#[test]
fn a_datagram_whose_checksum_becomes_zero_has_all_ones() {
    let Some(mut compared) = ComparedProgram::load() else { return };
    for family in [0, 1] {
        compared.serve(SERVICE[family], PROTOCOL_UDP, &[SERVER[family]]);
        let (client, service, server) = ends(family);
        let at = if family == 0 { 40 } else { 60 };
        let mut payloads = (0..=u16::MAX).map(u16::to_be_bytes);
        let is_found = |payload: &[u8; 2]| udp(client, server, payload)[at..at + 2] == [0xff, 0xff];
        let payload = payloads.find(is_found).expect("a payload with this checksum");
        let there = compared.pass(&udp(client, service, &payload));
        assert_eq!(there[at..at + 2], [0xff, 0xff], "0 is for none");
    }
    compared.compare_state();
}

#[test]
fn ports_stay_where_servers_have_the_port_of_the_service() {
    let Some(mut compared) = ComparedProgram::load() else { return };
    let client = address(CLIENT[0]);
    let (service, server) = (address("10.9.0.1:81"), address("10.2.0.2:81"));
    for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
        compared.serve("10.9.0.1:81", protocol, &["10.2.0.2:81"]);
    }
    compared.pass(&tcp(client, service, SYN));
    compared.pass(&tcp(server, client, SYN | ACK));
    compared.pass(&udp(client, service, b"odd"));
    compared.pass(&udp(server, client, b"odd"));
    compared.compare_state();
}

#[test]
fn options_of_ipv6_before_the_transport_header_pass() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, server) = ends(1);
    let chains: [&[(u8, usize)]; 4] =
        [&[(0, 1)], &[(60, 2)], &[(0, 1), (60, 3)], &[(0, 2), (60, 1), (60, 4), (60, 1)]];
    for chain in chains {
        let there = compared.pass(&with_extensions(&tcp(client, service, SYN), chain));
        let expected = with_extensions(&tcp(client, server, SYN), chain);
        assert_eq!(there, with_hop_limit(&expected, 63));
        compared.pass(&with_extensions(&tcp(server, client, ACK), chain));
    }
    compared.compare_state();
}

#[test]
fn a_packet_at_its_last_hop_is_dropped_and_changes_nothing() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, server) = ends(0);
    for hop_limit in [0, 1] {
        let first = with_hop_limit(&tcp(client, service, SYN), hop_limit);
        assert_eq!(compared.run(&first), (FrameVerdict::Drop, first));
    }
    assert!(compared.model.flows.is_empty(), "no flow");
    establish(&mut compared, 0);
    for (hop_limit, source, destination) in [(0, client, service), (1, server, client)] {
        let last = with_hop_limit(&tcp(source, destination, RST), hop_limit);
        assert_eq!(compared.run(&last), (FrameVerdict::Drop, last));
    }
    assert_eq!(compared.states((client, service, PROTOCOL_TCP)), [ANSWERED; 2]);
    assert_eq!(compared.model.statistics.hop_limit, 4);
    // Two are enough for this router.
    compared.pass(&with_hop_limit(&tcp(client, service, ACK), 2));
    compared.compare_state();
}

#[test]
fn packets_without_a_flow_are_left_to_the_stack() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, server) = ends(0);
    for flags in [0, ACK, SYN | ACK, RST, FIN | ACK, SYN | RST] {
        compared.leave(&tcp(client, service, flags));
    }
    assert_eq!(compared.model.statistics.without_flow, 6);
    // Other ports and protocols of the address, and traffic that passes by.
    compared.leave(&tcp(client, address("10.9.0.1:22"), SYN));
    compared.leave(&udp(client, service, b"who?"));
    compared.leave(&tcp(server, client, SYN | ACK));
    assert_eq!(compared.model.statistics.without_flow, 6);
    compared.compare_state();
}

#[test]
fn the_first_packet_goes_to_a_director_that_lives() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, _) = ends(0);
    let director =
        ModelDirector { is_alive: true, tap: TapDevice::Present, has_budget: true, answers: true };
    compared.set_director(director);
    let first = tcp(client, service, SYN);
    let (verdict, output) = compared.run(&first);
    assert_eq!(verdict, FrameVerdict::Redirect);
    assert_eq!(output[6..12], [TEST_DEVICE.to_ne_bytes().as_slice(), &[0, 0]].concat());
    assert_eq!(output[12..], first[12..]);
    assert!(compared.model.flows.is_empty());
    // What it gives back without a flow is refused.
    compared.set_director(ModelDirector { tap: TapDevice::Test, ..director });
    compared.leave(&first);
    assert_eq!(compared.model.statistics.refused_without_server, 1);
    compared.compare_state();
}

#[test]
fn a_director_that_is_not_there_is_not_asked() {
    let Some(mut compared) = with_services() else { return };
    let (mut client, service, _) = ends(0);
    let director =
        ModelDirector { is_alive: true, tap: TapDevice::Present, has_budget: true, answers: true };
    for (port, director) in [
        (1, ModelDirector { is_alive: false, ..director }),
        (2, ModelDirector { tap: TapDevice::None, ..director }),
        (3, ModelDirector { tap: TapDevice::Gone, ..director }),
    ] {
        client.set_port(port);
        compared.set_director(director);
        compared.pass(&tcp(client, service, SYN));
    }
    // One that is there, and does not have the service.
    compared.set_director(director);
    compared.change_service(SERVICE[0], PROTOCOL_TCP, |service| service.is_owned = false);
    client.set_port(4);
    compared.pass(&tcp(client, service, SYN));
    assert_eq!(compared.model.statistics.table_decisions, 4);
    compared.compare_state();
}

#[test]
fn a_director_decides_nothing_for_an_address_that_another_machine_has() {
    let Some(mut compared) = with_services() else { return };
    let (mut client, service, _) = ends(0);
    establish(&mut compared, 0);
    let director =
        ModelDirector { is_alive: true, tap: TapDevice::Present, has_budget: true, answers: true };
    compared.set_director(director);
    for is_keyed in [false, true] {
        compared.change_service(SERVICE[0], PROTOCOL_TCP, |service| {
            (service.is_elsewhere, service.is_keyed) = (true, is_keyed);
        });
        client.set_port(1);
        let (verdict, _) = compared.run(&tcp(client, service, SYN));
        assert_eq!(verdict, FrameVerdict::Drop, "keyed: {is_keyed}");
    }
    assert_eq!(compared.model.statistics.elsewhere, 2);
    // A flow that it has goes on, until its packets come to the other machine.
    compared.pass(&tcp(ends(0).0, service, ACK));
    // Nobody can say any more that the address has come back.
    compared.set_director(ModelDirector { is_alive: false, ..director });
    compared.pass(&tcp(client, service, SYN));
    compared.compare_state();
}

#[test]
fn a_connection_is_not_refused_that_another_machine_may_tell_of() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, _) = ends(0);
    let director =
        ModelDirector { is_alive: true, tap: TapDevice::Present, has_budget: true, answers: true };
    compared.set_director(director);
    for (is_new_here, verdict) in [(true, FrameVerdict::Drop), (false, FrameVerdict::Next)] {
        compared.change_service(SERVICE[0], PROTOCOL_TCP, |it| it.is_new_here = is_new_here);
        assert_eq!(compared.run(&tcp(client, service, ACK)).0, verdict);
        assert_eq!(compared.run(&tcp(client, service, SYN)).0, FrameVerdict::Redirect);
    }
    compared.compare_state();
}

#[test]
fn a_connection_that_has_ended_is_decided_anew_by_the_director() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, _) = ends(0);
    establish(&mut compared, 0);
    compared.set_director(ModelDirector {
        is_alive: true,
        tap: TapDevice::Present,
        has_budget: true,
        answers: true,
    });
    compared.pass(&tcp(client, service, RST));
    let (verdict, output) = compared.run(&tcp(client, service, SYN));
    assert_eq!((verdict, &output[6..7]), (FrameVerdict::Redirect, &[1_u8][..]));
    assert_eq!(compared.model.statistics.upcalls, 1);
    compared.compare_state();
}
