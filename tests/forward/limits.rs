//! Limits, the queue, the sorry server, persistence and source addresses.

use std::sync::{Arc, Mutex};

use lvs::Limits;
use lvs::balancer::Persistence;
use lvs::forward::{ConnectionRate, SourceAddress};
use lvs::scheduler::RoundRobin;

use crate::fixture::*;

const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns a set of one backend with a limit of one connection, and a route to it.
async fn route_to_limited_backend() -> (BackendSet<SocketAddr>, Route) {
    let (set, route) = route_to(&[echo(b'a').await]);
    set.set_limits(&BackendId::from("0"), Limits::new(1)).expect("the backend is in the set");
    (set, route)
}

#[tokio::test]
async fn connections_above_the_limit_per_client_are_reset() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.max_connections_per_client(2));
    let mut held = [open(&handle).await, open(&handle).await];
    for stream in &mut held {
        assert_eq!(&read::<1>(stream).await, b"a");
    }
    assert_refused(&handle).await;
    let other = TcpSocket::new_v4().expect("a socket");
    other.bind(SocketAddr::from(([127, 0, 0, 2], 0))).expect("loopback");
    let mut other = other.connect(address_of(&handle)).await.expect("the forwarder listens");
    assert_eq!(&read::<1>(&mut other).await, b"a", "another client");
    let [first, second] = held;
    drop(first);
    until(|| handle.counters().active == 2).await;
    assert_eq!(exchange(&handle, b"again").await, b'a');
    drop((second, other));
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.refused.client_limit, counters.finished), (1, 4));
}

#[tokio::test]
async fn connections_above_the_accept_rate_wait_and_are_served() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) =
        start(forwarder.accept_rate(
            ConnectionRate::new(100).and_then(|rate| rate.with_burst(1)).expect("not 0"),
        ));
    for _ in 0..10 {
        assert_eq!(exchange(&handle, b"x").await, b'a');
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.accepted, counters.finished), (10, 10));
}

#[tokio::test]
async fn queued_connections_are_served_in_order() {
    let (_set, route) = route_to_limited_backend().await;
    let (handle, running) = start(bind(route.queue(10, LONG_TIMEOUT)));
    let mut first = open(&handle).await;
    assert_eq!(&read::<1>(&mut first).await, b"a");
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for i in 0..5u64 {
        let mut stream = open(&handle).await;
        until(|| handle.queue().expect("the forwarder has a queue").entered == i + 1).await;
        let served = Arc::clone(&served);
        waiting.push(tokio::spawn(async move {
            assert_eq!(&read::<1>(&mut stream).await, b"a");
            served.lock().expect("the task does not panic").push(i);
        }));
    }
    drop(first);
    for waiter in waiting {
        waiter.await.expect("served");
    }
    assert_eq!(*served.lock().expect("the task does not panic"), [0, 1, 2, 3, 4]);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.refused.sum()), (6, 0));
    let queue = handle.queue().expect("the forwarder has a queue");
    assert_eq!((queue.waiting, queue.max_waiting, queue.served), (0, 5, 5));
}

#[tokio::test]
async fn the_queue_has_a_capacity_and_a_timeout() {
    let (_set, route) = route_to_limited_backend().await;
    let (handle, running) = start(bind(route.queue(1, Duration::from_millis(300))));
    let mut first = open(&handle).await;
    assert_eq!(&read::<1>(&mut first).await, b"a");
    let waiting = open(&handle).await;
    until(|| handle.queue().expect("the forwarder has a queue").waiting == 1).await;
    assert_refused(&handle).await;
    until(|| handle.counters().refused.saturated == 1).await;
    assert_reset(waiting).await;
    until(|| handle.counters().refused.queue_timeout == 1).await;
    drop(first);
    end(&handle, running).await;
}

#[tokio::test]
async fn the_sorry_server_serves_if_no_backend_is_available() {
    let sorry = echo(b's').await;
    let (refuses, _socket) = refusing();
    let (set, route) = route_to(&[]);
    let (handle, running) = start(bind(route.sorry_server(sorry)));
    assert_eq!(exchange(&handle, b"no backend").await, b's');
    set.insert(Spec::new("0", refuses)).expect("the name is new");
    assert_eq!(exchange(&handle, b"refused").await, b's');
    let real = set.insert(Spec::new("1", echo(b'a').await)).expect("the name is new");
    assert_eq!(exchange(&handle, b"served").await, b'a');
    set.set_limits(real.id(), Limits::new(1)).expect("the backend is in the set");
    let mut held = open(&handle).await;
    assert_eq!(&read::<1>(&mut held).await, b"a");
    assert_eq!(exchange(&handle, b"full").await, b's');
    drop(held);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.sorry_connections, counters.finished, counters.refused.sum()), (3, 5, 0));
}

#[tokio::test]
async fn persistence_covers_all_ports_of_a_group() {
    // Backends with port 0: each is connected to on the port that its client used.
    let set = BackendSet::new();
    for host in [[127, 0, 0, 11], [127, 0, 0, 12], [127, 0, 0, 13]] {
        set.insert(SocketAddr::from((host, 0))).expect("the name is new");
    }
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    let persistence = Persistence::builder(LONG_TIMEOUT).build(balancer);
    let persistence = Arc::new(persistence.expect("in range"));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let forwarder = bind(Route::persistent(Arc::clone(&persistence)));
        let port = forwarder.local_addr().expect("TCP").port();
        let mut servers = Vec::new();
        for host in [11, 12, 13] {
            let address = SocketAddr::from(([127, 0, 0, host], port));
            let listener = TcpListener::bind(address).await.expect("loopback");
            servers.push(tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    stream.write_all(&[host]).await.expect("the stream is open");
                }
            }));
        }
        let (handle, running) = start(forwarder);
        for _ in 0..5 {
            seen.extend(read_to_end(&mut open(&handle).await).await);
        }
        end(&handle, running).await;
        servers.iter().for_each(tokio::task::JoinHandle::abort);
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.iter().all(|host| *host == seen[0]), "{seen:?}");
}

#[tokio::test]
async fn backends_see_the_configured_source_addresses() {
    let (address, server_listener) = bind_server().await;
    let sources = [[127, 0, 0, 21], [127, 0, 0, 22]].map(std::net::IpAddr::from);
    let (_set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder.source(SourceAddress::Addresses(sources.to_vec())));
    for source in sources {
        let (_client, server) = connect_through(&handle, &server_listener).await;
        assert_eq!(server.peer_addr().expect("connected").ip(), source);
    }
    end(&handle, running).await;
}

#[tokio::test]
async fn a_transparent_forwarder_connects_from_the_address_of_the_client() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder.source(SourceAddress::Client));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 33], 0))).expect("loopback");
    let mut client = socket.connect(address_of(&handle)).await.expect("the forwarder listens");
    let permitted = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .and_then(|probe| probe.set_ip_transparent_v4(true))
        .is_ok();
    if permitted {
        let (server, source) = server_listener.accept().await.expect("the forwarder connects");
        assert_eq!(source.ip(), std::net::IpAddr::from([127, 0, 0, 33]));
        drop((client, server));
        end(&handle, running).await;
    } else {
        println!("no CAP_NET_ADMIN: only the refusal is tested");
        client.read_u8().await.expect_err("the connect is not permitted");
        let (_, counters) = end(&handle, running).await;
        assert_eq!(counters.refused.no_resources, 1);
    }
}
