//! The backends: one process on the core of the load that runs all three of them.
//!
//! Each backend is an HTTP server, a UDP echo server and a sink for coalesced UDP datagrams. The
//! process ends when its stdin ends.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, stdin};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::messages::{CLOSE, CLOSED, KEEP, KEPT};
use crate::traffic::Traffic;
use crate::workload::{bulk, coalesced};

/// The number of backends.
const BACKENDS: usize = 3;

/// The addresses of the backends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backends {
    http: Vec<SocketAddr>,
    echo: Vec<SocketAddr>,
    sink: Vec<SocketAddr>,
}

impl Backends {
    pub(crate) fn addresses(&self, traffic: Traffic) -> &[SocketAddr] {
        match traffic {
            Traffic::Tcp => &self.http,
            Traffic::Echo => &self.echo,
            Traffic::Sink => &self.sink,
        }
    }

    /// Parses the line that [`serve`] prints.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let addresses: Result<Vec<SocketAddr>, _> =
            line.split_whitespace().map(str::parse).collect();
        let addresses = addresses.context("invalid addresses of backends")?;
        ensure!(addresses.len() == 3 * BACKENDS, "{} addresses of backends", addresses.len());
        let mut parts = addresses.chunks(BACKENDS).map(<[_]>::to_vec);
        let mut next = || parts.next().unwrap_or_default();
        Ok(Self { http: next(), echo: next(), sink: next() })
    }
}

/// Serves until stdin ends. Prints `ready` and the addresses: HTTP, echo and sink of each backend.
pub(crate) async fn serve() -> Result<()> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut addresses = Vec::new();
    for _ in 0..BACKENDS {
        let listener = listen(any)?;
        addresses.push(listener.local_addr()?);
        tokio::spawn(accept(listener));
    }
    for _ in 0..BACKENDS {
        let socket = UdpSocket::bind(any).await?;
        addresses.push(socket.local_addr()?);
        tokio::spawn(echo(socket));
    }
    for _ in 0..BACKENDS {
        let socket = UdpSocket::bind(any).await?;
        addresses.push(socket.local_addr()?);
        setsockopt(&socket, sockopt::UdpGroSegment, &true).context("UDP_GRO")?;
        tokio::spawn(coalesced::sink(socket));
    }
    let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    println!("ready {}", addresses.join(" "));
    let _ = stdin().read_to_end(&mut Vec::new()).await;
    Ok(())
}

/// Returns a listener with a long accept queue: the load opens thousands of connections at once.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(address)?;
    socket.listen(4096)
}

async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        // Errors are ignored: the load reports answers that it did not get.
        tokio::spawn(async { drop(answer_all(stream).await) });
    }
}

/// Answers one request after another.
async fn answer_all(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 1024];
    let mut filled = 0;
    loop {
        let head = loop {
            let end = buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                more => filled += more,
            }
        };
        match &buffer[..head] {
            KEEP => stream.write_all(KEPT).await?,
            CLOSE => {
                stream.write_all(CLOSED).await?;
                return stream.shutdown().await;
            }
            bulk_request => {
                let rest = &buffer[head..filled];
                return bulk::answer(bulk_request, rest, &mut stream).await;
            }
        }
        buffer.copy_within(head..filled, 0);
        filled -= head;
    }
}

/// Sends every datagram back to its source.
async fn echo(socket: UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, source)) = socket.recv_from(&mut buffer).await {
        let _ = socket.send_to(&buffer[..length], source).await;
    }
}
