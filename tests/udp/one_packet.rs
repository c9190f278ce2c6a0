//! One-packet scheduling.

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_packet_scheduling_schedules_each_datagram() {
    let echoes = [Echo::new(b'a'), Echo::new(b'b'), Echo::new(b'c')];
    let (set, forwarder) = world(&echoes.each_ref().map(|it| it.address));
    let (handle, running) = start(forwarder.one_packet(true));
    let one = client(&handle);
    let names: Vec<u8> = (0..9).map(|_| exchange(&one, b"?")).collect();
    assert_eq!(names, b"abcabcabc");
    assert!(set.snapshot().backends().iter().all(|b| b.load().total() == 0), "no lease is held");
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.flows_started, 3, "one way back for each backend");
    assert_eq!(outcomes(&set, "0").ok, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_packet_scheduling_finds_another_backend_for_what_was_refused() {
    let echo = Echo::new(b'b');
    let ((one, _held), (other, _too)) = (refusing(), refusing());
    let (set, forwarder) = world(&[one, echo.address, other]);
    let (handle, running) = start(forwarder.one_packet(true));
    let one = client(&handle);
    for _ in 0..6 {
        assert_eq!(exchange(&one, b"?"), b'b');
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!(echo.heard(), 6);
    assert_eq!(counters.to_servers.datagrams, 6);
    assert!(outcomes(&set, "0").connect_error + outcomes(&set, "2").connect_error >= 4);
}
