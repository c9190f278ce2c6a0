//! The successor's side of a handover: it receives the sockets of the director that ran before.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::sockets::ListeningSockets;
use crate::forward::handover::{self, HandoverError};

/// How long the other process may take to send or to read.
pub(super) const HANDOVER_IO_TIMEOUT: Duration = Duration::from_secs(5);
/// What a successor sends when it serves.
pub(super) const SERVING_BYTE: u8 = b'!';

/// The director that serves until this one does.
#[derive(Debug)]
pub(super) struct Predecessor(UnixStream);

impl Predecessor {
    /// Connects to a predecessor and receives its sockets; `None` if none runs.
    pub(super) async fn connect(
        path: &Path,
    ) -> Result<Option<(Self, ListeningSockets)>, HandoverError> {
        let path = path.to_owned();
        let connected = spawn_blocking(move || {
            let stream = match UnixStream::connect(&path) {
                Ok(stream) => stream,
                // No socket file, or one whose process has ended.
                Err(error) => match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
                    _ => return Err(error.into()),
                },
            };
            stream.set_read_timeout(Some(HANDOVER_IO_TIMEOUT))?;
            let sockets = handover::receive(&stream)?.into_iter().map(|(_, socket)| socket);
            Ok(Some((Self(stream), ListeningSockets::from_descriptors(sockets))))
        });
        connected.await.unwrap_or(Ok(None))
    }

    /// Tells the predecessor that this director serves, and that it may end.
    pub(super) fn confirm_takeover(mut self) {
        if let Err(error) = self.0.write_all(&[SERVING_BYTE]) {
            tracing::warn!("handover: the old process ended before this process served: {error}");
        }
    }
}
