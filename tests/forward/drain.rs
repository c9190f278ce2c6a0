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
    assert_eq!(forwarder.run().await.expect("no error"), Drained::default());
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
