//! Direct routing: servers have the virtual address, and answer the client by a network of their own with it.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use lvs::BackendSet;
use lvs::engine::{
    Engine as _, EngineEntryKind, EngineFlowCallback, EngineFlowEnd, EngineProtocol, EngineRequest,
    EngineService, ForwardingMethod, NewConnections,
};
use lvs::packet::{PacketEngine, PacketKernelState};
use lvs::scheduler::{LeastConnections, RoundRobin, Scheduler};

use crate::bulk::{exchange, serve_http_at};
use crate::carried::{
    PATIENCE, ask_name, connect, download, echo_datagrams, expect_at_xdp, request_to_port,
    serve_tcp, settings, start_engine,
};
use crate::flows::{active, until, virtual_address};
use crate::world::{VIRTUAL, World, socket_address};

/// Gives both servers the virtual addresses, and a way to the client that does not lead by the director.
pub(crate) fn prepare_servers(world: &World) {
    for (machine, n) in [("a", 12), ("b", 13)] {
        let (client, near) = (world.namespace("client"), format!("from-{machine}"));
        world.at(machine, &format!("link add answers type veth peer name {near} netns {client}"));
        for (at, device, host) in [("client", &*near, 1), (machine, "answers", 2)] {
            world.at(at, &format!("link set {device} up"));
            world.at(at, &format!("address add 10.{n}.0.{host}/24 dev {device}"));
            world.at(at, &format!("address add fd{n}::{host}/64 dev {device} nodad"));
        }
        world.at(machine, &format!("route add 10.1.0.0/24 via 10.{n}.0.1"));
        world.at(machine, &format!("-6 route add fd01::/64 via fd{n}::1"));
        for address in VIRTUAL {
            world.at(machine, &format!("address add {address} dev lo"));
        }
    }
}

/// Returns a request for a service whose servers answer by themselves.
fn direct_request(
    protocol: EngineProtocol,
    family: usize,
    rule: impl Scheduler + 'static,
) -> (BackendSet<SocketAddr>, EngineRequest) {
    let (set, request) = request_to_port(80, protocol, family, rule);
    answer_directly(&set, &request);
    (set, request)
}

/// Starts a service whose servers answer by themselves.
fn begin_directly(
    engine: &PacketEngine,
    protocol: EngineProtocol,
    family: usize,
) -> (BackendSet<SocketAddr>, Box<dyn EngineService>) {
    let (set, request) = direct_request(protocol, family, RoundRobin::new());
    (set, engine.claim(request).expect("a claim").begin().expect("it is served"))
}

/// Gives all servers of a request the method.
fn answer_directly(set: &BackendSet<SocketAddr>, request: &EngineRequest) {
    let snapshot = set.snapshot();
    let ids = snapshot.backends().iter().map(|backend| backend.id().clone());
    request.methods.replace(ids.map(|id| (id, ForwardingMethod::DirectRouting)).collect());
}

pub(crate) fn carry_directly(world: &World) {
    prepare_servers(world);
    for redirect_peer in [true, false] {
        let mut settings = settings(world);
        settings.redirect_peer = redirect_peer;
        let engine = start_engine(world, settings);
        for family in [0, 1] {
            let address = socket_address(VIRTUAL[family], 80);
            if redirect_peer {
                for machine in ["a", "b"] {
                    serve_tcp(world, machine, address);
                }
            }
            let (set, service) = begin_directly(&engine, EngineProtocol::Tcp, family);
            let mut streams: Vec<_> = (0..4).map(|_| connect(world, address)).collect();
            let names: String = streams.iter_mut().map(ask_name).collect();
            assert!(names == "abab" || names == "baba", "by turns, not {names}");
            assert_eq!(active(&set), 4, "a lease for each connection");
            download(&mut streams[0]);
            for _ in 0..50 {
                streams.iter_mut().for_each(|stream| assert!("ab".contains(ask_name(stream))));
            }
            // The handshakes, and what acknowledges the answers.
            until("all is counted", || service.counters().bytes_to_servers > 500);
            let counters = service.counters();
            assert_eq!(counters.connections, 4);
            // The answers pass the director by.
            assert_eq!(counters.bytes_to_clients, None);
            assert!(counters.servers.values().all(|server| server.bytes_out.is_none()));
            drop(streams);
            until("the leases have ended", || active(&set) == 0);
            service.drain(Duration::ZERO, NewConnections::Refused);
        }
        expect_at_xdp(world, &engine, 400);
    }
}

#[test]
fn connections_are_carried_by_direct_routing() {
    if let Some(world) = World::build() {
        carry_directly(&world);
    }
}

#[test]
fn a_large_body_arrives_by_direct_routing_as_it_was_sent() {
    let Some(world) = World::build() else { return };
    prepare_servers(&world);
    let engine = start_engine(&world, settings(&world));
    for family in [0, 1] {
        let address = socket_address(VIRTUAL[family], 80);
        for machine in ["a", "b"] {
            serve_http_at(&world, machine, address);
        }
        let (_set, _service) = begin_directly(&engine, EngineProtocol::Tcp, family);
        for _ in ["a", "b"] {
            exchange(&world, address, 64);
        }
    }
}

#[test]
fn datagrams_are_carried_by_direct_routing() {
    let Some(world) = World::build() else { return };
    prepare_servers(&world);
    let engine = start_engine(&world, settings(&world));
    for family in [0, 1] {
        let address = socket_address(VIRTUAL[family], 80);
        for machine in ["a", "b"] {
            echo_datagrams(&world, machine, address);
        }
        let (_set, _service) = begin_directly(&engine, EngineProtocol::Udp, family);
        let client = world.within("client", || {
            let any = if family == 0 { "10.1.0.2" } else { "fd01::2" };
            let socket = UdpSocket::bind((any, 0)).expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket.connect(address).expect("a route");
            socket
        });
        // The longest come in fragments.
        for len in [1, 1400, 8000, 500] {
            let sent: Vec<u8> = (0..len).map(|at: usize| at as u8).collect();
            client.send(&sent).expect("sent");
            let mut answer = [0; 16_384];
            let received = client.recv(&mut answer).expect("an answer");
            assert!(answer[..received] == sent, "{received} of {len} octets");
        }
    }
}

#[test]
fn a_flow_by_direct_routing_ends_with_what_the_client_says() {
    let Some(world) = World::build() else { return };
    prepare_servers(&world);
    for machine in ["a", "b"] {
        serve_tcp(&world, machine, virtual_address());
    }
    let engine = start_engine(&world, settings(&world));
    let (set, mut request) = direct_request(EngineProtocol::Tcp, 0, LeastConnections::new());
    let (sender, records) = std::sync::mpsc::channel();
    request.on_flow_end = Some(EngineFlowCallback::new(move |record| {
        let _ = sender.send(record.clone());
    }));
    let service = engine.claim(request).expect("a claim").begin().expect("it is served");
    let mut streams: Vec<TcpStream> = (0..4).map(|_| connect(&world, virtual_address())).collect();
    let mut of_a: Vec<_> = streams.extract_if(.., |stream| ask_name(stream) == 'a').collect();
    assert_eq!((of_a.len(), streams.len()), (2, 2), "each has its share");
    let entries = service.entries(EngineEntryKind::Connection, 10).expect("a list");
    assert!(entries.iter().all(|entry| entry.backend.is_some()), "{entries:?}");
    assert_eq!(entries.len(), 4);
    of_a.clear();
    for _ in 0..2 {
        let record = records.recv_timeout(PATIENCE).expect("a record");
        assert_eq!(record.end, EngineFlowEnd::Closed);
        assert!(record.bytes_to_server > Some(100), "{record:?}");
        assert_eq!(record.bytes_to_client, None, "{record:?}");
    }
    until("the leases have ended", || active(&set) == 2);
    let ok: u64 = set.snapshot().backends().iter().map(|it| it.outcomes().ok).sum();
    assert_eq!(ok, 2);
    let mut next: Vec<_> = (0..2).map(|_| connect(&world, virtual_address())).collect();
    assert!(next.iter_mut().all(|stream| ask_name(stream) == 'a'), "a has none");
    let state = PacketKernelState::read(&world.pin_folder()).expect("the maps").expect("a state");
    assert_eq!(state.flows, 6, "each has one direction");
}

/// Direct routing sends frames to the server itself, and a router would not know where to.
#[test]
fn a_server_behind_a_router_gets_nothing_by_direct_routing() {
    let Some(world) = World::build() else { return };
    prepare_servers(&world);
    for machine in ["a", "b"] {
        serve_tcp(&world, machine, virtual_address());
    }
    world.at("director", "route add 10.77.0.0/24 via 10.3.0.2");
    let engine = start_engine(&world, settings(&world));
    let (set, request) = direct_request(EngineProtocol::Tcp, 0, RoundRobin::new());
    let far = set.insert(socket_address("10.77.0.9", 80)).expect("a server");
    answer_directly(&set, &request);
    let _service = engine.claim(request).expect("a claim").begin().expect("it is served");
    let mut streams: Vec<_> = (0..6).map(|_| connect(&world, virtual_address())).collect();
    assert!(streams.iter_mut().map(ask_name).all(|name| "ab".contains(name)));
    assert_eq!(far.load().active, 0);
}

#[cfg(feature = "director")]
#[test]
fn a_director_has_servers_by_direct_routing() {
    use lvs::director::DirectorConfig;

    use crate::director::{config_text, on_director, start};

    let Some(world) = World::build() else { return };
    prepare_servers(&world);
    for machine in ["a", "b"] {
        // Checks ask at the server's own address.
        serve_tcp(&world, machine, socket_address("0.0.0.0", 80));
    }
    let text = config_text(&world, "\"packet\"", "");
    let text = text.replace(":8080\"", ":80\"\nmethod = \"dr\"");
    on_director(&world, async || {
        let director = start(&text).await;
        let mut streams: Vec<_> = (0..2).map(|_| connect(&world, virtual_address())).collect();
        let names: String = streams.iter_mut().map(ask_name).collect();
        assert!(names == "ab" || names == "ba", "by turns, not {names}");
        let status = director.status();
        let service = &status.services[0];
        assert_eq!(service.totals.bytes_to_clients, None, "answers do not pass here");
        assert!(service.servers.iter().all(|server| server.method == "dr"), "{service:?}");
        drop(streams);
        // A reload that changes nothing else reaches the program, too.
        let methods = || {
            let state = PacketKernelState::read(&world.pin_folder()).expect("the maps");
            let services = state.expect("a state").services;
            let available = services[0].servers.iter().filter(|server| server.is_available);
            available.map(|server| server.method).collect::<Vec<_>>()
        };
        assert_eq!(methods(), [ForwardingMethod::DirectRouting; 2]);
        let translated = DirectorConfig::parse(&text.replace("\"dr\"", "\"nat\"")).expect("sound");
        director.reload(translated).await.expect("it is taken");
        until("the methods are others", || methods() == [ForwardingMethod::Nat; 2]);
        director.stop(Duration::ZERO).await;
    });
}
