//! A small web server to balance connections over.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::header::CONNECTION;
use tokio::net::TcpListener;

/// Starts a server on a free loopback port; it answers with its name and a request count.
pub(crate) async fn start(name: &'static str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let requests = Arc::new(AtomicU64::new(0));
    let answer = async move || {
        let count = requests.fetch_add(1, Ordering::Relaxed) + 1;
        // The director balances connections: a browser that kept one open would see one server only.
        ([(CONNECTION, "close")], format!("Hello from {name}, request {count}.\n"))
    };
    let app = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
