//! Ends of connections: half-closes and resets, carried through in both directions.

use crate::world::*;

const MUCH: usize = 100_000;

#[tokio::test]
async fn a_late_answer_after_the_clients_half_close_arrives_whole() {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder);
    let (mut client, mut server) = meet(&handle, &stage).await;
    client.write_all(b"question").await.expect("open");
    client.shutdown().await.expect("open");
    assert_eq!(all_of(&mut server).await, b"question");
    server.write_all(&vec![7; MUCH]).await.expect("the other half is open");
    drop(server);
    assert_eq!(all_of(&mut client).await, vec![7; MUCH]);
    drop(client);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.bytes_to_clients), (1, MUCH as u64));
}

#[tokio::test]
async fn what_a_client_sends_after_the_servers_half_close_arrives_whole() {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder);
    let (mut client, mut server) = meet(&handle, &stage).await;
    server.write_all(b"greeting").await.expect("open");
    server.shutdown().await.expect("open");
    assert_eq!(all_of(&mut client).await, b"greeting");
    client.write_all(&vec![8; MUCH]).await.expect("the other half is open");
    drop(client);
    assert_eq!(all_of(&mut server).await, vec![8; MUCH]);
    drop(server);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.bytes_to_backends), (1, MUCH as u64));
}

#[tokio::test]
async fn a_reset_reaches_the_other_side_as_a_reset() {
    let (address, stage) = stage().await;
    let (set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder);
    for by_client in [true, false] {
        let (mut client, mut server) = meet(&handle, &stage).await;
        client.write_all(b"hi").await.expect("open");
        assert_eq!(&read::<2>(&mut server).await, b"hi");
        let (breaks, hears) = if by_client { (client, server) } else { (server, client) };
        reset(breaks);
        assert_reset(hears).await;
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.client_aborted, counters.backend_aborted), (1, 1));
    let outcomes = outcomes(&set, "0");
    assert_eq!((outcomes.cancelled, outcomes.app_error), (1, 1));
}

/// Nobody reads from a side that has ended, and with the other side silent nobody writes to it.
#[tokio::test]
async fn a_reset_after_the_half_close_is_heard_in_the_silence() {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder);
    for by_client in [true, false] {
        let (client, server) = meet(&handle, &stage).await;
        let (mut breaks, mut hears) = if by_client { (client, server) } else { (server, client) };
        breaks.shutdown().await.expect("open");
        assert_eq!(all_of(&mut hears).await, b"");
        reset(breaks);
        assert_reset_after_its_end(hears).await;
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.client_aborted, counters.backend_aborted), (1, 1));
}

#[tokio::test]
async fn a_client_that_resets_while_it_waits_is_let_go() {
    let (address, silence) = silent().await;
    let (set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder.connect_timeout(LONG));
    let client = open(&handle).await;
    until(|| handle.counters().active == 1).await;
    reset(client);
    until(|| handle.counters().refused.client_left == 1).await;
    assert_eq!(set.snapshot().backends()[0].load().total(), 0, "its lease was given back");
    drop(silence);
    end(&handle, running).await;
}

/// The client's bytes are held, so nobody reads from it; the server says nothing either.
#[tokio::test]
async fn a_reset_is_heard_while_the_other_side_takes_nothing() {
    let (address, stage) = stage().await;
    let (_set, forwarder) = world(&[address]);
    let (handle, running) = start(forwarder);
    for by_client in [true, false] {
        let (client, server) = meet(&handle, &stage).await;
        let (mut breaks, _silent) = if by_client { (client, server) } else { (server, client) };
        let much = vec![1; MUCH];
        let full = async { while breaks.write_all(&much).await.is_ok() {} };
        tokio::time::timeout(Duration::from_millis(300), full).await.expect_err("it blocks");
        reset(breaks);
        until(|| {
            let counters = handle.counters();
            if by_client { counters.client_aborted == 1 } else { counters.backend_aborted == 1 }
        })
        .await;
    }
    end(&handle, running).await;
}
