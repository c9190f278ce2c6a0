//! What becomes of flows: who decides them, how their leases end, and what the client sees.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use lvs::BackendSet;
use lvs::backend::{Limits, OutcomeCounts};
use lvs::engine::{
    Engine as _, EngineAddress, EngineEntryKind, EngineFlowCallback, EngineFlowEnd,
    EnginePersistence, EngineProtocol, ForwardingMethod, NewConnections, TunnelChecksum,
    TunnelKind,
};
use lvs::scheduler::{FirstAvailable, LeastConnections, RoundRobin};
use socket2::{Domain, Socket, Type};

use crate::carried::{
    PATIENCE, ask_name, begin, connect, request, serve_tcp, settings, start_engine,
};
use crate::world::{SERVERS, VIRTUAL, World, socket_address};

/// Waits until a condition holds.
///
/// # Panics
/// When it does not hold in some 20 s.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("not in time: {what}");
}

/// Reads the clock, for times that are printed: no test asserts one.
#[expect(clippy::disallowed_methods, reason = "what is printed is real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn serve_both(world: &World) {
    for (machine, address) in ["a", "b"].into_iter().zip(SERVERS[0]) {
        serve_tcp(world, machine, socket_address(address, 8080));
    }
}

pub(crate) fn virtual_address() -> SocketAddr {
    socket_address(VIRTUAL[0], 80)
}

pub(crate) fn active(set: &BackendSet<SocketAddr>) -> u32 {
    set.snapshot().backends().iter().map(|backend| backend.load().active).sum()
}

fn outcomes(set: &BackendSet<SocketAddr>) -> OutcomeCounts {
    let mut sum = OutcomeCounts::default();
    for backend in set.snapshot().backends() {
        let outcomes = backend.outcomes();
        sum.ok += outcomes.ok;
        sum.connect_error += outcomes.connect_error;
    }
    sum
}

/// Connects from the client's machine, and returns the error if that fails.
fn try_connect(world: &World, address: SocketAddr) -> Result<TcpStream, ErrorKind> {
    let connect = || TcpStream::connect_timeout(&address, PATIENCE);
    world.within("client", connect).map_err(|error| error.kind())
}

#[test]
fn a_lease_ends_with_its_connection() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let first = connect(&world, virtual_address());
    let mut second = connect(&world, virtual_address());
    ask_name(&mut second);
    assert_eq!(active(&set), 2);
    let entries = service.entries(EngineEntryKind::Connection, 10).expect("a list");
    assert!(entries.len() == 2 && entries.iter().all(|it| it.local == virtual_address()));
    assert!(entries.iter().all(|entry| entry.backend.is_some()), "{entries:?}");
    drop(first);
    until("the lease has ended", || active(&set) == 1);
    until("it was well", || outcomes(&set).ok == 1);
    until("counters are read", || service.counters().connections == 2);
    let counters = service.counters();
    assert!(counters.bytes_to_servers > 100 && counters.bytes_to_clients > Some(100));
    let active = || service.counters().servers.values().map(|server| server.active).sum::<u32>();
    until("the open connection is counted", || active() == 1);
}

#[test]
fn least_connections_know_the_flows() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (set, _service) = begin(&engine, EngineProtocol::Tcp, 0, LeastConnections::new());
    let mut streams: Vec<_> = (0..6).map(|_| connect(&world, virtual_address())).collect();
    let mut of_a: Vec<_> =
        streams.extract_if(.., |stream| ask_name(stream) == 'a').collect::<Vec<_>>();
    assert_eq!((of_a.len(), streams.len()), (3, 3));
    of_a.clear();
    until("three leases have ended", || active(&set) == 3);
    let mut next: Vec<_> = (0..3).map(|_| connect(&world, virtual_address())).collect();
    assert!(next.iter_mut().all(|stream| ask_name(stream) == 'a'), "a has none");
}

#[test]
fn the_end_of_a_flow_has_a_record() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, mut request) = request(EngineProtocol::Tcp, 0, RoundRobin::new());
    let (sender, records) = std::sync::mpsc::channel();
    request.on_flow_end = Some(EngineFlowCallback::new(move |record| {
        let _ = sender.send(record.clone());
    }));
    let service = engine.claim(request).expect("a claim").begin().expect("it is served");
    let mut stream = connect(&world, virtual_address());
    let client = stream.local_addr().expect("an address");
    ask_name(&mut stream);
    drop(stream);
    let record = records.recv_timeout(PATIENCE).expect("a record");
    assert_eq!(
        (record.end, record.client, record.local),
        (EngineFlowEnd::Closed, client, virtual_address())
    );
    assert_eq!(record.destination.port(), 8080);
    let destination = record.destination.to_string();
    assert_eq!(record.backend.as_ref().map(|backend| backend.as_str()), Some(&*destination));
    // The handshake, the question, the answer and the end.
    assert!(record.bytes_to_server > Some(160) && record.bytes_to_client > Some(100), "{record:?}");
    let mut cut = connect(&world, virtual_address());
    ask_name(&mut cut);
    service.drain(Duration::ZERO, NewConnections::Refused);
    assert_eq!(records.recv_timeout(PATIENCE).expect("a record").end, EngineFlowEnd::Cut);
    assert!(records.recv().is_err(), "one record of each flow");
}

#[test]
fn a_server_that_refuses_is_a_failed_connection() {
    let Some(world) = World::build() else { return };
    let engine = start_engine(&world, settings(&world));
    let (set, _service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let result = try_connect(&world, virtual_address());
    assert_eq!(result.err(), Some(ErrorKind::ConnectionRefused), "the server's reset");
    until("the failure is counted", || outcomes(&set).connect_error == 1);
    until("the lease has ended", || active(&set) == 0);
}

#[test]
fn an_icmp_error_of_a_server_reaches_the_client() {
    let Some(world) = World::build() else { return };
    let engine = start_engine(&world, settings(&world));
    for family in [0, 1] {
        let (_set, _service) = begin(&engine, EngineProtocol::Udp, family, RoundRobin::new());
        let error = world.within("client", || {
            let any = if family == 0 { "0.0.0.0" } else { "::" };
            let socket = UdpSocket::bind((any, 0)).expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket.connect(socket_address(VIRTUAL[family], 80)).expect("a route");
            socket.send(b"nobody listens").expect("sent");
            socket.recv(&mut [0; 16]).expect_err("no answer").kind()
        });
        assert_eq!(error, ErrorKind::ConnectionRefused);
    }
    until("the errors are counted", || engine.statistics().icmp_errors == 2);
}

/// Returns a socket of the client with a port that others may have too.
fn bound_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&socket_address("10.1.0.2", 40_000).into()).expect("a free port");
    socket
}

#[test]
fn a_sorry_server_that_packets_cannot_reach_is_refused() {
    let Some(world) = World::build() else { return };
    let engine = start_engine(&world, settings(&world));
    let other = socket_address(SERVERS[1][0], 8080);
    let (_set, mut with_sorry_server) = request(EngineProtocol::Tcp, 0, RoundRobin::new());
    with_sorry_server.sorry_server = Some(other);
    let (_set, mut with_port) = request(EngineProtocol::Tcp, 0, RoundRobin::new());
    with_port.sorry_server = Some(socket_address(SERVERS[0][0], 8080));
    with_port.sorry_server_method = ForwardingMethod::DirectRouting;
    let (_set, mut with_tunnel) = request(EngineProtocol::Tcp, 0, RoundRobin::new());
    with_tunnel.sorry_server = Some(socket_address(SERVERS[0][0], 80));
    with_tunnel.sorry_server_method =
        ForwardingMethod::Tunnel(TunnelKind::Gre { checksum: TunnelChecksum::None });
    for (request, reason) in [
        (with_sorry_server, format!("server {other} has another family")),
        (
            with_port,
            "the method dr keeps the port, and server 10.2.0.2:8080 has another".to_owned(),
        ),
        (with_tunnel, "has the method tunnel (gre)".to_owned()),
    ] {
        let error = engine.claim(request).map(drop).expect_err("it is refused").to_string();
        assert!(error.contains(&reason), "{error}");
    }
}

#[test]
fn a_port_that_has_two_services_gets_two_servers() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let services = [80, 81, 82].map(|port| {
        let (set, mut request) = request(EngineProtocol::Tcp, 0, FirstAvailable::new());
        let address = socket_address(VIRTUAL[0], port);
        request.address = EngineAddress::Socket { protocol: EngineProtocol::Tcp, address };
        let claim = engine.claim(request).expect("it can be served");
        (set, claim.begin().expect("it is served"), address)
    });
    let connect = |address: SocketAddr| {
        let socket = bound_socket();
        socket.connect(&address.into()).map(|()| TcpStream::from(socket))
    };
    let mut streams = Vec::new();
    for (_, _, address) in &services[..2] {
        streams.push(world.within("client", || connect(*address)).expect("a connection"));
    }
    let names: Vec<_> = streams.iter_mut().map(ask_name).collect();
    assert_eq!(names, ['a', 'b'], "answers of one server to one port are of one service");
    let third = world.within("client", || connect(services[2].2));
    assert_eq!(third.expect_err("no server is left").kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_port_that_is_used_again_is_scheduled_anew() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, _service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let names: String = (0..4)
        .map(|_| {
            let mut stream = world.within("client", || {
                let socket = bound_socket();
                // The port is free when the server has acknowledged the end of the last connection.
                until("the port is free", || match socket.connect(&virtual_address().into()) {
                    Ok(()) => true,
                    Err(error) if error.kind() == ErrorKind::AddrNotAvailable => false,
                    Err(error) => panic!("a connection: {error}"),
                });
                TcpStream::from(socket)
            });
            let name = ask_name(&mut stream);
            // The server closes first, so that the client does not keep the port for a minute.
            stream.write_all(b"q").expect("a request");
            assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
            name
        })
        .collect();
    assert!(names == "abab" || names == "baba", "by turns, not {names}");
}

#[test]
fn a_connection_that_nobody_can_have_is_refused() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (set, _service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let ids: Vec<_> = set.snapshot().backends().iter().map(|it| it.id().clone()).collect();
    for id in &ids {
        set.set_limits(id, Limits::new(1)).expect("a limit");
    }
    let mut streams = [connect(&world, virtual_address()), connect(&world, virtual_address())];
    let refused = try_connect(&world, virtual_address()).err();
    assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "both are at their limits");
    for id in &ids {
        set.set_limits(id, Limits::NONE).expect("no limit");
        set.disable(id).expect("it is there");
    }
    let refused = try_connect(&world, virtual_address()).err();
    assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "all are disabled");
    for stream in &mut streams {
        ask_name(stream);
    }
    until("it is counted", || engine.statistics().refused_without_server == 2);
}

#[test]
fn a_table_decides_what_the_scheduler_is_not_asked_for() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let mut settings = settings(&world);
    settings.decisions_per_second = 0;
    let engine = start_engine(&world, settings);
    let (set, _service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let mut streams: Vec<_> = world.within("client", || {
        let connect = |_| TcpStream::connect_timeout(&virtual_address(), PATIENCE);
        (0..64).map(connect).collect::<Result<_, _>>().expect("all are served")
    });
    let names: Vec<_> = streams.iter_mut().map(ask_name).collect();
    assert!(names.contains(&'a') && names.contains(&'b'), "{names:?}");
    until("the leases are there", || active(&set) == 64);
    until("each decision is counted", || engine.statistics().table_decisions == 64);
    assert_eq!(engine.statistics().upcalls, 0);
}

#[test]
fn a_persistent_client_returns() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, mut request) = request(EngineProtocol::Tcp, 0, RoundRobin::new());
    request.persistence = Some(EnginePersistence::new(Duration::from_secs(600), 32));
    let claim = engine.claim(request.clone()).expect("it can be served");
    let replaced = claim.begin().expect("it is served");
    let name = ask_name(&mut connect(&world, virtual_address()));
    for _ in 0..4 {
        assert_eq!(ask_name(&mut connect(&world, virtual_address())), name);
    }
    let clients = replaced.entries(EngineEntryKind::PersistentClient, 10).expect("a list");
    assert_eq!(clients.len(), 1);
    assert_eq!(
        (clients[0].client, clients[0].local),
        (socket_address("10.1.0.2", 0), virtual_address())
    );
    assert!(clients[0].backend.is_some() && clients[0].expires_in > Duration::ZERO);
    // As at a reload.
    let claim = engine.claim(request).expect("it can be served");
    let _service = claim.begin().expect("it is served");
    drop(replaced);
    for _ in 0..4 {
        assert_eq!(ask_name(&mut connect(&world, virtual_address())), name);
    }
}

#[test]
fn a_service_ends_with_its_last_flow() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let mut stream = connect(&world, virtual_address());
    ask_name(&mut stream);
    service.drain(Duration::from_secs(600), NewConnections::Refused);
    drop(stream);
    let mut context = Context::from_waker(Waker::noop());
    until("the service has ended", || service.poll_finished(&mut context).is_ready());
}

#[test]
fn a_service_drains() {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    let engine = start_engine(&world, settings(&world));
    let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, RoundRobin::new());
    let mut stream = connect(&world, virtual_address());
    service.drain(Duration::from_secs(600), NewConnections::Refused);
    until("new connections are refused", || {
        try_connect(&world, virtual_address()).err() == Some(ErrorKind::ConnectionRefused)
    });
    ask_name(&mut stream);
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_finished(&mut context).is_pending(), "not while it has a flow");
    // The end of a time that is shorter cuts it.
    service.drain(Duration::ZERO, NewConnections::Refused);
    until("the service has ended", || service.poll_finished(&mut context).is_ready());
    stream.write_all(b"w").expect("the socket takes it");
    let error = stream.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(error, Err(ErrorKind::ConnectionReset), "by this machine's stack");
}
