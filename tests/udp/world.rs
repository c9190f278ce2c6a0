//! Test servers, clients and a forwarder between them, all on loopback.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lvs::forward::{DrainReport, ForwardError, Route, UdpCounters, UdpForwarder, UdpHandle};
use lvs::scheduler::RoundRobin;
use lvs::{BackendId, BackendSet, Balancer, Spec};
use tokio::task::JoinHandle;

pub(crate) type Running = JoinHandle<Result<DrainReport, ForwardError>>;

/// A timeout for events that happen at once.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A server that replies to each datagram with its name (one byte) and the received bytes. Dropping
/// it closes its port.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    received: Arc<AtomicU64>,
    end: Option<(UdpSocket, thread::JoinHandle<()>)>,
}

/// Returns a loopback address that no other test uses, with port 0: a reused port would receive
/// datagrams for its previous owner.
pub(crate) fn unused_address() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    let count = COUNT.fetch_add(1, Ordering::SeqCst) % 250 + 1;
    format!("127.{}.{b}.{count}:0", a % 200 + 10)
}

const END: &[u8] = b"end of the server";

impl Echo {
    pub(crate) fn new(name: u8) -> Self {
        Self::at(&unused_address(), name)
    }

    pub(crate) fn at(address: &str, name: u8) -> Self {
        let socket = UdpSocket::bind(address).expect("loopback");
        let address = socket.local_addr().expect("bound");
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        let serving = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                if &buffer[..len] == END {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let mut answer = vec![name];
                answer.extend_from_slice(&buffer[..len.min(65_000)]);
                let _ = socket.send_to(&answer, from);
            }
        });
        let end = Some((UdpSocket::bind((address.ip(), 0)).expect("loopback"), serving));
        Self { address, received, end }
    }

    /// Returns the number of received datagrams.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let (socket, serving) = self.end.take().expect("dropped once");
        socket.send_to(END, self.address).expect("loopback");
        serving.join().expect("no panic");
    }
}

/// Returns an address that refuses datagrams while the socket exists: the socket is connected to
/// another peer.
pub(crate) fn refusing_address() -> (SocketAddr, UdpSocket) {
    let socket = UdpSocket::bind(unused_address()).expect("loopback");
    socket.connect("127.0.0.1:9").expect("loopback");
    (socket.local_addr().expect("bound"), socket)
}

/// Returns a set of backends named `"0"`, `"1"`, ..., and a round-robin forwarder with one worker.
pub(crate) fn forwarder_at(
    listen: &str,
    targets: &[SocketAddr],
) -> (BackendSet<SocketAddr>, UdpForwarder) {
    let (set, route) = route_to(targets);
    let listen = listen.parse().expect("an address");
    (set, UdpForwarder::bind(listen, route).expect("a free port").workers(1))
}

/// Returns a set of backends named `"0"`, `"1"`, ..., and a round-robin route to them.
pub(crate) fn route_to(targets: &[SocketAddr]) -> (BackendSet<SocketAddr>, Route) {
    let set = BackendSet::new();
    // Round robin picks the newest backend first, as in IPVS: backend "0" is inserted last.
    for (i, &target) in targets.iter().enumerate().rev() {
        set.insert(Spec::new(i.to_string(), target)).expect("a new name");
    }
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    (set, Route::new(balancer))
}

pub(crate) fn forwarder_to(targets: &[SocketAddr]) -> (BackendSet<SocketAddr>, UdpForwarder) {
    forwarder_at(&unused_address(), targets)
}

pub(crate) fn start(forwarder: UdpForwarder) -> (UdpHandle, Running) {
    (forwarder.handle(), tokio::spawn(forwarder.run()))
}

/// Cuts the remaining flows and checks that the counters are consistent.
pub(crate) async fn end(handle: &UdpHandle, running: Running) -> (DrainReport, UdpCounters) {
    handle.shutdown(Duration::ZERO);
    let report = running.await.expect("no panic").expect("no error");
    let counters = handle.counters();
    let (sent, received) = (counters.to_servers, counters.from_clients);
    assert_eq!(received.datagrams, sent.datagrams + counters.shed.sum(), "{counters:#?}");
    let (sent, received) = (counters.to_clients, counters.from_servers);
    assert_eq!(received.datagrams, sent.datagrams + counters.undelivered.sum(), "{counters:#?}");
    assert_eq!(counters.flows_started, counters.flows_ended.sum(), "{counters:#?}");
    assert_eq!(counters.flows_active, 0);
    (report, counters)
}

pub(crate) fn client_at(local: &str, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).expect("loopback");
    socket.connect(to).expect("loopback");
    socket.set_read_timeout(Some(TEST_TIMEOUT)).expect("an option");
    socket
}

pub(crate) fn client(handle: &UdpHandle) -> UdpSocket {
    client_at("127.0.0.1:0", handle.local_addr())
}

pub(crate) fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let len = socket.recv(&mut buffer).expect("an answer");
    buffer.truncate(len);
    buffer
}

/// Sends a datagram, checks the reply, and returns the name of the server.
pub(crate) fn exchange(socket: &UdpSocket, message: &[u8]) -> u8 {
    socket.send(message).expect("loopback");
    let answer = receive(socket);
    assert_eq!(&answer[1..], message);
    answer[0]
}

/// Waits until a condition that another thread fulfils is true.
pub(crate) fn until(mut is_fulfilled: impl FnMut() -> bool) {
    let start = tokio::time::Instant::now();
    while !is_fulfilled() {
        assert!(start.elapsed() < TEST_TIMEOUT, "the condition is not fulfilled in time");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn load(set: &BackendSet<SocketAddr>, name: &str) -> lvs::Load {
    set.snapshot().find(&BackendId::from(name)).expect("in the set").load()
}

pub(crate) fn outcomes(set: &BackendSet<SocketAddr>, name: &str) -> lvs::backend::OutcomeCounts {
    set.snapshot().find(&BackendId::from(name)).expect("in the set").outcomes()
}
