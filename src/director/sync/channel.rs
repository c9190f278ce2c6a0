//! A connection that is encrypted, and authenticated by a key that both sides have.
//!
//! The Noise protocol (revision 34), `NNpsk0`: each side proves with the first message it sends that
//! it has the key; session keys are new each time, so that nothing can be played again, and what was
//! recorded cannot be read by whoever learns the key later. On the wire: a length of two bytes, and a
//! message of Noise; in it a byte that tells whether it is the last part, and the part.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use snow::{Builder, TransportState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// What both sides mean by what they say; another version has another prologue, and no handshake.
const PROLOGUE: &[u8] = b"lvs director sync 1";
/// The longest message of Noise, and what of it is not ours.
const LONGEST: usize = 65_535;
const TAG: usize = 16;
/// The longest text that is taken: what a million clients' persistence needs.
const TEXT: usize = 256 << 20;
/// How long the other side may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// A connection to the other director.
#[derive(Debug)]
pub(super) struct Channel {
    stream: TcpStream,
    noise: TransportState,
    /// Bytes of all that was sent, and received.
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// Which side of a connection this is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// It connected.
    Initiator,
    /// It was connected to.
    Responder,
}

impl Channel {
    /// Shakes hands: an error if the other side has another key, or takes too long.
    pub(super) async fn open(
        mut stream: TcpStream,
        key: &[u8; 32],
        side: Side,
    ) -> io::Result<Self> {
        let shake = async {
            stream.set_nodelay(true)?;
            let pattern = PATTERN.parse().map_err(odd)?;
            let builder = Builder::new(pattern).psk(0, key).map_err(odd)?;
            let builder = builder.prologue(PROLOGUE).map_err(odd)?;
            let mut buffer = vec![0; LONGEST];
            let noise = match side {
                Side::Initiator => {
                    let mut noise = builder.build_initiator().map_err(odd)?;
                    let length = noise.write_message(&[], &mut buffer).map_err(odd)?;
                    write_frame(&mut stream, &buffer[..length]).await?;
                    let answer = read_frame(&mut stream).await?;
                    noise.read_message(&answer, &mut buffer).map_err(odd)?;
                    noise
                }
                Side::Responder => {
                    let mut noise = builder.build_responder().map_err(odd)?;
                    let hello = read_frame(&mut stream).await?;
                    noise.read_message(&hello, &mut buffer).map_err(odd)?;
                    let length = noise.write_message(&[], &mut buffer).map_err(odd)?;
                    write_frame(&mut stream, &buffer[..length]).await?;
                    noise
                }
            };
            let noise = noise.into_transport_mode().map_err(odd)?;
            Ok(Self { stream, noise, sent: 0, received: 0 })
        };
        timeout(HANDSHAKE, shake).await?
    }

    /// Sends something. Not cancel safe: a connection that was cut in between is of no use.
    pub(super) async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut parts = text.chunks(LONGEST - TAG - 1).peekable();
        let mut buffer = vec![0; LONGEST];
        while let Some(part) = parts.next() {
            let plain = [&[u8::from(parts.peek().is_none())], part].concat();
            let length = self.noise.write_message(&plain, &mut buffer).map_err(odd)?;
            write_frame(&mut self.stream, &buffer[..length]).await?;
            self.sent += 2 + length as u64;
        }
        Ok(())
    }

    /// Waits for what the other side sends. Not cancel safe.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let (mut text, mut buffer) = (Vec::new(), vec![0; LONGEST]);
        loop {
            let frame = read_frame(&mut self.stream).await?;
            self.received += 2 + frame.len() as u64;
            let length = self.noise.read_message(&frame, &mut buffer).map_err(odd)?;
            let (last, part) =
                buffer[..length].split_first().ok_or_else(|| odd("nothing in it"))?;
            if text.len() + part.len() > TEXT {
                return Err(odd("more than a standby can be told at once"));
            }
            text.extend_from_slice(part);
            if *last != 0 {
                return Ok(serde_json::from_slice(&text)?);
            }
        }
    }
}

async fn write_frame(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(odd)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await
}

async fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn odd(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn pair(a: [u8; 32], b: [u8; 32]) -> (io::Result<Channel>, io::Result<Channel>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let connect = async {
            let stream = TcpStream::connect(address).await.expect("it listens");
            Channel::open(stream, &a, Side::Initiator).await
        };
        let accept = async {
            let (stream, _) = listener.accept().await.expect("it connects");
            Channel::open(stream, &b, Side::Responder).await
        };
        tokio::join!(connect, accept)
    }

    #[tokio::test]
    async fn what_is_sent_is_received_however_long_it_is() {
        let (a, b) = pair([7; 32], [7; 32]).await;
        let (mut a, mut b) = (a.expect("one key"), b.expect("one key"));
        for length in [0, 1, 65_000, 300_000] {
            let text = "x".repeat(length);
            let (sent, received) = tokio::join!(a.send(&text), b.receive::<String>());
            sent.expect("it is read");
            assert_eq!(received.expect("it is sent"), text);
        }
        assert_eq!(a.sent, b.received);
        assert!(a.sent > 365_000);
    }

    #[tokio::test]
    async fn who_has_another_key_is_told_nothing() {
        let (a, b) = pair([7; 32], [8; 32]).await;
        assert!(a.is_err());
        assert_eq!(b.expect_err("another key").kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn noise_of_another_kind_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0], &[0, 1, 2], &[0xff; 70_000]] {
            let connect = async {
                let mut stream = TcpStream::connect(address).await.expect("it listens");
                // It may have been refused before all is sent.
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
            };
            let accept = async {
                let (stream, _) = listener.accept().await.expect("it connects");
                Channel::open(stream, &[7; 32], Side::Responder).await
            };
            let ((), channel) = tokio::join!(connect, accept);
            channel.expect_err("no handshake");
        }
    }
}
