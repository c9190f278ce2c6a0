//! What the XDP program carries, and what it passes on.

use std::net::IpAddr;

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::compared::{ComparedProgram, TAP_MTU};
use super::frames::{
    ACK, FIN, RST, SYN, fragments, tcp, tcp_with_payload, udp, udp_without_checksum,
    with_extensions, with_hop_limit, with_ip_octets,
};
use super::model_state::{ModelDirector, TEST_DEVICE, TapDevice};
use super::{SERVER, SERVICE, address, ends};
use crate::packet::layout::{
    PROTOCOL_TCP, PROTOCOL_UDP, RawXdpDevice, XDP_DEVICE_REDIRECTS, XDP_DEVICE_SENDS,
    XDP_DEVICE_SLOTS, server_method,
};

const METHODS: [u8; 4] =
    [server_method::NAT, server_method::DIRECT, server_method::IPIP, server_method::GUE];

/// How long the next hop of an address is cached, in nanoseconds; in one of 512 of these times, a packet to it goes by the
/// kernel's own way.
const CACHED_FOR: u64 = 1 << 24;
const CONFIRMED_ONCE_IN: u64 = 512;

fn sleep(nanos: u64) {
    // The coarse clock is some milliseconds late.
    std::thread::sleep(std::time::Duration::from_nanos(nanos + (1 << 23)));
}

/// The program with a keyed service of each protocol and family, whose server is behind the tap device.
fn with_keyed_services() -> Option<ComparedProgram> {
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
fn is_carried_at_once(compared: &mut ComparedProgram, frame: &[u8]) -> bool {
    let before = compared.model.statistics.at_xdp;
    compared.run(frame);
    compared.model.statistics.at_xdp > before
}

/// Runs a frame, again if it may have gone by the kernel's own way for its neighbour's sake, and returns whether it was
/// carried at XDP.
fn is_carried(compared: &mut ComparedProgram, frame: &[u8]) -> bool {
    is_carried_at_once(compared, frame) || {
        sleep(CACHED_FOR);
        is_carried_at_once(compared, frame)
    }
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
            assert!(!is_carried_at_once(&mut compared, frame), "{why}: {frame:02x?}");
        };
        let segment = tcp(client, service, ACK);
        pass(&with_hop_limit(&segment, 1), "its sender is to be told");
        let options = match family {
            // Five words of header and one of options, of the same length in all.
            0 => with_ip_octets(&segment, 0, &[0x46]),
            _ => with_extensions(&segment, &[(60, 8)]),
        };
        pass(&options, "there are options");
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
            !is_carried_at_once(&mut compared, &tcp(client, service, SYN)),
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
    assert!(!is_carried_at_once(&mut compared, &tcp(client, service, SYN)));
    assert_eq!(compared.model.statistics.upcalls, 1);
    compared.change_service(SERVICE[0], PROTOCOL_TCP, |service| {
        (service.is_keyed, service.is_elsewhere) = (true, true);
    });
    assert!(!is_carried_at_once(&mut compared, &tcp(client, service, SYN)));
    assert_eq!(compared.model.statistics.elsewhere, 1);
    compared.compare_state();
}

#[test]
fn a_packet_in_a_while_goes_by_the_way_of_the_kernel() {
    // Each processor has its own hops, of which each asks the kernel.
    let mut processors = CpuSet::new();
    processors.set(sched_getcpu());
    sched_setaffinity(None, &processors).expect("a processor that this thread may use");
    let Some(mut compared) = with_keyed_services() else { return };
    let (client, service, server) = ends(0);
    assert!(is_carried(&mut compared, &tcp(client, service, SYN)));
    let IpAddr::V4(address) = server.ip() else { panic!("of IPv4") };
    let slot = u64::from(u32::from(address).wrapping_mul(0x9e37_79b1) >> 22);
    let now = clock_gettime(ClockId::Monotonic);
    let now = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    // The next of those times whose numbers differ from the slot's by a multiple, as bits.
    let number = now / CACHED_FOR + 1;
    let next = (number..).find(|number| (number ^ slot) % CONFIRMED_ONCE_IN == 0).expect("one");
    sleep(next * CACHED_FOR - now);
    assert!(!is_carried_at_once(&mut compared, &tcp(client, service, ACK)));
    assert!(is_carried_at_once(&mut compared, &tcp(client, service, ACK)), "one is enough");
    compared.compare_state();
}

#[test]
fn direct_routing_behind_a_router_is_left_to_the_kernel() {
    let Some(mut compared) = with_keyed_services() else { return };
    for (family, far) in [(0, "10.3.0.2:80"), (1, "[fd03::2]:80")] {
        let (client, service, _) = ends(family);
        let index = compared.serve(SERVICE[family], PROTOCOL_TCP, &[far])[0];
        compared.change_server(index, |server| server.mtu = Some(TAP_MTU));
        assert!(is_carried(&mut compared, &tcp(client, service, SYN)), "a router takes it by nat");
        compared.change_server(index, |server| server.method = server_method::DIRECT);
        let (other, segment) = (address(["10.1.0.3:1", "[fd01::3]:1"][family]), SYN);
        assert!(!is_carried_at_once(&mut compared, &tcp(other, service, segment)));
    }
}

#[test]
fn frames_leave_by_devices_that_take_them() {
    let Some(mut compared) = with_keyed_services() else { return };
    let (client, service, _) = ends(0);
    assert!(is_carried(&mut compared, &tcp(client, service, SYN)));
    let long = tcp_with_payload(client, service, ACK, &[1; 1461]);
    // Longer than one piece may be, and than the device takes: its sender is told so.
    assert!(!is_carried_at_once(&mut compared, &long));
    assert_eq!(compared.model.statistics.too_long, 1);
    let longest = tcp_with_payload(client, service, ACK, &[1; 1460]);
    assert!(is_carried(&mut compared, &longest));
    let slot = compared.tap % XDP_DEVICE_SLOTS;
    let known = compared.maps.xdp_devices().expect("the devices")[&slot];
    let own = compared.maps.xdp_devices().expect("the devices")[&TEST_DEVICE];
    let gone = RawXdpDevice::default();
    let sends_none = RawXdpDevice { flags: XDP_DEVICE_REDIRECTS, ..known };
    for (changed, before, device) in [
        (slot, known, gone),
        (slot, known, sends_none),
        (TEST_DEVICE, own, RawXdpDevice { flags: XDP_DEVICE_SENDS, ..own }),
    ] {
        compared.maps.set_xdp_device(changed, &device).expect("a slot");
        assert!(!is_carried_at_once(&mut compared, &tcp(client, service, ACK)), "{device:?}");
        compared.maps.set_xdp_device(changed, &before).expect("a slot");
        assert!(is_carried(&mut compared, &tcp(client, service, ACK)));
    }
    let other = RawXdpDevice { ifindex: TEST_DEVICE, mac: [2; 6], flags: 0 };
    compared.maps.set_xdp_device(TEST_DEVICE, &other).expect("a slot");
    assert!(
        !is_carried_at_once(&mut compared, &tcp(client, service, ACK)),
        "it is for another address"
    );
}
