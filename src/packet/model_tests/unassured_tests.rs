//! Flows that nobody is assured of: which ones these are, and which of them are forgotten.

use std::net::SocketAddr;

use super::compared::PLACES;
use super::frames::{ACK, FIN, PSH, RST, SYN, tcp, udp};
use super::parsed::PacketKey;
use super::{ComparedProgram, SERVER, SERVICE, address, ends, establish, with_services};
use crate::packet::flow_direction::FlowDirection;
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP, RawTuple, flow_state};

/// Returns a client of a family, each with another port.
fn client(family: usize, number: u32) -> SocketAddr {
    let mut client = ends(family).0;
    client.set_port(10_000 + number as u16);
    client
}

fn flow(compared: &ComparedProgram, key: PacketKey) -> Option<FlowDirection> {
    compared.maps.flow(&RawTuple::new(key.0, key.1, key.2)).expect("the flows")
}

/// Begins as many connections as there are places, which nobody answers.
fn fill_places(compared: &mut ComparedProgram, family: usize) {
    for number in 0..PLACES {
        compared.pass(&tcp(client(family, number), address(SERVICE[family]), SYN));
    }
}

fn is_assured(compared: &ComparedProgram, key: PacketKey) -> bool {
    flow(compared, key).expect("the flow").state & flow_state::ASSURED != 0
}

#[test]
fn a_connection_that_its_client_has_acknowledged_is_not_forgotten_for_others() {
    let Some(mut compared) = with_services() else { return };
    for family in [0, 1] {
        let (client, service, server) = ends(family);
        let key = (client, service, PROTOCOL_TCP);
        establish(&mut compared, family);
        assert!(is_assured(&compared, key));
        fill_places(&mut compared, family);
        fill_places(&mut compared, 1 - family);
        compared.pass(&tcp(client, service, ACK));
        compared.pass(&tcp(server, client, ACK));
        assert!(flow(&compared, key).is_some());
    }
    compared.compare_state();
}

#[test]
fn a_segment_that_acknowledges_nothing_assures_of_nobody() {
    let Some(mut compared) = with_services() else { return };
    let (client, service, server) = ends(0);
    compared.pass(&tcp(client, service, SYN));
    compared.pass(&tcp(server, client, SYN | ACK));
    for flags in [0, PSH, FIN, SYN | ACK, SYN] {
        compared.pass(&tcp(client, service, flags));
        assert!(!is_assured(&compared, (client, service, PROTOCOL_TCP)), "{flags}");
    }
    compared.compare_state();
}

#[test]
fn an_ended_connection_that_is_used_is_not_forgotten_for_others() {
    let Some(mut compared) = with_services() else { return };
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        let key = (client, service, PROTOCOL_TCP);
        establish(&mut compared, family);
        // A reset that the server does not heed.
        compared.pass(&tcp(client, service, RST));
        let there = flow(&compared, key).expect("the flow");
        let later = FlowDirection { seen_at: there.seen_at + 2_000_000_000, ..there };
        compared.maps.insert_flow(later).expect("it is changed");
        fill_places(&mut compared, family);
        assert!(flow(&compared, key).is_some());
    }
    compared.compare_state();
}

#[test]
fn the_oldest_connection_without_an_acknowledgement_is_forgotten() {
    let Some(mut compared) = with_services() else { return };
    for family in [0, 1] {
        let (_, service, server) = ends(family);
        fill_places(&mut compared, family);
        assert_eq!(compared.model.statistics.unassured_forgotten, family as u64);
        // The server has answered, and the client sends what may be of one that does not know.
        let oldest = client(family, 0);
        compared.pass(&tcp(server, oldest, SYN | ACK));
        compared.pass(&tcp(oldest, service, SYN));
        let newest = client(family, PLACES);
        compared.pass(&tcp(newest, service, SYN));
        for key in [(oldest, service, PROTOCOL_TCP), (server, oldest, PROTOCOL_TCP)] {
            assert_eq!(flow(&compared, key), None, "{key:?}");
        }
        for client in [client(family, 1), newest] {
            assert!(flow(&compared, (client, service, PROTOCOL_TCP)).is_some());
        }
        // It is too late for it.
        compared.leave(&tcp(oldest, service, ACK));
    }
    assert_eq!(compared.model.statistics.unassured_forgotten, 2);
    compared.compare_state();
}

#[test]
fn a_new_connection_is_not_forgotten_for_the_place_of_an_earlier_one_with_its_port() {
    let Some(mut compared) = with_services() else { return };
    let (first, service, _) = ends(0);
    compared.pass(&tcp(first, service, SYN));
    compared.pass(&tcp(first, service, RST));
    compared.pass(&tcp(first, service, SYN));
    // The places of both, of which the earlier one says nothing of the later.
    fill_places(&mut compared, 0);
    assert_eq!(compared.model.statistics.unassured_forgotten, 1);
    // The next place is its own.
    let last = client(0, 0);
    compared.pass(&tcp(last, service, RST));
    compared.pass(&tcp(last, service, SYN));
    assert!(flow(&compared, (last, service, PROTOCOL_TCP)).is_some());
    compared.compare_state();
}

#[test]
fn a_connection_that_has_ended_makes_room_without_being_counted() {
    let Some(mut compared) = with_services() else { return };
    let by_reset: [&[u8]; 2] = [&[RST], &[]];
    let by_fins: [&[u8]; 2] = [&[FIN | ACK], &[FIN | ACK]];
    for flags in [by_fins, by_reset] {
        let (ended, service, server) = ends(0);
        establish(&mut compared, 0);
        for flags in flags[0] {
            compared.pass(&tcp(ended, service, *flags));
        }
        for flags in flags[1] {
            compared.pass(&tcp(server, ended, *flags));
        }
        let counted = compared.model.statistics.unassured_forgotten;
        for number in 0..PLACES {
            // Each ends, so that only those are counted that do not.
            let other = client(0, number);
            compared.pass(&tcp(other, service, SYN));
            compared.pass(&tcp(other, service, RST));
        }
        assert_eq!(flow(&compared, (ended, service, PROTOCOL_TCP)), None);
        assert_eq!(compared.model.statistics.unassured_forgotten, counted);
    }
    compared.compare_state();
}

#[test]
fn a_flow_of_udp_is_assured_by_a_second_datagram_after_an_answer_or_when_it_lasts() {
    let Some(mut compared) = ComparedProgram::load() else { return };
    for family in [0, 1] {
        let (_, service, server) = ends(family);
        compared.serve(SERVICE[family], PROTOCOL_UDP, &[SERVER[family]]);
        let [answered, asked_once, lasts, begins] = [0, 1, 2, 3].map(|n| client(family, n));
        let key = |client| (client, service, PROTOCOL_UDP);
        for client in [answered, asked_once, lasts, begins] {
            compared.pass(&udp(client, service, b"?"));
        }
        for client in [answered, asked_once] {
            compared.pass(&udp(server, client, b"?"));
        }
        compared.pass(&udp(answered, service, b"?"));
        assert!(is_assured(&compared, key(answered)));
        // Datagrams that nobody answers, for two seconds.
        let there = flow(&compared, key(lasts)).expect("the flow");
        let later = FlowDirection { seen_at: there.seen_at + 2_000_000_000, ..there };
        compared.maps.insert_flow(later).expect("it is changed");
        for number in 0..PLACES {
            compared.pass(&udp(client(family, 100 + number), service, b"?"));
        }
        assert!(is_assured(&compared, key(lasts)));
        let stays = [answered, asked_once, lasts, begins]
            .map(|client| flow(&compared, key(client)).is_some());
        assert_eq!(stays, [true, false, true, false]);
    }
    compared.compare_state();
}
