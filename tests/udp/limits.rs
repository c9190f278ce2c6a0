//! What is shed, and why.

use std::net::UdpSocket;

use lvs::{Limits, Spec};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_table_sheds_by_its_rule() {
    let echo = Echo::new(b'a');
    let silent = UdpSocket::bind(own_address()).expect("loopback");
    let (_set, forwarder) = world(&[echo.address, silent.local_addr().expect("bound")]);
    let (handle, running) = start(forwarder.max_flows(2));
    let answered = client(&handle);
    assert_eq!(exchange(&answered, b"?"), b'a');
    let flood = client(&handle);
    flood.send(b"?").expect("loopback");
    until(|| handle.counters().to_servers.datagrams == 2);
    // Takes the place of the one that was never answered.
    let third = client(&handle);
    assert_eq!(exchange(&third, b"?"), b'a');
    assert_eq!(handle.counters().flows_ended.evicted, 1);
    // All are answered now: the next one is turned away.
    let fourth = client(&handle);
    fourth.send(b"?").expect("loopback");
    until(|| handle.counters().shed.max_flows == 1);
    assert_eq!((exchange(&answered, b"!"), exchange(&third, b"!")), (b'a', b'a'));
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.shed.total()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_no_more_flows_than_it_may() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = world(&[echo.address]);
    let (handle, running) = start(forwarder.max_flows_per_client(2).workers(2));
    let clients: Vec<UdpSocket> = (0..3).map(|_| client(&handle)).collect();
    assert_eq!((exchange(&clients[0], b"?"), exchange(&clients[1], b"?")), (b'a', b'a'));
    clients[2].send(b"?").expect("loopback");
    until(|| handle.counters().shed.max_flows_per_client == 1);
    let other = client_at("127.0.0.9:0", handle.local_addr());
    assert_eq!(exchange(&other, b"?"), b'a');
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.shed.total()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_choose_is_counted_by_reason() {
    let (set, forwarder) = world(&[]);
    let (handle, running) = start(forwarder);
    let one = client(&handle);
    one.send(b"?").expect("loopback");
    until(|| handle.counters().shed.no_backend == 1);

    let echo = Echo::new(b'a');
    set.insert(Spec::new("small", echo.address).limits(Limits::new(1))).expect("a new name");
    assert_eq!(exchange(&one, b"?"), b'a');
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().shed.saturated == 1);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.shed.total(), counters.flows_started), (2, 1));
}
