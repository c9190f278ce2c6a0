//! Packets from addresses that nobody has, many at a time. Those who are there keep their flows, and new ones are
//! served.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use lvs::engine::EngineProtocol;
use lvs::packet::{PacketEngine, PacketStatistics};
use lvs::scheduler::{LeastConnections, Maglev, RoundRobin, Scheduler};
use socket2::{Domain, Protocol, Socket, Type};

use crate::carried::{PATIENCE, ask_name, begin, connect, settings, start_engine};
use crate::flows::{active, serve_both, until, virtual_address};
use crate::stopped::statistics;
use crate::world::{SERVERS, VIRTUAL, World, socket_address};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What a flood consists of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FloodKind {
    /// The first segments of connections.
    Syns,
    /// Segments of connections that nobody has begun.
    Acknowledgements,
    Datagrams,
    /// The first fragments of datagrams, without the others.
    FirstFragments,
}

impl FloodKind {
    /// Returns a packet of IPv4, each from another address and port.
    fn packet(self, number: u32) -> Vec<u8> {
        // RFC 2544 has 198.18.0.0/15 for tests.
        let source = Ipv4Addr::from(0xc612_0000 | (number & 0x1_ffff));
        let destination: Ipv4Addr = VIRTUAL[0].parse().expect("an address");
        let port = 1024 + (number >> 17) as u16;
        let mut transport = [port.to_be_bytes(), 80_u16.to_be_bytes()].concat();
        let protocol = match self {
            Self::Syns | Self::Acknowledgements => {
                let flags = if self == Self::Syns { 2 } else { 16 };
                transport.extend([0; 8]);
                transport.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
                let sum = checksum(source, destination, TCP, &transport);
                transport[16..18].copy_from_slice(&sum.to_be_bytes());
                TCP
            }
            // Without a checksum, and 16 octets of data.
            Self::Datagrams | Self::FirstFragments => {
                transport.extend([0, 24, 0, 0]);
                transport.extend([0; 16]);
                UDP
            }
        };
        let more_fragments = if self == Self::FirstFragments { 0x20 } else { 0 };
        let mut packet = vec![0x45, 0, 0, 20 + transport.len() as u8];
        packet.extend(((number % 0xffff) as u16 + 1).to_be_bytes());
        packet.extend([more_fragments, 0, 64, protocol, 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(transport);
        packet
    }
}

/// Returns the checksum of a segment (RFC 1071), whose own is 0.
fn checksum(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, segment: &[u8]) -> u16 {
    let pseudo_header = [source.octets(), destination.octets()].concat();
    let words = pseudo_header.chunks(2).chain(segment.chunks(2));
    let words = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum = words.sum::<u32>() + u32::from(protocol) + segment.len() as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A socket at the client's machine that sends packets as they are.
fn raw_socket(world: &World) -> Socket {
    // IPPROTO_RAW
    let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
    world.within("client", || open().expect("root opens it"))
}

/// Has the director send answers to the addresses of a flood to the client's machine, which has none of them.
pub(crate) fn route_answers(world: &World) {
    world.at("director", "route add 198.18.0.0/15 via 10.1.0.2");
}

fn send_packets(socket: &Socket, kind: FloodKind, numbers: impl Iterator<Item = u32>) -> u64 {
    let to = SocketAddr::from(([10, 9, 0, 1], 0)).into();
    let sent = numbers.filter(|number| match socket.send_to(&kind.packet(*number), &to) {
        Ok(_) => true,
        // A queue on the way is full, as a wire may be.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => false,
        Err(error) => panic!("{error}"),
    });
    sent.count() as u64
}

/// A flood as fast as the machine sends it, until it is dropped.
pub(crate) struct Flood {
    sent: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    pub(crate) fn begin(world: &World, kind: FloodKind) -> Self {
        let socket = raw_socket(world);
        let (sent, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&sent), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            for first in (0..u32::MAX).step_by(64) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let sent = send_packets(&socket, kind, first..first.saturating_add(64));
                count.fetch_add(sent, Ordering::Relaxed);
            }
        });
        Self { sent, is_over, thread: Some(thread) }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers datagrams on both servers with the name of the machine.
pub(crate) fn answer_datagrams(world: &World) {
    answer_datagrams_at(world, SERVERS[0].map(|server| socket_address(server, 8080)));
}

/// Answers datagrams that come to an address of each server.
pub(crate) fn answer_datagrams_at(world: &World, addresses: [SocketAddr; 2]) {
    for (machine, address) in ["a", "b"].into_iter().zip(addresses) {
        let name = machine.as_bytes()[0];
        let socket = world.within(machine, || UdpSocket::bind(address).expect("a socket"));
        thread::spawn(move || {
            let mut datagram = [0; 9000];
            while let Ok((_, from)) = socket.recv_from(&mut datagram) {
                // Those of a flood have nobody to go to.
                let _ = socket.send_to(&[name], from);
            }
        });
    }
}

/// Returns a socket at the client's machine that sends to the service.
pub(crate) fn datagram_client(world: &World) -> UdpSocket {
    world.within("client", || {
        let socket = UdpSocket::bind("10.1.0.2:0").expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.connect(virtual_address()).expect("a route");
        socket
    })
}

/// Sends a datagram of a length, and returns the name of the server that answers.
pub(crate) fn ask_datagram(socket: &UdpSocket, len: usize) -> io::Result<char> {
    socket.send(&vec![b'?'; len])?;
    let mut name = [0];
    socket.recv(&mut name)?;
    Ok(name[0].into())
}

/// The room of the table, of which a quarter is for flows that nobody is assured of.
const ROOM: u32 = 2048;
const PLACES: u32 = ROOM / 4;
const BATCH: u32 = 256;
const BATCHES: u32 = 32;

fn engine(world: &World) -> PacketEngine {
    let mut settings = settings(world);
    (settings.flows, settings.ipv6_flows) = (ROOM, ROOM);
    start_engine(world, settings)
}

/// Sends four times as many packets as the table has room for, some at a time, and does something in between.
fn flood(world: &World, kind: FloodKind, mut between: impl FnMut()) {
    let socket = raw_socket(world);
    for batch in 0..BATCHES {
        let before = statistics(world);
        let sent = send_packets(&socket, kind, batch * BATCH..(batch + 1) * BATCH);
        assert_eq!(sent, u64::from(BATCH));
        until("each packet has met its fate", || {
            let after = statistics(world);
            let decided = |it: &PacketStatistics| it.upcalls + it.keyed_decisions;
            let met = |it: &PacketStatistics| decided(it) + it.without_flow;
            met(&after) - met(&before) >= sent
        });
        between();
    }
}

/// Connections and flows of UDP that are quiet while a flood comes.
fn stay_quiet(kind: FloodKind, rule: impl Scheduler + Clone + 'static) {
    let Some(world) = World::build() else { return };
    serve_both(&world);
    answer_datagrams(&world);
    route_answers(&world);
    let engine = engine(&world);
    let (tcp, _tcp_service) = begin(&engine, EngineProtocol::Tcp, 0, rule.clone());
    let (udp, _udp_service) = begin(&engine, EngineProtocol::Udp, 0, rule);
    let mut streams: Vec<_> = (0..32).map(|_| connect(&world, virtual_address())).collect();
    let names: Vec<_> = streams.iter_mut().map(ask_name).collect();
    let datagrams: Vec<_> = (0..32).map(|_| datagram_client(&world)).collect();
    let ask = |socket: &UdpSocket| ask_datagram(socket, 10).expect("an answer");
    let servers: Vec<_> = datagrams.iter().map(ask).collect();
    // The second one says that the answer has come.
    assert_eq!(datagrams.iter().map(ask).collect::<Vec<_>>(), servers);

    flood(&world, kind, || {
        ask_name(&mut connect(&world, virtual_address()));
        ask(&datagram_client(&world));
        assert_eq!(ask_datagram(&datagrams[0], 4000).expect("an answer"), servers[0]);
    });

    assert_eq!(streams.iter_mut().map(ask_name).collect::<Vec<_>>(), names);
    assert_eq!(datagrams.iter().map(ask).collect::<Vec<_>>(), servers);
    let after = statistics(&world);
    // The servers reset what they do not know.
    let is_open = kind != FloodKind::Acknowledgements;
    let most = u64::from(BATCH * BATCHES - PLACES);
    assert_eq!(after.unassured_forgotten >= most, is_open, "{after:?}");
    assert_eq!((after.flows_forgotten, after.table_full), (0, 0), "{after:?}");
    // The scheduler does not count those who are not there.
    until("forgotten flows have no lease", || active(&tcp) + active(&udp) <= PLACES + 64);
}

#[test]
fn a_flood_of_syns_ends_no_flow() {
    stay_quiet(FloodKind::Syns, LeastConnections::new());
}

#[test]
fn a_flood_of_syns_that_a_table_decides_ends_no_flow() {
    stay_quiet(FloodKind::Syns, Maglev::new());
}

#[test]
fn a_flood_of_acknowledgements_ends_no_flow() {
    stay_quiet(FloodKind::Acknowledgements, RoundRobin::new());
}

#[test]
fn a_flood_of_acknowledgements_that_a_table_decides_ends_no_flow() {
    stay_quiet(FloodKind::Acknowledgements, Maglev::new());
}

#[test]
fn a_flood_of_datagrams_ends_no_flow() {
    stay_quiet(FloodKind::Datagrams, LeastConnections::new());
}

#[test]
fn a_flood_of_fragments_ends_no_flow() {
    stay_quiet(FloodKind::FirstFragments, LeastConnections::new());
}
