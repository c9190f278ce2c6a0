//! What the program for frames carries, and what it passes on.

use super::compared::{ComparedProgram, TAP_MTU};
use super::frames::{
    ACK, FIN, RST, SYN, fragments, tcp, tcp_with_payload, udp, udp_without_checksum,
    with_extensions, with_hop_limit,
};
use super::model_state::{ModelDirector, TEST_DEVICE, TapDevice};
use super::{SERVER, SERVICE, address, ends};
use crate::packet::layout::{
    PROTOCOL_TCP, PROTOCOL_UDP, RawTuple, RawXdpDevice, XDP_DEVICE_SLOTS, server_method,
};

const METHODS: [u8; 4] =
    [server_method::NAT, server_method::DIRECT, server_method::IPIP, server_method::GUE];

/// Waits until no packet of a flow is about to be passed on because the last one passed in another interval of 2^33 ns.
fn wait_for_interval() {
    const INTERVAL: u64 = 1 << 33;
    const TIME_OF_TEST: u64 = 1 << 30;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    let left = INTERVAL - now % INTERVAL;
    if left < TIME_OF_TEST {
        // The kernel's coarse clock is some milliseconds late.
        std::thread::sleep(std::time::Duration::from_nanos(left + (1 << 25)));
    }
}

/// The kernel is asked for the way out again after 2^24 ns.
fn wait_until_ways_are_forgotten() {
    std::thread::sleep(std::time::Duration::from_millis(50));
}

/// The program with a keyed service of each protocol and family, whose server is behind the tap device.
fn with_keyed_services() -> Option<ComparedProgram> {
    wait_for_interval();
    let mut compared = ComparedProgram::load_at_xdp()?;
    for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
        for family in [0, 1] {
            for server in compared.serve(SERVICE[family], protocol, &[SERVER[family]]) {
                compared.change_server(server, |server| server.mtu = Some(TAP_MTU));
            }
            compared.change_service(SERVICE[family], protocol, |service| service.is_keyed = true);
        }
    }
    Some(compared)
}

/// Runs a frame, and returns whether it was carried at XDP.
fn is_carried(compared: &mut ComparedProgram, frame: &[u8]) -> bool {
    let before = compared.model.statistics.at_xdp;
    compared.run(frame);
    compared.model.statistics.at_xdp > before
}

#[test]
fn all_packets_of_connections_of_keyed_schedulers_are_carried() {
    let Some(mut compared) = with_keyed_services() else { return };
    for (n, method) in (0..).zip(METHODS) {
        for index in compared.model.servers.keys().copied().collect::<Vec<_>>() {
            compared.change_server(index, |server| server.method = method);
        }
        for family in [0, 1] {
            let (mut client, service, server) = ends(family);
            client.set_port(6000 + n);
            let mut expect = |frame: &[u8]| assert!(is_carried(&mut compared, frame), "{method}");
            expect(&tcp(client, service, SYN));
            if method == server_method::NAT {
                expect(&tcp(server, client, SYN | ACK));
                expect(&tcp_with_payload(server, client, ACK, &[7; 100]));
            }
            expect(&tcp_with_payload(client, service, ACK, &[7; 1000]));
            expect(&udp(client, service, b"query"));
            expect(&udp_without_checksum(client, service));
            // The octets behind a short packet in a frame are no part of it.
            expect(&[tcp(client, service, ACK), vec![0; 6]].concat());
            expect(&tcp(client, service, ACK | FIN));
            compared.compare_state();
        }
    }
}

#[test]
fn what_needs_more_than_a_known_flow_is_passed_on() {
    let Some(mut compared) = with_keyed_services() else { return };
    for family in [0, 1] {
        let (client, service, server) = ends(family);
        assert!(is_carried(&mut compared, &tcp(client, service, SYN)));
        assert!(is_carried(&mut compared, &tcp(server, client, SYN | ACK)));
        let mut pass = |frame: &[u8], why: &str| {
            assert!(!is_carried(&mut compared, frame), "{why}: {frame:02x?}");
        };
        let segment = tcp(client, service, ACK);
        pass(&with_hop_limit(&segment, 1), "its sender is to be told");
        let options =
            if family == 1 { with_extensions(&segment, &[(60, 8)]) } else { segment.clone() };
        if family == 1 {
            pass(&options, "there is an extension header");
        }
        for fragment in fragments(&tcp_with_payload(client, service, ACK, &[1; 64]), 7, 24) {
            pass(&fragment, "it is a fragment");
        }
        let others = [[1, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 9], [0xff; 6]];
        for mac in others {
            let mut frame = segment.clone();
            frame[..6].copy_from_slice(&mac);
            pass(&frame, "it is for others");
        }
        let elsewhere = address(if family == 0 { "10.8.0.1:80" } else { "[fd08::1]:80" });
        pass(&tcp(client, elsewhere, SYN), "it is for no service");
        pass(&tcp(address(["10.1.0.3:1", "[fd01::3]:1"][family]), service, ACK), "of no flow");
        pass(&segment[..segment.len() - 1], "it is cut");
        // A connection that has ended, whose port is used again.
        assert!(is_carried(&mut compared, &tcp(client, service, RST)));
        assert!(
            !is_carried(&mut compared, &tcp(client, service, SYN)),
            "another server may get it"
        );
        assert!(is_carried(&mut compared, &tcp(client, service, ACK)));
    }
    compared.compare_state();
}

#[test]
fn the_scheduler_is_asked_behind_xdp() {
    let Some(mut compared) = with_keyed_services() else { return };
    let director =
        ModelDirector { is_alive: true, tap: TapDevice::Present, has_budget: true, answers: true };
    compared.set_director(director);
    let (client, service, _) = ends(0);
    compared.change_service(SERVICE[0], PROTOCOL_TCP, |service| service.is_keyed = false);
    assert!(!is_carried(&mut compared, &tcp(client, service, SYN)));
    assert_eq!(compared.model.statistics.upcalls, 1);
    compared.change_service(SERVICE[0], PROTOCOL_TCP, |service| {
        (service.is_keyed, service.is_elsewhere) = (true, true);
    });
    assert!(!is_carried(&mut compared, &tcp(client, service, SYN)));
    assert_eq!(compared.model.statistics.elsewhere, 1);
    compared.compare_state();
}

#[test]
fn a_packet_in_a_while_goes_by_the_way_of_the_kernel() {
    let Some(mut compared) = with_keyed_services() else { return };
    let (client, service, _) = ends(0);
    assert!(is_carried(&mut compared, &tcp(client, service, SYN)));
    assert!(is_carried(&mut compared, &tcp(client, service, ACK)));
    let tuple = RawTuple::new(client, service, PROTOCOL_TCP);
    let mut flow = compared.maps.flow(&tuple).expect("the flows").expect("the flow");
    flow.seen_at -= 1 << 33;
    compared.maps.insert_flow(flow).expect("it is stored");
    assert!(!is_carried(&mut compared, &tcp(client, service, ACK)));
    assert!(is_carried(&mut compared, &tcp(client, service, ACK)));
    compared.compare_state();
}

#[test]
fn frames_leave_by_devices_that_take_them() {
    let Some(mut compared) = with_keyed_services() else { return };
    let (client, service, _) = ends(0);
    assert!(is_carried(&mut compared, &tcp(client, service, SYN)));
    let long = tcp_with_payload(client, service, ACK, &[1; 1461]);
    // Longer than one piece may be, and than the device takes: its sender is told so.
    assert!(!is_carried(&mut compared, &long));
    assert_eq!(compared.model.statistics.too_long, 1);
    let longest = tcp_with_payload(client, service, ACK, &[1; 1460]);
    assert!(is_carried(&mut compared, &longest));
    let slot = compared.tap % XDP_DEVICE_SLOTS;
    let known = compared.maps.xdp_devices().expect("the devices")[&slot];
    compared.maps.set_xdp_device(slot, &RawXdpDevice::default()).expect("a slot");
    wait_until_ways_are_forgotten();
    assert!(!is_carried(&mut compared, &tcp(client, service, ACK)), "its driver has no program");
    compared.maps.set_xdp_device(slot, &known).expect("a slot");
    assert!(is_carried(&mut compared, &tcp(client, service, ACK)));
    let other = RawXdpDevice { ifindex: TEST_DEVICE, mac: [2; 6], flags: 0 };
    compared.maps.set_xdp_device(TEST_DEVICE, &other).expect("a slot");
    assert!(!is_carried(&mut compared, &tcp(client, service, ACK)), "it is for another address");
}
