//! ICMP errors: they reach the other side of the flow that they are about, with what they quote.

use std::net::{IpAddr, SocketAddr};

use super::frames::{
    FIN, SYN, frame, icmp, quote, tcp, transport_of, udp, with_extensions, with_hop_limit,
    with_ip_octets,
};
use super::model::FrameVerdict;
use super::{CLIENT, ComparedProgram, SERVER, SERVICE, address, ends, establish, with_services};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP};

const ROUTER: [&str; 2] = ["10.7.7.7", "fd07::7"];
/// A destination that is not reached.
const UNREACHABLE: [u8; 2] = [3, 1];

fn router(family: usize) -> IpAddr {
    ROUTER[family].parse().expect("an address")
}

/// Returns an error of a type that is about a packet of TCP or UDP.
fn error(
    from: IpAddr,
    kind: u8,
    protocol: u8,
    (source, destination): (SocketAddr, SocketAddr),
) -> Vec<u8> {
    let quoted = match protocol {
        PROTOCOL_TCP => tcp(source, destination, SYN),
        _ => udp(source, destination, b"asked"),
    };
    icmp(from, source.ip(), kind, quote(&quoted))
}

/// Asserts where a translated error is from and goes to, and what it is about.
fn assert_error(
    found: &[u8],
    from: IpAddr,
    kind: u8,
    protocol: u8,
    (source, destination): (SocketAddr, SocketAddr),
) {
    // The quoted transport header keeps the checksum that it had, and the quoted header its identification.
    let mut expected = with_hop_limit(&error(from, kind, protocol, (source, destination)), 63);
    let transport = transport_of(&expected);
    let quoted_checksum = expected.len() - 2;
    if protocol == PROTOCOL_UDP {
        expected[quoted_checksum..].copy_from_slice(&found[quoted_checksum..]);
        expected[transport + 2..][..2].copy_from_slice(&found[transport + 2..][..2]);
    }
    assert_eq!(found, expected);
}

fn with_flows(protocol: u8) -> Option<ComparedProgram> {
    let mut compared = ComparedProgram::load()?;
    for family in [0, 1] {
        compared.serve(SERVICE[family], protocol, &[SERVER[family]]);
        let (client, service, _) = ends(family);
        let first = match protocol {
            PROTOCOL_TCP => tcp(client, service, SYN),
            _ => udp(client, service, b"asked"),
        };
        compared.pass(&first);
    }
    Some(compared)
}

#[test]
fn errors_of_the_server_reach_the_client_as_the_services() {
    for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
        let Some(mut compared) = with_flows(protocol) else { return };
        for family in [0, 1] {
            let (client, service, server) = ends(family);
            let sent = error(server.ip(), UNREACHABLE[family], protocol, (client, server));
            let found = compared.pass(&sent);
            let about = (client, service);
            assert_error(&found, service.ip(), UNREACHABLE[family], protocol, about);
        }
        assert_eq!(compared.model.statistics.icmp_errors, 2);
        compared.compare_state();
    }
}

#[test]
fn errors_of_the_client_reach_the_server() {
    for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
        let Some(mut compared) = with_flows(protocol) else { return };
        for family in [0, 1] {
            let (client, service, server) = ends(family);
            let sent = error(client.ip(), UNREACHABLE[family], protocol, (service, client));
            let found = compared.pass(&sent);
            let about = (server, client);
            assert_error(&found, client.ip(), UNREACHABLE[family], protocol, about);
        }
        compared.compare_state();
    }
}

#[test]
fn errors_of_routers_keep_their_source() {
    let types: [&[u8]; 2] = [&[3, 4, 11, 12], &[1, 2, 3, 4]];
    for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
        let Some(mut compared) = with_flows(protocol) else { return };
        for family in [0, 1] {
            let (client, service, server) = ends(family);
            for kind in types[family] {
                let sent = error(router(family), *kind, protocol, (client, server));
                let found = compared.pass(&sent);
                assert_error(&found, router(family), *kind, protocol, (client, service));
                let sent = error(router(family), *kind, protocol, (service, client));
                let found = compared.pass(&sent);
                assert_error(&found, router(family), *kind, protocol, (server, client));
            }
        }
        compared.compare_state();
    }
}

#[test]
fn errors_about_no_flow_and_other_messages_are_left_to_the_stack() {
    let Some(mut compared) = with_flows(PROTOCOL_TCP) else { return };
    for family in [0, 1] {
        let (client, service, server) = ends(family);
        let mut other = client;
        other.set_port(9);
        let from = router(family);
        compared.leave(&error(from, UNREACHABLE[family], PROTOCOL_TCP, (other, server)));
        compared.leave(&error(from, UNREACHABLE[family], PROTOCOL_UDP, (client, server)));
        // What the client has sent, and not what the server got.
        compared.leave(&error(from, UNREACHABLE[family], PROTOCOL_TCP, (client, service)));
        // An echo request, and a redirect.
        for kind in [[8, 5], [128, 137]][family] {
            compared.leave(&error(from, kind, PROTOCOL_TCP, (client, server)));
        }
        let last_hop = error(from, UNREACHABLE[family], PROTOCOL_TCP, (client, server));
        compared.leave(&with_hop_limit(&last_hop, 1));
    }
    assert_eq!(compared.model.statistics.icmp_errors, 0);
    compared.compare_state();
}

#[test]
fn an_error_that_is_not_sent_to_the_source_of_what_it_quotes_is_left_to_the_stack() {
    let Some(mut compared) = with_flows(PROTOCOL_TCP) else { return };
    for family in [0, 1] {
        let (client, _, server) = ends(family);
        let quoted = tcp(client, server, SYN);
        let elsewhere = address(SERVICE[family]).ip();
        compared.leave(&icmp(router(family), elsewhere, UNREACHABLE[family], quote(&quoted)));
    }
    compared.compare_state();
}

#[test]
fn quoted_packets_that_cannot_be_read_are_left_to_the_stack() {
    let Some(mut compared) = with_flows(PROTOCOL_TCP) else { return };
    for family in [0, 1] {
        let (client, _, server) = ends(family);
        let packet = tcp(client, server, SYN);
        let whole = quote(&packet).to_vec();
        let header_len = whole.len() - 8;
        let mut quotes: Vec<_> = [0, 1, header_len - 1, header_len, header_len + 3]
            .map(|len| whole[..len].to_vec())
            .to_vec();
        // Another version, a protocol without ports, options of IPv4, a later fragment.
        let changes: &[(usize, u8)] = if family == 0 {
            &[(0, 0x65), (9, 50), (0, 0x46), (7, 1)]
        } else {
            &[(0, 0x40), (6, 50)]
        };
        for (at, octet) in changes {
            let mut changed = whole.clone();
            changed[*at] = *octet;
            quotes.push(changed);
        }
        for quoted in quotes {
            compared.leave(&icmp(router(family), client.ip(), UNREACHABLE[family], &quoted));
        }
        // Four octets have both ports.
        let least = &whole[..header_len + 4];
        compared.pass(&icmp(router(family), client.ip(), UNREACHABLE[family], least));
    }
    compared.compare_state();
}

#[test]
fn what_is_behind_the_packet_in_the_frame_is_not_quoted() {
    let Some(mut compared) = with_flows(PROTOCOL_TCP) else { return };
    for family in [0, 1] {
        let (client, _, server) = ends(family);
        let packet = tcp(client, server, SYN);
        let (head, tail) = quote(&packet).split_at(quote(&packet).len() - 6);
        let mut sent = icmp(router(family), client.ip(), UNREACHABLE[family], head);
        sent.extend(tail);
        compared.leave(&sent);
    }
    compared.compare_state();
}

#[test]
fn an_error_follows_the_route_of_a_server_that_had_none() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, server) = ends(0);
    establish(&mut compared, 0);
    // The flow is of a time without a route.
    let tuple = crate::packet::layout::RawTuple::new(client, service, PROTOCOL_TCP);
    let flow = compared.maps.flow(&tuple).expect("the flows").expect("the flow");
    let flow = crate::packet::flow_direction::FlowDirection { ifindex: 0, ..flow };
    compared.maps.insert_flow(flow).expect("the flow");
    let sent = error(router(0), 3, PROTOCOL_TCP, (service, client));
    assert_error(&compared.pass(&sent), router(0), 3, PROTOCOL_TCP, (server, client));
    compared.compare_state();
}

#[test]
fn errors_have_options_of_ipv6_and_quote_fragments_and_long_packets() {
    let Some(mut compared) = with_flows(PROTOCOL_UDP) else { return };
    let (client, _, server) = ends(1);
    let sent = error(router(1), 2, PROTOCOL_UDP, (client, server));
    compared.pass(&with_extensions(&sent, &[(0, 1), (60, 2)]));
    for family in [0, 1] {
        let (client, _, server) = ends(family);
        let packet = udp(client, server, &[0xa5; 1001]);
        let quoted = if family == 0 { with_ip_octets(&packet, 6, &[0x20, 0]) } else { packet };
        let kind = UNREACHABLE[family];
        compared.pass(&icmp(router(family), client.ip(), kind, &quoted[14..1000]));
    }
    compared.compare_state();
}

#[test]
fn errors_do_not_change_the_state_of_a_flow() {
    let Some(mut compared) = with_flows(PROTOCOL_TCP) else { return };
    let (client, service, server) = ends(0);
    compared.pass(&error(server.ip(), 3, PROTOCOL_TCP, (client, server)));
    assert_eq!(compared.states((client, service, PROTOCOL_TCP)), [0; 2]);
    // Nor does one that has too few octets for a message.
    let short = frame(router(0), address(CLIENT[0]).ip(), 1, &[3, 1, 0, 0]);
    assert_eq!(compared.run(&short).0, FrameVerdict::Next);
    compared.pass(&tcp(client, service, FIN));
    compared.compare_state();
}

#[test]
fn an_error_about_a_flow_that_is_not_known_goes_by_the_table_of_a_keyed_scheduler() {
    for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
        let Some(mut compared) = ComparedProgram::load() else { return };
        for family in [0, 1] {
            let (client, service, server) = ends(family);
            compared.serve(SERVICE[family], protocol, &[SERVER[family]]);
            let sent = error(router(family), UNREACHABLE[family], protocol, (service, client));
            compared.leave(&sent);
            compared.change_service(SERVICE[family], protocol, |service| service.is_keyed = true);
            let passed = compared.pass(&sent);
            let kind = UNREACHABLE[family];
            assert_error(&passed, router(family), kind, protocol, (server, client));
            assert_eq!(compared.model.statistics.keyed_decisions, family as u64 + 1);
            // A server with a limit is not asked for another flow.
            compared.change_service(SERVICE[family], protocol, |service| service.sheds = true);
            let other = SocketAddr::new(client.ip(), 7);
            let sent = error(router(family), kind, protocol, (service, other));
            compared.leave(&sent);
        }
        compared.compare_state();
    }
}
