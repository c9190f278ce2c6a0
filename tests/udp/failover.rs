//! Backends that refuse, go out of service, or move.

use std::net::{SocketAddr, UdpSocket};

use lvs::{BackendId, BackendSet, Health};

use crate::world::*;

/// Something done to a backend.
type Act = fn(&BackendSet<SocketAddr>, &BackendId);

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
