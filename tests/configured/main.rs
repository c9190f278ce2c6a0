//! A director from a configuration, on loopback.
#![cfg(all(feature = "director", target_os = "linux"))]

mod admin;
mod by_hand;
mod drop;
mod embedded;
mod load;
mod metrics;
mod reload;
mod restart;
mod settings;
#[path = "../common/skipped.rs"]
mod skipped;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lvs::director::{Director, DirectorConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Starts a server that sends its name to every client.
async fn server(name: u8) -> SocketAddr {
    let listener = TcpListener::bind(ANY).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A client that has gone needs no answer.
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

fn read(text: &str) -> DirectorConfig {
    DirectorConfig::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

async fn start(text: &str) -> Director {
    Director::start(read(text)).await.expect("the director starts")
}

/// Returns the address of the first service.
fn listens(director: &Director) -> SocketAddr {
    director.status().services[0].listen[0].parse().expect("an address")
}

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
