//! The TCP check: a connection, and on request an expected answer.

use super::quote::quoted_excerpt;
use super::stream::{CheckStream, MAX_ANSWER_LEN};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Connects by TCP, and optionally compares the answer with expected bytes.
///
/// The kernel completes connections for a program that hangs, until the program's accept queue is
/// full. Only a check with expected bytes detects such a program.
///
/// Reads at most 16 KiB; more is [`TooLong`](CheckFailureKind::TooLong).
///
/// # Examples
/// ```
/// use lvs::health::TcpCheck;
///
/// // memcached: `VERSION 1.6.18`
/// let check = TcpCheck::new().send("version\r\n").expect("VERSION ");
/// // An SSH server sends its version first.
/// let check = TcpCheck::new().expect("SSH-2.0-");
/// ```
#[derive(Clone, Debug, Default)]
pub struct TcpCheck {
    send: Vec<u8>,
    expected: TcpExpectation,
}

#[derive(Clone, Debug, Default)]
enum TcpExpectation {
    #[default]
    Nothing,
    Prefix(Vec<u8>),
    Within(Vec<u8>),
}

impl TcpCheck {
    /// Makes a check that only connects.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends bytes after connecting. Default: nothing.
    #[must_use]
    pub fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { send: bytes.as_ref().to_vec(), ..self }
    }

    /// Requires that the answer begins with these bytes; the first other byte fails the check.
    /// Default: nothing is read.
    ///
    /// Replaces [`expect_within`](Self::expect_within).
    #[must_use]
    pub fn expect(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { expected: TcpExpectation::Prefix(bytes.as_ref().to_vec()), ..self }
    }

    /// Requires these bytes anywhere in the first 16 KiB of the answer.
    ///
    /// A server that sends other bytes and then waits fails only by the check's timeout:
    /// [`expect`](Self::expect) is better if the beginning of the answer is known.
    ///
    /// Replaces [`expect`](Self::expect).
    #[must_use]
    pub fn expect_within(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { expected: TcpExpectation::Within(bytes.as_ref().to_vec()), ..self }
    }
}

impl Check for TcpCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let mut stream = CheckStream::connect(context).await?;
        if !self.send.is_empty() {
            stream.send("sending the request", &self.send).await?;
        }
        match &self.expected {
            TcpExpectation::Nothing if self.send.is_empty() => return Ok(CheckReport::up()),
            TcpExpectation::Nothing => {}
            TcpExpectation::Prefix(expected) => {
                context.set_stage("waiting for the expected bytes");
                while !stream.unread().starts_with(expected) {
                    if !expected.starts_with(stream.unread()) {
                        let (answer, expected) =
                            (quoted_excerpt(stream.unread()), quoted_excerpt(expected));
                        let reason = format!(
                            "answer {answer}, expected an answer beginning with {expected}"
                        );
                        return Err(CheckFailure::new(CheckFailureKind::Mismatch, reason));
                    }
                    stream.read_more().await?;
                }
            }
            TcpExpectation::Within(expected) => {
                context.set_stage("waiting for the expected bytes");
                let mut from = 0;
                while !contains_bytes(&stream.unread()[from..], expected) {
                    // The last bytes may be the beginning of the expected bytes.
                    from = stream.unread().len().saturating_sub(expected.len());
                    stream.read_more().await?;
                }
            }
        }
        stream.close().await;
        Ok(CheckReport::up())
    }

    fn name(&self) -> &str {
        "tcp"
    }
}

fn contains_bytes(bytes: &[u8], wanted: &[u8]) -> bool {
    debug_assert!(bytes.len() <= MAX_ANSWER_LEN);
    wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted)
}
