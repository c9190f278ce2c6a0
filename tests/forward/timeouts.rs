//! Connections that are silent, half closed, or there for too long.

use crate::world::*;

const SHORT: Option<Duration> = Some(Duration::from_millis(30));

#[tokio::test]
async fn a_silent_connection_ends_and_a_busy_one_does_not() {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let idle = Some(Duration::from_millis(300));
    let (handle, running) = start(forwarder.idle_timeout(idle));
    let (mut busy, mut its_server) = meet(&handle, &stage).await;
    let (silent, its_other) = meet(&handle, &stage).await;
    let chat = async {
        while handle.counters().timed_out.idle == 0 {
            busy.write_all(b".").await.expect("open");
            read::<1>(&mut its_server).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, chat).await.expect("the silent one ends");
    assert_reset(silent).await;
    assert_reset(its_other).await;
    drop((busy, its_server));
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.timed_out.idle, counters.timed_out.sum()), (1, 1));
}

#[tokio::test]
async fn a_half_closed_connection_has_a_patience_of_its_own() {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder.half_closed_timeout(SHORT));
    let (open_one, its_server) = meet(&handle, &stage).await;
    let (mut half, mut its_other) = meet(&handle, &stage).await;
    half.shutdown().await.expect("open");
    assert_eq!(all_of(&mut its_other).await, b"");
    assert_reset(half).await;
    assert_reset_after_its_end(its_other).await;
    // The other one is open on both sides.
    until(|| handle.counters().active == 1).await;
    drop((open_one, its_server));
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.timed_out.half_closed, 1);
}

#[tokio::test]
async fn the_total_time_ends_whatever_passes() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.total_timeout(SHORT));
    let mut stream = open(&handle).await;
    let chat = async {
        let mut byte = [0];
        loop {
            if stream.write_all(b".").await.is_err() || stream.read_exact(&mut byte).await.is_err()
            {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, chat).await.expect("it ends");
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.timed_out.total, 1);
}

#[tokio::test]
async fn without_timeouts_nothing_ends_by_itself() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let forwarder = forwarder.idle_timeout(None).half_closed_timeout(None).total_timeout(None);
    let (handle, running) = start(forwarder);
    assert_eq!(exchange(&handle, b"all the same").await, b'a');
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.finished, 1);
}

#[tokio::test]
async fn any_duration_is_sound() {
    for length in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(3), Duration::MAX]
    {
        let (_set, forwarder) = world(&[echo(b'a').await]);
        let forwarder = forwarder.keepalive(length).user_timeout(length.max(LONG));
        let forwarder =
            forwarder.connect_timeout(length.max(LONG)).connect_deadline(length.max(LONG));
        let (handle, running) = start(forwarder.queue(1, length));
        assert_eq!(exchange(&handle, b"x").await, b'a');
        let (_, counters) = end(&handle, running).await;
        assert_eq!(counters.finished, 1, "{length:?}");
    }
}
