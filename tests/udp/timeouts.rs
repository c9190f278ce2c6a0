//! Timeouts and expected replies.

use std::net::UdpSocket;
use std::time::Duration;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn expected_replies_end_a_flow() {
    let echo = Echo::new(b'a');
    let (set, forwarder) = forwarder_to(&[echo.address]);
    let (handle, running) = start(forwarder.replies(1));
    let socket = client(&handle);
    for _ in 0..3 {
        assert_eq!(exchange(&socket, b"?"), b'a');
        until(|| handle.counters().flows_active == 0);
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.flows_ended.replied), (3, 3));
    assert_eq!(outcomes(&set, "0").ok, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_total_timeouts_end_flows() {
    let silent = UdpSocket::bind(unused_address()).expect("loopback");
    let (set, forwarder) = forwarder_to(&[silent.local_addr().expect("bound")]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(20)).replies(1));
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().flows_ended.idle == 1);
    assert_eq!(outcomes(&set, "0").timeout, 1, "a reply was expected");
    end(&handle, running).await;

    let (set, forwarder) = forwarder_to(&[silent.local_addr().expect("bound")]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(20)));
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().flows_ended.idle == 1);
    assert_eq!(outcomes(&set, "0").ok, 1, "no reply was expected");
    end(&handle, running).await;

    let (_set, forwarder) = forwarder_to(&[silent.local_addr().expect("bound")]);
    let (handle, running) = start(forwarder.total_timeout(Duration::from_millis(50)));
    let busy = client(&handle);
    until(|| {
        busy.send(b"?").expect("loopback");
        handle.counters().flows_ended.total_time >= 2
    });
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.flows_ended.idle, 0);
}
