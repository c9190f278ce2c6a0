//! Backends, clients and a forwarder between them, all on loopback.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lvs::forward::{DrainReport, ForwardError, UdpCounters, UdpForwarder, UdpHandle};
use lvs::scheduler::RoundRobin;
use lvs::{BackendId, BackendSet, Balancer, Spec};
use tokio::task::JoinHandle;

pub(crate) type Running = JoinHandle<Result<DrainReport, ForwardError>>;

/// Ample for anything that happens at once.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A server that answers every datagram with its name (one byte) and what it was sent, until it is
/// dropped; then its port is closed.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    heard: Arc<AtomicU64>,
    end: Option<(UdpSocket, thread::JoinHandle<()>)>,
}

/// An address of this machine that nobody else uses, port 0: a port that was freed elsewhere and is
/// given out again would hear what was meant for its last owner.
pub(crate) fn own_address() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    let count = COUNT.fetch_add(1, Ordering::SeqCst) % 250 + 1;
    format!("127.{}.{b}.{count}:0", a % 200 + 10)
}

const END: &[u8] = b"end of the server";

impl Echo {
    pub(crate) fn new(name: u8) -> Self {
        Self::at(&own_address(), name)
    }

    pub(crate) fn at(address: &str, name: u8) -> Self {
        let socket = UdpSocket::bind(address).expect("loopback");
        let address = socket.local_addr().expect("bound");
        let heard = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&heard);
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
        Self { address, heard, end }
    }

    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::SeqCst)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let (socket, serving) = self.end.take().expect("dropped once");
        socket.send_to(END, self.address).expect("loopback");
        serving.join().expect("no panic");
    }
}

/// An address that refuses datagrams for as long as the socket is held: it hears one peer only.
pub(crate) fn refusing() -> (SocketAddr, UdpSocket) {
    let socket = UdpSocket::bind(own_address()).expect("loopback");
    socket.connect("127.0.0.1:9").expect("loopback");
    (socket.local_addr().expect("bound"), socket)
}

/// A set of backends named `"0"`, `"1"`, ..., and a forwarder over it in turn, with one worker.
pub(crate) fn world_at(
    listen: &str,
    targets: &[SocketAddr],
) -> (BackendSet<SocketAddr>, UdpForwarder) {
    let set = BackendSet::new();
    // The kernel's order is newest first: insert the last one first, and "0" has the first turn.
    for (i, &target) in targets.iter().enumerate().rev() {
        set.insert(Spec::new(i.to_string(), target)).expect("a new name");
    }
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    let listen = listen.parse().expect("an address");
    (set, UdpForwarder::bind(listen, balancer).expect("a free port").workers(1))
}

pub(crate) fn world(targets: &[SocketAddr]) -> (BackendSet<SocketAddr>, UdpForwarder) {
    world_at(&own_address(), targets)
}

pub(crate) fn start(forwarder: UdpForwarder) -> (UdpHandle, Running) {
    (forwarder.handle(), tokio::spawn(forwarder.run()))
}

/// Cuts what is left and checks that the books balance.
pub(crate) async fn end(handle: &UdpHandle, running: Running) -> (DrainReport, UdpCounters) {
    handle.shutdown(Duration::ZERO);
    let drained = running.await.expect("no panic").expect("no error");
    let counters = handle.counters();
    let (to, from) = (counters.to_servers, counters.from_clients);
    assert_eq!(from.datagrams, to.datagrams + counters.shed.total(), "{counters:#?}");
    let (to, from) = (counters.to_clients, counters.from_servers);
    assert_eq!(from.datagrams, to.datagrams + counters.undelivered.total(), "{counters:#?}");
    assert_eq!(counters.flows_started, counters.flows_ended.total(), "{counters:#?}");
    assert_eq!(counters.flows_active, 0);
    (drained, counters)
}

pub(crate) fn client_at(local: &str, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).expect("loopback");
    socket.connect(to).expect("loopback");
    socket.set_read_timeout(Some(LONG)).expect("an option");
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

/// One datagram there and back: the server's name.
pub(crate) fn exchange(socket: &UdpSocket, message: &[u8]) -> u8 {
    socket.send(message).expect("loopback");
    let answer = receive(socket);
    assert_eq!(&answer[1..], message);
    answer[0]
}

/// Waits for what happens soon, on another thread.
pub(crate) fn until(mut happened: impl FnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !happened() {
        assert!(begun.elapsed() < LONG, "it never happened");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn load(set: &BackendSet<SocketAddr>, name: &str) -> lvs::Load {
    set.snapshot().find(&BackendId::from(name)).expect("in the set").load()
}

pub(crate) fn outcomes(set: &BackendSet<SocketAddr>, name: &str) -> lvs::backend::OutcomeCounts {
    set.snapshot().find(&BackendId::from(name)).expect("in the set").outcomes()
}
