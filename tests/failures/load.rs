//! Requests at a constant rate, whether or not earlier requests were answered.

use std::net::SocketAddr;
use std::time::Duration;

use crate::server::SLOWLY;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// The time between two requests.
const PACE: Duration = Duration::from_millis(5);
/// The timeout of a client.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(4);

/// A request and its result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) sent: Instant,
    pub(crate) fate: Fate,
}

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Answered,
    /// Answered by the slow server.
    Slowly,
    /// Answered with an error.
    Refused,
    /// No answer, or an incomplete one.
    Broken,
    /// No answer within the timeout.
    TimedOut,
}

impl Fate {
    pub(crate) fn is_loss(self) -> bool {
        !matches!(self, Self::Answered | Self::Slowly)
    }
}

/// Clients that send requests until they are stopped.
pub(crate) struct Load {
    stop: oneshot::Sender<()>,
    running: JoinHandle<Vec<Request>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            let (mut clients, mut pace) = (JoinSet::new(), interval(PACE));
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                tokio::select! {
                    _ = pace.tick() => drop(clients.spawn(ask(address))),
                    _ = &mut stopped => break,
                }
            }
            clients.join_all().await
        });
        Self { stop, running }
    }

    /// Stops sending, waits for the requests in flight, and returns all.
    pub(crate) async fn stop(self) -> Vec<Request> {
        let _ = self.stop.send(());
        self.running.await.expect("the task does not panic")
    }
}

async fn ask(address: SocketAddr) -> Request {
    let sent = Instant::now();
    let fate = match timeout(CLIENT_TIMEOUT, get(address)).await {
        Ok(Ok(answer)) if !answer.starts_with(b"HTTP/1.1 200") && !answer.is_empty() => {
            Fate::Refused
        }
        Ok(Ok(answer)) if answer.ends_with(b"well\n") => Fate::Answered,
        Ok(Ok(answer)) if answer.ends_with(SLOWLY.as_bytes()) => Fate::Slowly,
        Ok(_) => Fate::Broken,
        Err(_) => Fate::TimedOut,
    };
    Request { sent, fate }
}

async fn get(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}
