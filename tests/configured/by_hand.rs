//! What an operator does by hand, and how it ends.

use std::time::Duration;

use lvs::director::{AdminState, Director, DirectorError, RealServer, ServerChange};
use tokio::net::TcpListener;

use crate::{ANY, ask, config, listens, read, server, start};

#[tokio::test]
async fn it_serves_and_is_changed_by_hand() {
    let servers = [server(b'a').await, server(b'b').await];
    let director = start(&config(ANY, &servers)).await;
    let listen = listens(&director);
    let mut answers = [ask(listen).await.expect("served"), ask(listen).await.expect("served")];
    answers.sort_unstable();
    assert_eq!(answers, *b"ab");

    let name = servers[0].to_string();
    director
        .change_server("web", &name, ServerChange::state(AdminState::Drain))
        .expect("it is there");
    for _ in 0..4 {
        assert_eq!(ask(listen).await.expect("served"), b'b');
    }
    director.change_server("web", &name, ServerChange::weight(5)).expect("it is there");
    let status = director.status();
    let drained = status.services[0].servers.iter().find(|it| it.address == name);
    assert_eq!(drained.map(|it| (it.state, it.weight)), Some(("draining", 5)));
    assert!(status.active && status.vrrp.is_none() && status.sync.is_none());
    assert_eq!(status.services[0].totals.accepted, 6);

    let error =
        director.change_server("mail", &name, ServerChange::weight(1)).expect_err("not there");
    assert!(matches!(error, DirectorError::NoService(name) if name == "mail"));
    let error = director.change_server("web", "10.0.0.1:1", ServerChange::weight(1));
    assert!(matches!(error.expect_err("not there"), DirectorError::NoServer { .. }));

    director.stop(Duration::from_secs(5)).await;
    ask(listen).await.expect_err("nobody listens any more");
}

#[tokio::test]
async fn one_that_cannot_start_leaves_nothing_behind() {
    let taken = TcpListener::bind(ANY).await.expect("loopback");
    let taken = (taken.local_addr().expect("bound"), taken);
    let free = TcpListener::bind(ANY).await.expect("loopback").local_addr().expect("bound");
    let text = config(free, &[]) + &config(taken.0, &[]).replace("web", "mail");
    let error = Director::start(read(&text)).await.expect_err("the second cannot listen");
    assert!(matches!(error, DirectorError::Service { service, .. } if service == "mail"));
    // The first ends as soon as its task has its turn.
    for _ in 0..1000 {
        if TcpListener::bind(free).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the first goes on listening");
}

#[tokio::test]
async fn servers_are_added_and_taken_out() {
    let servers = [server(b'a').await, server(b'b').await];
    let director = start(&config(ANY, &servers[..1])).await;
    let listen = listens(&director);
    director.add_server("web", RealServer::new(servers[1])).expect("it is new");
    let error = director.add_server("web", RealServer::new(servers[1])).expect_err("it is there");
    assert!(matches!(error, DirectorError::ServerExists { .. }));
    let mut answers = [ask(listen).await.expect("served"), ask(listen).await.expect("served")];
    answers.sort_unstable();
    assert_eq!(answers, *b"ab");
    director.remove_server("web", &servers[0].to_string()).expect("it is there");
    assert_eq!(ask(listen).await.expect("served"), b'b');
    let error = director.remove_server("web", &servers[0].to_string()).expect_err("it is gone");
    assert!(matches!(error, DirectorError::NoServer { .. }));
    let status = director.status();
    assert_eq!(status.services[0].servers.len(), 1);
    assert!(status.services[0].servers[0].by_hand);
    director.stop(Duration::ZERO).await;
}
