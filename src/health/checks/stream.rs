//! What the checks that talk over a stream share: bounded reads, and reasons that name what was
//! wrong.

use std::fmt::Write;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::health::{CheckContext, CheckFailure, CheckFailureKind};

/// The most that is read of a server in one check, in bytes.
///
/// The longest real answer is that of Redis to `INFO replication`, a line for each replica.
pub(super) const MAX_ANSWER_LEN: usize = 16 * 1024;

/// The room for the first read; nearly every answer fits.
const INITIAL_BUFFER_LEN: usize = 1024;

/// How much of what came is shown where it was not understood, in characters.
const MAX_EXCERPT_LEN: usize = 60;

/// How much is shown of a text that was meant to be read, in characters.
const MAX_MESSAGE_LEN: usize = 160;

/// A connection to a backend, with the bounds and the reasons that every check owes.
///
/// Each operation first says on the probe what it waits for, in words that go behind "timed out";
/// every failure begins with them, too.
///
/// # Cost
/// Nothing until something is read, then a kilobyte, and hardly ever more; at most [`MAX_ANSWER_LEN`].
#[derive(Debug)]
pub(super) struct CheckStream<'a> {
    probe: &'a CheckContext,
    stream: TcpStream,
    /// What came; what is in front of `read` was given out.
    buffer: Vec<u8>,
    consumed: usize,
    max_bytes: usize,
}

impl<'a> CheckStream<'a> {
    /// Connects.
    ///
    /// # Errors
    /// As [`CheckContext::connect`].
    pub(super) async fn connect(probe: &'a CheckContext) -> Result<Self, CheckFailure> {
        let stream = probe.connect().await?;
        Ok(Self { probe, stream, buffer: Vec::new(), consumed: 0, max_bytes: MAX_ANSWER_LEN })
    }

    /// The address of this machine that the connection comes from.
    pub(super) fn local_addr(&self) -> Result<SocketAddr, CheckFailure> {
        self.stream
            .local_addr()
            .map_err(|error| CheckFailure::local("asking for the address", &error))
    }

    /// Sends all of this.
    ///
    /// # Errors
    /// [`Reset`](CheckFailureKind::Reset) and the like if the connection ended before.
    pub(super) async fn send(
        &mut self,
        doing: &'static str,
        bytes: &[u8],
    ) -> Result<(), CheckFailure> {
        self.probe.set_stage(doing);
        self.stream.write_all(bytes).await.map_err(|error| self.probe.io_failure(&error))
    }

    /// Reads a line, and gives it without its end: LF, or CR LF.
    ///
    /// # Errors
    /// [`Closed`](CheckFailureKind::Closed) if it does not end, [`TooLong`](CheckFailureKind::TooLong) with
    /// byte [`MAX_ANSWER_LEN`] of all that was read.
    pub(super) async fn read_line(
        &mut self,
        waiting_for: &'static str,
    ) -> Result<Vec<u8>, CheckFailure> {
        let line = self.read_until(waiting_for, b'\n').await?;
        Ok(line.strip_suffix(b"\r").unwrap_or(&line).to_vec())
    }

    /// Reads a line that the end of the connection may end, too.
    ///
    /// # Errors
    /// As [`read_line`](Self::read_line), but for [`Closed`](CheckFailureKind::Closed) behind at least one byte.
    pub(super) async fn read_last_line(
        &mut self,
        waiting_for: &'static str,
    ) -> Result<Vec<u8>, CheckFailure> {
        match self.read_line(waiting_for).await {
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

    /// Reads up to a byte, and gives what is in front of it.
    ///
    /// # Errors
    /// As [`read_line`](Self::read_line).
    pub(super) async fn read_until(
        &mut self,
        waiting_for: &'static str,
        end: u8,
    ) -> Result<Vec<u8>, CheckFailure> {
        self.read_until_any(waiting_for, &[end]).await
    }

    /// Reads up to the first of some bytes, and gives what is in front of it.
    ///
    /// # Errors
    /// As [`read_line`](Self::read_line).
    pub(super) async fn read_until_any(
        &mut self,
        waiting_for: &'static str,
        ends: &[u8],
    ) -> Result<Vec<u8>, CheckFailure> {
        self.probe.set_stage(waiting_for);
        let mut looked_at = 0;
        loop {
            let unread = self.unread();
            match unread[looked_at..].iter().position(|byte| ends.contains(byte)) {
                Some(behind) => {
                    let len = looked_at + behind;
                    let found = unread[..len].to_vec();
                    self.consumed += len + 1;
                    return Ok(found);
                }
                None => looked_at = unread.len(),
            }
            self.read_more().await?;
        }
    }

    /// Reads this many bytes.
    ///
    /// # Errors
    /// [`Closed`](CheckFailureKind::Closed) if there are fewer; [`TooLong`](CheckFailureKind::TooLong), at
    /// once, if that would make more than [`MAX_ANSWER_LEN`] in all.
    pub(super) async fn read_exact(
        &mut self,
        waiting_for: &'static str,
        len: usize,
    ) -> Result<Vec<u8>, CheckFailure> {
        self.probe.set_stage(waiting_for);
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

    /// What came and was not given out yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.consumed..]
    }

    /// Waits for at least one byte more.
    ///
    /// # Errors
    /// As [`read_line`](Self::read_line).
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
            Err(error) => Err(self.probe.io_failure(&error)),
        }
    }

    /// Takes leave: sends this, and waits until the server has closed, whatever it says.
    ///
    /// So the server sees a conversation that ends in order, and it is the server that closes first:
    /// no port stays behind in TIME_WAIT. Only silence fails, by the check's timeout.
    pub(super) async fn quit(mut self, bytes: &[u8]) {
        if self.send("waiting for the end of the connection", bytes).await.is_err() {
            return;
        }
        self.max_bytes = self.buffer.len() + MAX_ANSWER_LEN;
        while self.read_more().await.is_ok() {}
    }

    /// Closes: the server reads an end, and no error.
    ///
    /// The reset that follows frees the port; it cannot overtake the end.
    pub(super) async fn close(mut self) {
        // The answer has been given: whether the server still hears this changes nothing.
        let _ = self.stream.shutdown().await;
    }

    fn too_long_failure(&self) -> CheckFailure {
        let reason = format!(
            "{}: more than {MAX_ANSWER_LEN} bytes, beginning {}",
            self.probe.stage(),
            escape_excerpt(self.unread()),
        );
        CheckFailure::new(CheckFailureKind::TooLong, reason)
    }

    fn closed_failure(&self) -> CheckFailure {
        let stage = self.probe.stage();
        let reason = match self.unread() {
            [] => format!("{stage}: the server closed the connection"),
            part => {
                format!("{stage}: the server closed the connection after {}", escape_excerpt(part))
            }
        };
        CheckFailure::new(CheckFailureKind::Closed, reason)
    }
}

/// A failure of the [kind](CheckFailureKind::Protocol) that says that the answer is none.
pub(super) fn protocol_failure(what: &str, bytes: &[u8]) -> CheckFailure {
    CheckFailure::new(CheckFailureKind::Protocol, format!("{what}: {}", escape_excerpt(bytes)))
}

/// Bytes from outside as they may stand in a log, in quotes: control characters, and what is not
/// UTF-8, escaped; cut to some 60 characters.
pub(super) fn escape_excerpt(bytes: &[u8]) -> String {
    escape_truncated(bytes, MAX_EXCERPT_LEN)
}

/// The same for a text that somebody wrote to be read: cut later.
pub(super) fn escape_message(bytes: &[u8]) -> String {
    escape_truncated(bytes, MAX_MESSAGE_LEN)
}

fn escape_truncated(bytes: &[u8], max: usize) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if out.len() > max {
                return out + "\"...";
            }
            match char {
                '\'' => out.push(char),
                _ => out.extend(char.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            if out.len() > max {
                return out + "\"...";
            }
            // A String takes all that is written.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out + "\""
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_shown_escaped_and_cut() {
        assert_eq!(escape_excerpt(b"220 it's\r\n"), r#""220 it's\r\n""#);
        assert_eq!(escape_excerpt(b"\x93\xfe\0\"\\"), r#""\x93\xfe\0\"\\""#);
        assert_eq!(escape_excerpt("gr\u{fc}n \u{202e}".as_bytes()), "\"gr\u{fc}n \\u{202e}\"");
        assert_eq!(escape_excerpt(&[b'a'; 60]), format!("\"{}\"", "a".repeat(60)));
        assert_eq!(escape_excerpt(&[b'a'; 61]), format!("\"{}\"...", "a".repeat(60)));
        let worst = escape_excerpt(&[0xff; 20_000]);
        assert!(worst.len() < 80, "{worst}");
        assert!(escape_excerpt("\u{e0001}".repeat(99).as_bytes()).len() < 80);
        assert_eq!(escape_message(&[b'a'; 161]).len(), 160 + "\"\"...".len());
    }
}
