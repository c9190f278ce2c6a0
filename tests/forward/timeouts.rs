//! Idle, half-closed and total timeouts.

use crate::fixture::*;

const SHORT: Option<Duration> = Some(Duration::from_millis(30));

#[tokio::test]
async fn an_idle_connection_times_out_and_a_busy_connection_does_not() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let idle = Some(Duration::from_millis(300));
    let (handle, running) = start(forwarder.idle_timeout(idle));
    let (mut busy, mut busy_server) = connect_through(&handle, &server_listener).await;
    let (silent, silent_server) = connect_through(&handle, &server_listener).await;
    let exchange_bytes = async {
        while handle.counters().timed_out.idle == 0 {
            busy.write_all(b".").await.expect("the stream is open");
            read::<1>(&mut busy_server).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, exchange_bytes).await.expect("the idle connection ends");
    assert_reset(silent).await;
    assert_reset(silent_server).await;
    drop((busy, busy_server));
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.timed_out.idle, counters.timed_out.sum()), (1, 1));
}

#[tokio::test]
async fn a_half_closed_connection_has_a_timeout_of_its_own() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder.half_closed_timeout(SHORT));
    let (open_client, open_server) = connect_through(&handle, &server_listener).await;
    let (mut half_closed, mut half_closed_server) =
        connect_through(&handle, &server_listener).await;
    half_closed.shutdown().await.expect("the stream is open");
    assert_eq!(read_to_end(&mut half_closed_server).await, b"");
    assert_reset(half_closed).await;
    assert_reset_after_end_of_stream(half_closed_server).await;
    // The other connection is open on both sides.
    until(|| handle.counters().active == 1).await;
    drop((open_client, open_server));
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.timed_out.half_closed, 1);
}

#[tokio::test]
async fn the_total_timeout_ends_a_busy_connection() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.total_timeout(SHORT));
    let mut stream = open(&handle).await;
    let exchange_bytes = async {
        let mut byte = [0];
        loop {
            if stream.write_all(b".").await.is_err() || stream.read_exact(&mut byte).await.is_err()
            {
                return;
            }
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, exchange_bytes).await.expect("the connection ends");
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.timed_out.total, 1);
}

#[tokio::test]
async fn a_connection_without_timeouts_finishes_in_order() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let forwarder = forwarder.idle_timeout(None).half_closed_timeout(None).total_timeout(None);
    let (handle, running) = start(forwarder);
    assert_eq!(exchange(&handle, b"message").await, b'a');
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.finished, 1);
}

#[tokio::test]
async fn a_timeout_of_any_length_is_accepted() {
    for length in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(3), Duration::MAX]
    {
        let (_set, route) = route_to(&[echo(b'a').await]);
        let forwarder = bind(route.queue(1, length))
            .connect_timeout(length.max(TEST_TIMEOUT))
            .connect_deadline(length.max(TEST_TIMEOUT));
        let (handle, running) = start(forwarder);
        assert_eq!(exchange(&handle, b"x").await, b'a');
        let (_, counters) = end(&handle, running).await;
        assert_eq!(counters.finished, 1, "{length:?}");
    }
}

#[tokio::test]
async fn the_shortest_and_the_longest_socket_timeouts_are_accepted() {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    let longest = (32_767 * second, Duration::from_millis(i32::MAX as u64));
    for (keepalive, user_timeout) in [(second, minute), longest] {
        let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
        let forwarder = forwarder.keepalive(keepalive).user_timeout(user_timeout);
        let (handle, running) = start(forwarder);
        assert_eq!(exchange(&handle, b"x").await, b'a');
        let (_, counters) = end(&handle, running).await;
        assert_eq!(counters.finished, 1, "{keepalive:?}");
    }
}
