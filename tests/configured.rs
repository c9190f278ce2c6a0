//! A director from a configuration, on loopback.
#![cfg(all(feature = "director", target_os = "linux"))]

use std::net::SocketAddr;
use std::time::Duration;

use lvs::director::{Config, Director, DirectorError, ServerChange, Wanted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server that says its name to whoever connects.
async fn server(name: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whoever has gone needs no answer.
            let _ = stream.write_all(&[name]).await;
        }
    });
    address
}

async fn ask(address: SocketAddr) -> std::io::Result<u8> {
    TcpStream::connect(address).await?.read_u8().await
}

fn config(listen: SocketAddr, servers: &[SocketAddr]) -> String {
    let mut text =
        format!("[[service]]\nname = \"web\"\nlisten = \"{listen}\"\nscheduler = \"rr\"\n");
    for server in servers {
        text.push_str(&format!("[[service.server]]\naddress = \"{server}\"\n"));
    }
    text
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[tokio::test]
async fn it_serves_and_is_changed_by_hand() {
    let servers = [server(b'a').await, server(b'b').await];
    let config = Config::parse(&config(ANY, &servers)).expect("sound");
    let director = Director::start(config).await.expect("it starts");
    let listen = director.status().services[0].listen;
    let mut answers = [ask(listen).await.expect("served"), ask(listen).await.expect("served")];
    answers.sort_unstable();
    assert_eq!(answers, *b"ab");

    let name = servers[0].to_string();
    director.change("web", &name, ServerChange::state(Wanted::Drain)).expect("it is there");
    for _ in 0..4 {
        assert_eq!(ask(listen).await.expect("served"), b'b');
    }
    director.change("web", &name, ServerChange::weight(5)).expect("it is there");
    let status = director.status();
    let drained = status.services[0].servers.iter().find(|it| it.address == name);
    assert_eq!(drained.map(|it| (it.state, it.weight)), Some(("draining", 5)));
    assert!(status.active && status.vrrp.is_none() && status.sync.is_none());
    assert_eq!(status.services[0].totals.accepted, 6);

    let error = director.change("mail", &name, ServerChange::weight(1)).expect_err("not there");
    assert!(matches!(error, DirectorError::NoService(name) if name == "mail"));
    let error = director.change("web", "10.0.0.1:1", ServerChange::weight(1));
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
    let config = Config::parse(&text).expect("sound");
    let error = Director::start(config).await.expect_err("the second cannot listen");
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
