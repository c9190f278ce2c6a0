//! Drains, dropped runs and handovers.

use crate::fixture::*;

#[tokio::test]
async fn a_drain_waits_for_open_connections_and_accepts_no_new_ones() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("the connection is proxied"), b'a');

    handle.shutdown(TEST_TIMEOUT);
    // The listener is closed as soon as the worker is notified. Clients that the kernel has queued before
    // are served, and end in order.
    while TcpStream::connect(address_of(&handle)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"still here").await.expect("the stream is open");
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await.expect("the connection is proxied");
    assert_eq!(&answer, b"still here");
    assert!(!running.is_finished());

    drop(stream);
    let report =
        running.await.expect("the task does not panic").expect("the forwarder does not fail");
    assert_eq!(report.cut, 0);
    let counters = handle.counters();
    assert_eq!((counters.finished, counters.cut), (counters.accepted, 0));
}

#[tokio::test]
async fn the_deadline_cuts_open_connections() {
    let (set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("the connection is proxied"), b'a');

    handle.shutdown(Duration::from_millis(20));
    let report =
        running.await.expect("the task does not panic").expect("the forwarder does not fail");
    assert_eq!((report.finished, report.cut), (0, 1));
    assert_reset(stream).await;
    assert_eq!((handle.counters().cut, handle.counters().active), (1, 0));
    assert_eq!(outcomes(&set, "0").cancelled, 1);
}

#[tokio::test]
async fn the_last_shutdown_decides() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("the connection is proxied"), b'a');
    handle.shutdown(Duration::MAX);
    handle.shutdown(TEST_TIMEOUT);
    handle.shutdown(Duration::ZERO);
    let report =
        running.await.expect("the task does not panic").expect("the forwarder does not fail");
    assert_eq!((report.finished, report.cut), (0, 1));
}

#[tokio::test]
async fn a_shutdown_before_run_ends_run_at_once() {
    let (_set, forwarder) = forwarder_to(&[]);
    forwarder.handle().shutdown(TEST_TIMEOUT);
    assert_eq!(forwarder.run().await.expect("the forwarder does not fail"), DrainReport::default());
}

#[tokio::test]
async fn a_dropped_run_cuts_all_connections_and_keeps_the_counters_exact() {
    let (set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("the connection is proxied"), b'a');
    running.abort();
    assert!(running.await.expect_err("aborted").is_cancelled());
    assert_reset(stream).await;
    until(|| handle.counters().active == 0).await;
    assert_eq!(handle.counters().cut, 1);
    assert_eq!(set.snapshot().backends()[0].load().total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handover_of_the_listeners_refuses_no_client() {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use lvs::forward::handover;

    let (set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.workers(2));
    assert_eq!(exchange(&handle, b"before").await, b'a');
    let clients = {
        let handle = handle.clone();
        tokio::spawn(async move {
            for _ in 0..300 {
                assert_eq!(exchange(&handle, b"x").await, b'a');
            }
        })
    };

    let (predecessor, successor_stream) = UnixStream::pair().expect("a pair");
    let listeners = handle.sockets().expect("descriptors");
    let named: Vec<_> = listeners.iter().map(|listener| ("web", listener.as_fd())).collect();
    handover::send(&predecessor, &named).expect("the successor listens");
    drop(listeners);
    let received = handover::receive(&successor_stream).expect("all sockets are received");
    let received: Vec<std::net::TcpListener> =
        received.into_iter().map(|(_, descriptor)| descriptor.into()).collect();
    assert_eq!(received.len(), 2);
    let balancer =
        Balancer::new(&set, lvs::scheduler::RoundRobin::new()).expect("rr accepts any set");
    let successor = Forwarder::from_listeners(received, balancer).expect("listeners");
    assert_eq!(successor.local_addr(), handle.local_addr());
    let (successor_handle, successor_running) = start(successor);
    until(|| successor_handle.counters().accepted > 0).await;
    let (_, first) = end(&handle, running).await;
    assert!(handle.sockets().expect("there are no listeners").is_empty());

    clients.await.expect("every client was served");
    let (_, second) = end(&successor_handle, successor_running).await;
    assert_eq!(first.finished + second.finished, 301);
    assert!(first.finished > 0 && second.finished > 0);
}

#[tokio::test]
async fn an_accepted_client_that_waits_for_a_permit_is_served_during_the_drain() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.workers(1).max_connections(1));
    let mut first = open(&handle).await;
    assert_eq!(&read::<1>(&mut first).await, b"a");
    let mut second = open(&handle).await;
    until(|| handle.counters().connection_limit_waits == 1).await;
    handle.shutdown(TEST_TIMEOUT);
    drop(first);
    assert_eq!(&read::<1>(&mut second).await, b"a");
    drop(second);
    let report =
        running.await.expect("the task does not panic").expect("the forwarder does not fail");
    assert_eq!((report.finished, report.cut), (2, 0));
}
