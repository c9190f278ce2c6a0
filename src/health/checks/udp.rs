//! Is the port of a UDP service open, and does it answer as it should?

mod pattern;

use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::timeout;

pub use self::pattern::{BytePattern, BytePatternError};
use super::datagram::{enable_icmp_errors, receive, receive_failure, send_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// The most bytes of a reply that a reason shows.
const MAX_REPLY_EXCERPT_LEN: usize = 32;

/// Sends one datagram, and is up if nobody objects, or only if the right reply comes.
///
/// # Without a required reply
/// Many UDP services say nothing to what they do not understand. So silence is up, and so is any
/// datagram; what counts against the backend is an ICMP error: port unreachable is
/// [`Refused`](CheckFailureKind::Refused), host or network unreachable is
/// [`Unreachable`](CheckFailureKind::Unreachable). Silence is listened to for as long as
/// [`listen_for`](Self::listen_for) says, which must be less than the check's timeout.
///
/// That is weak evidence: a host that is off answers as little as one that is well, until the last
/// router gives up on it (about 3 s on Linux), firewalls drop ICMP, and hosts limit how much of it
/// they send. Ask for something that must be answered where the protocol has it, or put an
/// [`IcmpCheck`](super::IcmpCheck) beside this one.
///
/// # With a required reply
/// The first datagram that comes decides: it fits, or the check has failed with
/// [`Mismatch`](CheckFailureKind::Mismatch). If none comes, the check's timeout ends it.
///
/// Nothing is sent twice: a lost datagram is one failure, and how many of those it takes is what
/// `fall` is for. The options are those of keepalived's `UDP_CHECK`, with two differences that
/// their methods name.
///
/// # Examples
/// ```
/// use lvs::health::{BytePattern, UdpCheck};
///
/// // An NTP client's request; the reply must be a server's (mode 4), of the same version.
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
    /// Sends one zero byte, and is up unless an ICMP error comes within 250 ms.
    pub fn new() -> Self {
        Self { payload: vec![0], expected_reply: None, listen_for: Duration::from_millis(250) }
    }

    /// What to send, at most 65,507 bytes (65,527 over IPv6). Default: one zero byte, because
    /// there are services that take an empty datagram for an end of file.
    ///
    /// What does not fit fails as [`Local`](CheckFailureKind::Local).
    pub fn payload(self, payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..self }
    }

    /// Requires a reply that begins so. The empty pattern takes any reply. Default: none is
    /// required.
    ///
    /// Bytes behind the pattern are free. A reply shorter than it is wrong, unlike in keepalived,
    /// which then compares no more than what came.
    pub fn expect_reply(self, pattern: impl Into<BytePattern>) -> Self {
        let lengths = self.expected_reply.map_or(0..=usize::MAX, |reply| reply.lengths);
        Self {
            expected_reply: Some(UdpReplyExpectation { pattern: pattern.into(), lengths }),
            ..self
        }
    }

    /// Requires a reply of one of these lengths, in bytes. Default: any length, where keepalived
    /// takes 255 bytes at most.
    pub fn reply_lengths(self, lengths: RangeInclusive<usize>) -> Self {
        let pattern = self.expected_reply.map(|reply| reply.pattern).unwrap_or_default();
        Self { expected_reply: Some(UdpReplyExpectation { pattern, lengths }), ..self }
    }

    /// How long to listen for an ICMP error before silence counts as up. Default: 250 ms. Without
    /// effect if a reply is required.
    ///
    /// More than the round trip to the backend, and less than the check's timeout: otherwise the
    /// timeout comes first, and it counts as a failure.
    pub fn listen_for(self, listen_for: Duration) -> Self {
        Self { listen_for, ..self }
    }
}

impl Check for UdpCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let socket = probe.connect_udp().await?;
        enable_icmp_errors(&socket, probe.address());
        probe.set_stage("sending the datagram");
        let sent = socket.send(&self.payload).await;
        sent.map_err(|error| send_failure(probe.stage(), &error))?;
        probe.set_stage("waiting for the reply");
        let failed = |error| receive_failure(probe.stage(), &error);
        let Some(expected) = &self.expected_reply else {
            return match timeout(self.listen_for, receive(&socket, &mut [0])).await {
                Ok(heard) => heard.map(|_| CheckReport::up()).map_err(failed),
                Err(_) => Ok(CheckReport::up()),
            };
        };
        let mut buffer = vec![0; expected.pattern.len().max(MAX_REPLY_EXCERPT_LEN)];
        let len = receive(&socket, &mut buffer).await.map_err(failed)?;
        buffer.truncate(len);
        expected.judge(&buffer, len).map(|()| CheckReport::up())
    }

    fn name(&self) -> &str {
        "udp"
    }
}

impl UdpReplyExpectation {
    /// `reply` is its beginning, at least as long as the pattern if all of it is; `len` is its
    /// whole length.
    fn judge(&self, reply: &[u8], len: usize) -> Result<(), CheckFailure> {
        let wrong = |what: String| Err(CheckFailure::new(CheckFailureKind::Mismatch, what));
        if !self.lengths.contains(&len) {
            let (least, most) = (self.lengths.start(), self.lengths.end());
            return wrong(match *most {
                usize::MAX => format!("a reply of {len} bytes, not of {least} or more"),
                most => format!("a reply of {len} bytes, not of {least} to {most}"),
            });
        }
        if !self.pattern.is_prefix_of(reply) {
            let shown = &reply[..reply.len().min(MAX_REPLY_EXCERPT_LEN)];
            let more = if len > shown.len() { "..." } else { "" };
            return wrong(format!(
                "the reply \"{}\"{more} does not fit the pattern",
                shown.escape_ascii()
            ));
        }
        Ok(())
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
