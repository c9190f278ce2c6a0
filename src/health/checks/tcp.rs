//! Does it take a connection, and does it answer?

use super::stream::{CheckStream, MAX_ANSWER_LEN, escape_excerpt};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Up if a TCP connection can be made; on request, if the server says what it should.
///
/// The kernel completes connections for a program that hangs, until the program's queue is full:
/// bytes that are expected find that out, the mere connection does not.
///
/// Reads at most 16 KiB; more is [`TooLong`](CheckFailureKind::TooLong).
///
/// # Examples
/// ```
/// use lvs::health::TcpCheck;
///
/// // memcached: `VERSION 1.6.18`
/// let check = TcpCheck::new().send("version\r\n").expect("VERSION ");
/// // SSH says who it is without being asked.
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
    /// Connects, and no more.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends this once connected. Default: nothing.
    #[must_use]
    pub fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { send: bytes.as_ref().to_vec(), ..self }
    }

    /// Up only if the answer begins with this; the first other byte fails the check. Default:
    /// nothing is read.
    ///
    /// Takes the place of [`expect_within`](Self::expect_within).
    #[must_use]
    pub fn expect(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { expected: TcpExpectation::Prefix(bytes.as_ref().to_vec()), ..self }
    }

    /// Up as soon as this was found anywhere in the first 16 KiB of the answer.
    ///
    /// A server that says something else and then waits fails by the check's timeout only:
    /// [`expect`](Self::expect) is better where the answer's beginning is known.
    ///
    /// Takes the place of [`expect`](Self::expect).
    #[must_use]
    pub fn expect_within(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { expected: TcpExpectation::Within(bytes.as_ref().to_vec()), ..self }
    }
}

impl Check for TcpCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let mut talk = CheckStream::connect(probe).await?;
        if !self.send.is_empty() {
            talk.send("sending", &self.send).await?;
        }
        match &self.expected {
            TcpExpectation::Nothing if self.send.is_empty() => return Ok(CheckReport::up()),
            TcpExpectation::Nothing => {}
            TcpExpectation::Prefix(expected) => {
                probe.set_stage("waiting for the expected bytes");
                while !talk.unread().starts_with(expected) {
                    if !expected.starts_with(talk.unread()) {
                        let (got, want) = (escape_excerpt(talk.unread()), escape_excerpt(expected));
                        let reason = format!("the answer is {got}, and should begin with {want}");
                        return Err(CheckFailure::new(CheckFailureKind::Mismatch, reason));
                    }
                    talk.read_more().await?;
                }
            }
            TcpExpectation::Within(expected) => {
                probe.set_stage("waiting for the expected bytes");
                let mut from = 0;
                while !contains_bytes(&talk.unread()[from..], expected) {
                    // Where those that came last may be a beginning.
                    from = talk.unread().len().saturating_sub(expected.len());
                    talk.read_more().await?;
                }
            }
        }
        talk.close().await;
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
