//! One-packet scheduling.

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_packet_scheduling_picks_a_backend_for_each_datagram() {
    let echoes = [Echo::new(b'a'), Echo::new(b'b'), Echo::new(b'c')];
    let (set, forwarder) = forwarder_to(&echoes.each_ref().map(|echo| echo.address));
    let (handle, running) = start(forwarder.one_packet(true));
    let socket = client(&handle);
    let names: Vec<u8> = (0..9).map(|_| exchange(&socket, b"?")).collect();
    assert_eq!(names, b"abcabcabc");
    assert!(
        set.snapshot().backends().iter().all(|backend| backend.load().total() == 0),
        "no lease is held"
    );
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.flows_started, 3, "one socket for each backend");
    assert_eq!(outcomes(&set, "0").ok, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_packet_scheduling_sends_refused_datagrams_to_another_backend() {
    let echo = Echo::new(b'b');
    let ((first, _first_socket), (second, _second_socket)) =
        (refusing_address(), refusing_address());
    let (set, forwarder) = forwarder_to(&[first, echo.address, second]);
    let (handle, running) = start(forwarder.one_packet(true));
    let socket = client(&handle);
    for _ in 0..6 {
        assert_eq!(exchange(&socket, b"?"), b'b');
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!(echo.received(), 6);
    assert_eq!(counters.to_servers.datagrams, 6);
    assert!(outcomes(&set, "0").connect_error + outcomes(&set, "2").connect_error >= 4);
}
