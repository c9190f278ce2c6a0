//! Limits, and the reasons for which datagrams are shed.

use std::net::UdpSocket;

use lvs::{Limits, Spec};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn full_table_evicts_unanswered_flows_only() {
    let echo = Echo::new(b'a');
    let silent = UdpSocket::bind(unused_address()).expect("loopback");
    let (_set, forwarder) = forwarder_to(&[echo.address, silent.local_addr().expect("bound")]);
    let (handle, running) = start(forwarder.max_flows(2));
    let answered = client(&handle);
    assert_eq!(exchange(&answered, b"?"), b'a');
    let flood = client(&handle);
    flood.send(b"?").expect("loopback");
    until(|| handle.counters().to_servers.datagrams == 2);
    // Evicts the flow that was never answered.
    let third = client(&handle);
    assert_eq!(exchange(&third, b"?"), b'a');
    assert_eq!(handle.counters().flows_ended.evicted, 1);
    // All flows are answered now: a new flow is rejected.
    let fourth = client(&handle);
    fourth.send(b"?").expect("loopback");
    until(|| handle.counters().shed.max_flows == 1);
    assert_eq!((exchange(&answered, b"!"), exchange(&third, b"!")), (b'a', b'a'));
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.shed.sum()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn client_cannot_exceed_its_flow_limit() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = forwarder_to(&[echo.address]);
    let (handle, running) = start(forwarder.max_flows_per_client(2).workers(2));
    let clients: Vec<UdpSocket> = (0..3).map(|_| client(&handle)).collect();
    assert_eq!((exchange(&clients[0], b"?"), exchange(&clients[1], b"?")), (b'a', b'a'));
    clients[2].send(b"?").expect("loopback");
    until(|| handle.counters().shed.client_limit == 1);
    let other_client = client_at("127.0.0.9:0", handle.local_addr());
    assert_eq!(exchange(&other_client, b"?"), b'a');
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.shed.sum()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_backends_are_counted_by_reason() {
    let (set, forwarder) = forwarder_to(&[]);
    let (handle, running) = start(forwarder);
    let socket = client(&handle);
    socket.send(b"?").expect("loopback");
    until(|| handle.counters().shed.no_backend == 1);

    let echo = Echo::new(b'a');
    set.insert(Spec::new("small", echo.address).limits(Limits::new(1))).expect("a new name");
    assert_eq!(exchange(&socket, b"?"), b'a');
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().shed.saturated == 1);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.shed.sum(), counters.flows_started), (2, 1));
}
