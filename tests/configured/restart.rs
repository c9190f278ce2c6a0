//! Handover: a successor takes over the listeners of a running director.

use std::time::Duration;

use lvs::director::Director;
use tokio::net::TcpListener;

use crate::load::Load;
use crate::{ANY, ask, config, read, server, start};

fn path(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("lvs-{}-{name}.sock", std::process::id()))
}

async fn text(name: &str) -> (std::net::SocketAddr, String) {
    let free = TcpListener::bind(ANY).await.expect("loopback").local_addr().expect("bound");
    let admin = TcpListener::bind(ANY).await.expect("loopback").local_addr().expect("bound");
    let servers = [server(b'a').await, server(b'b').await];
    let head = format!("handover = {:?}\n[admin]\nlisten = \"{admin}\"\n", path(name));
    (free, head + &config(free, &servers))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_refuses_no_connection() {
    let (listen, text) = text("restart").await;
    let mut director = start(&text).await;
    let load = Load::start(listen);
    load.more(500).await;
    for _ in 0..5 {
        let successor = start(&text).await;
        director.wait_for_successor().await;
        director.stop(Duration::from_secs(10)).await;
        load.more(500).await;
        director = successor;
    }
    load.stop().await;
    assert!(director.admin_address().is_some(), "the admin listener was handed over too");
    director.stop(Duration::from_secs(10)).await;
    let _ = std::fs::remove_file(path("restart"));
}

#[tokio::test]
async fn a_successor_that_cannot_serve_changes_nothing() {
    let (listen, text) = text("failing").await;
    let director = start(&text).await;
    let taken = TcpListener::bind(ANY).await.expect("loopback");
    let taken = (taken.local_addr().expect("bound"), taken);
    let other = text.clone() + &config(taken.0, &[]).replace("web", "mail");
    for _ in 0..3 {
        Director::start(read(&other)).await.expect_err("the address is taken");
        for _ in 0..20 {
            ask(listen).await.expect("the first director still serves");
        }
    }
    // A successor that can serve, after those that failed.
    let successor = start(&text).await;
    director.wait_for_successor().await;
    director.stop(Duration::ZERO).await;
    ask(listen).await.expect("served");
    successor.stop(Duration::ZERO).await;
    let _ = std::fs::remove_file(path("failing"));
}
