//! Who may come in, who waits, and who serves when nobody does.

use std::sync::{Arc, Mutex};

use lvs::Limits;
use lvs::balancer::Persistence;
use lvs::forward::{ConnectionRate, SourceAddress};
use lvs::scheduler::RoundRobin;

use crate::world::*;

const PATIENT: Duration = Duration::from_secs(30);

/// One backend that takes one connection.
async fn narrow() -> (BackendSet<SocketAddr>, Forwarder) {
    let (set, forwarder) = world(&[echo(b'a').await]);
    set.set_limits(&BackendId::from("0"), Limits::new(1)).expect("a backend");
    (set, forwarder)
}

#[tokio::test]
async fn one_client_has_no_more_than_its_number() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.max_connections_per_client(2));
    let mut held = [open(&handle).await, open(&handle).await];
    for stream in &mut held {
        assert_eq!(&read::<1>(stream).await, b"a");
    }
    assert_turned_away(&handle).await;
    let other = TcpSocket::new_v4().expect("a socket");
    other.bind(SocketAddr::from(([127, 0, 0, 2], 0))).expect("loopback");
    let mut other = other.connect(at(&handle)).await.expect("the forwarder listens");
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
async fn beyond_the_rate_clients_wait_and_are_served() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
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
async fn in_line_for_a_full_backend_all_are_served_in_their_order() {
    let (_set, forwarder) = narrow().await;
    let (handle, running) = start(forwarder.queue(10, PATIENT));
    let mut first = open(&handle).await;
    assert_eq!(&read::<1>(&mut first).await, b"a");
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for i in 0..5u64 {
        let mut stream = open(&handle).await;
        until(|| handle.queue().expect("a line").entered == i + 1).await;
        let served = Arc::clone(&served);
        waiting.push(tokio::spawn(async move {
            assert_eq!(&read::<1>(&mut stream).await, b"a");
            served.lock().expect("no panic").push(i);
        }));
    }
    drop(first);
    for waiter in waiting {
        waiter.await.expect("served");
    }
    assert_eq!(*served.lock().expect("no panic"), [0, 1, 2, 3, 4]);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.refused.sum()), (6, 0));
    let line = handle.queue().expect("a line");
    assert_eq!((line.waiting, line.max_waiting, line.served), (0, 5, 5));
}

#[tokio::test]
async fn the_line_has_an_end_and_a_deadline() {
    let (_set, forwarder) = narrow().await;
    let (handle, running) = start(forwarder.queue(1, Duration::from_millis(300)));
    let mut first = open(&handle).await;
    assert_eq!(&read::<1>(&mut first).await, b"a");
    let waiting = open(&handle).await;
    until(|| handle.queue().expect("a line").waiting == 1).await;
    assert_turned_away(&handle).await;
    until(|| handle.counters().refused.saturated == 1).await;
    assert_reset(waiting).await;
    until(|| handle.counters().refused.queue_timeout == 1).await;
    drop(first);
    end(&handle, running).await;
}

#[tokio::test]
async fn the_sorry_server_takes_over_when_nobody_serves() {
    let sorry = echo(b's').await;
    let (refuses, _socket) = refusing();
    let (set, forwarder) = world(&[]);
    let (handle, running) = start(forwarder.sorry_server(sorry));
    assert_eq!(exchange(&handle, b"nobody there").await, b's');
    set.insert(Spec::new("0", refuses)).expect("a new name");
    assert_eq!(exchange(&handle, b"refused").await, b's');
    let real = set.insert(Spec::new("1", echo(b'a').await)).expect("a new name");
    assert_eq!(exchange(&handle, b"served").await, b'a');
    set.set_limits(real.id(), Limits::new(1)).expect("a backend");
    let mut held = open(&handle).await;
    assert_eq!(&read::<1>(&mut held).await, b"a");
    assert_eq!(exchange(&handle, b"full").await, b's');
    drop(held);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.sorry_connections, counters.finished, counters.refused.sum()), (3, 5, 0));
}

#[tokio::test]
async fn a_known_client_comes_back_to_its_server_on_all_ports_of_a_group() {
    // Hosts without ports: each is asked on the port that its client used.
    let set = BackendSet::new();
    for host in [[127, 0, 0, 11], [127, 0, 0, 12], [127, 0, 0, 13]] {
        set.insert(SocketAddr::from((host, 0))).expect("a new name");
    }
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    let sticky = Arc::new(Persistence::builder(PATIENT).build(balancer.clone()));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let forwarder = Forwarder::bind(LOOPBACK, balancer.clone()).expect("a free port");
        let port = forwarder.local_addr().expect("TCP").port();
        let mut servers = Vec::new();
        for host in [11, 12, 13] {
            let address = SocketAddr::from(([127, 0, 0, host], port));
            let listener = TcpListener::bind(address).await.expect("loopback");
            servers.push(tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    stream.write_all(&[host]).await.expect("open");
                }
            }));
        }
        let (handle, running) = start(forwarder.persistence(Arc::clone(&sticky)));
        for _ in 0..5 {
            seen.extend(all_of(&mut open(&handle).await).await);
        }
        end(&handle, running).await;
        servers.iter().for_each(tokio::task::JoinHandle::abort);
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.iter().all(|host| *host == seen[0]), "{seen:?}");
}

#[tokio::test]
async fn backends_see_the_source_that_was_asked_for() {
    let (address, stage) = stage().await;
    let sources = [[127, 0, 0, 21], [127, 0, 0, 22]].map(std::net::IpAddr::from);
    let (_set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder.source(SourceAddress::Addresses(sources.to_vec())));
    for source in sources {
        let (_client, server) = meet(&handle, &stage).await;
        assert_eq!(server.peer_addr().expect("connected").ip(), source);
    }
    end(&handle, running).await;
}

#[tokio::test]
async fn a_transparent_forwarder_shows_the_client_itself() {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder.source(SourceAddress::Client));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 33], 0))).expect("loopback");
    let mut client = socket.connect(at(&handle)).await.expect("the forwarder listens");
    let permitted = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .and_then(|probe| probe.set_ip_transparent_v4(true))
        .is_ok();
    if permitted {
        let (server, source) = stage.accept().await.expect("the forwarder connects");
        assert_eq!(source.ip(), std::net::IpAddr::from([127, 0, 0, 33]));
        drop((client, server));
        end(&handle, running).await;
    } else {
        println!("without CAP_NET_ADMIN: only that it is refused is tested");
        client.read_u8().await.expect_err("no permission, no connection");
        let (_, counters) = end(&handle, running).await;
        assert_eq!(counters.refused.no_resources, 1);
    }
}
