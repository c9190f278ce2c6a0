//! Headers that the program leaves to the stack: fragments, options, and what is malformed in each layer.
//!
//! Frames that are shorter than the header of IP are not among them: the kernel runs no program on one here.

use super::frames::{
    ACK, ETHERNET_LEN, IPV6_LEN, SYN, frame, tcp, transport_of, udp, with_extensions,
    with_ip_octets,
};
use super::{CLIENT, ComparedProgram, SERVER, SERVICE, address, ends, establish, with_services};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP};
use crate::packet::statistics::PacketStatistics;

/// Asserts that frames are left to the stack, and how often each counter has counted.
#[track_caller]
fn assert_left(
    compared: &mut ComparedProgram,
    frames: &[Vec<u8>],
    counter: impl Fn(&PacketStatistics) -> u64,
) {
    let before = counter(&compared.model.statistics);
    for frame in frames {
        compared.leave(frame);
    }
    assert_eq!(counter(&compared.model.statistics) - before, frames.len() as u64);
    compared.compare_state();
}

#[test]
fn frames_for_others_and_of_other_protocols_are_left_to_the_stack() {
    let Some(mut compared) = with_services() else { return };
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        let first = tcp(client, service, SYN);
        for mac in [[2, 0, 0, 0, 0, 1], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
            let mut other = first.clone();
            other[..6].copy_from_slice(&mac);
            compared.leave(&other);
        }
        // ARP, the other family, a VLAN, and a length instead of a type.
        for kind in [0x0806, if family == 0 { 0x86dd } else { 0x0800 }, 0x8100, 0x0040_u16] {
            let mut other = first.clone();
            other[12..14].copy_from_slice(&kind.to_be_bytes());
            compared.run(&other);
        }
        // A protocol without ports, and the ICMP of the other family.
        for protocol in [50, 132, if family == 0 { 58 } else { 1 }] {
            compared.leave(&frame(client.ip(), service.ip(), protocol, &[0; 40]));
        }
    }
    assert!(compared.model.flows.is_empty());
    compared.compare_state();
}

#[test]
fn options_are_counted() {
    let Some(mut compared) = with_services() else { return };
    establish(&mut compared, 0);
    let (client, service, _) = ends(0);
    let packet = tcp(client, service, ACK);
    let mut frames: Vec<_> =
        (0x46..=0x4f).map(|octet| with_ip_octets(&packet, 0, &[octet])).collect();
    let (client, service, _) = ends(1);
    let packet = tcp(client, service, SYN);
    // A routing header, and more headers than are read.
    let chains: [&[(u8, usize)]; 3] =
        [&[(43, 1)], &[(0, 1), (43, 3)], &[(0, 1), (60, 1), (60, 1), (60, 1), (60, 1)]];
    frames.extend(chains.iter().map(|chain| with_extensions(&packet, chain)));
    assert_left(&mut compared, &frames, |statistics| statistics.with_options);
}

#[test]
fn malformed_headers_of_ip_are_counted() {
    let Some(mut compared) = with_services() else { return };
    establish(&mut compared, 0);
    let (client, service, _) = ends(0);
    let packet = tcp(client, service, ACK);
    let len = (packet.len() - ETHERNET_LEN) as u16;
    let mut frames: Vec<_> = [0x35, 0x55, 0x65, 0x44, 0x40, 0x05, 0xf5]
        .map(|octet| with_ip_octets(&packet, 0, &[octet]))
        .to_vec();
    // Lengths that do not have the headers, and one of more than came.
    for len in [1, 19, 20, 39, len + 1, u16::MAX] {
        frames.push(with_ip_octets(&packet, 2, &len.to_be_bytes()));
    }
    let (client, service, _) = ends(1);
    let packet = tcp(client, service, SYN);
    let len = (packet.len() - ETHERNET_LEN - IPV6_LEN) as u16;
    frames.extend([0x00, 0x40, 0x50, 0x70].map(|octet| with_ip_octets(&packet, 0, &[octet])));
    for len in [1, 19, len + 1, u16::MAX] {
        frames.push(with_ip_octets(&packet, 4, &len.to_be_bytes()));
    }
    assert_left(&mut compared, &frames, |statistics| statistics.malformed);
}

#[test]
fn malformed_options_of_ipv6_are_counted() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, _) = ends(1);
    let packet = tcp(client, service, SYN);
    let mut frames = Vec::new();
    for number in [0, 43, 60] {
        // A header that is longer than the packet, one that is cut, and one that is behind the packet's end.
        let mut long = with_extensions(&packet, &[(60, 1)]);
        (long[20], long[55]) = (if number == 43 { 60 } else { number }, 200);
        frames.push(long);
        let mut cut = packet[..ETHERNET_LEN + IPV6_LEN + 1].to_vec();
        cut = with_ip_octets(&with_ip_octets(&cut, 4, &[0, 1]), 6, &[number]);
        frames.push(cut.clone());
        cut.extend([6, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        frames.push(cut);
    }
    assert_left(&mut compared, &frames, |statistics| statistics.malformed);
}

#[test]
fn malformed_transport_headers_are_counted() {
    let Some(mut compared) = ComparedProgram::load() else { return };
    let mut frames = Vec::new();
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
            compared.serve(SERVICE[family], protocol, &[SERVER[family]]);
        }
        let (segment, datagram) = (tcp(client, service, SYN), udp(client, service, b""));
        let at = transport_of(&segment);
        for len in [0, 1, 8, 19] {
            let short = frame(client.ip(), service.ip(), PROTOCOL_TCP, &segment[at..at + len]);
            frames.push(short);
        }
        for len in [0, 1, 7] {
            let short = frame(client.ip(), service.ip(), PROTOCOL_UDP, &datagram[at..at + len]);
            frames.push(short);
            let icmp = if family == 0 { 1 } else { 58 };
            frames.push(frame(client.ip(), service.ip(), icmp, &datagram[at..at + len]));
        }
        // Headers of TCP that are too short, or longer than the packet.
        for units in [0, 1, 4, 7, 15] {
            let mut segment = segment.clone();
            segment[at + 12] = units << 4;
            frames.push(segment);
        }
    }
    assert_left(&mut compared, &frames, |statistics| statistics.malformed);
}

#[test]
fn what_is_not_for_a_virtual_address_is_not_counted() {
    let Some(mut compared) = with_services() else { return };
    for family in [0, 1] {
        let passing = tcp(address(CLIENT[family]), address(SERVER[family]), SYN);
        compared.leave(&with_ip_octets(&passing, 0, &[0x5f]));
        compared.leave(&with_ip_octets(&passing, 6, &[44]));
    }
    assert_eq!(compared.model.statistics, PacketStatistics::default());
    compared.compare_state();
}

#[test]
fn a_packet_of_ipv6_is_none_of_a_flow_of_ipv4() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, _) = ends(0);
    establish(&mut compared, 0);
    let mapped = |address: std::net::SocketAddr| match address {
        std::net::SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), address.port()).into(),
        address => address,
    };
    let (client, service) = (mapped(client), mapped(service));
    compared.leave(&tcp(client, service, ACK));
    let mut other = client;
    other.set_port(9);
    compared.leave(&tcp(other, service, SYN));
    let mixed = address("[fd01::2]:9");
    compared.leave(&tcp(mixed, service, SYN));
    compared.compare_state();
}

#[test]
fn a_packet_without_a_length_is_as_long_as_its_frame() {
    let Some(mut compared) = with_services() else { return };
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        let at = if family == 0 { 2 } else { 4 };
        compared.pass(&with_ip_octets(&tcp(client, service, SYN), at, &[0, 0]));
    }
    compared.compare_state();
}

#[test]
fn octets_behind_the_packet_stay() {
    let Some(mut compared) = with_services() else { return };
    for family in [0, 1] {
        let (client, service, server) = ends(family);
        let mut first = tcp(client, service, SYN);
        first.extend(b"padding");
        let (_, output) = compared.run(&first);
        assert!(output.ends_with(b"padding"));
        let sent = &tcp(client, server, SYN)[transport_of(&first)..];
        assert_eq!(&output[transport_of(&first)..output.len() - 7], sent);
    }
    compared.compare_state();
}
