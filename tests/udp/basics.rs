//! Who talks to whom, and that every datagram is counted.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use lvs::balancer::Persistence;
use lvs::forward::UdpForwarder;
use lvs::scheduler::RoundRobin;
use lvs::{BackendSet, Balancer};

use crate::world::*;

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
    let listed: BTreeSet<_> = handle.flows(9).into_iter().map(|it| it.client).collect();
    assert_eq!(listed, clients.iter().map(|it| it.local_addr().ok()).collect());
    let of_a =
        handle.flows(9).into_iter().filter(|it| it.backend_address == Some(echoes[0].address));
    assert_eq!((of_a.count(), handle.flows(4).len()), (2, 4));

    let (drained, counters) = end(&handle, running).await;
    assert_eq!((drained.finished, drained.cut), (0, 6));
    assert_eq!(handle.flows(9), []);
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
    let sticky = Persistence::builder(LONG).build(balancer);
    let (handle, running) = start(forwarder.persistence(Arc::new(sticky)));
    let name = exchange(&client(&handle), b"?");
    assert!((0..4).all(|_| exchange(&client(&handle), b"?") == name));
    let other = client_at("127.0.0.5:0", handle.local_addr());
    assert_ne!(exchange(&other, b"?"), name);
    end(&handle, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let (set, forwarder) = world(&[]);
    let taken = forwarder.local_addr();
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    let error = UdpForwarder::bind(taken, balancer).expect_err("in use");
    assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: ")), "{error}");
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

#[tokio::test]
async fn an_address_may_be_listened_on_before_it_is_there() {
    // For documentation (RFC 5737): no machine has it.
    let address = "203.0.113.200:5353".parse().expect("an address");
    let balancer = Balancer::new(&BackendSet::new(), RoundRobin).expect("rr takes any set");
    UdpForwarder::bind(address, balancer.clone()).expect_err("it is not there");
    let forwarder = UdpForwarder::bind_nonlocal(address, balancer).expect("it need not be");
    let handle = forwarder.handle();
    let running = tokio::spawn(forwarder.workers(2).run());
    handle.shutdown(std::time::Duration::ZERO);
    running.await.expect("no panic").expect("the sockets of both workers");
}
