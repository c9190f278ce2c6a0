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

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_ends_has_a_record() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = forwarder_to(&[echo.address]);
    let (sender, records) = std::sync::mpsc::channel();
    let forwarder = forwarder.name("dns").idle_timeout(Duration::from_millis(50));
    let (handle, running) = start(forwarder.on_end(move |record| {
        let _ = sender.send(record.clone());
        panic!("caught by the forwarder");
    }));
    let client = client(&handle);
    assert_eq!(exchange(&client, b"?"), b'a');
    let record = records.recv_timeout(TEST_TIMEOUT).expect("the flow ends");
    let address = client.local_addr().expect("bound");
    assert_eq!((&*record.service, record.client, record.end), ("dns", address, "idle"));
    assert_eq!((record.requests, record.replies, record.backend.as_str()), (1, 1, "0"));
    assert_eq!(record.local, handle.local_addr());
    let line = record.to_string();
    assert!(line.starts_with(&format!("service=dns end=idle client={address} local=")), "{line}");
    assert_eq!(handle.worker_restarts(), 0);
    end(&handle, running).await;
}
