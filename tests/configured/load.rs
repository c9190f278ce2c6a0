//! Clients that connect without a pause.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

/// Clients that open one connection after the other.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

const CLIENTS: u8 = 16;

impl Load {
    pub(crate) fn start(to: SocketAddr) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |n| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let nth = done.fetch_add(1, Ordering::Relaxed);
                    one(to, n).await.map_err(|error| format!("connection {nth}: {error}"))?;
                }
                Ok(())
            })
        };
        let clients = (1..=CLIENTS).map(client).collect();
        Self { stop, done, clients }
    }

    /// Waits until `connections` more have been started.
    pub(crate) async fn more(&self, connections: u64) {
        let until = self.done.load(Ordering::Relaxed) + connections;
        while self.done.load(Ordering::Relaxed) < until {
            if self.clients.iter().any(JoinHandle::is_finished) {
                // `stop` reports the failure.
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Stops the clients; returns the number of connections, all of which were served.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("no panic").expect("every connection is served");
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// Opens a connection from an address of the client's own: the ports of one address would run out.
async fn one(to: SocketAddr, client: u8) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 1, client), 0).into())?;
    let mut stream = socket.connect(to).await?;
    stream.read_u8().await.map(drop)
}
