//! Real traffic through the engine.

use std::io::{BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use std::{fs, thread};

use lvs::engine::{
    Engine as _, EngineAddress, EngineProtocol, EngineRequest, EngineService, NewConnections,
};
use lvs::packet::{PacketEngine, PacketSettings};
use lvs::scheduler::{self, Scheduler};
use lvs::{BackendSet, Balancer};

use crate::bulk::{receive_hashed, send_hashed};
use crate::flows::until;
use crate::guest;
use crate::world::{SERVERS, VIRTUAL, World, socket_address};

/// No step of these tests takes so long, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The mebibytes of a long download.
const LONG_DOWNLOAD: usize = 300;

/// Serves TCP on a machine: an octet names the service that the rest of a connection gets.
pub(crate) fn serve_tcp(world: &World, machine: &str, address: SocketAddr) {
    let name = machine.as_bytes()[0];
    let listener = world.within(machine, || TcpListener::bind(address).expect("a listener"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve_connection(stream, name));
        }
    });
}

fn serve_connection(mut stream: TcpStream, name: u8) {
    let mut requests = BufReader::new(stream.try_clone().expect("a descriptor"));
    let mut answers = Vec::new();
    let mut command = [0];
    while requests.read_exact(&mut command).is_ok() {
        let result = match command[0] {
            b'w' => {
                answers.push(name);
                // Those to requests that came together go together.
                if requests.buffer().is_empty() {
                    stream.write_all(&std::mem::take(&mut answers))
                } else {
                    Ok(())
                }
            }
            b'd' => send_pattern(&mut stream),
            b'l' => send_hashed(&mut stream, LONG_DOWNLOAD),
            b'u' => {
                let sum = receive_pattern(&mut requests);
                stream.write_all(&sum.to_ne_bytes())
            }
            _ => return,
        };
        if result.is_err() {
            return;
        }
    }
}

/// Downloads 300 MiB, and checks their hash.
pub(crate) fn download_long(stream: &mut TcpStream) {
    stream.write_all(b"l").expect("a request");
    receive_hashed(stream, LONG_DOWNLOAD);
}

fn pattern(chunk: usize) -> Vec<u8> {
    (0..1 << 20).map(|n: usize| (n.wrapping_mul(31).wrapping_add(chunk * 7) >> 3) as u8).collect()
}

fn add_to_sum(sum: u64, octets: &[u8]) -> u64 {
    octets.iter().fold(sum, |sum, octet| (sum ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3))
}

/// Returns how much is sent each way.
fn megabytes() -> usize {
    if guest::is_emulated() { 2 } else { 32 }
}

fn pattern_sum() -> u64 {
    (0..megabytes()).fold(0, |sum, chunk| add_to_sum(sum, &pattern(chunk)))
}

fn send_pattern(stream: &mut TcpStream) -> std::io::Result<()> {
    (0..megabytes()).try_for_each(|chunk| stream.write_all(&pattern(chunk)))
}

fn receive_pattern(stream: &mut impl Read) -> u64 {
    let mut chunk = vec![0; 1 << 20];
    (0..megabytes()).fold(0, |sum, _| {
        stream.read_exact(&mut chunk).expect("all octets");
        add_to_sum(sum, &chunk)
    })
}

pub(crate) fn connect(world: &World, address: SocketAddr) -> TcpStream {
    world.within("client", || {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    })
}

/// Downloads all of the pattern, and checks it.
pub(crate) fn download(stream: &mut TcpStream) {
    stream.write_all(b"d").expect("a request");
    assert_eq!(receive_pattern(stream), pattern_sum(), "downloaded");
}

pub(crate) fn ask_name(stream: &mut TcpStream) -> char {
    stream.write_all(b"w").expect("a request");
    let mut name = [0];
    stream.read_exact(&mut name).expect("an answer");
    name[0].into()
}

/// Returns settings for a machine that may be slow: the table does not decide for the scheduler.
pub(crate) fn settings(world: &World) -> PacketSettings {
    let mut settings = PacketSettings::default();
    settings.pin_folder = world.pin_folder();
    (settings.flows, settings.ipv6_flows) = (4096, 4096);
    settings.alive_for = Duration::from_secs(600);
    if let Some(mode) = world.xdp_mode {
        settings.xdp_mode = mode;
        settings.xdp_devices = ["to-client", "to-a", "to-b"].map(str::to_owned).to_vec();
    }
    settings
}

/// Waits until as many packets as expected were carried at XDP, if the director's devices have it.
pub(crate) fn expect_at_xdp(world: &World, engine: &PacketEngine, packets: u64) {
    if world.xdp_mode.is_some() {
        until("packets are carried at XDP", || engine.statistics().at_xdp >= packets);
        assert_eq!(engine.xdp_devices().len(), 3);
    } else {
        assert_eq!(engine.statistics().at_xdp, 0);
    }
}

pub(crate) fn start_engine(world: &World, settings: PacketSettings) -> PacketEngine {
    world.within("director", || PacketEngine::start(settings).expect("the engine"))
}

/// Starts a service with both servers at another port than its own.
pub(crate) fn begin(
    engine: &PacketEngine,
    protocol: EngineProtocol,
    family: usize,
    rule: impl Scheduler + 'static,
) -> (BackendSet<SocketAddr>, Box<dyn EngineService>) {
    let (set, request) = request(protocol, family, rule);
    let claim = engine.claim(request).expect("it can be served");
    (set, claim.begin().expect("it is served"))
}

pub(crate) fn request(
    protocol: EngineProtocol,
    family: usize,
    rule: impl Scheduler + 'static,
) -> (BackendSet<SocketAddr>, EngineRequest) {
    request_to_port(8080, protocol, family, rule)
}

/// Returns a request for a service with both servers at a port.
pub(crate) fn request_to_port(
    port: u16,
    protocol: EngineProtocol,
    family: usize,
    rule: impl Scheduler + 'static,
) -> (BackendSet<SocketAddr>, EngineRequest) {
    let set = BackendSet::new();
    for server in SERVERS[family] {
        set.insert(socket_address(server, port)).expect("a server");
    }
    let balancer = Balancer::new(&set, rule).expect("a balancer");
    let address = EngineAddress::Socket { protocol, address: socket_address(VIRTUAL[family], 80) };
    (set, EngineRequest::new("web", address, balancer, "rr"))
}

#[test]
fn tcp_is_carried_in_both_families() {
    if let Some(world) = World::build() {
        carry_tcp(&world);
    }
}

pub(crate) fn carry_tcp(world: &World) {
    let engine = start_engine(world, settings(world));
    for family in [0, 1] {
        for (machine, address) in ["a", "b"].into_iter().zip(SERVERS[family]) {
            serve_tcp(world, machine, socket_address(address, 8080));
        }
        let (set, _service) =
            begin(&engine, EngineProtocol::Tcp, family, scheduler::RoundRobin::new());
        let address = socket_address(VIRTUAL[family], 80);
        let mut streams: Vec<_> = (0..4).map(|_| connect(world, address)).collect();
        let names: String = streams.iter_mut().map(ask_name).collect();
        assert!(names == "abab" || names == "baba", "by turns, not {names}");
        let active = set.snapshot().backends().iter().map(|it| it.load().active).sum::<u32>();
        assert_eq!(active, 4, "a lease for each connection");

        let stream = &mut streams[0];
        download(stream);
        stream.write_all(b"u").expect("a request");
        send_pattern(stream).expect("all octets");
        let mut sum = [0; 8];
        stream.read_exact(&mut sum).expect("the sum");
        assert_eq!(u64::from_ne_bytes(sum), pattern_sum(), "uploaded");
        assert_eq!(ask_name(stream), names.chars().next().expect("a name"));
    }
    expect_at_xdp(world, &engine, if guest::is_emulated() { 500 } else { 2000 });
}

/// Returns the packets that a device of the director has sent.
fn sent_by(world: &World, device: &str) -> u64 {
    let table = world.within("director", || {
        fs::read_to_string("/proc/thread-self/net/dev").expect("the table of devices")
    });
    let line = table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let mut counters = line.expect("the device").split_whitespace();
    counters.nth(9).expect("the packets sent").parse().expect("a number")
}

#[test]
fn packets_to_containers_pass_their_devices_by() {
    let Some(world) = World::build() else { return };
    for machine in ["a", "b"] {
        let n = if machine == "a" { 0 } else { 1 };
        serve_tcp(&world, machine, socket_address(SERVERS[0][n], 8080));
    }
    for redirect_peer in [true, false] {
        let mut settings = settings(&world);
        settings.redirect_peer = redirect_peer;
        let engine = start_engine(&world, settings);
        let (_set, service) = begin(&engine, EngineProtocol::Tcp, 0, scheduler::RoundRobin::new());
        let mut stream = connect(&world, socket_address(VIRTUAL[0], 80));
        // The hardware addresses are looked for every second.
        until("the way is the expected one", || {
            let before = sent_by(&world, "to-client");
            download(&mut stream);
            let passed = sent_by(&world, "to-client") - before;
            // Some packets of the stack's own pass in any case.
            if redirect_peer { passed < 20 } else { passed > 100 }
        });
        service.drain(Duration::ZERO, NewConnections::Refused);
    }
}

#[test]
fn a_service_counts_nothing_of_one_that_has_ended() {
    let Some(world) = World::build() else { return };
    let engine = start_engine(&world, settings(&world));
    let mut expected = 3;
    // The second may have the number that the first had.
    for family in [0, 1] {
        for (machine, address) in ["a", "b"].into_iter().zip(SERVERS[family]) {
            serve_tcp(&world, machine, socket_address(address, 8080));
        }
        let (_set, service) =
            begin(&engine, EngineProtocol::Tcp, family, scheduler::RoundRobin::new());
        for _ in 0..expected {
            connect(&world, socket_address(VIRTUAL[family], 80));
        }
        until("counters are read", || service.counters().connections > 0);
        until("all are counted", || service.counters().connections >= expected);
        assert_eq!(service.counters().connections, expected);
        service.drain(Duration::ZERO, NewConnections::Refused);
        expected = 1;
    }
}

#[test]
fn udp_is_carried_in_both_families() {
    if let Some(world) = World::build() {
        carry_udp(&world);
    }
}

/// Sends datagrams back that come to an address of a machine.
pub(crate) fn echo_datagrams(world: &World, machine: &str, address: SocketAddr) {
    let socket = world.within(machine, || UdpSocket::bind(address).expect("a socket"));
    thread::spawn(move || {
        let mut datagram = [0; 16_384];
        while let Ok((len, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..len], from);
        }
    });
}

pub(crate) fn carry_udp(world: &World) {
    let engine = start_engine(world, settings(world));
    for family in [0, 1] {
        for (machine, address) in ["a", "b"].into_iter().zip(SERVERS[family]) {
            echo_datagrams(world, machine, socket_address(address, 8080));
        }
        let (_set, _service) =
            begin(&engine, EngineProtocol::Udp, family, scheduler::RoundRobin::new());
        let address = socket_address(VIRTUAL[family], 80);
        for n in 0..8_u8 {
            // A flow may begin with a datagram in fragments.
            let lens = if n < 4 { [1, 500, 1400, 8000, 8192] } else { [8000, 1, 8192, 500, 1400] };
            let client = world.within("client", || {
                let socket = UdpSocket::bind((if family == 0 { "0.0.0.0" } else { "::" }, 0));
                let socket = socket.expect("a socket");
                socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                socket.connect(address).expect("a route");
                socket
            });
            for len in lens {
                let sent: Vec<_> = (0..len).map(|at| n.wrapping_add(at as u8)).collect();
                client.send(&sent).expect("sent");
                let mut answer = [0; 16_384];
                let received = client.recv(&mut answer).expect("an answer");
                assert!(answer[..received] == sent, "{received} of {len} octets");
            }
        }
    }
    // Fragments are not.
    expect_at_xdp(world, &engine, 64);
}
