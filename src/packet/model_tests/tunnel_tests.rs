//! Servers by tunnels: packets come to them in others, which the model makes.

use super::frames::{ACK, FIN, SYN, fragments, joined, tcp, udp};
use super::model::FrameVerdict;
use super::{ComparedProgram, SERVER, SERVICE, address, ends};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP, server_method};

const METHODS: [u8; 2] = [server_method::IPIP, server_method::GUE];
/// The octets before a packet in one of a family, by a method.
const OUTER_LEN: [[usize; 2]; 2] = [[20, 40], [32, 52]];

/// Loads the program with a service for each family, whose server is reached by a tunnel over a family.
fn with_tunnels(protocol: u8, method: u8, outer_family: usize) -> Option<ComparedProgram> {
    let mut compared = ComparedProgram::load()?;
    for service in SERVICE {
        let server = SERVER[outer_family].replace("8080", "80");
        for index in compared.serve(service, protocol, &[&server]) {
            compared.change_server(index, |server| server.method = method);
        }
    }
    Some(compared)
}

#[test]
fn packets_of_either_family_go_in_packets_of_either() {
    for (method, lens) in METHODS.into_iter().zip(OUTER_LEN) {
        for (outer_family, len) in [0, 1].into_iter().zip(lens) {
            let Some(mut compared) = with_tunnels(PROTOCOL_TCP, method, outer_family) else {
                return;
            };
            for family in [0, 1] {
                let (client, service, _) = ends(family);
                for flags in [SYN, ACK, ACK, FIN | ACK] {
                    let sent = tcp(client, service, flags);
                    let (verdict, received) = compared.run(&sent);
                    assert_eq!(verdict, FrameVerdict::Redirect);
                    assert_eq!(received.len(), sent.len() + len, "{method} {outer_family}");
                }
                // The server answers by itself.
                compared.leave(&tcp(service, client, SYN | ACK));
            }
            assert_eq!(compared.model.flows.len(), 2);
            compared.compare_state();
        }
    }
}

#[test]
fn congestion_is_told_by_the_outer_packet_too() {
    let Some(mut compared) = with_tunnels(PROTOCOL_UDP, server_method::IPIP, 0) else { return };
    let (client, service, _) = ends(0);
    let mut sent = udp(client, service, b"?");
    // ECT(0), as its checksum has it.
    sent[15] = 2;
    let checksum = u16::from_be_bytes([sent[24], sent[25]]) - 2;
    sent[24..26].copy_from_slice(&checksum.to_be_bytes());
    let (_, received) = compared.run(&sent);
    assert_eq!(received[15], 2);
    compared.compare_state();
}

#[test]
fn the_fragments_of_a_packet_go_in_packets_of_the_same_flow() {
    let Some(mut compared) = with_tunnels(PROTOCOL_UDP, server_method::GUE, 0) else { return };
    let (client, service, _) = ends(0);
    let sent = udp(client, service, &[7; 3000]);
    let received = fragments(&sent, 5, 1400).into_iter().map(|fragment| compared.run(&fragment).1);
    let received: Vec<_> = received.collect();
    // The source port of UDP is the same.
    assert!(received.len() > 2);
    assert!(received.iter().all(|it| it[34..36] == received[0][34..36]));
    let inner: Vec<_> = received.iter().map(|it| [&it[..14], &it[46..]].concat()).collect();
    assert_eq!(joined(&inner).len(), sent.len());
    compared.compare_state();
}

#[test]
fn flows_spread_over_source_addresses() {
    for (outer_family, at) in [(0, 26), (1, 22)] {
        let Some(mut compared) = with_tunnels(PROTOCOL_UDP, server_method::IPIP, outer_family)
        else {
            return;
        };
        let servers: Vec<_> = compared.model.servers.keys().copied().collect();
        for server in servers {
            compared.change_server(server, |server| server.source_spread = 0xff00);
        }
        let len = if outer_family == 0 { 4 } else { 16 };
        let source_of = |frame: &[u8]| frame[at..at + len].to_vec();
        let mut sources = std::collections::HashSet::new();
        for port in 1000..1064 {
            let mut client = ends(0).0;
            client.set_port(port);
            let sent = udp(client, address(SERVICE[0]), b"?");
            let source = source_of(&compared.run(&sent).1);
            assert_eq!(source, source_of(&compared.run(&sent).1), "those of a flow have one");
            sources.insert(source);
        }
        assert!(sources.len() > 40, "{} sources", sources.len());
        compared.compare_state();
    }
}

#[test]
fn a_number_of_flows_spread_over_source_ports() {
    let Some(mut compared) = with_tunnels(PROTOCOL_UDP, server_method::GUE, 1) else { return };
    let mut ports = std::collections::HashSet::new();
    let mut labels = std::collections::HashSet::new();
    for port in 1000..1064 {
        let mut client = ends(0).0;
        client.set_port(port);
        let (_, received) = compared.run(&udp(client, address(SERVICE[0]), b"?"));
        labels.insert(received[15..18].to_vec());
        ports.insert(received[54..56].to_vec());
    }
    assert!(ports.len() > 56 && labels.len() > 56, "{} {}", ports.len(), labels.len());
    compared.compare_state();
}
