//! The UDP forwarder over loopback: what clients, backends and counters see of it.
#![cfg(all(feature = "forward", target_os = "linux", not(lvs_loom)))]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lvs::balancer::Persistence;
use lvs::forward::{Coalesce, Drained, ForwardError, UdpCounters, UdpForwarder, UdpHandle};
use lvs::scheduler::RoundRobin;
use lvs::{BackendId, BackendSet, Balancer, Health, Limits, Spec};
use tokio::task::JoinHandle;

type Running = JoinHandle<Result<Drained, ForwardError>>;

/// Ample for anything that happens at once.
const LONG: Duration = Duration::from_secs(60);

/// A server that answers every datagram with its name (one byte) and what it was sent, until it is
/// dropped; then its port is closed.
struct Echo {
    address: SocketAddr,
    heard: Arc<AtomicU64>,
    end: Option<(UdpSocket, thread::JoinHandle<()>)>,
}

const END: &[u8] = b"end of the server";

impl Echo {
    fn new(name: u8) -> Self {
        Self::at("127.0.0.1:0", name)
    }

    fn at(address: &str, name: u8) -> Self {
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

    fn heard(&self) -> u64 {
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

/// An address nobody listens on, and the TCP listener that keeps others from asking for it.
fn refusing() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    socket.local_addr().expect("bound")
}

/// A set of backends named `"0"`, `"1"`, ..., and a forwarder over it in turn, with one worker.
fn world_at(listen: &str, targets: &[SocketAddr]) -> (BackendSet<SocketAddr>, UdpForwarder) {
    let set = BackendSet::new();
    // The kernel's order is newest first: insert the last one first, and "0" has the first turn.
    for (i, &target) in targets.iter().enumerate().rev() {
        set.insert(Spec::new(i.to_string(), target)).expect("a new name");
    }
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    let listen = listen.parse().expect("an address");
    (set, UdpForwarder::bind(listen, balancer).expect("a free port").workers(1))
}

fn world(targets: &[SocketAddr]) -> (BackendSet<SocketAddr>, UdpForwarder) {
    world_at("127.0.0.1:0", targets)
}

fn start(forwarder: UdpForwarder) -> (UdpHandle, Running) {
    (forwarder.handle(), tokio::spawn(forwarder.run()))
}

/// Cuts what is left and checks that the books balance.
async fn end(handle: &UdpHandle, running: Running) -> (Drained, UdpCounters) {
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

fn client_at(local: &str, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).expect("loopback");
    socket.connect(to).expect("loopback");
    socket.set_read_timeout(Some(LONG)).expect("an option");
    socket
}

fn client(handle: &UdpHandle) -> UdpSocket {
    client_at("127.0.0.1:0", handle.local_addr())
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let len = socket.recv(&mut buffer).expect("an answer");
    buffer.truncate(len);
    buffer
}

/// One datagram there and back: the server's name.
fn exchange(socket: &UdpSocket, message: &[u8]) -> u8 {
    socket.send(message).expect("loopback");
    let answer = receive(socket);
    assert_eq!(&answer[1..], message);
    answer[0]
}

/// Waits for what happens soon, on another thread.
fn until(mut happened: impl FnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !happened() {
        assert!(begun.elapsed() < LONG, "it never happened");
        thread::sleep(Duration::from_millis(1));
    }
}

fn load(set: &BackendSet<SocketAddr>, name: &str) -> lvs::Load {
    set.snapshot().find(&BackendId::from(name)).expect("in the set").load()
}

fn outcomes(set: &BackendSet<SocketAddr>, name: &str) -> lvs::backend::Outcomes {
    set.snapshot().find(&BackendId::from(name)).expect("in the set").outcomes()
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_go_round_and_stay_and_every_datagram_is_counted() {
    let echoes = [Echo::new(b'a'), Echo::new(b'b'), Echo::new(b'c')];
    let (set, forwarder) = world(&echoes.each_ref().map(|it| it.address));
    let (handle, running) = start(forwarder);
    let clients: Vec<UdpSocket> = (0..6).map(|_| client(&handle)).collect();
    for _ in 0..3 {
        let names: Vec<u8> = clients.iter().map(|it| exchange(it, b"hello")).collect();
        assert_eq!(names, b"abcabc");
    }
    assert_eq!((load(&set, "0").active, load(&set, "0").inactive), (0, 2), "as IPVS counts UDP");
    assert_eq!(handle.counters().flows_active, 6);

    let (drained, counters) = end(&handle, running).await;
    assert_eq!((drained.finished, drained.cut), (0, 6));
    assert_eq!((counters.from_clients.datagrams, counters.from_clients.bytes), (18, 90));
    assert_eq!((counters.to_clients.datagrams, counters.to_clients.bytes), (18, 108));
    let backends = handle.backends();
    assert!(backends.iter().all(|it| (it.flows_started, it.to_server.datagrams) == (2, 6)));
    assert!(backends.iter().all(|it| it.from_server.bytes == 36), "{backends:?}");
    assert!(set.snapshot().backends().iter().all(|b| b.load().total() == 0));
}
