//! Packets that are answered by ICMP errors.

use super::compared::TAP_MTU;
use super::frames::{
    ACK, ETHERNET_LEN, SYN, fragments, tcp, tcp_with_payload, udp, with_hop_limit,
};
use super::model::FrameVerdict;
use super::model_state::ModelDirector;
use super::table_tests::{stay_on_one_processor, window};
use super::{ComparedProgram, SERVER, SERVICE, address, ends};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP, RawControl, server_method};

const METHODS: [u8; 4] =
    [server_method::NAT, server_method::DIRECT, server_method::IPIP, server_method::GUE];
/// What a tunnel adds, by method and family.
const OVERHEAD: [[usize; 2]; 4] = [[0, 0], [0, 0], [20, 40], [32, 52]];
const DIRECTOR: ModelDirector = ModelDirector {
    is_alive: false,
    tap: super::model_state::TapDevice::None,
    has_budget: false,
    answers: true,
};

/// Loads the program with services whose servers are reached by a device that is there.
fn with_mtu(protocol: u8, method: u8) -> Option<ComparedProgram> {
    let mut compared = ComparedProgram::load()?;
    compared.set_director(DIRECTOR);
    for family in [0, 1] {
        let server = SERVER[family].replace("8080", "80");
        for index in compared.serve(SERVICE[family], protocol, &[&server]) {
            compared.change_server(index, |server| {
                server.method = method;
                server.mtu = Some(TAP_MTU);
            });
        }
    }
    Some(compared)
}

#[test]
fn what_is_too_long_with_the_headers_of_a_tunnel_is_answered_with_the_length_that_is_not() {
    for (method, overheads) in METHODS.into_iter().zip(OVERHEAD) {
        let Some(mut compared) = with_mtu(PROTOCOL_TCP, method) else { return };
        for (family, overhead) in [0, 1].into_iter().zip(overheads) {
            let (client, service, _) = ends(family);
            assert_eq!(compared.run(&tcp(client, service, SYN)).0, FrameVerdict::Redirect);
            let headers = if family == 0 { 40 } else { 60 };
            let with_len = |len: usize| {
                tcp_with_payload(client, service, ACK, &vec![7; TAP_MTU - overhead + len - headers])
            };
            assert_eq!(compared.run(&with_len(0)).1.len(), ETHERNET_LEN + TAP_MTU);
            let answer = compared.pass(&with_len(1));
            let at = ETHERNET_LEN + if family == 0 { 20 } else { 40 };
            let told = if family == 0 { [3, 4] } else { [2, 0] };
            assert_eq!(answer[at..at + 2], told, "{method}");
            assert_eq!(answer[at + 6..at + 8], ((TAP_MTU - overhead) as u16).to_be_bytes());
            assert!(answer.len() < 130, "it quotes the begin alone: {}", answer.len());
        }
        compared.compare_state();
    }
}

#[test]
fn a_datagram_of_any_length_that_has_passed_too_many_routers_is_answered() {
    let Some(mut compared) = with_mtu(PROTOCOL_UDP, server_method::NAT) else { return };
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        for len in [0, 1, 11, 12, 13, 200] {
            let sent = with_hop_limit(&udp(client, service, &vec![3; len]), 1);
            let answer = compared.pass(&sent);
            let at = ETHERNET_LEN + if family == 0 { 20 } else { 40 };
            assert_eq!(answer[at..at + 2], if family == 0 { [11, 0] } else { [3, 0] });
        }
    }
    assert!(compared.model.flows.is_empty(), "nothing begins by it");
    compared.compare_state();
}

#[test]
fn nobody_is_answered_who_sends_from_no_address_and_no_later_fragment_is() {
    let Some(mut compared) = with_mtu(PROTOCOL_UDP, server_method::IPIP) else { return };
    for (family, source) in
        [(0, "0.0.0.7:5"), (0, "127.0.0.1:5"), (0, "224.0.0.1:5"), (0, "255.255.255.255:5")]
            .into_iter()
            .chain([(1, "[::]:5"), (1, "[ff02::1]:5")])
    {
        let sent = with_hop_limit(&udp(address(source), address(SERVICE[family]), b"?"), 1);
        assert_eq!(compared.run(&sent).0, FrameVerdict::Drop, "{source}");
    }
    for family in [0, 1] {
        let (client, service, _) = ends(family);
        let sent = fragments(&udp(client, service, &[7; 3000]), 5, 1488);
        compared.pass(&sent[0]);
        assert_eq!(compared.run(&sent[1]).0, FrameVerdict::Drop, "it is too long, too");
        assert_eq!(compared.run(&sent[2]).0, FrameVerdict::Redirect);
    }
    compared.compare_state();
}

#[test]
fn a_processor_answers_no_more_than_its_limit() {
    const LIMIT: u32 = 3;
    let Some(mut compared) = with_mtu(PROTOCOL_TCP, server_method::IPIP) else { return };
    stay_on_one_processor();
    let (client, service, _) = ends(0);
    let begun = with_hop_limit(&tcp(client, service, SYN), 1);
    let long = tcp_with_payload(client, service, ACK, &[7; TAP_MTU]);
    compared.run(&tcp(client, service, SYN));
    let control = RawControl { answers_per_window: LIMIT, ..RawControl::default() };
    compared.maps.set_control(&control).expect("the control");
    // Each kind has a limit of its own.
    for sent in [begun, long] {
        let first = window();
        let verdicts = [(); 200].map(|()| compared.program.test_run(&sent).0);
        let windows = (window() - first + 1) as usize;
        let answered = verdicts.iter().filter(|verdict| **verdict == 7).count();
        let limit = LIMIT as usize;
        assert!((limit..=limit * windows).contains(&answered), "{answered} in {windows} windows");
        assert!(verdicts.iter().all(|verdict| [2, 7].contains(verdict)), "{verdicts:?}");
    }
}
