//! Does a mail server greet?

pub(super) mod reply;

use std::net::IpAddr;

use super::stream::{CheckStream, escape_excerpt, escape_message, protocol_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Up if a mail server greets, and takes our greeting: SMTP, RFC 5321.
///
/// The server's `220` of one line or more, our `EHLO`, its `250`, our `QUIT`. A server that knows no
/// `EHLO` (a `5xx` to it) is asked once more by `HELO`. Any other code is a
/// [`Mismatch`](CheckFailureKind::Mismatch) and named with its text, so a server that refuses mail with
/// `421` or `554` is down.
///
/// What is said to `QUIT` is waited for, that the server logs a session that ended in order, and not
/// judged. Without TLS. Reads at most 16 KiB; more is [`TooLong`](CheckFailureKind::TooLong).
///
/// # Examples
/// ```
/// use lvs::health::SmtpCheck;
///
/// let check = SmtpCheck::new().helo_name("director.example.org");
/// ```
#[derive(Clone, Debug, Default)]
pub struct SmtpCheck {
    helo_name: Option<String>,
}

/// A whole reply.
struct SmtpReply {
    code: u16,
    /// The first line's.
    text: Vec<u8>,
}

impl SmtpCheck {
    /// Greets with the address that the connection comes from.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says by this name who asks. Default: the connection's own address, as `[192.0.2.1]`, which
    /// the RFC asks for where there is no name.
    ///
    /// What cannot stand in a name is left out: all but visible ASCII characters.
    #[must_use]
    pub fn helo_name(self, name: impl AsRef<str>) -> Self {
        let visible = name.as_ref().chars().filter(char::is_ascii_graphic);
        Self { helo_name: Some(visible.collect()) }
    }
}

impl Check for SmtpCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let mut talk = CheckStream::connect(probe).await?;
        read_reply(&mut talk, "waiting for the banner").await?.expect_code(220, "the banner")?;
        let name = match &self.helo_name {
            Some(name) => name.clone(),
            None => address_literal(talk.local_addr()?.ip()),
        };
        talk.send("sending EHLO", format!("EHLO {name}\r\n").as_bytes()).await?;
        let answer = read_reply(&mut talk, "waiting for the answer to EHLO").await?;
        if let 500..=599 = answer.code {
            talk.send("sending HELO", format!("HELO {name}\r\n").as_bytes()).await?;
            let answer = read_reply(&mut talk, "waiting for the answer to HELO").await?;
            answer.expect_code(250, "the answer to HELO")?;
        } else {
            answer.expect_code(250, "the answer to EHLO")?;
        }
        talk.quit(b"QUIT\r\n").await;
        Ok(CheckReport::up())
    }

    fn name(&self) -> &str {
        "smtp"
    }
}

impl SmtpReply {
    fn expect_code(&self, code: u16, what: &str) -> Result<(), CheckFailure> {
        if self.code == code {
            return Ok(());
        }
        let reason = format!("{what} is {} {}, not {code}", self.code, escape_message(&self.text));
        Err(CheckFailure::new(CheckFailureKind::Mismatch, reason))
    }
}

async fn read_reply(
    talk: &mut CheckStream<'_>,
    waiting_for: &'static str,
) -> Result<SmtpReply, CheckFailure> {
    let mut first = None;
    loop {
        let bytes = talk.read_line(waiting_for).await?;
        let Some(line) = reply::parse_reply_line(&bytes) else {
            return Err(protocol_failure(&format!("{waiting_for}: no reply of SMTP"), &bytes));
        };
        let reply =
            first.get_or_insert_with(|| SmtpReply { code: line.code, text: line.text.to_vec() });
        if reply.code != line.code {
            let code = reply.code;
            let reason =
                format!("{waiting_for}: within a reply {code} came {}", escape_excerpt(&bytes));
            return Err(CheckFailure::new(CheckFailureKind::Protocol, reason));
        }
        if !line.is_continued {
            return Ok(first.take().expect("just put in"));
        }
    }
}

/// An address as a name: RFC 5321, section 4.1.3.
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
    fn lines_of_replies() {
        let of = |code, goes_on, text: &'static str| {
            Some(SmtpReplyLine { code, is_continued: goes_on, text: text.as_bytes() })
        };
        assert_eq!(
            parse_reply_line(b"220 mx.example.org ESMTP"),
            of(220, false, "mx.example.org ESMTP")
        );
        assert_eq!(parse_reply_line(b"250-PIPELINING"), of(250, true, "PIPELINING"));
        assert_eq!(parse_reply_line(b"250"), of(250, false, ""));
        assert_eq!(parse_reply_line(b"250 "), of(250, false, ""));
        for none in ["", "22", "220a", "2 0 a", "120 a", "620 a", "260 a", "+OK", "SSH-2.0-x"] {
            assert_eq!(parse_reply_line(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn addresses_as_names() {
        assert_eq!(address_literal([192, 0, 2, 1].into()), "[192.0.2.1]");
        assert_eq!(address_literal("2001:db8::1".parse().expect("one")), "[IPv6:2001:db8::1]");
        assert_eq!(address_literal("::ffff:192.0.2.1".parse().expect("one")), "[192.0.2.1]");
    }

    #[test]
    fn a_name_cannot_be_a_second_command() {
        let check = SmtpCheck::new().helo_name("a b\r\nDATA");
        assert_eq!(check.helo_name.as_deref(), Some("abDATA"));
    }
}
