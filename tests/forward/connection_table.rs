//! The list of open connections.

use std::collections::HashSet;

use crate::fixture::*;

#[tokio::test]
async fn open_connections_are_listed_until_they_end() {
    let (forbidden, _held) = refusing();
    let targets = [echo(b'a').await, forbidden, echo(b'c').await];
    let (_set, forwarder) = forwarder_to(&targets);
    let (handle, running) = start(forwarder.connect_attempts(2));
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = open(&handle).await;
        let name = match client.read_u8().await.expect("the connection is proxied") {
            b'a' => "0",
            _ => "2",
        };
        clients.push((client, name));
    }
    let connections = handle.connections(usize::MAX);
    let listed: HashSet<_> = connections
        .iter()
        .map(|info| (info.client.expect("TCP"), info.backend.clone().expect("no sorry server")))
        .collect();
    let known = clients
        .iter()
        .map(|(client, name)| (client.local_addr().expect("bound"), BackendId::from(*name)));
    assert_eq!(listed, known.collect());
    assert!(connections.iter().all(|info| info.local == handle.local_addr()));
    assert!(connections.iter().all(|info| info.backend_address != Some(forbidden)));
    assert!(connections.iter().any(|info| info.age > Duration::ZERO));
    assert_eq!(handle.connections(4).len(), 4);

    clients.truncate(1);
    until(|| handle.connections(9).len() == 1).await;
    handle.shutdown(Duration::ZERO);
    let report =
        running.await.expect("the task does not panic").expect("the forwarder does not fail");
    assert_eq!((report.cut, handle.connections(9).len()), (1, 0));
}

#[tokio::test]
async fn connections_of_the_sorry_server_are_listed() {
    let (forbidden, _held) = refusing();
    let (_set, route) = route_to(&[forbidden]);
    let (handle, running) = start(bind(route.sorry_server(echo(b's').await)));
    let mut client = open(&handle).await;
    assert_eq!(client.read_u8().await.expect("the connection is proxied"), b's');
    let [connection] = &handle.connections(9)[..] else { panic!("one connection is open") };
    assert_eq!((connection.client, &connection.backend), (client.local_addr().ok(), &None));
    drop(client);
    end(&handle, running).await;
}
