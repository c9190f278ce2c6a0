//! The TCP stream of a check: bounded reads, and failures with a reason.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::quote::quoted_excerpt;
use crate::health::{CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// The most bytes that a check reads from a server.
///
/// The longest real answer is that of Redis to `INFO replication`, with a line for each replica.
pub(super) const MAX_ANSWER_LEN: usize = 16 * 1024;

/// How long a check that has passed waits for the server to close the connection.
const MAX_GOODBYE_TIME: Duration = Duration::from_millis(250);

/// The size of the first read buffer, in bytes; nearly every answer fits.
const INITIAL_BUFFER_LEN: usize = 1024;

/// A connection to a backend, with bounded reads and failures that name the stage of the check.
///
/// Each operation first sets the stage of the context, in words that follow "timed out after 5s";
/// the reason of every failure begins with the stage, too.
///
/// # Cost
/// No memory until the first read, then a kilobyte, seldom more; at most [`MAX_ANSWER_LEN`].
#[derive(Debug)]
pub(super) struct CheckStream<'a> {
    context: &'a CheckContext,
    stream: TcpStream,
    /// The bytes received; those in front of `consumed` were returned.
    buffer: Vec<u8>,
    consumed: usize,
    max_bytes: usize,
}

impl<'a> CheckStream<'a> {
    /// Connects to the backend.
    ///
    /// # Errors
    /// As [`CheckContext::connect`].
    pub(super) async fn connect(context: &'a CheckContext) -> Result<Self, CheckFailure> {
        let stream = context.connect().await?;
        Ok(Self { context, stream, buffer: Vec::new(), consumed: 0, max_bytes: MAX_ANSWER_LEN })
    }

    /// Returns the local address of the connection.
    pub(super) fn local_addr(&self) -> Result<SocketAddr, CheckFailure> {
        self.stream
            .local_addr()
            .map_err(|error| CheckFailure::local("reading the local address", &error))
    }

    /// Sends all bytes.
    ///
    /// # Errors
    /// [`Reset`](CheckFailureKind::Reset) or a similar kind if the connection ended before.
    pub(super) async fn send(
        &mut self,
        stage: &'static str,
        bytes: &[u8],
    ) -> Result<(), CheckFailure> {
        self.context.set_stage(stage);
        self.stream.write_all(bytes).await.map_err(|error| self.context.io_failure(&error))
    }

    /// Reads a line that ends with CR, with LF, or with the connection.
    ///
    /// # Errors
    /// As [`read_until`](Self::read_until), but not [`Closed`](CheckFailureKind::Closed) after at
    /// least one byte.
    pub(super) async fn read_last_line(
        &mut self,
        stage: &'static str,
    ) -> Result<Vec<u8>, CheckFailure> {
        match self.read_until_any(stage, b"\r\n").await {
            Err(failure)
                if failure.kind() == CheckFailureKind::Closed && !self.unread().is_empty() =>
            {
                let rest = self.unread().to_vec();
                self.consumed = self.buffer.len();
                Ok(rest)
            }
            line => line,
        }
    }

    /// Reads up to a byte; returns the bytes in front of it.
    ///
    /// # Errors
    /// [`Closed`](CheckFailureKind::Closed) if the connection ends first,
    /// [`TooLong`](CheckFailureKind::TooLong) after [`MAX_ANSWER_LEN`] bytes of all reads.
    pub(super) async fn read_until(
        &mut self,
        stage: &'static str,
        end: u8,
    ) -> Result<Vec<u8>, CheckFailure> {
        self.read_until_any(stage, &[end]).await
    }

    /// Reads up to the first of several bytes; returns the bytes in front of it.
    ///
    /// # Errors
    /// As [`read_until`](Self::read_until).
    pub(super) async fn read_until_any(
        &mut self,
        stage: &'static str,
        ends: &[u8],
    ) -> Result<Vec<u8>, CheckFailure> {
        self.context.set_stage(stage);
        let mut searched = 0;
        loop {
            let unread = self.unread();
            match unread[searched..].iter().position(|byte| ends.contains(byte)) {
                Some(offset) => {
                    let len = searched + offset;
                    let found = unread[..len].to_vec();
                    self.consumed += len + 1;
                    return Ok(found);
                }
                None => searched = unread.len(),
            }
            self.read_more().await?;
        }
    }

    /// Reads a number of bytes.
    ///
    /// # Errors
    /// [`Closed`](CheckFailureKind::Closed) if the connection ends first;
    /// [`TooLong`](CheckFailureKind::TooLong), before reading, if all reads together would exceed
    /// [`MAX_ANSWER_LEN`].
    pub(super) async fn read_exact(
        &mut self,
        stage: &'static str,
        len: usize,
    ) -> Result<Vec<u8>, CheckFailure> {
        self.context.set_stage(stage);
        if len > self.max_bytes - self.consumed {
            return Err(self.too_long_failure());
        }
        while self.unread().len() < len {
            self.read_more().await?;
        }
        let found = self.unread()[..len].to_vec();
        self.consumed += len;
        Ok(found)
    }

    /// Returns the bytes that were received and not consumed yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.consumed..]
    }

    /// Waits for at least one more byte.
    ///
    /// # Errors
    /// As [`read_until`](Self::read_until).
    pub(super) async fn read_more(&mut self) -> Result<(), CheckFailure> {
        let room = self.max_bytes - self.buffer.len();
        if room == 0 {
            return Err(self.too_long_failure());
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(INITIAL_BUFFER_LEN);
        }
        let mut limited = (&mut self.stream).take(room as u64);
        match limited.read_buf(&mut self.buffer).await {
            Ok(0) => Err(self.closed_failure()),
            Ok(_) => Ok(()),
            Err(error) => Err(self.context.io_failure(&error)),
        }
    }

    /// Ends the session of a check that has passed: sends the last command, and waits until the server
    /// has closed the connection, or for [`MAX_GOODBYE_TIME`]; the answer is not read for its content.
    ///
    /// So the server sees an orderly end, and closes first: no local port stays in TIME_WAIT. Not every
    /// server knows the command: Redis Sentinel and proxies keep the connection open. The check has
    /// passed all the same, also if its timeout passes meanwhile.
    pub(super) async fn quit(mut self, bytes: &[u8]) {
        self.context.set_report(CheckReport::up());
        // The report stands, however the session ends.
        let _ = timeout(MAX_GOODBYE_TIME, self.wait_for_end(bytes)).await;
    }

    async fn wait_for_end(&mut self, bytes: &[u8]) {
        if self.send("waiting for the end of the connection", bytes).await.is_err() {
            return;
        }
        self.max_bytes = self.buffer.len() + MAX_ANSWER_LEN;
        while self.read_more().await.is_ok() {}
    }

    /// Closes the connection: the server reads an end of file, and no error.
    ///
    /// The reset that follows frees the local port, and arrives after the end of file.
    pub(super) async fn close(mut self) {
        // The result of the check is known: an error of the shutdown does not change it.
        let _ = self.stream.shutdown().await;
    }

    fn too_long_failure(&self) -> CheckFailure {
        let reason = format!(
            "{}: the server sent more than {MAX_ANSWER_LEN} bytes, beginning with {}",
            self.context.stage(),
            quoted_excerpt(self.unread()),
        );
        CheckFailure::new(CheckFailureKind::TooLong, reason)
    }

    fn closed_failure(&self) -> CheckFailure {
        let stage = self.context.stage();
        let reason = match self.unread() {
            [] => format!("{stage}: the server closed the connection"),
            part => {
                format!("{stage}: the server closed the connection after {}", quoted_excerpt(part))
            }
        };
        CheckFailure::new(CheckFailureKind::Closed, reason)
    }
}

/// Returns a failure of the kind [`Protocol`](CheckFailureKind::Protocol) with a problem and the
/// bytes that were received.
pub(super) fn protocol_failure(problem: &str, bytes: &[u8]) -> CheckFailure {
    CheckFailure::new(CheckFailureKind::Protocol, format!("{problem}: {}", quoted_excerpt(bytes)))
}
