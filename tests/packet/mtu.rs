//! Packets that are too long for a device are answered, so that what is longer than one packet arrives by every method;
//! and so are those that have passed too many routers.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use lvs::engine::{EngineProtocol, ForwardingMethod, NewConnections, TunnelKind};
use nix::sys::socket::{setsockopt, sockopt};

use crate::bulk::{GIGABYTE, Offloads, exchange, kernel_count, serve_http_at};
use crate::carried::{PATIENCE, settings, start_engine};
use crate::direct::prepare_servers;
use crate::flood::{answer_datagrams_at, datagram_client};
use crate::flows::{now, until, virtual_address};
use crate::tunnels::{GUE, begin_by, unpack};
use crate::world::{SERVERS, VIRTUAL, World, namespaces, socket_address};

const IPIP: ForwardingMethod = ForwardingMethod::Tunnel(TunnelKind::Ipip);
/// The methods with which a server answers by itself, and the families of client and server.
const DIRECT_METHODS: [(ForwardingMethod, &[(usize, usize)]); 3] = [
    (ForwardingMethod::DirectRouting, &[(0, 0), (1, 1)]),
    (IPIP, &[(0, 0), (0, 1), (1, 0), (1, 1)]),
    (GUE, &[(0, 0), (0, 1), (1, 0), (1, 1)]),
];
const NAT: [(ForwardingMethod, &[(usize, usize)]); 1] =
    [(ForwardingMethod::Nat, &[(0, 0), (1, 1)])];

/// Sets the MTU of both ends of the links of machines to the director.
fn set_mtu(world: &World, machines: &[&str], mtu: u32) {
    for machine in machines {
        world.at("director", &format!("link set to-{machine} mtu {mtu}"));
        world.at(machine, &format!("link set eth0 mtu {mtu}"));
    }
}

/// Has the client forget what it knows of the way to the virtual addresses.
fn forget_path(world: &World) {
    world.at("client", "route flush cache");
    world.at("client", "-6 route flush cache");
}

/// Sends a body each way by methods, of so many mebibytes, over links of an MTU.
fn exchange_by(methods: &[(ForwardingMethod, &[(usize, usize)])], mtu: u32, chunks: usize) {
    if !namespaces::can_run(&["ethtool"]) {
        return;
    }
    let Some(world) = World::build() else { return };
    let _unpacking = (methods != NAT).then(|| {
        prepare_servers(&world);
        unpack(&world)
    });
    set_mtu(&world, &["client", "a", "b"], mtu);
    if methods != NAT {
        for machine in ["a", "b"] {
            world.at(machine, &format!("link set answers mtu {mtu}"));
            world.at("client", &format!("link set from-{machine} mtu {mtu}"));
        }
    }
    for machine in ["a", "b"] {
        for family in [0, 1] {
            let server = SERVERS[family][usize::from(machine == "b")];
            let address = if methods == NAT { server } else { VIRTUAL[family] };
            serve_http_at(&world, machine, socket_address(address, 80));
        }
    }
    let mut settings = settings(&world);
    // Packets pass the queues of the devices, which drop those that are too long.
    settings.redirect_peer = false;
    let engine = start_engine(&world, settings);
    for offloads in [Offloads::All, Offloads::None] {
        offloads.set(&world);
        for &(method, families) in methods {
            for &(family, server_family) in families {
                forget_path(&world);
                let begun_at = now();
                let told = engine.statistics().too_long;
                let (_set, service) =
                    begin_by(&engine, EngineProtocol::Tcp, family, (method, server_family));
                exchange(&world, socket_address(VIRTUAL[family], 80), chunks);
                let took = now() - begun_at;
                println!("{method} {family} by {server_family}, {offloads:?}: {took:?}");
                // What the kernel makes segments of becomes shorter by itself.
                let is_told = matches!(offloads, Offloads::None);
                if is_told && matches!(method, ForwardingMethod::Tunnel(_)) {
                    until("the client was told", || engine.statistics().too_long > told);
                }
                service.drain(Duration::ZERO, NewConnections::Refused);
            }
        }
    }
}

#[test]
fn a_body_arrives_by_each_method() {
    exchange_by(&NAT, 1500, 8);
    exchange_by(&DIRECT_METHODS, 1500, 8);
}

#[test]
fn a_body_arrives_by_each_method_in_long_packets() {
    exchange_by(&NAT, 9000, 8);
    exchange_by(&DIRECT_METHODS, 9000, 8);
}

#[test]
#[ignore = "takes minutes"]
fn a_gigabyte_arrives_by_each_method() {
    for mtu in [1500, 9000] {
        exchange_by(&NAT, mtu, GIGABYTE);
        exchange_by(&DIRECT_METHODS, mtu, GIGABYTE);
    }
}

/// Sends a datagram until it is answered: those that are too long are lost.
fn ask_until_answered(socket: &UdpSocket, len: usize) {
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    until("a datagram is answered", || {
        // What the client is told of a datagram before may be the error of this one.
        let _ = socket.send(&vec![b'?'; len]);
        socket.recv(&mut [0]).is_ok()
    });
}

#[test]
fn a_client_learns_how_long_its_datagrams_may_be() {
    if !namespaces::can_run(&["ethtool"]) {
        return;
    }
    for method in [ForwardingMethod::Nat, ForwardingMethod::DirectRouting, IPIP, GUE] {
        let Some(world) = World::build() else { return };
        let _unpacking = (method != ForwardingMethod::Nat).then(|| {
            prepare_servers(&world);
            unpack(&world)
        });
        set_mtu(&world, &["client"], 9000);
        // The checksums of what the director sends are computed, and seen by the client.
        world.output("director", "ethtool", "-K to-client tx off");
        let mut settings = settings(&world);
        settings.redirect_peer = false;
        let engine = start_engine(&world, settings);
        let (_set, service) = begin_by(&engine, EngineProtocol::Udp, 0, (method, 0));
        let at = |n: usize| match method {
            ForwardingMethod::Nat => socket_address(SERVERS[0][n], 80),
            _ => virtual_address(),
        };
        answer_datagrams_at(&world, [at(0), at(1)]);
        let socket = datagram_client(&world);
        ask_until_answered(&socket, 4000);
        until("it was told", || engine.statistics().too_long > 0);
        service.drain(Duration::ZERO, NewConnections::Refused);
    }
}

#[test]
fn a_client_is_told_of_a_first_packet_that_the_scheduler_decides() {
    let Some(world) = World::build() else { return };
    prepare_servers(&world);
    let _unpacking = unpack(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, service) = begin_by(&engine, EngineProtocol::Udp, 0, (IPIP, 0));
    // More than may wait for the director at a time.
    for number in 1..=400 {
        forget_path(&world);
        let socket = datagram_client(&world);
        socket.send(&[b'?'; 1472]).expect("it is sent");
        let error = socket.recv(&mut [0]).expect_err("no server gets it");
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EMSGSIZE as i32), "{number}");
    }
    let counted = || engine.statistics();
    until("all are counted", || counted().too_long == 400);
    assert_eq!(counted().table_decisions, 0, "none waits any more: {:?}", counted());
    service.drain(Duration::ZERO, NewConnections::Refused);
}

#[test]
fn datagrams_that_a_client_sends_as_one_arrive_by_a_tunnel() {
    const LEN: usize = 1000;
    const DATAGRAMS: usize = 10;
    if !namespaces::can_run(&["ethtool"]) {
        return;
    }
    let Some(world) = World::build() else { return };
    prepare_servers(&world);
    let _unpacking = unpack(&world);
    for machine in ["a", "b"] {
        // They become datagrams when they leave the director.
        let features = "gso off tx-udp_tnl-segmentation off tx-udp-segmentation off";
        world.output("director", "ethtool", &format!("-K to-{machine} {features}"));
    }
    let mut settings = settings(&world);
    settings.redirect_peer = false;
    let engine = start_engine(&world, settings);
    for method in [IPIP, GUE] {
        let (_set, service) = begin_by(&engine, EngineProtocol::Udp, 0, (method, 0));
        let servers = ["a", "b"].map(|machine| {
            let bind = || UdpSocket::bind(virtual_address()).expect("a socket");
            let socket = world.within(machine, bind);
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket
        });
        let client = datagram_client(&world);
        client.send(b"where").expect("it is sent");
        let mut datagram = [0; 2 * LEN];
        servers.iter().for_each(|socket| socket.set_nonblocking(true).expect("an option"));
        let mut chosen = None;
        until("a server has it", || {
            chosen = servers.iter().position(|socket| socket.recv(&mut datagram).is_ok());
            chosen.is_some()
        });
        let server = &servers[chosen.expect("one has it")];
        server.set_nonblocking(false).expect("an option");
        setsockopt(&client.as_fd(), sockopt::UdpGsoSegment, &(LEN as i32)).expect("an option");
        client.send(&[7; LEN * DATAGRAMS]).expect("it is sent");
        for _ in 0..DATAGRAMS {
            assert_eq!(server.recv(&mut datagram).expect("a datagram"), LEN, "{method}");
        }
        assert_eq!(engine.statistics().rewrite_failed, 0);
        service.drain(Duration::ZERO, NewConnections::Refused);
    }
}

/// Returns what the client has counted of ICMP messages of a family.
fn icmp_count(world: &World, family: usize, name: &str) -> u64 {
    if family == 0 {
        return kernel_count(world, "client", "Icmp", name);
    }
    let read = || std::fs::read_to_string("/proc/thread-self/net/snmp6").expect("statistics");
    let (text, name) = (world.within("client", read), format!("Icmp6{name}"));
    let mut lines = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let (_, count) = lines.find(|(known, _)| *known == name).expect("the counter");
    count.trim().parse().expect("a number")
}

#[test]
fn a_client_learns_that_its_packets_have_passed_too_many_routers() {
    if !namespaces::can_run(&["ethtool"]) {
        return;
    }
    let Some(world) = World::build() else { return };
    // The client sees the checksums as the director computes them.
    world.output("director", "ethtool", "-K to-client tx off");
    let engine = start_engine(&world, settings(&world));
    for family in [0, 1] {
        let told_count = || icmp_count(&world, family, "InTimeExcds");
        for protocol in [EngineProtocol::Tcp, EngineProtocol::Udp] {
            let method = (ForwardingMethod::Nat, family);
            let (_set, service) = begin_by(&engine, protocol, family, method);
            let address = socket_address(VIRTUAL[family], 80);
            let told = told_count();
            send_with_one_hop(&world, protocol, address);
            until("the client is told", || told_count() > told);
            assert_eq!(icmp_count(&world, family, "InCsumErrors"), 0, "checksums");
            service.drain(Duration::ZERO, NewConnections::Refused);
        }
    }
}

/// Sends a packet that the first router is to drop.
fn send_with_one_hop(world: &World, protocol: EngineProtocol, address: SocketAddr) {
    world.within("client", || {
        std::fs::write("/proc/sys/net/ipv4/ip_default_ttl", "1").expect("a setting");
        std::fs::write("/proc/sys/net/ipv6/conf/all/hop_limit", "1").expect("a setting");
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/hop_limit", "1").expect("a setting");
        if protocol == EngineProtocol::Tcp {
            let refused = TcpStream::connect_timeout(&address, Duration::from_millis(500));
            assert!(refused.is_err(), "it does not get there");
        } else {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("a socket");
            socket.send_to(b"?", address).expect("it is sent");
        }
    });
}
