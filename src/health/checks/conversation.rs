//! What the checks that talk over a stream share: bounded reads, and reasons that name what was
//! wrong.

use std::fmt::Write;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::health::{Failure, FailureKind, Probe};

/// The most that is read of a server in one check, in bytes.
///
/// The longest real answer is that of Redis to `INFO replication`, a line for each replica.
pub(super) const ANSWER_MAX: usize = 16 * 1024;

/// The room for the first read; nearly every answer fits.
const FIRST_READ: usize = 1024;

/// How much of what came is shown where it was not understood, in characters.
const SHOWN_MAX: usize = 60;

/// How much is shown of a text that was meant to be read, in characters.
const SAID_MAX: usize = 160;

/// A connection to a backend, with the bounds and the reasons that every check owes.
///
/// Each operation first says on the probe what it waits for, in words that go behind "timed out";
/// every failure begins with them, too.
///
/// # Cost
/// Nothing until something is read, then a kilobyte, and hardly ever more; at most [`ANSWER_MAX`].
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    probe: &'a Probe,
    stream: TcpStream,
    /// What came; what is in front of `read` was given out.
    buffer: Vec<u8>,
    read: usize,
    bytes_max: usize,
}

impl<'a> Conversation<'a> {
    /// Connects.
    ///
    /// # Errors
    /// As [`Probe::connect`].
    pub(super) async fn open(probe: &'a Probe) -> Result<Self, Failure> {
        let stream = probe.connect().await?;
        Ok(Self { probe, stream, buffer: Vec::new(), read: 0, bytes_max: ANSWER_MAX })
    }

    /// The address of this machine that the connection comes from.
    pub(super) fn local_addr(&self) -> Result<SocketAddr, Failure> {
        self.stream.local_addr().map_err(|error| Failure::local("asking for the address", &error))
    }

    /// Sends all of this.
    ///
    /// # Errors
    /// [`Reset`](FailureKind::Reset) and the like if the connection ended before.
    pub(super) async fn send(&mut self, doing: &'static str, bytes: &[u8]) -> Result<(), Failure> {
        self.probe.stage(doing);
        self.stream.write_all(bytes).await.map_err(|error| self.probe.io_failure(&error))
    }

    /// Reads a line, and gives it without its end: LF, or CR LF.
    ///
    /// # Errors
    /// [`Closed`](FailureKind::Closed) if it does not end, [`TooLong`](FailureKind::TooLong) with
    /// byte [`ANSWER_MAX`] of all that was read.
    pub(super) async fn line(&mut self, waiting_for: &'static str) -> Result<Vec<u8>, Failure> {
        let line = self.until(waiting_for, b'\n').await?;
        Ok(line.strip_suffix(b"\r").unwrap_or(&line).to_vec())
    }

    /// Reads a line that the end of the connection may end, too.
    ///
    /// # Errors
    /// As [`line`](Self::line), but for [`Closed`](FailureKind::Closed) behind at least one byte.
    pub(super) async fn last_line(
        &mut self,
        waiting_for: &'static str,
    ) -> Result<Vec<u8>, Failure> {
        match self.line(waiting_for).await {
            Err(failure) if failure.kind() == FailureKind::Closed && !self.unread().is_empty() => {
                let rest = self.unread().to_vec();
                self.read = self.buffer.len();
                Ok(rest)
            }
            line => line,
        }
    }

    /// Reads up to a byte, and gives what is in front of it.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(super) async fn until(
        &mut self,
        waiting_for: &'static str,
        end: u8,
    ) -> Result<Vec<u8>, Failure> {
        self.until_any(waiting_for, &[end]).await
    }

    /// Reads up to the first of some bytes, and gives what is in front of it.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(super) async fn until_any(
        &mut self,
        waiting_for: &'static str,
        ends: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        self.probe.stage(waiting_for);
        let mut looked_at = 0;
        loop {
            let unread = self.unread();
            match unread[looked_at..].iter().position(|byte| ends.contains(byte)) {
                Some(behind) => {
                    let len = looked_at + behind;
                    let found = unread[..len].to_vec();
                    self.read += len + 1;
                    return Ok(found);
                }
                None => looked_at = unread.len(),
            }
            self.more().await?;
        }
    }

    /// Reads this many bytes.
    ///
    /// # Errors
    /// [`Closed`](FailureKind::Closed) if there are fewer; [`TooLong`](FailureKind::TooLong), at
    /// once, if that would make more than [`ANSWER_MAX`] in all.
    pub(super) async fn exact(
        &mut self,
        waiting_for: &'static str,
        len: usize,
    ) -> Result<Vec<u8>, Failure> {
        self.probe.stage(waiting_for);
        if len > self.bytes_max - self.read {
            return Err(self.too_long());
        }
        while self.unread().len() < len {
            self.more().await?;
        }
        let found = self.unread()[..len].to_vec();
        self.read += len;
        Ok(found)
    }

    /// What came and was not given out yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.read..]
    }

    /// Waits for at least one byte more.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(super) async fn more(&mut self) -> Result<(), Failure> {
        let room = self.bytes_max - self.buffer.len();
        if room == 0 {
            return Err(self.too_long());
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(FIRST_READ);
        }
        let mut limited = (&mut self.stream).take(room as u64);
        match limited.read_buf(&mut self.buffer).await {
            Ok(0) => Err(self.closed()),
            Ok(_) => Ok(()),
            Err(error) => Err(self.probe.io_failure(&error)),
        }
    }

    /// Takes leave: sends this, and waits until the server has closed, whatever it says.
    ///
    /// So the server sees a conversation that ends in order, and it is the server that closes first:
    /// no port stays behind in TIME_WAIT. Only silence fails, by the check's timeout.
    pub(super) async fn farewell(mut self, bytes: &[u8]) {
        if self.send("waiting for the end of the connection", bytes).await.is_err() {
            return;
        }
        self.bytes_max = self.buffer.len() + ANSWER_MAX;
        while self.more().await.is_ok() {}
    }

    /// Closes: the server reads an end, and no error.
    ///
    /// The reset that follows frees the port; it cannot overtake the end.
    pub(super) async fn close(mut self) {
        // The answer has been given: whether the server still hears this changes nothing.
        let _ = self.stream.shutdown().await;
    }

    fn too_long(&self) -> Failure {
        let reason = format!(
            "{}: more than {ANSWER_MAX} bytes, beginning {}",
            self.probe.waits_for(),
            shown(self.unread()),
        );
        Failure::new(FailureKind::TooLong, reason)
    }

    fn closed(&self) -> Failure {
        let stage = self.probe.waits_for();
        let reason = match self.unread() {
            [] => format!("{stage}: the server closed the connection"),
            part => format!("{stage}: the server closed the connection after {}", shown(part)),
        };
        Failure::new(FailureKind::Closed, reason)
    }
}

/// A failure of the [kind](FailureKind::Protocol) that says that the answer is none.
pub(super) fn not_understood(what: &str, bytes: &[u8]) -> Failure {
    Failure::new(FailureKind::Protocol, format!("{what}: {}", shown(bytes)))
}

/// Bytes from outside as they may stand in a log, in quotes: control characters, and what is not
/// UTF-8, escaped; cut to some 60 characters.
pub(super) fn shown(bytes: &[u8]) -> String {
    escaped(bytes, SHOWN_MAX)
}

/// The same for a text that somebody wrote to be read: cut later.
pub(super) fn said(bytes: &[u8]) -> String {
    escaped(bytes, SAID_MAX)
}

fn escaped(bytes: &[u8], max: usize) -> String {
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
        assert_eq!(shown(b"220 it's\r\n"), r#""220 it's\r\n""#);
        assert_eq!(shown(b"\x93\xfe\0\"\\"), r#""\x93\xfe\0\"\\""#);
        assert_eq!(shown("gr\u{fc}n \u{202e}".as_bytes()), "\"gr\u{fc}n \\u{202e}\"");
        assert_eq!(shown(&[b'a'; 60]), format!("\"{}\"", "a".repeat(60)));
        assert_eq!(shown(&[b'a'; 61]), format!("\"{}\"...", "a".repeat(60)));
        let worst = shown(&[0xff; 20_000]);
        assert!(worst.len() < 80, "{worst}");
        assert!(shown("\u{e0001}".repeat(99).as_bytes()).len() < 80);
        assert_eq!(said(&[b'a'; 161]).len(), 160 + "\"\"...".len());
    }
}
