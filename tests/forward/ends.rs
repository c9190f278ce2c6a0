//! Ends of connections: half-closes and resets are passed on in both directions.

use crate::fixture::*;

const LARGE: usize = 100_000;

#[tokio::test]
async fn a_late_answer_after_the_half_close_of_the_client_arrives_unchanged() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder);
    let (mut client, mut server) = connect_through(&handle, &server_listener).await;
    client.write_all(b"question").await.expect("the stream is open");
    client.shutdown().await.expect("the stream is open");
    assert_eq!(read_to_end(&mut server).await, b"question");
    server.write_all(&vec![7; LARGE]).await.expect("the other half is open");
    drop(server);
    assert_eq!(read_to_end(&mut client).await, vec![7; LARGE]);
    drop(client);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.bytes_to_clients), (1, LARGE as u64));
}

#[tokio::test]
async fn bytes_of_the_client_after_the_half_close_of_the_server_arrive_unchanged() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder);
    let (mut client, mut server) = connect_through(&handle, &server_listener).await;
    server.write_all(b"greeting").await.expect("the stream is open");
    server.shutdown().await.expect("the stream is open");
    assert_eq!(read_to_end(&mut client).await, b"greeting");
    client.write_all(&vec![8; LARGE]).await.expect("the other half is open");
    drop(client);
    assert_eq!(read_to_end(&mut server).await, vec![8; LARGE]);
    drop(server);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.bytes_to_backends), (1, LARGE as u64));
}

#[tokio::test]
async fn a_reset_reaches_the_other_side_as_a_reset() {
    let (address, server_listener) = bind_server().await;
    let (set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder);
    for by_client in [true, false] {
        let (mut client, mut server) = connect_through(&handle, &server_listener).await;
        client.write_all(b"hi").await.expect("the stream is open");
        assert_eq!(&read::<2>(&mut server).await, b"hi");
        let (breaking, receiving) = if by_client { (client, server) } else { (server, client) };
        reset(breaking);
        assert_reset(receiving).await;
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.client_aborted, counters.backend_aborted), (1, 1));
    let outcomes = outcomes(&set, "0");
    assert_eq!((outcomes.cancelled, outcomes.app_error), (1, 1));
}

/// A side that has ended is not read, and not written while the other side is silent.
#[tokio::test]
async fn a_reset_after_a_half_close_is_noticed_without_traffic() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder);
    for by_client in [true, false] {
        let (client, server) = connect_through(&handle, &server_listener).await;
        let (mut breaking, mut receiving) =
            if by_client { (client, server) } else { (server, client) };
        breaking.shutdown().await.expect("the stream is open");
        assert_eq!(read_to_end(&mut receiving).await, b"");
        reset(breaking);
        assert_reset_after_end_of_stream(receiving).await;
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.client_aborted, counters.backend_aborted), (1, 1));
}

#[tokio::test]
async fn a_client_that_resets_during_the_connect_releases_its_lease() {
    let (address, silence) = silent().await;
    let (set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder.connect_timeout(TEST_TIMEOUT));
    let client = open(&handle).await;
    until(|| handle.counters().active == 1).await;
    reset(client);
    until(|| handle.counters().refused.client_left == 1).await;
    assert_eq!(set.snapshot().backends()[0].load().total(), 0, "the lease is released");
    drop(silence);
    end(&handle, running).await;
}

/// One side's bytes are pending, so it is not read, and the other side sends nothing.
#[tokio::test]
async fn a_reset_is_noticed_while_the_other_side_reads_nothing() {
    let (address, server_listener) = bind_server().await;
    let (_set, forwarder) = forwarder_to(&[address]);
    let (handle, running) = start(forwarder);
    for by_client in [true, false] {
        let (client, server) = connect_through(&handle, &server_listener).await;
        let (mut breaking, _silent) = if by_client { (client, server) } else { (server, client) };
        let data = vec![1; LARGE];
        let fill = async { while breaking.write_all(&data).await.is_ok() {} };
        tokio::time::timeout(Duration::from_millis(300), fill)
            .await
            .expect_err("the sender is blocked");
        reset(breaking);
        until(|| {
            let counters = handle.counters();
            if by_client { counters.client_aborted == 1 } else { counters.backend_aborted == 1 }
        })
        .await;
    }
    end(&handle, running).await;
}
