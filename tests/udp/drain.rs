//! Drain and shutdown.

use std::net::UdpSocket;
use std::time::Duration;

use lvs::forward::DrainReport;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn drain_keeps_flows_and_starts_none() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = forwarder_to(&[echo.address]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(300)));
    let client_socket = client(&handle);
    assert_eq!(exchange(&client_socket, b"?"), b'a');
    handle.shutdown(TEST_TIMEOUT);
    assert_eq!(exchange(&client_socket, b"still here"), b'a');
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().shed.draining == 1);
    let report = running.await.expect("no panic").expect("no error");
    assert_eq!((report.finished, report.cut), (1, 0));
    assert_eq!(handle.counters().flows_ended.idle, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_before_run_ends_run_at_once() {
    let (_set, forwarder) = forwarder_to(&[]);
    forwarder.handle().shutdown(TEST_TIMEOUT);
    assert_eq!(forwarder.run().await.expect("no error"), DrainReport::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_run_cuts_flows_and_frees_the_address() {
    let echo = Echo::new(b'a');
    let (set, forwarder) = forwarder_to(&[echo.address]);
    let (handle, running) = start(forwarder);
    assert_eq!(exchange(&client(&handle), b"?"), b'a');
    running.abort();
    assert!(running.await.expect_err("aborted").is_cancelled());
    until(|| handle.counters().flows_ended.cut == 1);
    assert_eq!((handle.counters().flows_active, load(&set, "0").total()), (0, 0));
    until(|| UdpSocket::bind(handle.local_addr()).is_ok());
}
