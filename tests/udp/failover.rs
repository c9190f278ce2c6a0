//! Backends that refuse datagrams or go out of service.

use std::net::{SocketAddr, UdpSocket};

use lvs::{BackendId, BackendSet, Health};

use crate::world::*;

/// A change of a backend in its set.
type BackendChange = fn(&BackendSet<SocketAddr>, &BackendId);

#[tokio::test(flavor = "multi_thread")]
async fn refused_datagram_is_sent_to_another_backend() {
    let echo = Echo::new(b'b');
    let (refusing, _socket) = refusing_address();
    let (set, forwarder) = forwarder_to(&[refusing, echo.address]);
    let (handle, running) = start(forwarder);
    for _ in 0..4 {
        let client = client(&handle);
        assert_eq!(exchange(&client, b"hello"), b'b');
        assert_eq!(exchange(&client, b"again"), b'b');
    }
    let (_, counters) = end(&handle, running).await;
    let refused = outcomes(&set, "0").connect_error;
    assert!(refused >= 2, "at least every other new flow picks the refusing backend");
    assert_eq!(
        (counters.flows_moved, counters.resent, counters.server_errors),
        (refused, refused, refused)
    );
    assert_eq!((counters.flows_started, counters.to_servers.datagrams), (4, 8));
    assert_eq!(echo.received(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_ends_after_its_attempts_if_all_backends_refuse() {
    let (targets, _sockets): (Vec<_>, Vec<_>) = (0..5).map(|_| refusing_address()).unzip();
    let (set, forwarder) = forwarder_to(&targets);
    let (handle, running) = start(forwarder.attempts(3));
    let client = client(&handle);
    client.send(b"?").expect("loopback");
    until(|| handle.counters().flows_ended.unreachable == 1);
    let (_, counters) = end(&handle, running).await;
    let errors: u64 = (0..5).map(|i| outcomes(&set, &i.to_string()).connect_error).sum();
    assert_eq!((errors, counters.server_errors, counters.flows_moved), (3, 3, 2));
    assert_eq!((counters.flows_started, counters.flows_ended.sum()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_backend_loses_no_flow() {
    let mut echoes: Vec<Echo> = (0..3).map(|i| Echo::new(b'a' + i)).collect();
    let targets: Vec<SocketAddr> = echoes.iter().map(|echo| echo.address).collect();
    let (set, forwarder) = forwarder_to(&targets);
    let (handle, running) = start(forwarder);
    let clients: Vec<UdpSocket> = (0..120).map(|_| client(&handle)).collect();
    let before: Vec<u8> = clients.iter().map(|client| exchange(client, b"1")).collect();
    assert_eq!(before.iter().filter(|name| **name == b'b').count(), 40);

    drop(echoes.remove(1));
    // Sent in one burst: the refused datagrams are still in the batch of the worker.
    for client in &clients {
        client.send(b"2").expect("loopback");
    }
    let after: Vec<u8> = clients.iter().map(|client| receive(client)[0]).collect();
    for (before, after) in before.iter().zip(&after) {
        match before {
            b'b' => assert_ne!(*after, b'b'),
            _ => assert_eq!(after, before, "flows of other backends stay"),
        }
    }
    assert_eq!((load(&set, "0").inactive, load(&set, "1").inactive), (60, 0));
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_moved, counters.resent, counters.flows_started), (40, 40, 120));
    assert_eq!(outcomes(&set, "1").connect_error, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_leave_a_backend_that_is_down_disabled_or_removed_and_other_flows_stay() {
    let echoes: Vec<Echo> = (0..4).map(|i| Echo::new(b'a' + i)).collect();
    let targets: Vec<SocketAddr> = echoes.iter().map(|echo| echo.address).collect();
    let (set, forwarder) = forwarder_to(&targets);
    let (handle, running) = start(forwarder);
    let clients: Vec<UdpSocket> = (0..8).map(|_| client(&handle)).collect();
    let names = || clients.iter().map(|client| exchange(client, b"?")).collect::<Vec<u8>>();
    assert_eq!(names(), b"abcdabcd");

    let changes: [(&str, BackendChange); 3] = [
        ("0", |set, id| set.set_health(id, Health::Down).expect("in the set")),
        ("1", |set, id| set.disable(id).expect("in the set")),
        ("2", |set, id| drop(set.remove(id).expect("in the set"))),
    ];
    for (round, (name, change)) in changes.into_iter().enumerate() {
        let (before, backend) = (names(), set.snapshot().find(&name.into()).cloned());
        change(&set, &name.into());
        // The leases end, so the flows move without a datagram.
        let backend = backend.expect("in the set");
        until(|| backend.load().total() == 0);
        assert_eq!(backend.outcomes().connect_error, 0, "the backend is not charged with an error");
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
async fn flows_stay_at_a_draining_or_quiesced_backend() {
    let echoes = [Echo::new(b'a'), Echo::new(b'b'), Echo::new(b'c')];
    let (set, forwarder) = forwarder_to(&echoes.each_ref().map(|echo| echo.address));
    let (handle, running) = start(forwarder);
    let clients: Vec<UdpSocket> = (0..3).map(|_| client(&handle)).collect();
    let names = || clients.iter().map(|client| exchange(client, b"?")).collect::<Vec<u8>>();
    assert_eq!(names(), b"abc");
    set.drain(&"0".into()).expect("in the set");
    set.set_weight(&"1".into(), 0).expect("in the set");
    // New flows use the other backend; after them the worker has seen the change.
    assert!((0..5).all(|_| exchange(&client(&handle), b"?") == b'c'));
    assert_eq!(names(), b"abc");
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.flows_moved, 0);
}
