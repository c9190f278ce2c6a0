//! The UDP check.

mod pattern;

use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::timeout;

pub use self::pattern::{BytePattern, BytePatternError};
use super::datagram::{enable_icmp_errors, receive, receive_failure, send_failure};
use super::quote::quoted_excerpt;
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// The least size of the receive buffer in bytes, so that a reason can quote the reply.
const MIN_BUFFER_LEN: usize = 64;

/// Sends one datagram, and fails at an ICMP error, or, on request, without the expected reply.
///
/// # Without an expected reply
/// Many UDP services do not answer a datagram that they do not understand. So no answer is up, and
/// any answer is up. An ICMP error fails the check: port unreachable is
/// [`Refused`](CheckFailureKind::Refused), host or network unreachable is
/// [`Unreachable`](CheckFailureKind::Unreachable). The check waits for an error for
/// [`listen_for`](Self::listen_for), which must be less than the check's timeout.
///
/// That is weak evidence: a host that is off looks like a healthy host until the last router
/// reports it unreachable (about 3 s on Linux), firewalls drop ICMP, and hosts limit the rate of
/// ICMP. If the protocol has a request that must be answered, expect its reply; otherwise add an
/// [`IcmpCheck`](super::IcmpCheck).
///
/// # With an expected reply
/// The first datagram decides: if it is not the expected reply, the check fails with
/// [`Mismatch`](CheckFailureKind::Mismatch). Without a datagram the check ends at its timeout.
///
/// Nothing is sent twice: a lost datagram is one failure, and `fall` sets how many failures take
/// the server down. The options are those of keepalived's `UDP_CHECK`, with two differences that
/// their methods describe.
///
/// # Examples
/// ```
/// use lvs::health::{BytePattern, UdpCheck};
///
/// // A request of an NTP client; the reply must be that of a server (mode 4) of the same version.
/// let mut request = [0; 48];
/// request[0] = 0x23;
/// let ntp = UdpCheck::new().payload(request).expect_reply("24".parse::<BytePattern>()?);
/// # let _ = ntp;
/// # Ok::<(), lvs::health::BytePatternError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct UdpCheck {
    payload: Vec<u8>,
    expected_reply: Option<UdpReplyExpectation>,
    listen_for: Duration,
}

#[derive(Clone, Debug)]
struct UdpReplyExpectation {
    pattern: BytePattern,
    lengths: RangeInclusive<usize>,
}

impl Default for UdpCheck {
    fn default() -> Self {
        Self::new()
    }
}

impl UdpCheck {
    /// Makes a check that sends one zero byte, and fails at an ICMP error within 250 ms.
    pub fn new() -> Self {
        Self { payload: vec![0], expected_reply: None, listen_for: Duration::from_millis(250) }
    }

    /// Sets the payload, at most 65,507 bytes (65,527 over IPv6). Default: one zero byte, because
    /// some services take an empty datagram for an end of file.
    ///
    /// A longer payload makes every check fail as [`Local`](CheckFailureKind::Local).
    pub fn payload(self, payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..self }
    }

    /// Requires a reply that begins with a pattern. The empty pattern accepts any reply. Default:
    /// no reply is required.
    ///
    /// Bytes behind the pattern are not compared. A reply shorter than the pattern fails, unlike in
    /// keepalived, which then compares only the bytes received.
    pub fn expect_reply(self, pattern: impl Into<BytePattern>) -> Self {
        let lengths = self.expected_reply.map_or(0..=usize::MAX, |reply| reply.lengths);
        Self {
            expected_reply: Some(UdpReplyExpectation { pattern: pattern.into(), lengths }),
            ..self
        }
    }

    /// Requires a reply with a length in this range, in bytes. Default: any length; keepalived
    /// accepts at most 255 bytes.
    pub fn reply_lengths(self, lengths: RangeInclusive<usize>) -> Self {
        let pattern = self.expected_reply.map(|reply| reply.pattern).unwrap_or_default();
        Self { expected_reply: Some(UdpReplyExpectation { pattern, lengths }), ..self }
    }

    /// Sets how long the check waits for an ICMP error before no answer counts as up. Default: 250
    /// ms. No effect if a reply is required.
    ///
    /// Must be longer than the round trip to the backend, and shorter than the check's timeout:
    /// otherwise the check ends at its timeout, which is a failure.
    pub fn listen_for(self, listen_for: Duration) -> Self {
        Self { listen_for, ..self }
    }
}

impl Check for UdpCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let socket = context.connect_udp().await?;
        enable_icmp_errors(&socket, context.address());
        context.set_stage("sending the datagram");
        let sent = socket.send(&self.payload).await;
        sent.map_err(|error| send_failure(context.stage(), &error))?;
        context.set_stage("waiting for the reply");
        let failed = |error| receive_failure(context.stage(), &error);
        let Some(expected) = &self.expected_reply else {
            return match timeout(self.listen_for, receive(&socket, &mut [0])).await {
                Ok(received) => received.map(|_| CheckReport::up()).map_err(failed),
                Err(_) => Ok(CheckReport::up()),
            };
        };
        let mut buffer = vec![0; expected.pattern.len().max(MIN_BUFFER_LEN)];
        let len = receive(&socket, &mut buffer).await.map_err(failed)?;
        buffer.truncate(len);
        expected.judge(&buffer, len).map(|()| CheckReport::up())
    }

    fn name(&self) -> &str {
        "udp"
    }
}

impl UdpReplyExpectation {
    /// Compares a reply: `reply` is its beginning, at least as long as the pattern unless the reply
    /// is shorter; `len` is the whole length.
    fn judge(&self, reply: &[u8], len: usize) -> Result<(), CheckFailure> {
        let mismatch = |reason: String| Err(CheckFailure::new(CheckFailureKind::Mismatch, reason));
        if !self.lengths.contains(&len) {
            let (min, max) = (self.lengths.start(), self.lengths.end());
            return mismatch(match *max {
                usize::MAX => format!("reply of {len} bytes, expected {min} or more"),
                max => format!("reply of {len} bytes, expected {min} to {max}"),
            });
        }
        if !self.pattern.is_prefix_of(reply) {
            let (reply, pattern) = (quoted_excerpt(reply), self.pattern.to_string());
            let pattern = quoted_excerpt(pattern.as_bytes());
            return mismatch(format!("reply {reply} does not begin with the pattern {pattern}"));
        }
        Ok(())
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
