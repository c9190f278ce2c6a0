//! The client and the server, which take turns.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::inside::sync::enter_peer;

/// How many datagrams are sent in a row, before the client waits until the server has all of them: fewer
/// than a socket's buffer holds.
pub(super) const BURST: usize = 32;

/// The port of the server, of TCP and UDP.
pub(super) const PORT: u16 = 80;

/// A request: the length of the response, and octets without a meaning.
const REQUEST: usize = 64;
const RESPONSE: u64 = 128;

/// What is waited for at most. Many times what an emulated processor needs, whose clock is the counter.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the client does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Work {
    /// Sends datagrams of this many octets, of one flow.
    Datagrams(usize),
    /// Sends one datagram of each of some flows that nobody has seen, by a socket of its own.
    FirstOfFlows,
    /// Sends one datagram of each of the flows of the last [`Self::FirstOfFlows`].
    OfFlows,
    /// Sends requests by one connection.
    Requests,
    /// Sends a request by a connection of its own, which the client closes.
    Connections,
    /// Downloads megabytes by one connection.
    Download,
}

impl Work {
    pub(super) fn is_udp(self) -> bool {
        matches!(self, Self::Datagrams(_) | Self::FirstOfFlows | Self::OfFlows)
    }

    /// Returns whether each piece is one of another flow.
    pub(super) fn is_of_many(self) -> bool {
        matches!(self, Self::FirstOfFlows | Self::OfFlows)
    }
}

/// The client in its namespace, and the server in another.
pub(super) struct Load {
    jobs: Sender<(SocketAddr, Work, usize)>,
    is_done: Receiver<()>,
}

impl Load {
    /// Starts the server and the client.
    pub(super) fn start() -> Self {
        let (burst, bursts) = channel();
        let (is_ready, ready) = channel();
        let udp_is_ready = is_ready.clone();
        thread::spawn(move || {
            enter_peer("server");
            let socket = UdpSocket::bind(("0.0.0.0", PORT)).expect("a free port");
            udp_is_ready.send(()).expect("somebody waits");
            receive_bursts(&socket, &burst);
        });
        thread::spawn(move || {
            enter_peer("server");
            let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("a free port");
            is_ready.send(()).expect("somebody waits");
            for connection in listener.incoming() {
                serve(connection.expect("a connection"));
            }
        });
        let (jobs, received) = channel();
        let (done, is_done) = channel();
        thread::spawn(move || {
            enter_peer("client");
            let mut flows = 0;
            for job in received {
                run(job, &mut flows, &bursts);
                done.send(()).expect("somebody waits");
            }
        });
        ready.recv().and_then(|()| ready.recv()).expect("the server starts");
        Self { jobs, is_done }
    }

    /// Has the client do some work, and waits until that is done.
    pub(super) fn run(&mut self, address: SocketAddr, work: Work, pieces: usize) {
        self.jobs.send((address, work, pieces)).expect("the client waits");
        self.is_done.recv().expect("the client does not panic");
    }
}

fn receive_bursts(socket: &UdpSocket, burst: &Sender<()>) {
    let mut buffer = [0; 2048];
    loop {
        for _ in 0..BURST {
            socket.recv(&mut buffer).expect("a datagram");
        }
        burst.send(()).expect("the client waits");
    }
}

/// Answers each request with as many octets as it asks for.
fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).expect("a socket");
    let (mut request, octets) = ([0; REQUEST], vec![1; 1 << 16]);
    while stream.read_exact(&mut request).is_ok() {
        let (length, _) = request.split_first_chunk().expect("it is longer");
        let mut left = u64::from_be_bytes(*length) as usize;
        while left > 0 {
            let part = left.min(octets.len());
            if stream.write_all(&octets[..part]).is_err() {
                return;
            }
            left -= part;
        }
    }
}

/// The source of a flow: an address of 10.10.0.0/16, and a port.
fn source(flow: usize) -> SocketAddr {
    const PORTS: usize = 1024;
    let (host, port) = (1 + flow / PORTS, 2048 + flow % PORTS);
    let host = u16::try_from(host).expect("so many addresses").to_be_bytes();
    let port = u16::try_from(port).expect("a port");
    SocketAddr::new(Ipv4Addr::new(10, 10, host[0], host[1]).into(), port)
}

/// Sends a datagram of each of some flows; of all there is a multiple of a burst.
fn send_of_flows(address: SocketAddr, flows: Range<usize>, bursts: &Receiver<()>) {
    for flow in flows {
        let socket = UdpSocket::bind(source(flow)).expect("a free port");
        socket.send_to(&[1; 64], address).expect("a route");
        if (flow + 1).is_multiple_of(BURST) {
            bursts.recv_timeout(PATIENCE).expect("no datagram is lost");
        }
    }
}

fn run(
    (address, work, pieces): (SocketAddr, Work, usize),
    flows: &mut usize,
    bursts: &Receiver<()>,
) {
    match work {
        Work::Datagrams(length) => {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
            socket.connect(address).expect("a route");
            assert!(pieces.is_multiple_of(BURST));
            for _ in 0..pieces / BURST {
                for _ in 0..BURST {
                    socket.send(&[1; 2048][..length]).expect("a route");
                }
                bursts.recv_timeout(PATIENCE).expect("no datagram is lost");
            }
        }
        Work::FirstOfFlows => {
            *flows += pieces;
            send_of_flows(address, *flows - pieces..*flows, bursts);
        }
        Work::OfFlows => send_of_flows(address, *flows - pieces..*flows, bursts),
        Work::Requests => {
            let mut stream = connect(address);
            (0..pieces).for_each(|_| ask(&mut stream, RESPONSE));
        }
        Work::Connections => (0..pieces).for_each(|_| ask(&mut connect(address), RESPONSE)),
        Work::Download => ask(&mut connect(address), pieces as u64 * 1_000_000),
    }
}

/// Connects; a program that was started a moment ago may not listen yet.
pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{address}: {error}"),
        }
    };
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a valid time");
    stream
}

fn ask(stream: &mut TcpStream, length: u64) {
    let mut request = [0; REQUEST];
    request[..8].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&request).expect("the connection is open");
    let (mut buffer, mut left) = (vec![0; 1 << 16], length as usize);
    while left > 0 {
        let wanted = left.min(buffer.len());
        match stream.read(&mut buffer[..wanted]).expect("a response") {
            0 => panic!("the connection was closed, {left} octets of {length} are missing"),
            read => left -= read,
        }
    }
}
