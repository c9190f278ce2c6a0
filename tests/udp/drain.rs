//! How a forwarder ends.

use std::net::UdpSocket;
use std::time::Duration;

use lvs::forward::DrainReport;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_keeps_flows_and_takes_no_new_ones() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = world(&[echo.address]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(300)));
    let one = client(&handle);
    assert_eq!(exchange(&one, b"?"), b'a');
    handle.shutdown(LONG);
    assert_eq!(exchange(&one, b"still here"), b'a');
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().shed.draining == 1);
    let drained = running.await.expect("no panic").expect("no error");
    assert_eq!((drained.finished, drained.cut), (1, 0));
    assert_eq!(handle.counters().flows_ended.idle, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_before_the_start_ends_it_at_once() {
    let (_set, forwarder) = world(&[]);
    forwarder.handle().shutdown(LONG);
    assert_eq!(forwarder.run().await.expect("no error"), DrainReport::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_run_cuts_its_flows_and_frees_the_address() {
    let echo = Echo::new(b'a');
    let (set, forwarder) = world(&[echo.address]);
    let (handle, running) = start(forwarder);
    assert_eq!(exchange(&client(&handle), b"?"), b'a');
    running.abort();
    assert!(running.await.expect_err("aborted").is_cancelled());
    until(|| handle.counters().flows_ended.cut == 1);
    assert_eq!((handle.counters().flows_active, load(&set, "0").total()), (0, 0));
    until(|| UdpSocket::bind(handle.local_addr()).is_ok());
}
