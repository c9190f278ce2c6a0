//! The sorry server of UDP flows.

use std::net::SocketAddr;

use lvs::forward::{UdpForwarder, UdpHandle};
use lvs::{BackendId, BackendSet, Health, Limits};

use crate::world::*;

fn start_with_sorry_server(
    targets: &[SocketAddr],
    sorry: SocketAddr,
) -> (BackendSet<SocketAddr>, UdpHandle, Running) {
    let (set, route) = route_to(targets);
    let listen = unused_address().parse().expect("an address");
    let forwarder = UdpForwarder::bind(listen, route.sorry_server(sorry)).expect("a free port");
    let (handle, running) = start(forwarder.workers(1));
    (set, handle, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_go_to_the_sorry_server_and_back_to_a_backend_that_can_serve() {
    let (echo, sorry) = (Echo::new(b'a'), Echo::new(b's'));
    let (set, handle, running) = start_with_sorry_server(&[echo.address], sorry.address);
    let id = BackendId::from("0");
    set.set_health(&id, Health::Down).expect("the backend is in the set");
    let client = client(&handle);
    assert_eq!(exchange(&client, b"down"), b's');
    let [flow] = &handle.flows(9)[..] else { panic!("one flow") };
    assert_eq!(flow.backend, None);
    assert_eq!(exchange(&client, b"still down"), b's');

    set.set_health(&id, Health::Up).expect("the backend is in the set");
    until(|| handle.flows(9).iter().all(|flow| flow.backend.is_some()));
    assert_eq!(exchange(&client, b"up"), b'a');
    set.set_limits(&id, Limits::new(1)).expect("the backend is in the set");
    let second = client_at("127.0.0.5:0", handle.local_addr());
    assert_eq!(exchange(&second, b"full"), b's');

    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.sorry_flows, counters.flows_started, counters.flows_moved), (2, 2, 1));
    assert_eq!(handle.backends().len(), 1, "the sorry server is no backend");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sorry_server_serves_when_all_attempts_are_refused() {
    let (refusing, _socket) = refusing_address();
    let sorry = Echo::new(b's');
    for attempts in [1, 3] {
        let (_set, route) = route_to(&[refusing]);
        let listen = unused_address().parse().expect("an address");
        let forwarder =
            UdpForwarder::bind(listen, route.sorry_server(sorry.address)).expect("a free port");
        let (handle, running) = start(forwarder.workers(1).attempts(attempts));
        assert_eq!(exchange(&client(&handle), b"refused"), b's');
        end(&handle, running).await;
    }
    let one_packet = {
        let (_set, route) = route_to(&[]);
        let listen = unused_address().parse().expect("an address");
        UdpForwarder::bind(listen, route.sorry_server(sorry.address)).expect("a free port")
    };
    let (handle, running) = start(one_packet.workers(1).one_packet(true));
    let client = client(&handle);
    assert_eq!((exchange(&client, b"1"), exchange(&client, b"2")), (b's', b's'));
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.flows_started, counters.sorry_flows), (1, 1));
}
