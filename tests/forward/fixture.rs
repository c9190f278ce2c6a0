//! Servers, a forwarder to them, and clients.

pub(crate) use std::io::ErrorKind;
pub(crate) use std::net::SocketAddr;
pub(crate) use std::time::Duration;

pub(crate) use lvs::forward::{
    DrainReport, ForwardError, Forwarder, Route, TcpCounters, TcpHandle,
};
use lvs::scheduler::RoundRobin;
pub(crate) use lvs::{BackendId, BackendSet, Balancer, Spec};
pub(crate) use tokio::io::{AsyncReadExt, AsyncWriteExt};
pub(crate) use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

pub(crate) type Running = JoinHandle<Result<DrainReport, ForwardError>>;

pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A timeout that no successful test reaches.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts a server that sends its name (one byte), then echoes until the client closes its half.
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

/// Starts a server that resets every connection after the first byte.
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

/// Returns an address that refuses connections while the socket is open.
pub(crate) fn refusing() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(LOOPBACK).expect("loopback");
    (socket.local_addr().expect("bound"), socket)
}

/// Returns a set of backends named `"0"`, `"1"`, ..., and a round robin forwarder to them.
pub(crate) fn forwarder_to(targets: &[SocketAddr]) -> (BackendSet<SocketAddr>, Forwarder) {
    let (set, route) = route_to(targets);
    (set, bind(route))
}

pub(crate) fn bind(route: Route) -> Forwarder {
    Forwarder::bind(LOOPBACK, route).expect("a free port")
}

/// Returns a set of backends named `"0"`, `"1"`, ..., and a round robin route to them.
pub(crate) fn route_to(targets: &[SocketAddr]) -> (BackendSet<SocketAddr>, Route) {
    let set = BackendSet::new();
    // IPVS picks the newest backend first: "0" is inserted last.
    for (i, &target) in targets.iter().enumerate().rev() {
        set.insert(Spec::new(i.to_string(), target)).expect("the name is new");
    }
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    (set, Route::new(balancer))
}

pub(crate) fn start(forwarder: Forwarder) -> (TcpHandle, Running) {
    (forwarder.handle(), tokio::spawn(forwarder.run()))
}

pub(crate) async fn end(handle: &TcpHandle, running: Running) -> (DrainReport, TcpCounters) {
    handle.shutdown(TEST_TIMEOUT);
    let report =
        running.await.expect("the task does not panic").expect("the forwarder does not fail");
    (report, handle.counters())
}

pub(crate) fn address_of(handle: &TcpHandle) -> SocketAddr {
    handle.local_addr().expect("a TCP listener")
}

pub(crate) async fn open(handle: &TcpHandle) -> TcpStream {
    TcpStream::connect(address_of(handle)).await.expect("the forwarder listens")
}

/// Sends a message over a new connection, checks the echo, and returns the name of the server.
pub(crate) async fn exchange(handle: &TcpHandle, message: &[u8]) -> u8 {
    let mut stream = open(handle).await;
    stream.write_all(message).await.expect("the stream is open");
    stream.shutdown().await.expect("the stream is open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("the stream ends in order");
    assert_eq!(&answer[1..], message);
    answer[0]
}

pub(crate) async fn assert_reset(mut stream: TcpStream) {
    let error = stream.read_u8().await.expect_err("the connection is reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Asserts a reset of a stream whose end was read already, by the error of the socket.
pub(crate) async fn assert_reset_after_end_of_stream(stream: TcpStream) {
    until(|| stream.take_error().expect("a socket").is_some()).await;
}

/// Asserts that a new connection is reset, during or after the connect.
pub(crate) async fn assert_refused(handle: &TcpHandle) {
    match TcpStream::connect(address_of(handle)).await {
        Ok(stream) => assert_reset(stream).await,
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Waits for a condition that another thread makes true.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, waiting).await.expect("the condition holds in time");
}

pub(crate) fn outcomes(set: &BackendSet<SocketAddr>, name: &str) -> lvs::backend::OutcomeCounts {
    set.snapshot().find(&BackendId::from(name)).expect("the backend is in the set").outcomes()
}

/// Binds a listener for a test that acts as the server itself.
pub(crate) async fn bind_server() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind(LOOPBACK).await.expect("loopback");
    (listener.local_addr().expect("bound"), listener)
}

/// Connects a client through the forwarder; returns the streams of the client and the server.
pub(crate) async fn connect_through(
    handle: &TcpHandle,
    server_listener: &TcpListener,
) -> (TcpStream, TcpStream) {
    let (client, server) = tokio::join!(open(handle), server_listener.accept());
    (client, server.expect("the forwarder connects").0)
}

/// Reads until the end of the stream.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("the stream ends in order");
    bytes
}

/// Reads exactly `N` bytes.
pub(crate) async fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.expect("the stream is open");
    bytes
}

/// Closes a stream with a reset.
pub(crate) fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("a socket");
}

/// Returns an address that does not answer while the guard is held: Linux drops SYNs to a listener
/// whose accept queue is full.
pub(crate) async fn silent() -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(LOOPBACK).expect("loopback");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("bound");
    let timeout = Duration::from_millis(200);
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        queued.push(stream.expect("the kernel queues the connection"));
    }
    (address, (listener, queued))
}
