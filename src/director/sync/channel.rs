//! A connection that is encrypted, and authenticated by a pre-shared key.
//!
//! It uses the Noise protocol (revision 34), `NNpsk0`: each side proves with its first message that it
//! has the key. Session keys are new for each connection: a recorded connection cannot be replayed, and
//! cannot be decrypted by an attacker who learns the key later. A frame on the wire is a length of two
//! bytes and a Noise message. The plain text of a frame is one byte, 1 in the last frame of a message
//! and 0 before, and a part of the message in JSON.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use snow::{Builder, TransportState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const NOISE_PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// The version of the messages. The handshake fails if the other side has another prologue.
const NOISE_PROLOGUE: &[u8] = b"lvs director sync 1";
/// The longest Noise message.
const MAX_NOISE_MESSAGE: usize = 65_535;
/// The length of the authentication tag of a Noise message.
const NOISE_TAG_LENGTH: usize = 16;
/// The longest message that is accepted; the persistence table of a million clients fits.
const MAX_SYNC_MESSAGE: usize = 256 << 20;
/// How long the other side may take for the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to the other director.
#[derive(Debug)]
pub(super) struct NoiseChannel {
    stream: TcpStream,
    noise: TransportState,
    /// Bytes sent, in frames with their lengths.
    pub(super) bytes_sent: u64,
    /// Bytes received, in frames with their lengths.
    pub(super) bytes_received: u64,
}

/// The side of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoiseRole {
    /// The side that connects.
    Initiator,
    /// The side that accepts.
    Responder,
}

impl NoiseChannel {
    /// Performs the handshake.
    ///
    /// # Errors
    /// The other side has another key, speaks another protocol, or takes too long.
    pub(super) async fn open(
        mut stream: TcpStream,
        key: &[u8; 32],
        role: NoiseRole,
    ) -> io::Result<Self> {
        let handshake = async {
            stream.set_nodelay(true)?;
            let pattern = NOISE_PATTERN.parse().map_err(invalid_data)?;
            let builder = Builder::new(pattern).psk(0, key).map_err(invalid_data)?;
            let builder = builder.prologue(NOISE_PROLOGUE).map_err(invalid_data)?;
            let mut buffer = vec![0; MAX_NOISE_MESSAGE];
            let noise = match role {
                NoiseRole::Initiator => {
                    let mut noise = builder.build_initiator().map_err(invalid_data)?;
                    let length = noise.write_message(&[], &mut buffer).map_err(invalid_data)?;
                    write_frame(&mut stream, &buffer[..length]).await?;
                    let answer = read_frame(&mut stream).await?;
                    noise.read_message(&answer, &mut buffer).map_err(invalid_data)?;
                    noise
                }
                NoiseRole::Responder => {
                    let mut noise = builder.build_responder().map_err(invalid_data)?;
                    let hello = read_frame(&mut stream).await?;
                    noise.read_message(&hello, &mut buffer).map_err(invalid_data)?;
                    let length = noise.write_message(&[], &mut buffer).map_err(invalid_data)?;
                    write_frame(&mut stream, &buffer[..length]).await?;
                    noise
                }
            };
            let noise = noise.into_transport_mode().map_err(invalid_data)?;
            Ok(Self { stream, noise, bytes_sent: 0, bytes_received: 0 })
        };
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Err(error)) => Err(explain_handshake(error, role)),
            Ok(channel) => channel,
            Err(_) => {
                let reason = "the other side has not answered within 2 s";
                Err(io::Error::new(io::ErrorKind::TimedOut, reason))
            }
        }
    }

    /// Sends a message. Not cancel safe: after a partial message the connection is unusable.
    pub(super) async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut parts = text.chunks(MAX_NOISE_MESSAGE - NOISE_TAG_LENGTH - 1).peekable();
        let mut buffer = vec![0; MAX_NOISE_MESSAGE];
        while let Some(part) = parts.next() {
            let plain = [&[u8::from(parts.peek().is_none())], part].concat();
            let length = self.noise.write_message(&plain, &mut buffer).map_err(invalid_data)?;
            write_frame(&mut self.stream, &buffer[..length]).await?;
            self.bytes_sent += 2 + length as u64;
        }
        Ok(())
    }

    /// Receives a message. Not cancel safe.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let (mut text, mut buffer) = (Vec::new(), vec![0; MAX_NOISE_MESSAGE]);
        loop {
            let frame = read_frame(&mut self.stream).await?;
            self.bytes_received += 2 + frame.len() as u64;
            let length = self.noise.read_message(&frame, &mut buffer).map_err(invalid_data)?;
            let (last, part) = buffer[..length]
                .split_first()
                .ok_or_else(|| invalid_data("a frame without content"))?;
            if text.len() + part.len() > MAX_SYNC_MESSAGE {
                return Err(invalid_data("a message is longer than 256 MiB"));
            }
            text.extend_from_slice(part);
            if *last != 0 {
                return Ok(serde_json::from_slice(&text)?);
            }
        }
    }
}

async fn write_frame(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(invalid_data)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await
}

async fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Says what an error of the handshake means to an operator.
fn explain_handshake(error: io::Error, role: NoiseRole) -> io::Error {
    let reason = match (role, error.kind()) {
        // The side that accepts ends the connection if the key is another one.
        (NoiseRole::Initiator, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            "the other director has refused the connection: both need the same `key`"
        }
        (_, io::ErrorKind::InvalidData) => {
            "the other side has another `key`, or is no director of this version"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), reason)
}

fn invalid_data(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn pair(
        a: [u8; 32],
        b: [u8; 32],
    ) -> (io::Result<NoiseChannel>, io::Result<NoiseChannel>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let connect = async {
            let stream = TcpStream::connect(address).await.expect("the listener accepts");
            NoiseChannel::open(stream, &a, NoiseRole::Initiator).await
        };
        let accept = async {
            let (stream, _) = listener.accept().await.expect("the peer connects");
            NoiseChannel::open(stream, &b, NoiseRole::Responder).await
        };
        tokio::join!(connect, accept)
    }

    #[tokio::test]
    async fn messages_of_any_length_arrive() {
        let (a, b) = pair([7; 32], [7; 32]).await;
        let (mut a, mut b) = (a.expect("one key"), b.expect("one key"));
        for length in [0, 1, 65_000, 300_000] {
            let text = "x".repeat(length);
            let (sent, received) = tokio::join!(a.send(&text), b.receive::<String>());
            sent.expect("the peer reads");
            assert_eq!(received.expect("the peer sends"), text);
        }
        assert_eq!(a.bytes_sent, b.bytes_received);
        assert!(a.bytes_sent > 365_000);
    }

    #[tokio::test]
    async fn a_peer_with_another_key_is_refused() {
        let (a, b) = pair([7; 32], [8; 32]).await;
        assert!(a.is_err());
        assert_eq!(b.expect_err("another key").kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_peer_that_speaks_another_protocol_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0], &[0, 1, 2], &[0xff; 70_000]] {
            let connect = async {
                let mut stream = TcpStream::connect(address).await.expect("the listener accepts");
                // The other side may close the connection before everything is sent.
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
            };
            let accept = async {
                let (stream, _) = listener.accept().await.expect("the peer connects");
                NoiseChannel::open(stream, &[7; 32], NoiseRole::Responder).await
            };
            let ((), channel) = tokio::join!(connect, accept);
            channel.expect_err("no handshake");
        }
    }
}
