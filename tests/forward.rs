//! The TCP forwarder over loopback: what clients, backends and counters see of it.
#![cfg(feature = "forward")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use lvs::forward::{Counters, Drained, ForwardError, Forwarder, Handle};
use lvs::scheduler::RoundRobin;
use lvs::{BackendId, BackendSet, Balancer, Health, Limits, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

type Running = JoinHandle<Result<Drained, ForwardError>>;

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Ample for anything that happens at once.
const LONG: Duration = Duration::from_secs(60);

/// A server that says its name (one byte), then echoes until the client's half is closed.
async fn echo(name: u8) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(&[name]).await?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

/// A server that resets every connection after its first byte.
async fn breaker() -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read_u8().await;
            let _ = stream.set_zero_linger();
        }
    });
    address
}

/// An address that refuses connections for as long as the socket is held.
fn refusing() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(LOOPBACK).expect("loopback");
    (socket.local_addr().expect("bound"), socket)
}

/// A set of backends named `"0"`, `"1"`, ..., and a forwarder over it in turn.
fn world(targets: &[SocketAddr]) -> (BackendSet<SocketAddr>, Forwarder) {
    let set = BackendSet::new();
    // The kernel's order is newest first: insert the last one first, and "0" has the first turn.
    for (i, &target) in targets.iter().enumerate().rev() {
        set.insert(Spec::new(i.to_string(), target)).expect("a new name");
    }
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    (set, Forwarder::bind(LOOPBACK, balancer).expect("a free port"))
}

fn start(forwarder: Forwarder) -> (Handle, Running) {
    (forwarder.handle(), tokio::spawn(forwarder.run()))
}

async fn end(handle: &Handle, running: Running) -> (Drained, Counters) {
    handle.shutdown(LONG);
    let drained = running.await.expect("no panic").expect("no error");
    (drained, handle.counters())
}

fn at(handle: &Handle) -> SocketAddr {
    handle.local_addr().expect("a TCP listener")
}

async fn open(handle: &Handle) -> TcpStream {
    TcpStream::connect(at(handle)).await.expect("the forwarder listens")
}

/// One connection from beginning to end: the server's name, after a message went there and back.
async fn exchange(handle: &Handle, message: &[u8]) -> u8 {
    let mut stream = open(handle).await;
    stream.write_all(message).await.expect("open");
    stream.shutdown().await.expect("open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an end in order");
    assert_eq!(&answer[1..], message);
    answer[0]
}

async fn assert_reset(mut stream: TcpStream) {
    let error = stream.read_u8().await.expect_err("nobody speaks");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// A new client is reset, be it before it knows that it was connected.
async fn assert_turned_away(handle: &Handle) {
    match TcpStream::connect(at(handle)).await {
        Ok(stream) => assert_reset(stream).await,
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Waits for what is about to happen on another thread.
async fn until(mut happened: impl FnMut() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("in time");
}

fn outcomes(set: &BackendSet<SocketAddr>, name: &str) -> lvs::backend::Outcomes {
    set.snapshot().find(&BackendId::from(name)).expect("in the set").outcomes()
}

#[tokio::test]
async fn connections_go_round_and_every_byte_is_counted() {
    let targets = [echo(b'a').await, echo(b'b').await, echo(b'c').await];
    let (set, forwarder) = world(&targets);
    let (handle, running) = start(forwarder);
    let big = vec![7; 1 << 20];
    let mut names = Vec::new();
    for message in [&b""[..], b"x", &big, b"xyz", b"", b""] {
        names.push(exchange(&handle, message).await);
    }
    assert_eq!(names, b"abcabc");

    let (_, counters) = end(&handle, running).await;
    let sent = (1 << 20) + 4;
    assert_eq!((counters.accepted, counters.finished, counters.active), (6, 6, 0));
    assert_eq!((counters.bytes_to_servers, counters.bytes_to_clients), (sent, sent + 6));
    for name in ["0", "1", "2"] {
        assert_eq!((outcomes(&set, name).ok, outcomes(&set, name).total()), (2, 2));
    }
    assert!(set.snapshot().backends().iter().all(|b| b.load().total() == 0));
}

#[tokio::test]
async fn a_refused_connect_is_tried_elsewhere_and_the_client_notices_nothing() {
    let (refusing, _held) = refusing();
    let (set, forwarder) = world(&[refusing, echo(b'b').await]);
    let (handle, running) = start(forwarder);
    for _ in 0..4 {
        assert_eq!(exchange(&handle, b"hello").await, b'b');
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.refused.total()), (4, 0));
    assert_eq!(outcomes(&set, "0").connect_error, counters.failed_connects);
    assert!(counters.failed_connects >= 2, "at least every other pick was the refusing one");
    assert_eq!((outcomes(&set, "1").ok, outcomes(&set, "1").failures()), (4, 0));
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_timed_out() {
    // Linux drops SYNs to a listener whose queue is full.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(LOOPBACK).expect("loopback");
    let silent = socket.listen(1).expect("bound");
    let address = silent.local_addr().expect("bound");
    let mut queue = Vec::new();
    let patience = Duration::from_millis(200);
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        queue.push(stream);
    }

    let (set, forwarder) = world(&[address, echo(b'b').await]);
    let (handle, running) = start(forwarder.connect_timeout(Duration::from_millis(50)));
    assert_eq!(exchange(&handle, b"").await, b'b');
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.failed_connects), (1, 1));
    assert_eq!(outcomes(&set, "0").timeout, 1);
}

#[tokio::test]
async fn when_all_refuse_the_client_is_reset_and_counted_once() {
    let (held, targets): (Vec<_>, Vec<_>) = (0..3).map(|_| refusing()).map(|(a, s)| (s, a)).unzip();
    let (set, forwarder) = world(&targets);
    let (handle, running) = start(forwarder.connect_attempts(2));
    assert_turned_away(&handle).await;
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.accepted, counters.active, counters.finished), (1, 0, 0));
    assert_eq!((counters.refused.connect_error, counters.refused.total()), (1, 1));
    assert_eq!(counters.failed_connects, 2, "one for each attempt");
    let errors: u64 = ["0", "1", "2"].map(|name| outcomes(&set, name).connect_error).iter().sum();
    assert_eq!(errors, 2);
    drop(held);
}

#[tokio::test]
async fn nobody_to_choose_is_counted_by_reason() {
    let (set, forwarder) = world(&[]);
    let (handle, running) = start(forwarder);
    assert_turned_away(&handle).await;

    set.insert(Spec::new("down", echo(b'a').await).health(Health::Down)).expect("a new name");
    assert_turned_away(&handle).await;

    set.insert(Spec::new("small", echo(b'b').await).limits(Limits::max(1))).expect("a new name");
    let mut first = open(&handle).await;
    assert_eq!(first.read_u8().await.expect("carried"), b'b');
    assert_turned_away(&handle).await;
    drop(first);

    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.refused.no_backend, counters.refused.saturated), (2, 1));
    assert_eq!((counters.accepted, counters.refused.total(), counters.finished), (4, 3, 1));
}

#[tokio::test]
async fn a_break_is_passed_on_and_held_against_the_side_that_broke() {
    let (set, forwarder) = world(&[breaker().await, echo(b'b').await]);
    let (handle, running) = start(forwarder);

    let mut stream = open(&handle).await;
    stream.write_all(b"x").await.expect("open");
    assert_reset(stream).await;

    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("carried"), b'b');
    stream.set_zero_linger().expect("a socket option");
    drop(stream);

    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.server_broke, counters.client_broke, counters.finished), (1, 1, 0));
    assert_eq!(outcomes(&set, "0").app_error, 1);
    assert_eq!(outcomes(&set, "1").cancelled, 1);
}

#[tokio::test]
async fn beyond_the_maximum_clients_wait_their_turn() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.max_connections(1));
    let mut first = open(&handle).await;
    assert_eq!(first.read_u8().await.expect("carried"), b'a');
    let mut second = open(&handle).await;
    second.write_all(b"?").await.expect("queued by the kernel");
    assert_eq!(handle.counters().accepted, 1);
    drop(first);
    let mut answer = [0; 2];
    second.read_exact(&mut answer).await.expect("carried in its turn");
    assert_eq!(&answer, b"a?");
    drop(second);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.accepted, counters.finished, counters.filled), (2, 2, 1));
}

#[tokio::test]
async fn a_drain_waits_for_what_runs_and_takes_nothing_new() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("carried"), b'a');

    handle.shutdown(LONG);
    // The listener is closed as soon as the forwarder has heard of it.
    while TcpStream::connect(at(&handle)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"still here").await.expect("open");
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await.expect("carried");
    assert_eq!(&answer, b"still here");
    assert!(!running.is_finished());

    drop(stream);
    let drained = running.await.expect("no panic").expect("no error");
    assert_eq!(drained.cut, 0);
    assert_eq!((handle.counters().finished, handle.counters().cut), (1, 0));
}

#[tokio::test]
async fn the_deadline_cuts_what_is_left() {
    let (set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("carried"), b'a');

    handle.shutdown(Duration::from_millis(20));
    let drained = running.await.expect("no panic").expect("no error");
    assert_eq!((drained.finished, drained.cut), (0, 1));
    assert_reset(stream).await;
    assert_eq!((handle.counters().cut, handle.counters().active), (1, 0));
    assert_eq!(outcomes(&set, "0").cancelled, 1);
}

#[tokio::test]
async fn the_last_shutdown_counts() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("carried"), b'a');
    handle.shutdown(Duration::MAX);
    handle.shutdown(LONG);
    handle.shutdown(Duration::ZERO);
    let drained = running.await.expect("no panic").expect("no error");
    assert_eq!((drained.finished, drained.cut), (0, 1));
}

#[tokio::test]
async fn a_shutdown_before_the_start_ends_it_at_once() {
    let (_set, forwarder) = world(&[]);
    forwarder.handle().shutdown(LONG);
    assert_eq!(forwarder.run().await.expect("no error"), Drained::default());
}

#[tokio::test]
async fn a_dropped_run_leaves_no_connection_and_exact_counts() {
    let (set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("carried"), b'a');
    running.abort();
    assert!(running.await.expect_err("aborted").is_cancelled());
    assert_reset(stream).await;
    until(|| handle.counters().active == 0).await;
    assert_eq!(handle.counters().cut, 1);
    assert_eq!(set.snapshot().backends()[0].load().total(), 0);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (set, forwarder) = world(&[]);
    let taken = at(&forwarder.handle());
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    let error = Forwarder::bind(taken, balancer).expect_err("in use");
    assert_eq!(error.to_string(), format!("cannot listen on {taken}"));
    assert!(matches!(error, ForwardError::Bind { address, .. } if address == taken));
}

/// Names the backend to the process that [`descriptors_run_out_and_come_back`] starts.
const BACKEND_VARIABLE: &str = "LVS_TEST_BACKEND";

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn descriptors_run_out_and_come_back() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 32 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_process_of_few_descriptors", "--ignored", "--nocapture"])
        .env(BACKEND_VARIABLE, echo(b'a').await.to_string())
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
    let mut crowd = Vec::new();
    for _ in 0..60 {
        crowd.push(TcpStream::connect(address).await);
    }
    // However each of them fares, the listener lives on and serves whoever comes after them.
    drop(crowd);
    let served = async {
        loop {
            let name = async { TcpStream::connect(address).await?.read_u8().await };
            if name.await.is_ok_and(|name| name == b'a') {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, served).await.expect("served again");

    drop(child.stdin.take());
    let short: u64 = value("short of descriptors ").parse().expect("a number");
    let failed_accepts: u64 = value("failed accepts ").parse().expect("a number");
    assert!(short > 0, "the crowd was too small to matter");
    assert!(failed_accepts < 100, "{failed_accepts} failed accepts: it spins");
    assert!(child.wait().expect("the child").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "one half of descriptors_run_out_and_come_back, which starts it"]
async fn a_process_of_few_descriptors() {
    let Ok(backend) = std::env::var(BACKEND_VARIABLE) else { return };
    let (_set, forwarder) = world(&[backend.parse().expect("an address")]);
    let (handle, running) = start(forwarder);
    println!("\nlistening on {}", at(&handle));
    let input = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    input.await.expect("no panic").expect("closed by the parent");
    let (_, counters) = end(&handle, running).await;
    println!("short of descriptors {}", counters.failed_accepts + counters.refused.no_resources);
    println!("failed accepts {}", counters.failed_accepts);
}
