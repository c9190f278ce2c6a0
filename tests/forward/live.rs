//! Who is carried at this moment.

use std::collections::HashSet;

use crate::world::*;

#[tokio::test]
async fn who_is_carried_is_listed_until_the_end() {
    let (forbidden, _held) = refusing();
    let targets = [echo(b'a').await, forbidden, echo(b'c').await];
    let (_set, forwarder) = world(&targets);
    let (handle, running) = start(forwarder.connect_attempts(2));
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = open(&handle).await;
        let name = match client.read_u8().await.expect("served") {
            b'a' => "0",
            _ => "2",
        };
        clients.push((client, name));
    }
    let connections = handle.connections(usize::MAX);
    let listed: HashSet<_> = connections
        .iter()
        .map(|it| (it.client.expect("TCP"), it.backend.clone().expect("no sorry server")))
        .collect();
    let known = clients
        .iter()
        .map(|(client, name)| (client.local_addr().expect("bound"), BackendId::from(*name)));
    assert_eq!(listed, known.collect());
    assert!(connections.iter().all(|it| it.local == handle.local_addr()));
    assert!(connections.iter().all(|it| it.backend_address != Some(forbidden)));
    assert!(connections.iter().any(|it| it.age > Duration::ZERO));
    assert_eq!(handle.connections(4).len(), 4);

    clients.truncate(1);
    until(|| handle.connections(9).len() == 1).await;
    handle.shutdown(Duration::ZERO);
    let drained = running.await.expect("no panic").expect("no error");
    assert_eq!((drained.cut, handle.connections(9).len()), (1, 0));
}

#[tokio::test]
async fn the_sorry_server_s_are_listed_too() {
    let (forbidden, _held) = refusing();
    let (_set, forwarder) = world(&[forbidden]);
    let (handle, running) = start(forwarder.sorry_server(echo(b's').await));
    let mut client = open(&handle).await;
    assert_eq!(client.read_u8().await.expect("served"), b's');
    let [connection] = &handle.connections(9)[..] else { panic!("one is carried") };
    assert_eq!((connection.client, &connection.backend), (client.local_addr().ok(), &None));
    drop(client);
    end(&handle, running).await;
}
