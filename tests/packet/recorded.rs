//! Decisions of a running IPVS, replayed: real connections through the engine get the recorded servers.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use lvs::engine::{
    Engine as _, EngineAddress, EngineEntryKind, EnginePersistence, EngineProtocol, EngineRequest,
    EngineService, NewConnections,
};
use lvs::packet::{PacketEngine, PacketKernelState};
use lvs::{BackendId, BackendSet, Balancer, Limits, Spec, scheduler};
use socket2::{Domain, Socket, Type};

use self::ipvs_recordings::{Recording, Step, mirror};
use crate::carried::{settings, start_engine};
use crate::flows::{active, until};
use crate::world::World;

#[path = "../common/ipvs_recordings.rs"]
mod ipvs_recordings;

/// The networks of the recordings: servers behind `a`, clients that are the client's machine, and virtual
/// addresses.
const ROUTES: [(&str, &str); 8] = [
    ("a", "route add local 10.0.1.0/24 dev lo"),
    ("client", "route add local 10.0.2.0/24 dev lo"),
    ("client", "route add local 172.16.0.0/16 dev lo"),
    ("director", "route add 10.0.1.0/24 via 10.2.0.2"),
    ("director", "route add 10.0.2.0/24 via 10.1.0.2"),
    ("director", "route add 172.16.0.0/16 via 10.1.0.2"),
    ("director", "route add local 10.0.3.0/24 dev lo"),
    ("director", "route add local 10.0.100.0/24 dev lo"),
];

/// The most entries that are read.
const ALL: usize = 1 << 20;

#[test]
fn connections_get_the_servers_that_ipvs_chose() {
    let Some(world) = World::build() else { return };
    for (machine, route) in ROUTES {
        world.at(machine, route);
    }
    let listener = world.within("a", || TcpListener::bind("0.0.0.0:80").expect("a listener"));
    thread::spawn(move || listener.incoming().for_each(drop));
    let mut settings = settings(&world);
    // Few flows are quickly listed.
    settings.closing_timeout = Duration::from_secs(1);
    let engine = start_engine(&world, settings);
    let recordings = Recording::read_all();
    let decisions: usize = world.within("client", || {
        recordings.iter().map(|recording| replay(&world, &engine, recording)).sum()
    });
    println!("{decisions} decisions of {} recordings, no difference", recordings.len());
    assert!(decisions > 0, "the recordings have no connection");
}

/// Waits until the engine knows that a connection has ended. To ask the engine's thread has it look for more to
/// do, and takes some microseconds.
fn until_ended(service: &dyn EngineService, has_ended: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if has_ended() {
            return;
        }
        service.entries(EngineEntryKind::Connection, 1).expect("a list");
    }
    panic!("the lease has not ended");
}

/// Waits until the kernel has a server that was added to a service.
pub(crate) fn until_known(world: &World, server: SocketAddr) {
    until("the kernel has the server", || {
        let state = PacketKernelState::read(&world.pin_folder()).expect("maps");
        let mut services = state.expect("they are there").services.into_iter();
        services.all(|service| service.servers.iter().any(|it| it.address == server))
    });
}

/// Replays a recording from the client's machine, and returns the number of decisions.
fn replay(world: &World, engine: &PacketEngine, recording: &Recording) -> usize {
    let name = &recording.name;
    let set = BackendSet::new();
    let mut services: Vec<(SocketAddr, Box<dyn EngineService>)> = Vec::new();
    let mut decisions = 0;
    let rule = scheduler::parse(&recording.expression()).expect("a known scheduler");
    let balancer = Balancer::new(&set, rule).expect("an empty set");
    for (number, step) in recording.steps.iter().enumerate() {
        let place = format!("{name}, step {number}");
        let changed = match step {
            Step::Add { server, weight, upper_threshold, lower_threshold } => {
                let limits = Limits::new(*upper_threshold).with_resume_below(*lower_threshold);
                let inserted = set.insert(Spec::from(*server).weight(*weight).limits(limits));
                if !services.is_empty() {
                    until_known(world, *server);
                }
                inserted.map(drop)
            }
            Step::Weight { server, weight } => set.set_weight(&BackendId::from(*server), *weight),
            Step::Remove { server } => set.remove(&BackendId::from(*server)).map(drop),
            Step::Close {} | Step::Reset {} => continue,
            Step::Connect { client, vip, before, picked } => {
                if !services.iter().any(|(address, _)| address == vip) {
                    services.push((*vip, begin(engine, recording, &balancer, *vip)));
                }
                let (_, service) = services.iter().find(|it| it.0 == *vip).expect("it is there");
                mirror(&set.snapshot(), before, &place);
                assert_eq!(decide(&**service, &set, *client, *vip), *picked, "{place}: {step:#?}");
                decisions += 1;
                continue;
            }
        };
        changed.unwrap_or_else(|error| panic!("{place}: {error}"));
        // The answer comes when the engine has followed the set, so that its tables are those of now.
        for (_, service) in &services {
            service.entries(EngineEntryKind::Connection, 1).expect("a list");
        }
    }
    for (_, service) in services {
        service.drain(Duration::ZERO, NewConnections::Refused);
    }
    decisions
}

fn begin(
    engine: &PacketEngine,
    recording: &Recording,
    balancer: &Balancer<SocketAddr>,
    address: SocketAddr,
) -> Box<dyn EngineService> {
    let address = EngineAddress::Socket { protocol: EngineProtocol::Tcp, address };
    let mut request = EngineRequest::new("recorded", address, balancer.clone(), "recorded");
    request.persistence = recording
        .persistence
        .as_ref()
        .map(|rule| EnginePersistence::new(Duration::from_secs(rule.timeout_s), rule.prefix()));
    engine.claim(request).expect("it can be served").begin().expect("it is served")
}

/// Connects as a client, and returns the server, or `None` if the connection is refused. When it returns, the
/// engine knows that the connection has ended.
fn decide(
    service: &dyn EngineService,
    set: &BackendSet<SocketAddr>,
    client: SocketAddr,
    address: SocketAddr,
) -> Option<SocketAddr> {
    let before = active(set);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&client.into()).expect("an address of this machine");
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return None,
        Err(error) => panic!("{client}: {error}"),
    }
    let entries = service.entries(EngineEntryKind::Connection, ALL).expect("a list");
    let entry = entries.iter().find(|entry| entry.client == client).expect("the connection");
    // Closed, it resets the connection.
    socket.set_linger(Some(Duration::ZERO)).expect("an option");
    drop(socket);
    until_ended(service, || active(set) == before);
    Some(entry.destination)
}
