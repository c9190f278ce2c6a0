//! Small worlds: servers, a forwarder before them, and clients.

pub(crate) use std::io::ErrorKind;
pub(crate) use std::net::SocketAddr;
pub(crate) use std::time::Duration;

pub(crate) use lvs::forward::{DrainReport, ForwardError, Forwarder, TcpCounters, TcpHandle};
use lvs::scheduler::RoundRobin;
pub(crate) use lvs::{BackendId, BackendSet, Balancer, Spec};
pub(crate) use tokio::io::{AsyncReadExt, AsyncWriteExt};
pub(crate) use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

pub(crate) type Running = JoinHandle<Result<DrainReport, ForwardError>>;

pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Ample for anything that happens at once.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A server that says its name (one byte), then echoes until the client's half is closed.
pub(crate) async fn echo(name: u8) -> SocketAddr {
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
pub(crate) async fn breaker() -> SocketAddr {
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
pub(crate) fn refusing() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(LOOPBACK).expect("loopback");
    (socket.local_addr().expect("bound"), socket)
}

/// A set of backends named `"0"`, `"1"`, ..., and a forwarder over it in turn.
pub(crate) fn world(targets: &[SocketAddr]) -> (BackendSet<SocketAddr>, Forwarder) {
    let set = BackendSet::new();
    // The kernel's order is newest first: insert the last one first, and "0" has the first turn.
    for (i, &target) in targets.iter().enumerate().rev() {
        set.insert(Spec::new(i.to_string(), target)).expect("a new name");
    }
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    (set, Forwarder::bind(LOOPBACK, balancer).expect("a free port"))
}

pub(crate) fn start(forwarder: Forwarder) -> (TcpHandle, Running) {
    (forwarder.handle(), tokio::spawn(forwarder.run()))
}

pub(crate) async fn end(handle: &TcpHandle, running: Running) -> (DrainReport, TcpCounters) {
    handle.shutdown(LONG);
    let drained = running.await.expect("no panic").expect("no error");
    (drained, handle.counters())
}

pub(crate) fn at(handle: &TcpHandle) -> SocketAddr {
    handle.local_addr().expect("a TCP listener")
}

pub(crate) async fn open(handle: &TcpHandle) -> TcpStream {
    TcpStream::connect(at(handle)).await.expect("the forwarder listens")
}

/// One connection from beginning to end: the server's name, after a message went there and back.
pub(crate) async fn exchange(handle: &TcpHandle, message: &[u8]) -> u8 {
    let mut stream = open(handle).await;
    stream.write_all(message).await.expect("open");
    stream.shutdown().await.expect("open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an end in order");
    assert_eq!(&answer[1..], message);
    answer[0]
}

pub(crate) async fn assert_reset(mut stream: TcpStream) {
    let error = stream.read_u8().await.expect_err("nobody speaks");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// The same for a stream whose end was read already: the socket's error tells, and not another read.
pub(crate) async fn assert_reset_after_its_end(stream: TcpStream) {
    until(|| stream.take_error().expect("a socket").is_some()).await;
}

/// A new client is reset, be it before it knows that it was connected.
pub(crate) async fn assert_turned_away(handle: &TcpHandle) {
    match TcpStream::connect(at(handle)).await {
        Ok(stream) => assert_reset(stream).await,
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Waits for what is about to happen on another thread.
pub(crate) async fn until(mut happened: impl FnMut() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("in time");
}

pub(crate) fn outcomes(set: &BackendSet<SocketAddr>, name: &str) -> lvs::backend::OutcomeCounts {
    set.snapshot().find(&BackendId::from(name)).expect("in the set").outcomes()
}

/// Hands out its connections one after the other, for tests that play the server themselves.
pub(crate) async fn stage() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind(LOOPBACK).await.expect("loopback");
    (listener.local_addr().expect("bound"), listener)
}

/// A client and the server it was brought together with.
pub(crate) async fn meet(handle: &TcpHandle, stage: &TcpListener) -> (TcpStream, TcpStream) {
    let (client, server) = tokio::join!(open(handle), stage.accept());
    (client, server.expect("the forwarder connects").0)
}

/// What arrives until the end.
pub(crate) async fn all_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("an end in order");
    bytes
}

/// Reads a few bytes, which must come.
pub(crate) async fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.expect("open");
    bytes
}

/// Closes by a reset.
pub(crate) fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("a socket");
}

/// An address that does not answer for as long as its guard is held: Linux drops SYNs to a listener
/// whose queue is full.
pub(crate) async fn silent() -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(LOOPBACK).expect("loopback");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("bound");
    let patience = Duration::from_millis(200);
    let mut crowd = Vec::new();
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        crowd.push(stream.expect("queued"));
    }
    (address, (listener, crowd))
}
