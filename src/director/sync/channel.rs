//! A connection that is encrypted, and authenticated by a pre-shared key.
//!
//! It uses the Noise protocol (revision 34), `NNpsk0`: each side proves with its first message that it
//! has the key. Session keys are new for each connection: a recorded connection cannot be replayed, and
//! cannot be decrypted by an attacker who learns the key later. A frame on the wire is a length of two
//! bytes and a Noise message. The plain text of a frame is one byte and a part of the message. The lowest bit of
//! the byte is 1 in the last frame of a message; the next one is 1 if the message is about flows, and 0 if it is
//! JSON. The side that connects says in its first message of the handshake whether it takes flows: one that does not
//! is of an earlier version.

use std::io;
use std::time::Duration;

use snow::{Builder, TransportState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const NOISE_PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// The version of the messages. The handshake fails if the other side has another prologue.
const NOISE_PROLOGUE: &[u8] = b"lvs director sync 1";
/// What the side that connects says if it takes flows.
const TAKES_FLOWS: &[u8] = b"flows 1";
/// Bits of the first byte of a frame.
const IS_LAST: u8 = 1;
const IS_FLOWS: u8 = 2;
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
    /// Whether the side that has connected takes flows.
    pub(super) takes_flows: bool,
    /// Bytes sent, in frames with their lengths.
    pub(super) bytes_sent: u64,
    /// Bytes received, in frames with their lengths.
    pub(super) bytes_received: u64,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum MessageKind {
    /// Everything but flows, in JSON.
    State,
    /// Flows of the packet engine, in octets.
    Flows,
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
            let mut takes_flows = true;
            let noise = match role {
                NoiseRole::Initiator => {
                    let mut noise = builder.build_initiator().map_err(invalid_data)?;
                    let length =
                        noise.write_message(TAKES_FLOWS, &mut buffer).map_err(invalid_data)?;
                    write_frame(&mut stream, &buffer[..length]).await?;
                    let answer = read_frame(&mut stream).await?;
                    noise.read_message(&answer, &mut buffer).map_err(invalid_data)?;
                    noise
                }
                NoiseRole::Responder => {
                    let mut noise = builder.build_responder().map_err(invalid_data)?;
                    let hello = read_frame(&mut stream).await?;
                    let length = noise.read_message(&hello, &mut buffer).map_err(invalid_data)?;
                    takes_flows = buffer[..length] == *TAKES_FLOWS;
                    let length = noise.write_message(&[], &mut buffer).map_err(invalid_data)?;
                    write_frame(&mut stream, &buffer[..length]).await?;
                    noise
                }
            };
            let noise = noise.into_transport_mode().map_err(invalid_data)?;
            Ok(Self { stream, noise, takes_flows, bytes_sent: 0, bytes_received: 0 })
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
    pub(super) async fn send(&mut self, kind: MessageKind, message: &[u8]) -> io::Result<()> {
        let of_kind = if kind == MessageKind::Flows { IS_FLOWS } else { 0 };
        let mut parts = message.chunks(MAX_NOISE_MESSAGE - NOISE_TAG_LENGTH - 1).peekable();
        let mut buffer = vec![0; MAX_NOISE_MESSAGE];
        while let Some(part) = parts.next() {
            let is_last = if parts.peek().is_none() { IS_LAST } else { 0 };
            let plain = [&[of_kind | is_last], part].concat();
            let length = self.noise.write_message(&plain, &mut buffer).map_err(invalid_data)?;
            write_frame(&mut self.stream, &buffer[..length]).await?;
            self.bytes_sent += 2 + length as u64;
        }
        Ok(())
    }

    /// Receives a message. Not cancel safe.
    pub(super) async fn receive(&mut self) -> io::Result<(MessageKind, Vec<u8>)> {
        let (mut message, mut buffer) = (Vec::new(), vec![0; MAX_NOISE_MESSAGE]);
        loop {
            let frame = read_frame(&mut self.stream).await?;
            self.bytes_received += 2 + frame.len() as u64;
            let length = self.noise.read_message(&frame, &mut buffer).map_err(invalid_data)?;
            let (bits, part) = buffer[..length]
                .split_first()
                .ok_or_else(|| invalid_data("a frame without content"))?;
            if message.len() + part.len() > MAX_SYNC_MESSAGE {
                return Err(invalid_data("a message is longer than 256 MiB"));
            }
            message.extend_from_slice(part);
            if bits & IS_LAST != 0 {
                let is_flows = bits & IS_FLOWS != 0;
                let kind = if is_flows { MessageKind::Flows } else { MessageKind::State };
                return Ok((kind, message));
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
        for (length, kind) in [
            (1, MessageKind::State),
            (65_000, MessageKind::Flows),
            (300_000, MessageKind::State),
            (300_000, MessageKind::Flows),
        ] {
            let message = vec![7; length];
            let (sent, received) = tokio::join!(a.send(kind, &message), b.receive());
            sent.expect("the peer reads");
            assert_eq!(received.expect("the peer sends"), (kind, message));
        }
        assert_eq!(a.bytes_sent, b.bytes_received);
        assert!(a.bytes_sent > 665_000 && b.takes_flows);
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
