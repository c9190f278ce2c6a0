//! Changes of servers by operators, and how a director ends.

use std::time::Duration;

use lvs::director::{BackendAdminState, Director, DirectorError, RealServer, ServerChange};
use tokio::net::TcpListener;

use crate::{ANY, ask, config, listens, read, server, start};

#[tokio::test]
async fn a_director_serves_and_an_operator_changes_its_servers() {
    let servers = [server(b'a').await, server(b'b').await];
    let director = start(&config(ANY, &servers)).await;
    let listen = listens(&director);
    let mut answers = [ask(listen).await.expect("served"), ask(listen).await.expect("served")];
    answers.sort_unstable();
    assert_eq!(answers, *b"ab");

    let name = servers[0].to_string();
    director
        .change_server("web", &name, ServerChange::new().with_state(BackendAdminState::Draining))
        .expect("the server exists");
    for _ in 0..4 {
        assert_eq!(ask(listen).await.expect("served"), b'b');
    }
    director
        .change_server("web", &name, ServerChange::new().with_weight(5))
        .expect("the server exists");
    let status = director.status();
    let drained = status.services[0].servers.iter().find(|server| server.address == name);
    assert_eq!(drained.map(|server| (server.state, server.weight)), Some(("draining", 5)));
    assert!(status.active && status.vrrp.is_none() && status.sync.is_none());
    assert_eq!(status.services[0].totals.accepted, 6);

    let error = director
        .change_server("mail", &name, ServerChange::new().with_weight(1))
        .expect_err("it does not exist");
    assert!(matches!(error, DirectorError::NoService(name) if name == "mail"));
    let error = director.change_server("web", "10.0.0.1:1", ServerChange::new().with_weight(1));
    assert!(matches!(error.expect_err("it does not exist"), DirectorError::NoServer { .. }));

    director.stop(Duration::from_secs(5)).await;
    ask(listen).await.expect_err("the listener is closed");
}

#[tokio::test]
async fn a_director_that_cannot_start_leaves_nothing_behind() {
    let taken = TcpListener::bind(ANY).await.expect("loopback");
    let taken = (taken.local_addr().expect("bound"), taken);
    let free = TcpListener::bind(ANY).await.expect("loopback").local_addr().expect("bound");
    let text = config(free, &[]) + &config(taken.0, &[]).replace("web", "mail");
    let error = Director::start(read(&text)).await.expect_err("the second cannot listen");
    assert!(matches!(error, DirectorError::Service { service, .. } if service == "mail"));
    // The first service's listener is closed in the background.
    for _ in 0..1000 {
        if TcpListener::bind(free).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the first service still listens");
}

#[tokio::test]
async fn servers_are_added_and_removed() {
    let servers = [server(b'a').await, server(b'b').await];
    let director = start(&config(ANY, &servers[..1])).await;
    let listen = listens(&director);
    director.add_server("web", RealServer::new(servers[1])).expect("the server is new");
    let error =
        director.add_server("web", RealServer::new(servers[1])).expect_err("the server exists");
    assert!(matches!(error, DirectorError::ServerExists { .. }));
    let mut answers = [ask(listen).await.expect("served"), ask(listen).await.expect("served")];
    answers.sort_unstable();
    assert_eq!(answers, *b"ab");
    director.remove_server("web", &servers[0].to_string()).expect("the server exists");
    assert_eq!(ask(listen).await.expect("served"), b'b');
    let error =
        director.remove_server("web", &servers[0].to_string()).expect_err("the server is removed");
    assert!(matches!(error, DirectorError::NoServer { .. }));
    let status = director.status();
    assert_eq!(status.services[0].servers.len(), 1);
    assert!(status.services[0].servers[0].by_hand);
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_server_is_found_by_its_name_unless_several_have_it() {
    let servers = [server(b'a').await, server(b'b').await, server(b'c').await];
    let mut text = config(ANY, &servers);
    for (server, name) in servers.iter().zip(["one", "twin", "twin"]) {
        let address = format!("address = \"{server}\"");
        text = text.replace(&address, &format!("{address}\nname = \"{name}\""));
    }
    let director = start(&text).await;
    let drain = || ServerChange::new().with_state(BackendAdminState::Draining);
    director.change_server("web", "one", drain()).expect("one server has the name");
    let error = director.change_server("web", "twin", drain()).expect_err("two have the name");
    assert!(
        matches!(&error, DirectorError::AmbiguousServer { addresses, .. } if *addresses == servers[1..]),
        "{error}"
    );
    let error = director.change_server("web", "none", drain()).expect_err("none has the name");
    assert!(matches!(error, DirectorError::NoServer { .. }));
    let status = director.status();
    let servers = &status.services[0].servers;
    assert_eq!(servers[0].changed.as_ref().map(|changed| &*changed.by), Some("the program"));
    let states: Vec<_> = servers.iter().map(|server| server.state).collect();
    assert_eq!(states, ["draining", "eligible", "eligible"]);
    director.remove_server("web", "one").expect("one server has the name");
    assert_eq!(director.status().services[0].servers.len(), 2);
    director.stop(Duration::ZERO).await;
}
