//! Direct routing: packets keep their addresses, and the server's answers are not seen.

use std::net::{IpAddr, SocketAddr};

use super::frames::{ACK, FIN, RST, SYN, fragments, icmp, quote, tcp, udp, with_hop_limit};
use super::{ComparedProgram, OTHER_SERVER, SERVICE, address, ends};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP, RawTuple, flow_state, server_method};

const DIRECT: u32 = flow_state::DIRECT;

/// Loads the program with a service for each family, whose server answers clients by itself.
fn with_direct_services(protocol: u8) -> Option<ComparedProgram> {
    let mut compared = ComparedProgram::load()?;
    for family in [0, 1] {
        let (_, service, server) = ends(family);
        let server = SocketAddr::new(server.ip(), service.port()).to_string();
        for index in compared.serve(SERVICE[family], protocol, &[&server]) {
            compared.change_server(index, |server| server.method = server_method::DIRECT);
        }
    }
    Some(compared)
}

fn state_of(compared: &ComparedProgram, family: usize, protocol: u8) -> u32 {
    let (client, service, _) = ends(family);
    let flow = compared.maps.flow(&RawTuple::new(client, service, protocol)).expect("the flows");
    flow.expect("the flow").state
}

#[test]
fn packets_keep_their_addresses_and_a_flow_has_one_direction() {
    let Some(mut compared) = with_direct_services(PROTOCOL_TCP) else { return };
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        let answered = DIRECT | flow_state::ANSWERED;
        let ended = answered | flow_state::ASSURED | flow_state::CLIENT_FIN;
        for (flags, state) in [
            (SYN, DIRECT),
            (SYN, DIRECT),
            (ACK, answered),
            (SYN, answered),
            (FIN | ACK, ended),
            (ACK, ended),
        ] {
            let sent = tcp(client, service, flags);
            assert_eq!(compared.pass(&sent), with_hop_limit(&sent, 63));
            assert_eq!(state_of(&compared, family, PROTOCOL_TCP), state);
        }
        // What passes by here all the same is the stack's.
        compared.leave(&tcp(service, client, SYN | ACK));
    }
    assert_eq!(compared.model.flows.len(), 2);
    compared.compare_state();
}

#[test]
fn a_client_that_resets_has_no_answer_by_that() {
    let Some(mut compared) = with_direct_services(PROTOCOL_TCP) else { return };
    let (client, service, _) = ends(0);
    compared.pass(&tcp(client, service, SYN));
    compared.pass(&tcp(client, service, RST | ACK));
    assert_eq!(state_of(&compared, 0, PROTOCOL_TCP), DIRECT | flow_state::CLIENT_RESET);
    // The port is used again.
    compared.pass(&tcp(client, service, SYN));
    assert_eq!(state_of(&compared, 0, PROTOCOL_TCP), DIRECT);
    assert_eq!(compared.model.statistics.table_decisions, 2);
    compared.compare_state();
}

#[test]
fn two_services_may_share_a_server_and_a_client_its_port() {
    let Some(mut compared) = with_direct_services(PROTOCOL_TCP) else { return };
    let (client, service, _) = ends(0);
    for index in compared.serve("10.9.0.2:80", PROTOCOL_TCP, &["10.2.0.2:80"]) {
        compared.change_server(index, |server| server.method = server_method::DIRECT);
    }
    compared.pass(&tcp(client, service, SYN));
    compared.pass(&tcp(client, address("10.9.0.2:80"), SYN));
    assert_eq!(compared.model.statistics.table_decisions, 2);
    compared.compare_state();
}

/// A server that flows reached by translation before: late packets of them say nothing of a new flow.
#[test]
fn a_late_packet_of_translation_says_nothing_of_direct_routing() {
    let Some(mut compared) = ComparedProgram::load() else { return };
    let (client, service, _) = ends(0);
    let server = address("10.2.0.2:80");
    let [index] = compared.serve(SERVICE[0], PROTOCOL_TCP, &["10.2.0.2:80"])[..] else { panic!() };
    compared.pass(&tcp(client, service, SYN));
    compared.pass(&tcp(server, client, SYN | ACK));
    compared.pass(&tcp(client, service, RST));
    compared.change_server(index, |server| server.method = server_method::DIRECT);
    compared.pass(&tcp(client, service, SYN));
    compared.leave(&tcp(server, client, RST));
    assert_eq!(state_of(&compared, 0, PROTOCOL_TCP), DIRECT);
    compared.compare_state();
}

#[test]
fn datagrams_and_their_fragments_pass() {
    let Some(mut compared) = with_direct_services(PROTOCOL_UDP) else { return };
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        let sent = udp(client, service, &[7; 100]);
        assert_eq!(compared.pass(&sent), with_hop_limit(&sent, 63));
        for fragment in fragments(&sent, 5, 48) {
            let (_, output) = compared.run(&fragment);
            assert_eq!(output, with_hop_limit(&fragment, 63));
        }
        assert_eq!(state_of(&compared, family, PROTOCOL_UDP), DIRECT);
    }
    assert_eq!(compared.model.statistics.fragments, 0);
    compared.compare_state();
}

/// Such as "packet too big", of a router on the way from the server to the client.
#[test]
fn errors_about_answers_reach_the_server_as_they_are() {
    let Some(mut compared) = with_direct_services(PROTOCOL_TCP) else { return };
    for (family, kind, router) in [(0, 3, "10.7.7.7"), (1, 2, "fd07::7")] {
        let (client, service, _) = ends(family);
        compared.pass(&tcp(client, service, SYN));
        let answer = tcp(service, client, ACK);
        let error = icmp(address_of(router), service.ip(), kind, quote(&answer));
        assert_eq!(compared.pass(&error), with_hop_limit(&error, 63));
        // About a connection that is not there.
        let other = tcp(service, address(OTHER_SERVER[family]), ACK);
        compared.leave(&icmp(address_of(router), service.ip(), kind, quote(&other)));
    }
    compared.compare_state();
}

fn address_of(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
