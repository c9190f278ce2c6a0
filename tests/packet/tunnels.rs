//! Tunnels: packets come to servers in others, of either family, and servers answer by themselves.

use std::net::SocketAddr;
use std::time::Duration;

use aya::Ebpf;
use lvs::engine::{
    Engine as _, EngineAddress, EngineProtocol, EngineRequest, EngineService, ForwardingMethod,
    NewConnections, TunnelChecksum, TunnelKind,
};
use lvs::packet::{PacketEngine, PacketKernelState};
use lvs::scheduler::RoundRobin;
use lvs::{BackendSet, Balancer};

use crate::bulk::{exchange, serve_http_at};
use crate::carried::{ask_name, connect, download, serve_tcp, settings, start_engine};
use crate::decapsulation::attach_decapsulation;
use crate::direct::prepare_servers;
use crate::flood::{answer_datagrams_at, ask_datagram, datagram_client};
use crate::flows::{active, until, virtual_address};
use crate::world::{SERVERS, VIRTUAL, World, socket_address};

pub(crate) const GUE: ForwardingMethod =
    ForwardingMethod::Tunnel(TunnelKind::Gue { port: 6080, checksum: TunnelChecksum::None });
pub(crate) const METHODS: [ForwardingMethod; 2] = [ForwardingMethod::Tunnel(TunnelKind::Ipip), GUE];

/// Has both servers unpack what comes by tunnels, for as long as the answer lives.
pub(crate) fn unpack(world: &World) -> Vec<Ebpf> {
    let attach = || attach_decapsulation("eth0").expect("the kernel takes the program");
    ["a", "b"].map(|machine| world.within(machine, attach)).into()
}

/// Starts a service whose servers have addresses of a family, and are reached by a method.
pub(crate) fn begin_by(
    engine: &PacketEngine,
    protocol: EngineProtocol,
    family: usize,
    (method, server_family): (ForwardingMethod, usize),
) -> (BackendSet<SocketAddr>, Box<dyn EngineService>) {
    let set = BackendSet::new();
    for server in SERVERS[server_family] {
        set.insert(socket_address(server, 80)).expect("a server");
    }
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("a balancer");
    let address = EngineAddress::Socket { protocol, address: socket_address(VIRTUAL[family], 80) };
    let request = EngineRequest::new("web", address, balancer, "rr");
    let snapshot = set.snapshot();
    let ids = snapshot.backends().iter().map(|backend| backend.id().clone());
    request.methods.replace(ids.map(|id| (id, method)).collect());
    (set, engine.claim(request).expect("a claim").begin().expect("it is served"))
}

#[test]
fn connections_are_carried_by_tunnels_of_either_family() {
    let Some(world) = World::build() else { return };
    prepare_servers(&world);
    let _unpacking = unpack(&world);
    for address in VIRTUAL {
        for machine in ["a", "b"] {
            serve_tcp(&world, machine, socket_address(address, 80));
        }
    }
    for redirect_peer in [true, false] {
        let mut settings = settings(&world);
        settings.redirect_peer = redirect_peer;
        let engine = start_engine(&world, settings);
        for method in METHODS {
            for (family, outer_family) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let address = socket_address(VIRTUAL[family], 80);
                let tunnel = (method, outer_family);
                let (set, service) = begin_by(&engine, EngineProtocol::Tcp, family, tunnel);
                let mut streams: Vec<_> = (0..2).map(|_| connect(&world, address)).collect();
                let names: String = streams.iter_mut().map(ask_name).collect();
                assert!(names == "ab" || names == "ba", "by turns, not {names}");
                assert_eq!(active(&set), 2, "a lease for each connection");
                download(&mut streams[0]);
                let state = PacketKernelState::read(&world.pin_folder()).expect("maps");
                let servers = &state.expect("they are there").services[0].servers;
                assert!(servers.iter().all(|server| server.method == method), "{servers:?}");
                drop(streams);
                until("the leases have ended", || active(&set) == 0);
                service.drain(Duration::ZERO, NewConnections::Refused);
            }
        }
    }
}

#[test]
fn a_large_body_arrives_by_tunnels_as_it_was_sent() {
    let Some(world) = World::build() else { return };
    prepare_servers(&world);
    let _unpacking = unpack(&world);
    for address in VIRTUAL {
        for machine in ["a", "b"] {
            serve_http_at(&world, machine, socket_address(address, 80));
        }
    }
    let mut settings = settings(&world);
    // Packets pass the queues of the devices, which know their MTU.
    settings.redirect_peer = false;
    let engine = start_engine(&world, settings);
    for method in METHODS {
        for (family, outer_family) in [(0, 0), (1, 1)] {
            let tunnel = (method, outer_family);
            let (_set, service) = begin_by(&engine, EngineProtocol::Tcp, family, tunnel);
            exchange(&world, socket_address(VIRTUAL[family], 80), 64);
            service.drain(Duration::ZERO, NewConnections::Refused);
        }
    }
}

#[test]
fn datagrams_and_their_fragments_are_carried_by_tunnels() {
    let Some(world) = World::build() else { return };
    prepare_servers(&world);
    let _unpacking = unpack(&world);
    // A fragment of the longest length has room in another packet.
    for machine in ["a", "b"] {
        world.at("director", &format!("link set to-{machine} mtu 1600"));
        world.at(machine, "link set eth0 mtu 1600");
    }
    answer_datagrams_at(&world, [virtual_address(); 2]);
    let engine = start_engine(&world, settings(&world));
    for method in METHODS {
        let (_set, service) = begin_by(&engine, EngineProtocol::Udp, 0, (method, 0));
        let mut names = String::new();
        for _ in 0..2 {
            let socket = datagram_client(&world);
            let name = ask_datagram(&socket, 100).expect("an answer");
            assert_eq!(ask_datagram(&socket, 4000).expect("an answer"), name);
            names.push(name);
        }
        assert!(names == "ab" || names == "ba", "by turns, not {names}");
        service.drain(Duration::ZERO, NewConnections::Refused);
    }
}
