//! W3: bulk data, from the server (W3a with one stream, W3b with eight) and to it (W3c).
//!
//! Streams transfer 256 MiB (one) or 64 MiB (eight), one after another, each on a connection of its
//! own, until the time is up. The last stream is completed, and a missing byte fails the run.

use std::io;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::order::{Order, Tally, clock};
use super::spec::{Id, TCP, Unit, Workload};
use crate::traffic::Traffic;

/// Nanoseconds a byte are seconds a gigabyte.
const UNIT: Unit = Unit { name: "CPU s/GB", nanos: 1.0, rate: "Gbit/s", rate_scale: 8e-9 };

pub(crate) const DOWN_1: Workload = Workload {
    id: Id::W3a,
    title: "bulk, server to client, 1 stream",
    unit: UNIT,
    traffic: Traffic::Tcp,
    subjects: TCP,
};
pub(crate) const DOWN_8: Workload =
    Workload { id: Id::W3b, title: "bulk, server to client, 8 streams", ..DOWN_1 };
pub(crate) const UP_1: Workload =
    Workload { id: Id::W3c, title: "bulk, client to server, 1 stream", ..DOWN_1 };

const CHUNK: usize = 256 << 10;
/// The bytes of all streams with `--quick`.
const QUICK_LENGTH: u64 = 16 << 20;

/// Transfers streams until the time is up.
pub(super) async fn load(order: &Order) -> Result<Tally> {
    let streams = if order.workload == Id::W3b { 8 } else { 1 };
    let length = match order.is_quick {
        true => QUICK_LENGTH / streams,
        false if streams == 1 => 256 << 20,
        false => 64 << 20,
    };
    let mut clients = JoinSet::new();
    for i in 0..streams {
        clients.spawn(client(order.clone(), i as usize, length));
    }
    let mut tally = Tally::default();
    while let Some(part) = clients.join_next().await {
        tally.add(part??);
    }
    Ok(tally)
}

async fn client(order: Order, mut number: usize, length: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut buffer = vec![0; CHUNK];
    let end = clock() + order.time();
    while clock() < end {
        let mut stream = order.connect(number).await?;
        number += 1;
        let transferred = match order.workload {
            Id::W3c => upload(&mut stream, &buffer, length).await,
            _ => download(&mut stream, &mut buffer, length).await,
        };
        tally.units += transferred.context("a stream broke")?;
    }
    Ok(tally)
}

async fn download(stream: &mut TcpStream, buffer: &mut [u8], length: u64) -> Result<u64> {
    stream.write_all(format!("GET {length}\r\n\r\n").as_bytes()).await?;
    let mut received = 0;
    loop {
        match stream.read(buffer).await? {
            0 => break,
            count => received += count as u64,
        }
    }
    ensure!(received == length, "{received} of {length} bytes received");
    Ok(received)
}

async fn upload(stream: &mut TcpStream, buffer: &[u8], length: u64) -> Result<u64> {
    stream.write_all(format!("PUT {length}\r\n\r\n").as_bytes()).await?;
    // The half is not closed: nginx does not forward bytes of the server after that.
    send(stream, buffer, length).await?;
    let received = stream.read_u64().await?;
    ensure!(received == length, "{received} of {length} bytes arrived");
    ensure!(stream.read(&mut [0]).await? == 0, "bytes behind the answer");
    Ok(received)
}

async fn send(stream: &mut TcpStream, buffer: &[u8], mut length: u64) -> io::Result<()> {
    while length > 0 {
        let part = length.min(buffer.len() as u64);
        stream.write_all(&buffer[..part as usize]).await?;
        length -= part;
    }
    Ok(())
}

/// The backend's side: sends the requested number of bytes, or counts the bytes that arrive.
pub(crate) async fn answer(head: &[u8], rest: &[u8], stream: &mut TcpStream) -> io::Result<()> {
    let head = String::from_utf8_lossy(head);
    let mut fields = head.split_whitespace();
    let (method, length) = (fields.next(), fields.next().and_then(|text| text.parse::<u64>().ok()));
    let mut buffer = vec![0; CHUNK];
    match (method, length) {
        (Some("GET"), Some(length)) => send(stream, &buffer, length).await?,
        (Some("PUT"), Some(length)) => {
            let mut received = rest.len() as u64;
            while received < length {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    count => received += count as u64,
                }
            }
            stream.write_u64(received).await?;
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    stream.shutdown().await
}
