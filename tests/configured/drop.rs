//! A director whose last handle is dropped, or that is stopped, gives everything back.

use std::net::SocketAddr;
use std::time::Duration;

use lvs::director::{Director, DirectorError};
use tokio::net::{TcpListener, TcpStream};

use crate::{ANY, ask, config, listens, read, server, start};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let poll = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll)
        .await
        .unwrap_or_else(|_| panic!("timed out waiting until {what}"));
}

async fn can_bind(address: SocketAddr) -> bool {
    TcpListener::bind(address).await.is_ok()
}

/// A director with everything that needs no privilege, and the addresses that it has.
async fn with_everything(name: &str) -> (Director, [SocketAddr; 2]) {
    let path = std::env::temp_dir().join(format!("lvs-{}-{name}.sock", std::process::id()));
    let text = format!("handover = {path:?}\n[admin]\nlisten = \"127.0.0.1:0\"\n")
        + &config(ANY, &[server(b'a').await])
            .replace("scheduler", "health = { type = \"tcp\" }\nscheduler");
    let director = start(&text).await;
    let addresses =
        [listens(&director), director.admin_address().expect("the director has an admin address")];
    (director, addresses)
}

#[tokio::test]
async fn dropping_the_last_handle_ends_a_director() {
    let (director, [listen, admin]) = with_everything("dropped").await;
    let _held = TcpStream::connect(listen).await.expect("the client is served");
    ask(listen).await.expect("the client is served");
    // Another handle keeps it.
    let other = director.clone();
    drop(director);
    tokio::time::sleep(Duration::from_millis(50)).await;
    ask(listen).await.expect("the client is served");
    drop(other);
    until("the service's port is free", async || can_bind(listen).await).await;
    until("the admin server's port is free", async || can_bind(admin).await).await;
}

#[tokio::test]
async fn a_start_that_is_dropped_midway_leaves_nothing_behind() {
    let listen = TcpListener::bind(ANY).await.expect("loopback").local_addr().expect("bound");
    let text = config(listen, &[server(b'a').await]);
    for polls in 1..6 {
        let mut start = Box::pin(Director::start(read(&text)));
        for _ in 0..polls {
            let poll = std::future::poll_fn(|context| {
                std::task::Poll::Ready(start.as_mut().poll(context).is_ready())
            });
            if poll.await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(start);
        // Time for the director to come up as far as it does.
        tokio::time::sleep(Duration::from_millis(50)).await;
        until("the port is free", async || can_bind(listen).await).await;
    }
}

#[tokio::test]
async fn a_stopped_director_returns_the_error_stopped() {
    let (director, addresses) = with_everything("stopped").await;
    let text = config(addresses[0], &[]);
    director.stop(Duration::from_secs(5)).await;
    assert!(can_bind(addresses[0]).await, "stop waits until the listener is closed");
    until("the admin server's port is free", async || can_bind(addresses[1]).await).await;
    let error = director.reload(read(&text)).await.expect_err("the director has ended");
    assert!(matches!(error, DirectorError::Stopped), "{error}");
    assert_eq!(director.stop(Duration::ZERO).await.finished, 0);
}
