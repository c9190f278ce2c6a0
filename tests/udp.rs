//! The UDP forwarder over loopback: what clients, backends and counters see of it.
#![cfg(all(feature = "forward", target_os = "linux", not(lvs_loom)))]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lvs::balancer::Persistence;
use lvs::forward::{Coalesce, Drained, ForwardError, UdpCounters, UdpForwarder, UdpHandle};
use lvs::scheduler::RoundRobin;
use lvs::{BackendId, BackendSet, Balancer, Health, Limits, Spec};
use tokio::task::JoinHandle;

/// Something done to a backend.
type Act = fn(&BackendSet<SocketAddr>, &BackendId);
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

/// An address of this machine that nobody else uses, port 0: a port that was freed elsewhere and is
/// given out again would hear what was meant for its last owner.
fn own_address() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    let count = COUNT.fetch_add(1, Ordering::SeqCst) % 250 + 1;
    format!("127.{}.{b}.{count}:0", a % 200 + 10)
}

const END: &[u8] = b"end of the server";

impl Echo {
    fn new(name: u8) -> Self {
        Self::at(&own_address(), name)
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

/// An address that refuses datagrams for as long as the socket is held: it hears one peer only.
fn refusing() -> (SocketAddr, UdpSocket) {
    let socket = UdpSocket::bind(own_address()).expect("loopback");
    socket.connect("127.0.0.1:9").expect("loopback");
    (socket.local_addr().expect("bound"), socket)
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
    world_at(&own_address(), targets)
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

#[tokio::test(flavor = "multi_thread")]
async fn replies_leave_from_the_address_the_client_used() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = world_at("0.0.0.0:0", &[echo.address]);
    let (handle, running) = start(forwarder);
    let port = handle.local_addr().port();
    // Connected sockets: each hears only the address it sends to.
    for address in ["127.0.0.1", "127.0.0.2", "127.9.8.7"] {
        let client = client_at("127.0.0.1:0", format!("{address}:{port}").parse().expect("valid"));
        assert_eq!(exchange(&client, b"?"), b'a');
    }
    // One client's socket to two addresses: two flows.
    let both = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    both.set_read_timeout(Some(LONG)).expect("an option");
    for address in [[127, 0, 0, 3], [127, 0, 0, 4]] {
        let to = SocketAddr::from((address, port));
        both.send_to(b"x", to).expect("loopback");
        assert_eq!(both.recv_from(&mut [0; 9]).expect("an answer").1, to);
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.flows_started, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_families_meet_on_one_socket_and_at_either_end() {
    let (four, six) = (Echo::new(b'4'), Echo::at("[::1]:0", b'6'));
    let (_set, forwarder) = world_at("[::]:0", &[four.address, six.address]);
    let (handle, running) = start(forwarder);
    let port = handle.local_addr().port();
    let mut names = BTreeSet::new();
    for (local, to) in [("127.0.0.1", "127.0.0.2"), ("[::1]", "[::1]"), ("127.0.0.1", "127.0.0.1")]
    {
        let to = format!("{to}:{port}").parse().expect("valid");
        let client = client_at(&format!("{local}:0"), to);
        let name = exchange(&client, b"?");
        assert_eq!(exchange(&client, b"!"), name);
        names.insert(name);
    }
    assert_eq!(names, BTreeSet::from([b'4', b'6']));
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.to_clients.datagrams), (3, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_all_sizes_pass_whole() {
    for coalesce in [Coalesce::Auto, Coalesce::Always, Coalesce::Never] {
        let echo = Echo::new(b'a');
        let (_set, forwarder) = world(&[echo.address]);
        let (handle, running) = start(forwarder.coalesce(coalesce));
        let client = client(&handle);
        for size in [0, 1, 2, 1200, 1472, 1473, 9000, 65_000] {
            let message: Vec<u8> = (0..size).map(|i| i as u8).collect();
            assert_eq!(exchange(&client, &message), b'a', "{size} bytes");
        }
        // The largest that fits a datagram goes in; the server answers with what fits.
        client.send(&[7; 65_507]).expect("loopback");
        assert_eq!(receive(&client).len(), 65_001);
        let (_, counters) = end(&handle, running).await;
        assert_eq!((counters.to_servers.datagrams, counters.to_clients.datagrams), (9, 9));
    }
}

/// Sends datagrams of 1000 bytes, numbered, several in one system call.
fn send_in_runs(socket: &UdpSocket, run: usize, runs: usize) {
    use std::os::fd::AsRawFd;
    let segment = 1000u16;
    for number in 0..runs {
        let mut bytes = Vec::new();
        for i in 0..run {
            let mut datagram = vec![0; usize::from(segment)];
            datagram[..8].copy_from_slice(&((number * run + i) as u64).to_be_bytes());
            bytes.extend(datagram);
        }
        segmented::send(socket.as_raw_fd(), &bytes, segment);
    }
}

mod segmented {
    //! `UDP_SEGMENT` as a socket option, for a client that sends in runs.
    use std::os::fd::RawFd;

    #[allow(unsafe_code, reason = "no safe crate offers the option")]
    pub(super) fn send(socket: RawFd, bytes: &[u8], segment: u16) {
        let value = libc::c_int::from(segment);
        // SAFETY: a plain `int` is set and a live buffer is sent, with their own sizes.
        unsafe {
            let option = std::ptr::from_ref(&value).cast();
            let size = size_of::<libc::c_int>() as libc::socklen_t;
            assert_eq!(libc::setsockopt(socket, libc::SOL_UDP, libc::UDP_SEGMENT, option, size), 0);
            let sent = libc::send(socket, bytes.as_ptr().cast(), bytes.len(), 0);
            assert_eq!(sent, bytes.len() as isize);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_arrive_as_the_datagrams_they_were() {
    for coalesce in [Coalesce::Auto, Coalesce::Always, Coalesce::Never] {
        let echo = Echo::new(b'a');
        let (_set, forwarder) = world(&[echo.address]);
        let (handle, running) = start(forwarder.coalesce(coalesce));
        let client = client(&handle);
        let mut next = 0;
        for _ in 0..20 {
            send_in_runs(&client, 16, 1);
            let mut numbers: Vec<u64> = (0..16)
                .map(|_| {
                    let answer = receive(&client);
                    assert_eq!(answer.len(), 1001, "{coalesce:?}");
                    u64::from_be_bytes(answer[1..9].try_into().expect("eight bytes"))
                })
                .collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..16).collect::<Vec<u64>>());
            next += 16;
        }
        let (_, counters) = end(&handle, running).await;
        assert_eq!(
            (counters.from_clients.datagrams, counters.from_clients.bytes),
            (next, next * 1000)
        );
        assert_eq!((counters.to_clients.datagrams, counters.undelivered.total()), (next, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_datagram_goes_elsewhere_and_the_client_notices_nothing() {
    let echo = Echo::new(b'b');
    let (refusing, _held) = refusing();
    let (set, forwarder) = world(&[refusing, echo.address]);
    let (handle, running) = start(forwarder);
    for _ in 0..4 {
        let client = client(&handle);
        assert_eq!(exchange(&client, b"hello"), b'b');
        assert_eq!(exchange(&client, b"again"), b'b');
    }
    let (_, counters) = end(&handle, running).await;
    let refused = outcomes(&set, "0").connect_error;
    assert!(refused >= 2, "at least every other pick was the refusing one");
    assert_eq!(
        (counters.flows_moved, counters.resent, counters.server_errors),
        (refused, refused, refused)
    );
    assert_eq!((counters.flows_started, counters.to_servers.datagrams), (4, 8));
    assert_eq!(echo.heard(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_refuse_the_flow_ends_after_its_attempts() {
    let (targets, _held): (Vec<_>, Vec<_>) = (0..5).map(|_| refusing()).unzip();
    let (set, forwarder) = world(&targets);
    let (handle, running) = start(forwarder.attempts(3));
    let client = client(&handle);
    client.send(b"?").expect("loopback");
    until(|| handle.counters().flows_ended.unreachable == 1);
    let (_, counters) = end(&handle, running).await;
    let errors: u64 = (0..5).map(|i| outcomes(&set, &i.to_string()).connect_error).sum();
    assert_eq!((errors, counters.server_errors, counters.flows_moved), (3, 3, 2));
    assert_eq!((counters.flows_started, counters.flows_ended.total()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_killed_under_load_loses_no_flow() {
    let mut echoes: Vec<Echo> = (0..3).map(|i| Echo::new(b'a' + i)).collect();
    let targets: Vec<SocketAddr> = echoes.iter().map(|it| it.address).collect();
    let (set, forwarder) = world(&targets);
    let (handle, running) = start(forwarder);
    let clients: Vec<UdpSocket> = (0..120).map(|_| client(&handle)).collect();
    let before: Vec<u8> = clients.iter().map(|it| exchange(it, b"1")).collect();
    assert_eq!(before.iter().filter(|name| **name == b'b').count(), 40);

    drop(echoes.remove(1));
    // In flight all at once: what the dead one refuses is still at hand.
    for client in &clients {
        client.send(b"2").expect("loopback");
    }
    let after: Vec<u8> = clients.iter().map(|it| receive(it)[0]).collect();
    for (before, after) in before.iter().zip(&after) {
        match before {
            b'b' => assert_ne!(*after, b'b'),
            _ => assert_eq!(after, before, "flows of living backends stay"),
        }
    }
    assert_eq!((load(&set, "0").inactive, load(&set, "1").inactive), (60, 0));
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_moved, counters.resent, counters.flows_started), (40, 40, 120));
    assert_eq!(outcomes(&set, "1").connect_error, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_leave_a_backend_that_is_down_disabled_or_gone_and_nobody_else_moves() {
    let echoes: Vec<Echo> = (0..4).map(|i| Echo::new(b'a' + i)).collect();
    let targets: Vec<SocketAddr> = echoes.iter().map(|it| it.address).collect();
    let (set, forwarder) = world(&targets);
    let (handle, running) = start(forwarder);
    let clients: Vec<UdpSocket> = (0..8).map(|_| client(&handle)).collect();
    let names = || clients.iter().map(|it| exchange(it, b"?")).collect::<Vec<u8>>();
    assert_eq!(names(), b"abcdabcd");

    let gone: [(&str, Act); 3] = [
        ("0", |set, id| set.set_health(id, Health::Down).expect("in the set")),
        ("1", |set, id| set.disable(id).expect("in the set")),
        ("2", |set, id| drop(set.remove(id).expect("in the set"))),
    ];
    for (round, (name, act)) in gone.into_iter().enumerate() {
        let (before, backend) = (names(), set.snapshot().find(&name.into()).cloned());
        act(&set, &name.into());
        // Moved without a datagram: the leases say so.
        let backend = backend.expect("in the set");
        until(|| backend.load().total() == 0);
        assert_eq!(backend.outcomes().connect_error, 0, "nothing is held against it");
        let dead = b'a' + round as u8;
        for (before, after) in before.iter().zip(names()) {
            assert!(after != dead && (*before == dead || *before == after));
        }
    }
    assert_eq!(names(), b"dddddddd");
    set.set_health(&"3".into(), Health::Down).expect("in the set");
    until(|| handle.counters().flows_active == 0);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.flows_ended.no_backend), (8, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_stay_with_a_backend_that_drains_or_is_quiesced() {
    let echoes = [Echo::new(b'a'), Echo::new(b'b'), Echo::new(b'c')];
    let (set, forwarder) = world(&echoes.each_ref().map(|it| it.address));
    let (handle, running) = start(forwarder);
    let clients: Vec<UdpSocket> = (0..3).map(|_| client(&handle)).collect();
    let names = || clients.iter().map(|it| exchange(it, b"?")).collect::<Vec<u8>>();
    assert_eq!(names(), b"abc");
    set.drain(&"0".into()).expect("in the set");
    set.set_weight(&"1".into(), 0).expect("in the set");
    // New ones go elsewhere, and by then the worker has seen the change.
    assert!((0..5).all(|_| exchange(&client(&handle), b"?") == b'c'));
    assert_eq!(names(), b"abc");
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.flows_moved, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_packet_scheduling_schedules_each_datagram() {
    let echoes = [Echo::new(b'a'), Echo::new(b'b'), Echo::new(b'c')];
    let (set, forwarder) = world(&echoes.each_ref().map(|it| it.address));
    let (handle, running) = start(forwarder.one_packet(true));
    let one = client(&handle);
    let names: Vec<u8> = (0..9).map(|_| exchange(&one, b"?")).collect();
    assert_eq!(names, b"abcabcabc");
    assert!(set.snapshot().backends().iter().all(|b| b.load().total() == 0), "no lease is held");
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.flows_started, 3, "one way back for each backend");
    assert_eq!(outcomes(&set, "0").ok, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_packet_scheduling_finds_another_backend_for_what_was_refused() {
    let echo = Echo::new(b'b');
    let ((one, _held), (other, _too)) = (refusing(), refusing());
    let (set, forwarder) = world(&[one, echo.address, other]);
    let (handle, running) = start(forwarder.one_packet(true));
    let one = client(&handle);
    for _ in 0..6 {
        assert_eq!(exchange(&one, b"?"), b'b');
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!(echo.heard(), 6);
    assert_eq!(counters.to_servers.datagrams, 6);
    assert!(outcomes(&set, "0").connect_error + outcomes(&set, "2").connect_error >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_asked_for_end_a_flow() {
    let echo = Echo::new(b'a');
    let (set, forwarder) = world(&[echo.address]);
    let (handle, running) = start(forwarder.replies(1));
    let one = client(&handle);
    for _ in 0..3 {
        assert_eq!(exchange(&one, b"?"), b'a');
        until(|| handle.counters().flows_active == 0);
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.flows_ended.replied), (3, 3));
    assert_eq!(outcomes(&set, "0").ok, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_total_timeouts_end_flows() {
    let silent = UdpSocket::bind(own_address()).expect("loopback");
    let (set, forwarder) = world(&[silent.local_addr().expect("bound")]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(20)).replies(1));
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().flows_ended.idle == 1);
    assert_eq!(outcomes(&set, "0").timeout, 1, "a reply was asked for");
    end(&handle, running).await;

    let (set, forwarder) = world(&[silent.local_addr().expect("bound")]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(20)));
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().flows_ended.idle == 1);
    assert_eq!(outcomes(&set, "0").ok, 1, "one-way traffic is in order");
    end(&handle, running).await;

    let (_set, forwarder) = world(&[silent.local_addr().expect("bound")]);
    let (handle, running) = start(forwarder.total_timeout(Duration::from_millis(50)));
    let busy = client(&handle);
    until(|| {
        busy.send(b"?").expect("loopback");
        handle.counters().flows_ended.total_time >= 2
    });
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.flows_ended.idle, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_table_sheds_by_its_rule() {
    let echo = Echo::new(b'a');
    let silent = UdpSocket::bind(own_address()).expect("loopback");
    let (_set, forwarder) = world(&[echo.address, silent.local_addr().expect("bound")]);
    let (handle, running) = start(forwarder.max_flows(2));
    let answered = client(&handle);
    assert_eq!(exchange(&answered, b"?"), b'a');
    let flood = client(&handle);
    flood.send(b"?").expect("loopback");
    until(|| handle.counters().to_servers.datagrams == 2);
    // Takes the place of the one that was never answered.
    let third = client(&handle);
    assert_eq!(exchange(&third, b"?"), b'a');
    assert_eq!(handle.counters().flows_ended.evicted, 1);
    // All are answered now: the next one is turned away.
    let fourth = client(&handle);
    fourth.send(b"?").expect("loopback");
    until(|| handle.counters().shed.max_flows == 1);
    assert_eq!((exchange(&answered, b"!"), exchange(&third, b"!")), (b'a', b'a'));
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.shed.total()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_no_more_flows_than_it_may() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = world(&[echo.address]);
    let (handle, running) = start(forwarder.max_flows_per_client(2).workers(2));
    let clients: Vec<UdpSocket> = (0..3).map(|_| client(&handle)).collect();
    assert_eq!((exchange(&clients[0], b"?"), exchange(&clients[1], b"?")), (b'a', b'a'));
    clients[2].send(b"?").expect("loopback");
    until(|| handle.counters().shed.max_flows_per_client == 1);
    let other = client_at("127.0.0.9:0", handle.local_addr());
    assert_eq!(exchange(&other, b"?"), b'a');
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.shed.total()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_choose_is_counted_by_reason() {
    let (set, forwarder) = world(&[]);
    let (handle, running) = start(forwarder);
    let one = client(&handle);
    one.send(b"?").expect("loopback");
    until(|| handle.counters().shed.no_backend == 1);

    let echo = Echo::new(b'a');
    set.insert(Spec::new("small", echo.address).limits(Limits::max(1))).expect("a new name");
    assert_eq!(exchange(&one, b"?"), b'a');
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().shed.saturated == 1);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.shed.total(), counters.flows_started), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn port_0_means_the_port_the_client_asked_for() {
    let echo = Echo::new(b'a');
    let target = SocketAddr::new(echo.address.ip(), 0);
    let listen = format!("127.0.0.1:{}", echo.address.port());
    let (_set, forwarder) = world_at(&listen, &[target]);
    let (handle, running) = start(forwarder);
    assert_eq!(exchange(&client(&handle), b"?"), b'a');
    end(&handle, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn persistence_brings_a_client_back() {
    let echoes = [Echo::new(b'a'), Echo::new(b'b')];
    let (set, forwarder) = world(&echoes.each_ref().map(|it| it.address));
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    let sticky = Persistence::new(LONG).over(balancer);
    let (handle, running) = start(forwarder.persistence(Arc::new(sticky)));
    let name = exchange(&client(&handle), b"?");
    assert!((0..4).all(|_| exchange(&client(&handle), b"?") == name));
    let other = client_at("127.0.0.5:0", handle.local_addr());
    assert_ne!(exchange(&other, b"?"), name);
    end(&handle, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_keeps_flows_and_takes_no_new_ones() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = world(&[echo.address]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(300)));
    let one = client(&handle);
    assert_eq!(exchange(&one, b"?"), b'a');
    handle.shutdown(LONG);
    assert_eq!(exchange(&one, b"still here"), b'a');
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().shed.draining == 1);
    let drained = running.await.expect("no panic").expect("no error");
    assert_eq!((drained.finished, drained.cut), (1, 0));
    assert_eq!(handle.counters().flows_ended.idle, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_before_the_start_ends_it_at_once() {
    let (_set, forwarder) = world(&[]);
    forwarder.handle().shutdown(LONG);
    assert_eq!(forwarder.run().await.expect("no error"), Drained::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_run_cuts_its_flows_and_frees_the_address() {
    let echo = Echo::new(b'a');
    let (set, forwarder) = world(&[echo.address]);
    let (handle, running) = start(forwarder);
    assert_eq!(exchange(&client(&handle), b"?"), b'a');
    running.abort();
    assert!(running.await.expect_err("aborted").is_cancelled());
    until(|| handle.counters().flows_ended.cut == 1);
    assert_eq!((handle.counters().flows_active, load(&set, "0").total()), (0, 0));
    until(|| UdpSocket::bind(handle.local_addr()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let (set, forwarder) = world(&[]);
    let taken = forwarder.local_addr();
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    let error = UdpForwarder::bind(taken, balancer).expect_err("in use");
    assert_eq!(error.to_string(), format!("cannot listen on {taken}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_the_clients() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = world(&[echo.address]);
    let (handle, running) = start(forwarder.workers(4));
    // An answer says that all sockets are there: until then the kernel spreads over those that are.
    assert_eq!(exchange(&client(&handle), b"?"), b'a');
    let clients: Vec<UdpSocket> = (0..100).map(|_| client(&handle)).collect();
    for _ in 0..3 {
        assert!(clients.iter().all(|it| exchange(it, b"?") == b'a'));
    }
    let (drained, counters) = end(&handle, running).await;
    assert_eq!(
        (drained.cut, counters.flows_started, counters.from_clients.datagrams),
        (101, 101, 301)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_can_be_handed_in() {
    let echo = Echo::new(b'a');
    let set = BackendSet::new();
    set.insert(echo.address).expect("a new name");
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let (handle, running) = start(UdpForwarder::new(socket, balancer).expect("a socket"));
    assert_eq!(exchange(&client(&handle), b"?"), b'a');
    end(&handle, running).await;
}

/// Names the backend to the process that [`descriptors_run_out_and_come_back`] starts.
const BACKEND_VARIABLE: &str = "LVS_TEST_UDP_BACKEND";

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_run_out_and_come_back() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let echo = Echo::new(b'a');
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_process_of_few_descriptors", "--ignored", "--nocapture"])
        .env(BACKEND_VARIABLE, echo.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut value = |key: &str| {
        lines
            .by_ref()
            .map(|line| line.expect("utf-8"))
            .find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()))
            .expect("the child says so")
    };
    let address: SocketAddr = value("listening on ").parse().expect("an address");
    let first = client_at("127.0.0.1:0", address);
    assert_eq!(exchange(&first, b"?"), b'a');
    let crowd: Vec<UdpSocket> = (0..60).map(|_| client_at("127.0.0.1:0", address)).collect();
    for one in &crowd {
        one.send(b"?").expect("loopback");
    }
    // Whoever has a flow keeps it; and when the others' have run out there is room again.
    assert_eq!(exchange(&first, b"!"), b'a');
    let late = client_at("127.0.0.1:0", address);
    late.set_read_timeout(Some(Duration::from_millis(50))).expect("an option");
    let served = || {
        late.send(b"?").expect("loopback");
        match late.recv(&mut [0; 9]) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    };
    until(served);
    drop(child.stdin.take());
    let short: u64 = value("short of descriptors ").parse().expect("a number");
    assert!(short > 0, "the crowd was too small to matter");
    assert!(child.wait().expect("the child").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "one half of descriptors_run_out_and_come_back, which starts it"]
async fn a_process_of_few_descriptors() {
    let Ok(backend) = std::env::var(BACKEND_VARIABLE) else { return };
    let (_set, forwarder) = world(&[backend.parse().expect("an address")]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(500)));
    println!("\nlistening on {}", handle.local_addr());
    let input = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    input.await.expect("no panic").expect("closed by the parent");
    let (_, counters) = end(&handle, running).await;
    println!("short of descriptors {}", counters.shed.no_resources);
}
