//! Fragments: they follow the first one of their packet, and are counted without it.

use std::net::SocketAddr;

use super::frames::{
    ACK, SYN, fragments, frame, joined, tcp, tcp_with_payload, transport_of, udp, with_extensions,
    with_hop_limit, with_ip_octets,
};
use super::model::FrameVerdict;
use super::model_state::{ModelDirector, TapDevice};
use super::{ComparedProgram, SERVER, SERVICE, ends, establish, with_services};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP};

/// More than an Ethernet has room for.
const LONG: [u8; 3001] = [0x5a; 3001];
/// A number of octets of which the offsets of fragments are a multiple.
const PART: usize = 1480;

/// Loads the program with a service of UDP for each family.
fn with_datagrams() -> Option<ComparedProgram> {
    let mut compared = ComparedProgram::load()?;
    for family in [0, 1] {
        compared.serve(SERVICE[family], PROTOCOL_UDP, &[SERVER[family]]);
    }
    Some(compared)
}

/// Passes all fragments of a packet, and asserts that the whole is another packet after it.
fn pass_fragments(compared: &mut ComparedProgram, sent: &[u8], id: u16, wanted: &[u8]) {
    let mut received = Vec::new();
    for fragment in fragments(sent, id, PART) {
        let (verdict, output) = compared.run(&fragment);
        assert_eq!(verdict, FrameVerdict::Redirect);
        received.push(output);
    }
    assert!(received.len() > 2);
    let wanted = with_ip_octets(&with_hop_limit(wanted, 63), 4, &joined(&received)[18..20]);
    let wanted = if wanted[12] == 0x08 { with_ip_octets(&wanted, 6, &[0, 0]) } else { wanted };
    assert_eq!(joined(&received), wanted);
}

#[test]
fn fragments_follow_the_first_in_both_directions() {
    let Some(mut compared) = with_datagrams() else { return };
    for family in [0, 1] {
        let (client, service, server) = ends(family);
        let there = udp(client, service, &LONG);
        pass_fragments(&mut compared, &there, 7, &udp(client, server, &LONG));
        let back = udp(server, client, &LONG);
        pass_fragments(&mut compared, &back, 7, &udp(service, client, &LONG));
        // The next datagram has the number of the first: it has other ports.
        let mut other = client;
        other.set_port(9);
        pass_fragments(&mut compared, &udp(other, service, &LONG), 7, &udp(other, server, &LONG));
    }
    assert_eq!(compared.model.statistics.fragments, 0);
    compared.compare_state();
}

#[test]
fn segments_in_fragments_keep_the_state_of_their_flow() {
    let Some(mut compared) = with_services() else { return };
    for family in [0, 1] {
        let (client, service, server) = ends(family);
        establish(&mut compared, family);
        let segment = |to: SocketAddr| tcp_with_payload(client, to, ACK, &LONG);
        pass_fragments(&mut compared, &segment(service), 1, &segment(server));
    }
    compared.compare_state();
}

#[test]
fn fragments_without_the_first_are_left_and_counted() {
    let Some(mut compared) = with_datagrams() else { return };
    let mut count = 0;
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        let of = |from: SocketAddr, id| fragments(&udp(from, service, &LONG), id, PART);
        let sent = of(client, 7);
        compared.leave(&sent[1]);
        compared.run(&sent[0]);
        // Of another datagram, and of another client.
        let mut other = client;
        other.set_ip(if family == 0 { "10.1.0.3" } else { "fd01::3" }.parse().expect("an address"));
        compared.leave(&of(client, 8)[1]);
        compared.leave(&of(other, 7)[1]);
        count += 3;
        // A first fragment that is for nobody here is not remembered.
        let mut nobody = service;
        nobody.set_port(9);
        let unknown = fragments(&udp(client, nobody, &LONG), 9, PART);
        compared.leave(&unknown[0]);
        compared.leave(&unknown[1]);
        count += 1;
    }
    assert_eq!(compared.model.statistics.fragments, count);
    compared.compare_state();
}

#[test]
fn fragments_without_ports_are_left_and_counted() {
    let Some(mut compared) = with_datagrams() else { return };
    let mut count = 0;
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        let icmp = if family == 0 { 1 } else { 58 };
        for protocol in [icmp, 50, 132] {
            let packet = frame(client.ip(), service.ip(), protocol, &LONG);
            for fragment in fragments(&packet, 7, PART) {
                compared.leave(&fragment);
                count += 1;
            }
        }
    }
    // The bit that nobody may set.
    let (client, service, _) = ends(0);
    compared.leave(&with_ip_octets(&udp(client, service, b""), 6, &[0x80, 0]));
    assert_eq!(compared.model.statistics.fragments, count + 1);
    assert!(compared.model.flows.is_empty());
    compared.compare_state();
}

#[test]
fn a_first_fragment_must_have_the_header() {
    let Some(mut compared) = with_datagrams() else { return };
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        compared.serve(SERVICE[family], PROTOCOL_TCP, &[SERVER[family]]);
        let first = &fragments(&tcp(client, service, SYN), 7, 16)[0];
        compared.leave(first);
    }
    assert_eq!(compared.model.statistics.malformed, 2);
    compared.compare_state();
}

#[test]
fn a_packet_of_one_fragment_is_whole() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, server) = ends(1);
    let whole = with_extensions(&tcp(client, service, SYN), &[(0, 1), (44, 1)]);
    let (verdict, output) = compared.run(&whole);
    assert_eq!(verdict, FrameVerdict::Redirect);
    let sent = tcp(client, server, SYN);
    assert_eq!(output[output.len() - 25..], sent[transport_of(&sent)..]);
    // More headers than are read before the one of the fragment, and one that is cut.
    let chain = [(0, 1), (60, 1), (60, 1), (60, 1), (60, 1), (44, 1)];
    compared.leave(&with_extensions(&tcp(client, service, SYN), &chain));
    let mut cut = with_extensions(&tcp(client, service, SYN), &[(44, 1)]);
    cut.truncate(14 + 40 + 7);
    compared.leave(&with_ip_octets(&cut, 4, &[0, 7]));
    compared.compare_state();
}

#[test]
fn all_fragments_of_a_new_flow_go_to_the_director() {
    let Some(mut compared) = with_datagrams() else { return };
    let director =
        ModelDirector { is_alive: true, tap: TapDevice::Present, has_budget: true, answers: true };
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        compared.set_director(director);
        for fragment in fragments(&udp(client, service, &LONG), 7, PART) {
            assert_eq!(compared.run(&fragment).0, FrameVerdict::Redirect);
        }
        // It gives them back in their order, and has made no flow.
        compared.set_director(ModelDirector { tap: TapDevice::Test, ..director });
        for fragment in fragments(&udp(client, service, &LONG), 7, PART) {
            compared.leave(&fragment);
        }
    }
    assert_eq!(compared.model.statistics.upcalls, 6);
    assert_eq!(compared.model.statistics.refused_without_server, 6);
    compared.compare_state();
}
