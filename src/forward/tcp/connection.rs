//! One connection: find it a backend, carry it, and say how it ended.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::forward::counters::{End, Entry, Refusal, Tally, add};
use crate::sync::AtomicU64;
use crate::{Balancer, Flow, Lease, Outcome};

/// How hard a backend is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    pub(super) timeout: Duration,
    pub(super) attempts: u32,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Connection {
    client: Side,
    flow: Flow,
    balancer: Balancer<SocketAddr>,
    effort: Effort,
    tally: Arc<Tally>,
    entry: Entry,
}

impl Connection {
    /// Enters it into the books.
    pub(super) fn new(
        client: TcpStream,
        flow: Flow,
        (balancer, effort): (&Balancer<SocketAddr>, Effort),
        tally: &Arc<Tally>,
    ) -> Self {
        Self {
            client: Side::new(client, tally, |tally| &tally.bytes_to_clients),
            flow,
            balancer: balancer.clone(),
            effort,
            tally: Arc::clone(tally),
            entry: Entry::new(tally),
        }
    }

    /// Carries it from its first byte to its last.
    pub(super) async fn serve(mut self) {
        let end = self.carry().await;
        self.entry.close(end);
    }

    async fn carry(&mut self) -> End {
        let (server, lease) = match self.connect().await {
            Ok(connected) => connected,
            Err(refusal) => {
                debug!(?refusal, "connection refused");
                return End::Refused(refusal);
            }
        };
        let mut server = Side::new(server, &self.tally, |tally| &tally.bytes_to_servers);
        let (outcome, end) = match copy_bidirectional(&mut self.client, &mut server).await {
            Ok(_) => {
                self.client.in_order = true;
                server.in_order = true;
                (Outcome::Ok, End::Finished)
            }
            Err(error) => {
                debug!(backend = %lease.id(), by_server = server.broke, %error, "connection broke");
                match server.broke {
                    true => (Outcome::AppError, End::ServerBroke),
                    // A client that goes away is nothing to hold against the backend.
                    false => (Outcome::Cancelled, End::ClientBroke),
                }
            }
        };
        lease.complete(outcome);
        end
    }

    /// Connects to the first backend that lets itself be connected to.
    async fn connect(&mut self) -> Result<(TcpStream, Lease<SocketAddr>), Refusal> {
        let mut last = None;
        for _ in 0..self.effort.attempts {
            let begun = now();
            self.flow = std::mem::take(&mut self.flow).at(begun);
            // Where a backend was tried, what became of it is the reason, not that none was left.
            let lease = self.balancer.pick(&self.flow).map_err(|why| last.unwrap_or(why.into()))?;
            let (outcome, refusal) = match timeout(self.effort.timeout, dial(*lease.target())).await
            {
                Ok(Ok(stream)) => {
                    let connected = now();
                    let took = connected.saturating_duration_since(begun);
                    lease.observe_latency(took, connected);
                    return Ok((stream, lease));
                }
                Ok(Err(error)) if is_local(&error) => (Outcome::Cancelled, Refusal::NoResources),
                Ok(Err(_)) => (Outcome::ConnectError, Refusal::ConnectError),
                Err(_) => (Outcome::Timeout, Refusal::ConnectTimeout),
            };
            debug!(backend = %lease.id(), ?refusal, "cannot connect");
            add(&self.tally.failed_connects, 1);
            self.flow.exclude(lease.backend());
            lease.complete(outcome);
            last = Some(refusal);
        }
        Err(last.unwrap_or(Refusal::NoBackend))
    }
}

async fn dial(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    // Where nobody listens on a port of this machine, the kernel may give out that very port for
    // the outgoing side, and the socket is then connected to itself.
    if stream.local_addr()? == target {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    // Nagle's delay belongs to the end points; it is of no use between two sockets of a relay.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Tells whether a failure to connect is this machine's and says nothing about the backend.
fn is_local(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    #[cfg(target_os = "linux")]
    const ENOBUFS: i32 = 105;
    #[cfg(not(target_os = "linux"))]
    const ENOBUFS: i32 = 55;

    matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS))
}

#[expect(clippy::disallowed_methods, reason = "a shell: time begins here")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// One side of a connection: counts what is written to it and notes whether it was this side that
/// broke. Reset when dropped, unless it has ended in order.
#[derive(Debug)]
struct Side {
    stream: TcpStream,
    tally: Arc<Tally>,
    written: fn(&Tally) -> &AtomicU64,
    broke: bool,
    in_order: bool,
}

impl Side {
    fn new(stream: TcpStream, tally: &Arc<Tally>, written: fn(&Tally) -> &AtomicU64) -> Self {
        Self { stream, tally: Arc::clone(tally), written, broke: false, in_order: false }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.stream)
    }

    fn note<T>(&mut self, answer: io::Result<T>) -> Poll<io::Result<T>> {
        self.broke |= answer.is_err();
        Poll::Ready(answer)
    }
}

impl AsyncRead for Side {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let answer = ready!(self.stream().poll_read(cx, buf));
        self.note(answer)
    }
}

impl AsyncWrite for Side {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let answer = ready!(self.stream().poll_write(cx, buf));
        if let Ok(count) = answer {
            add((self.written)(&self.tally), count as u64);
        }
        self.note(answer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answer = ready!(self.stream().poll_flush(cx));
        self.note(answer)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answer = ready!(self.stream().poll_shutdown(cx));
        self.note(answer)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if !self.in_order {
            // A socket that does not take the option is closed in the ordinary way.
            let _ = self.stream.set_zero_linger();
        }
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn shortages_of_this_machine_are_not_the_backends_fault() {
        for local in [ErrorKind::AddrNotAvailable.into(), io::Error::from_raw_os_error(24)] {
            assert!(is_local(&local), "{local}");
        }
        for remote in [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable] {
            assert!(!is_local(&remote.into()), "{remote}");
        }
    }
}
