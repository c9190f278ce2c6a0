//! The server: one process with one thread, which answers HTTP at every address of its machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt, stdin};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::messages::{CLOSE, CLOSED, KEEP, KEPT};
use crate::network::SERVER_PORT;

/// A request for data without an end.
pub(crate) const ENDLESS: &[u8] = b"GET /endless HTTP/1.1\r\nHost: bench\r\n\r\n";

const CHUNK: usize = 256 << 10;

/// Serves until stdin ends. Prints `ready`.
pub(crate) async fn serve() -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, SERVER_PORT)))?;
    tokio::spawn(accept(socket.listen(4096)?));
    println!("ready");
    let _ = stdin().read_to_end(&mut Vec::new()).await;
    Ok(())
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
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            count => filled += count,
        }
        while let Some(end) = buffer[..filled].windows(4).position(|it| it == b"\r\n\r\n") {
            let head = end + 4;
            match &buffer[..head] {
                KEEP => stream.write_all(KEPT).await?,
                CLOSE => {
                    stream.write_all(CLOSED).await?;
                    return stream.shutdown().await;
                }
                ENDLESS => loop {
                    stream.write_all(&[0; CHUNK]).await?;
                },
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
            buffer.copy_within(head..filled, 0);
            filled -= head;
        }
    }
}
