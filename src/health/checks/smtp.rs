//! The SMTP check.

pub(super) mod reply;

use std::net::IpAddr;

use super::CheckNameError;
use super::quote::{quoted_excerpt, quoted_message};
use super::stream::{CheckStream, protocol_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Opens an SMTP session (RFC 5321) with a mail server.
///
/// The check expects the server's `220` banner, sends `EHLO`, expects `250`, and sends `QUIT`. If
/// the server answers `EHLO` with `5xx`, the check sends `HELO`. Any other code is a
/// [`Mismatch`](CheckFailureKind::Mismatch), whose reason has the code and its text: a server that
/// refuses mail with `421` or `554` is down.
///
/// The check waits for the answer to `QUIT`, so that the server logs an orderly session, but does
/// not evaluate the answer. Without TLS. Reads at most 16 KiB; more is
/// [`TooLong`](CheckFailureKind::TooLong).
///
/// # Compared with HAProxy
/// HAProxy's `smtpchk` accepts any code from 200 to 299, refuses a banner of several lines, and does not
/// fall back to `HELO`. This check requires 220 and 250, as keepalived's `SMTP_CHECK`, and reads banners
/// of several lines, as RFC 5321 says. As in HAProxy, the last line of a reply may end with LF alone if it
/// has a text; every other line ends with CR LF. HAProxy judges a line that has not ended; this check waits
/// for its end.
///
/// # Examples
/// ```
/// use lvs::health::SmtpCheck;
///
/// let check = SmtpCheck::new().helo_name("director.example.org")?;
/// # let _ = check;
/// # Ok::<(), lvs::health::CheckNameError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct SmtpCheck {
    helo_name: Option<String>,
}

/// A reply of one or more lines.
struct SmtpReply {
    code: u16,
    /// The text of the first line.
    text: Vec<u8>,
}

impl SmtpCheck {
    /// Makes a check that sends the local address of the connection in `EHLO`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name in `EHLO` and `HELO`. Default: the local address of the connection, as
    /// `[192.0.2.1]`, which the RFC asks for if there is no name.
    ///
    /// # Errors
    /// [`CheckNameError::HostName`] if the name is empty or has other than visible ASCII
    /// characters.
    pub fn helo_name(self, name: impl Into<String>) -> Result<Self, CheckNameError> {
        let name = name.into();
        CheckNameError::check_host_name(&name)?;
        Ok(Self { helo_name: Some(name) })
    }
}

impl Check for SmtpCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let mut stream = CheckStream::connect(context).await?;
        read_reply(&mut stream, "waiting for the banner").await?.expect_code(220, "the banner")?;
        let name = match &self.helo_name {
            Some(name) => name.clone(),
            None => address_literal(stream.local_addr()?.ip()),
        };
        stream.send("sending EHLO", format!("EHLO {name}\r\n").as_bytes()).await?;
        let answer = read_reply(&mut stream, "waiting for the answer to EHLO").await?;
        if let 500..=599 = answer.code {
            stream.send("sending HELO", format!("HELO {name}\r\n").as_bytes()).await?;
            let answer = read_reply(&mut stream, "waiting for the answer to HELO").await?;
            answer.expect_code(250, "the answer to HELO")?;
        } else {
            answer.expect_code(250, "the answer to EHLO")?;
        }
        stream.quit(b"QUIT\r\n").await;
        Ok(CheckReport::up())
    }

    fn name(&self) -> &str {
        "smtp"
    }
}

impl SmtpReply {
    fn expect_code(&self, code: u16, subject: &str) -> Result<(), CheckFailure> {
        if self.code == code {
            return Ok(());
        }
        let text = quoted_message(&self.text);
        let reason = format!("{subject} has code {} {text}, expected code {code}", self.code);
        Err(CheckFailure::new(CheckFailureKind::Mismatch, reason))
    }
}

async fn read_reply(
    stream: &mut CheckStream<'_>,
    stage: &'static str,
) -> Result<SmtpReply, CheckFailure> {
    let mut first = None;
    loop {
        let bytes = stream.read_until(stage, b'\n').await?;
        let Some(line) = reply::parse_reply_line(&bytes) else {
            return Err(protocol_failure(&format!("{stage}: not an SMTP reply"), &bytes));
        };
        let reply =
            first.get_or_insert_with(|| SmtpReply { code: line.code, text: line.text.to_vec() });
        if reply.code != line.code {
            let code = reply.code;
            let line = quoted_excerpt(bytes.trim_ascii_end());
            let reason =
                format!("{stage}: a reply of code {code} has a line of another code: {line}");
            return Err(CheckFailure::new(CheckFailureKind::Protocol, reason));
        }
        if !line.is_continued {
            return Ok(first.take().expect("the first line was stored above"));
        }
    }
}

/// Formats an address as a host name: RFC 5321, section 4.1.3.
fn address_literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::reply::{SmtpReplyLine, parse_reply_line};
    use super::*;

    #[test]
    fn reply_lines_are_parsed() {
        let line = |code, is_continued, text: &'static str| {
            Some(SmtpReplyLine { code, is_continued, text: text.as_bytes() })
        };
        assert_eq!(
            parse_reply_line(b"220 mx.example.org ESMTP\r"),
            line(220, false, "mx.example.org ESMTP")
        );
        assert_eq!(parse_reply_line(b"250-PIPELINING\r"), line(250, true, "PIPELINING"));
        assert_eq!(parse_reply_line(b"250\r"), line(250, false, ""));
        assert_eq!(parse_reply_line(b"250 \r"), line(250, false, ""));
        // Without CR, by HAProxy's expressions: `[0-9]{3}[ \r]`, and lines in front of it with `\r\n`.
        assert_eq!(parse_reply_line(b"250 ok"), line(250, false, "ok"));
        assert_eq!(parse_reply_line(b"250"), None);
        assert_eq!(parse_reply_line(b"250-PIPELINING"), None);
        for invalid in ["", "22", "220a", "2 0 a", "120 a", "620 a", "260 a", "+OK", "SSH-2.0-x"] {
            let invalid = format!("{invalid}\r");
            assert_eq!(parse_reply_line(invalid.as_bytes()), None, "{invalid}");
        }
    }

    #[test]
    fn addresses_are_formatted_as_literals() {
        assert_eq!(address_literal([192, 0, 2, 1].into()), "[192.0.2.1]");
        assert_eq!(
            address_literal("2001:db8::1".parse().expect("an address")),
            "[IPv6:2001:db8::1]"
        );
        assert_eq!(address_literal("::ffff:192.0.2.1".parse().expect("an address")), "[192.0.2.1]");
    }

    #[test]
    fn a_name_that_could_be_a_second_command_is_refused() {
        for name in ["", "a b", "a\r\nDATA", "m\u{fc}nchen.example"] {
            let error = SmtpCheck::new().helo_name(name).expect_err("an invalid name");
            assert_eq!(error, CheckNameError::HostName { name: name.to_owned() });
        }
    }
}
