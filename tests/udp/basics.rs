//! Flows, addresses, and the counting of every datagram.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use lvs::balancer::Persistence;
use lvs::forward::UdpForwarder;
use lvs::scheduler::{DestinationHash, RoundRobin};
use lvs::{BackendSet, Balancer, Flow};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn flows_are_balanced_and_stay_and_every_datagram_is_counted() {
    let echoes = [Echo::new(b'a'), Echo::new(b'b'), Echo::new(b'c')];
    let (set, forwarder) = forwarder_to(&echoes.each_ref().map(|echo| echo.address));
    let (handle, running) = start(forwarder);
    let clients: Vec<UdpSocket> = (0..6).map(|_| client(&handle)).collect();
    for _ in 0..3 {
        let names: Vec<u8> = clients.iter().map(|client| exchange(client, b"hello")).collect();
        assert_eq!(names, b"abcabc");
    }
    assert_eq!(
        (load(&set, "0").active, load(&set, "0").inactive),
        (0, 2),
        "flows are inactive connections, as in IPVS"
    );
    assert_eq!(handle.counters().flows_active, 6);
    let listed: BTreeSet<_> = handle.flows(9).into_iter().map(|flow| flow.client).collect();
    assert_eq!(listed, clients.iter().map(|client| client.local_addr().ok()).collect());
    let flows_of_a =
        handle.flows(9).into_iter().filter(|flow| flow.backend_address == Some(echoes[0].address));
    assert_eq!((flows_of_a.count(), handle.flows(4).len()), (2, 4));

    let (report, counters) = end(&handle, running).await;
    assert_eq!((report.finished, report.cut), (0, 6));
    assert_eq!(handle.flows(9), []);
    assert_eq!((counters.from_clients.datagrams, counters.from_clients.bytes), (18, 90));
    assert_eq!((counters.to_clients.datagrams, counters.to_clients.bytes), (18, 108));
    let backends = handle.backends();
    assert!(
        backends
            .iter()
            .all(|backend| { (backend.flows_started, backend.to_server.datagrams) == (2, 6) })
    );
    assert!(backends.iter().all(|backend| backend.from_server.bytes == 36), "{backends:?}");
    assert!(set.snapshot().backends().iter().all(|backend| backend.load().total() == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_are_sent_from_the_address_the_client_sent_to() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = forwarder_at("0.0.0.0:0", &[echo.address]);
    let (handle, running) = start(forwarder);
    let port = handle.local_addr().port();
    // Connected sockets: each receives only from the address that it sends to.
    for address in ["127.0.0.1", "127.0.0.2", "127.9.8.7"] {
        let client = client_at("127.0.0.1:0", format!("{address}:{port}").parse().expect("valid"));
        assert_eq!(exchange(&client, b"?"), b'a');
    }
    // One client's socket to two addresses: two flows.
    let both = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    both.set_read_timeout(Some(TEST_TIMEOUT)).expect("an option");
    for address in [[127, 0, 0, 3], [127, 0, 0, 4]] {
        let to = SocketAddr::from((address, port));
        both.send_to(b"x", to).expect("loopback");
        assert_eq!(both.recv_from(&mut [0; 9]).expect("an answer").1, to);
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.flows_started, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_socket_serves_clients_and_backends_of_both_families() {
    let (four, six) = (Echo::new(b'4'), Echo::at("[::1]:0", b'6'));
    let (_set, forwarder) = forwarder_at("[::]:0", &[four.address, six.address]);
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
async fn backend_port_0_stands_for_the_port_of_the_listener() {
    let echo = Echo::new(b'a');
    let target = SocketAddr::new(echo.address.ip(), 0);
    let listen = format!("127.0.0.1:{}", echo.address.port());
    let (_set, forwarder) = forwarder_at(&listen, &[target]);
    let (handle, running) = start(forwarder);
    assert_eq!(exchange(&client(&handle), b"?"), b'a');
    end(&handle, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn persistence_keeps_a_client_at_its_backend() {
    let echoes = [Echo::new(b'a'), Echo::new(b'b')];
    let (set, _) = route_to(&echoes.each_ref().map(|echo| echo.address));
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    let sticky = Persistence::builder(TEST_TIMEOUT).build(balancer).expect("in range");
    let listen = unused_address().parse().expect("an address");
    let forwarder = UdpForwarder::bind(listen, Arc::new(sticky)).expect("a free port");
    let (handle, running) = start(forwarder);
    let name = exchange(&client(&handle), b"?");
    assert!((0..4).all(|_| exchange(&client(&handle), b"?") == name));
    let other = client_at("127.0.0.5:0", handle.local_addr());
    assert_ne!(exchange(&other, b"?"), name);
    end(&handle, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bind_error_names_the_address_in_use() {
    let (set, forwarder) = forwarder_to(&[]);
    let address = forwarder.local_addr();
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    let error = UdpForwarder::bind(address, balancer).expect_err("in use");
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot listen on {address}: ")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_the_clients() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = forwarder_to(&[echo.address]);
    let (handle, running) = start(forwarder.workers(4));
    // A reply shows that all sockets are bound: before that, the kernel distributes over fewer.
    assert_eq!(exchange(&client(&handle), b"?"), b'a');
    let clients: Vec<UdpSocket> = (0..100).map(|_| client(&handle)).collect();
    for _ in 0..3 {
        assert!(clients.iter().all(|client| exchange(client, b"?") == b'a'));
    }
    let (report, counters) = end(&handle, running).await;
    assert_eq!(
        (report.cut, counters.flows_started, counters.from_clients.datagrams),
        (101, 101, 301)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarder_can_use_an_existing_socket() {
    let echo = Echo::new(b'a');
    let set = BackendSet::new();
    set.insert(echo.address).expect("a new name");
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let (handle, running) = start(UdpForwarder::new(socket, balancer).expect("a socket"));
    assert_eq!(exchange(&client(&handle), b"?"), b'a');
    end(&handle, running).await;
}

#[tokio::test]
async fn bind_nonlocal_accepts_an_address_of_no_interface() {
    // Reserved for documentation (RFC 5737): no machine has this address.
    let address = "203.0.113.200:5353".parse().expect("an address");
    let balancer =
        Balancer::new(&BackendSet::new(), RoundRobin::new()).expect("rr accepts any set");
    UdpForwarder::bind(address, balancer.clone()).expect_err("no interface has the address");
    let forwarder = UdpForwarder::bind_nonlocal(address, balancer).expect("IP_FREEBIND");
    let handle = forwarder.handle();
    let running = tokio::spawn(forwarder.workers(2).run());
    handle.shutdown(std::time::Duration::ZERO);
    running.await.expect("no panic").expect("the sockets of both workers");
}

/// A listener with several addresses tells the scheduler which one the client sent to.
#[tokio::test(flavor = "multi_thread")]
async fn dh_hashes_the_address_that_the_client_sent_to() {
    let echoes = [b'a', b'b', b'c', b'd'].map(Echo::new);
    let set = BackendSet::new();
    for echo in &echoes {
        set.insert(echo.address).expect("the address is new");
    }
    let balancer = Balancer::new(&set, DestinationHash::new()).expect("a table");
    let wildcard = "0.0.0.0:0".parse().expect("an address");
    let forwarder = UdpForwarder::bind(wildcard, balancer.clone()).expect("a free port");
    let (handle, running) = start(forwarder);
    let port = handle.local_addr().port();
    let mut servers = BTreeSet::new();
    for n in 2..=33 {
        // Not 127.0.0.1, where the forwarder of another test may have the same port.
        let destination = SocketAddr::from(([127, 0, 0, n], port));
        let expected = balancer.pick(&Flow::new().destination(destination)).expect("a server");
        let expected = echoes.iter().position(|echo| echo.address == *expected.backend().target());
        let server = exchange(&client_at("127.0.0.1:0", destination), b"?");
        assert_eq!(expected.map(|position| b"abcd"[position]), Some(server), "{destination}");
        servers.insert(server);
    }
    assert!(servers.len() > 2, "32 destinations are distributed: {servers:?}");
    end(&handle, running).await;
}
