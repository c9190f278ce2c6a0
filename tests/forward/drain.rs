//! The end of a forwarder.

use crate::world::*;

#[tokio::test]
async fn a_drain_waits_for_what_runs_and_takes_nothing_new() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("carried"), b'a');

    handle.shutdown(LONG);
    // The listener is closed as soon as the forwarder has heard of it.
    while TcpStream::connect(at(&handle)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"still here").await.expect("open");
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await.expect("carried");
    assert_eq!(&answer, b"still here");
    assert!(!running.is_finished());

    drop(stream);
    let drained = running.await.expect("no panic").expect("no error");
    assert_eq!(drained.cut, 0);
    assert_eq!((handle.counters().finished, handle.counters().cut), (1, 0));
}

#[tokio::test]
async fn the_deadline_cuts_what_is_left() {
    let (set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("carried"), b'a');

    handle.shutdown(Duration::from_millis(20));
    let drained = running.await.expect("no panic").expect("no error");
    assert_eq!((drained.finished, drained.cut), (0, 1));
    assert_reset(stream).await;
    assert_eq!((handle.counters().cut, handle.counters().active), (1, 0));
    assert_eq!(outcomes(&set, "0").cancelled, 1);
}

#[tokio::test]
async fn the_last_shutdown_counts() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("carried"), b'a');
    handle.shutdown(Duration::MAX);
    handle.shutdown(LONG);
    handle.shutdown(Duration::ZERO);
    let drained = running.await.expect("no panic").expect("no error");
    assert_eq!((drained.finished, drained.cut), (0, 1));
}

#[tokio::test]
async fn a_shutdown_before_the_start_ends_it_at_once() {
    let (_set, forwarder) = world(&[]);
    forwarder.handle().shutdown(LONG);
    assert_eq!(forwarder.run().await.expect("no error"), DrainReport::default());
}

#[tokio::test]
async fn a_dropped_run_leaves_no_connection_and_exact_counts() {
    let (set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder);
    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("carried"), b'a');
    running.abort();
    assert!(running.await.expect_err("aborted").is_cancelled());
    assert_reset(stream).await;
    until(|| handle.counters().active == 0).await;
    assert_eq!(handle.counters().cut, 1);
    assert_eq!(set.snapshot().backends()[0].load().total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_takes_the_listeners_over_and_no_client_is_refused() {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use lvs::forward::handover;

    let (set, forwarder) = world(&[echo(b'a').await]);
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

    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let listeners = handle.listeners().expect("descriptors");
    let named: Vec<_> = listeners.iter().map(|it| ("web", it.as_fd())).collect();
    handover::send(&ours, &named).expect("the successor listens");
    drop(listeners);
    let taken = handover::receive(&theirs).expect("all of them");
    let taken: Vec<std::net::TcpListener> = taken.into_iter().map(|(_, it)| it.into()).collect();
    assert_eq!(taken.len(), 2);
    let balancer = Balancer::new(&set, lvs::scheduler::RoundRobin).expect("rr takes any set");
    let successor = Forwarder::from_listeners(taken, balancer).expect("listeners");
    assert_eq!(successor.local_addr(), handle.local_addr());
    let (successors, its_run) = start(successor);
    until(|| successors.counters().accepted > 0).await;
    let (_, first) = end(&handle, running).await;
    assert!(handle.listeners().expect("nothing to copy").is_empty());

    clients.await.expect("every client was served");
    let (_, second) = end(&successors, its_run).await;
    assert_eq!(first.finished + second.finished, 301);
    assert!(first.finished > 0 && second.finished > 0);
}

#[tokio::test]
async fn a_client_that_was_accepted_and_waits_is_served_in_the_drain() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.workers(1).max_connections(1));
    let mut first = open(&handle).await;
    assert_eq!(&read::<1>(&mut first).await, b"a");
    let mut second = open(&handle).await;
    until(|| handle.counters().connection_limit_waits == 1).await;
    handle.shutdown(LONG);
    drop(first);
    assert_eq!(&read::<1>(&mut second).await, b"a");
    drop(second);
    let drained = running.await.expect("no panic").expect("no error");
    assert_eq!((drained.finished, drained.cut), (2, 0));
}
