//! Does a mail server greet?

pub(super) mod reply;

use std::net::IpAddr;

use super::conversation::{Conversation, not_understood, said, shown};
use crate::health::{Check, Failure, FailureKind, Probe, Report};

/// Up if a mail server greets, and takes our greeting: SMTP, RFC 5321.
///
/// The server's `220` of one line or more, our `EHLO`, its `250`, our `QUIT`. A server that knows no
/// `EHLO` (a `5xx` to it) is asked once more by `HELO`. Any other code is a
/// [`Mismatch`](FailureKind::Mismatch) and named with its text, so a server that refuses mail with
/// `421` or `554` is down.
///
/// What is said to `QUIT` is waited for, that the server logs a session that ended in order, and not
/// judged. Without TLS. Reads at most 16 KiB; more is [`TooLong`](FailureKind::TooLong).
///
/// # Examples
/// ```
/// use lvs::health::SmtpCheck;
///
/// let check = SmtpCheck::new().hello("director.example.org");
/// ```
#[derive(Clone, Debug, Default)]
pub struct SmtpCheck {
    hello: Option<String>,
}

/// A whole reply.
struct Reply {
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
    pub fn hello(self, name: impl AsRef<str>) -> Self {
        let visible = name.as_ref().chars().filter(char::is_ascii_graphic);
        Self { hello: Some(visible.collect()) }
    }
}

impl Check for SmtpCheck {
    async fn check(&self, probe: &Probe) -> Result<Report, Failure> {
        let mut talk = Conversation::open(probe).await?;
        reply(&mut talk, "waiting for the banner").await?.expect(220, "the banner")?;
        let name = match &self.hello {
            Some(name) => name.clone(),
            None => literal(talk.local_addr()?.ip()),
        };
        talk.send("sending EHLO", format!("EHLO {name}\r\n").as_bytes()).await?;
        let answer = reply(&mut talk, "waiting for the answer to EHLO").await?;
        if let 500..=599 = answer.code {
            talk.send("sending HELO", format!("HELO {name}\r\n").as_bytes()).await?;
            let answer = reply(&mut talk, "waiting for the answer to HELO").await?;
            answer.expect(250, "the answer to HELO")?;
        } else {
            answer.expect(250, "the answer to EHLO")?;
        }
        talk.farewell(b"QUIT\r\n").await;
        Ok(Report::up())
    }

    fn name(&self) -> &str {
        "smtp"
    }
}

impl Reply {
    fn expect(&self, code: u16, what: &str) -> Result<(), Failure> {
        if self.code == code {
            return Ok(());
        }
        let reason = format!("{what} is {} {}, not {code}", self.code, said(&self.text));
        Err(Failure::new(FailureKind::Mismatch, reason))
    }
}

async fn reply(talk: &mut Conversation<'_>, waiting_for: &'static str) -> Result<Reply, Failure> {
    let mut first = None;
    loop {
        let bytes = talk.line(waiting_for).await?;
        let Some(line) = reply::line(&bytes) else {
            return Err(not_understood(&format!("{waiting_for}: no reply of SMTP"), &bytes));
        };
        let reply =
            first.get_or_insert_with(|| Reply { code: line.code, text: line.text.to_vec() });
        if reply.code != line.code {
            let code = reply.code;
            let reason = format!("{waiting_for}: within a reply {code} came {}", shown(&bytes));
            return Err(Failure::new(FailureKind::Protocol, reason));
        }
        if !line.goes_on {
            return Ok(first.take().expect("just put in"));
        }
    }
}

/// An address as a name: RFC 5321, section 4.1.3.
fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::reply::{Line, line};
    use super::*;

    #[test]
    fn lines_of_replies() {
        let of =
            |code, goes_on, text: &'static str| Some(Line { code, goes_on, text: text.as_bytes() });
        assert_eq!(line(b"220 mx.example.org ESMTP"), of(220, false, "mx.example.org ESMTP"));
        assert_eq!(line(b"250-PIPELINING"), of(250, true, "PIPELINING"));
        assert_eq!(line(b"250"), of(250, false, ""));
        assert_eq!(line(b"250 "), of(250, false, ""));
        for none in ["", "22", "220a", "2 0 a", "120 a", "620 a", "260 a", "+OK", "SSH-2.0-x"] {
            assert_eq!(line(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn addresses_as_names() {
        assert_eq!(literal([192, 0, 2, 1].into()), "[192.0.2.1]");
        assert_eq!(literal("2001:db8::1".parse().expect("one")), "[IPv6:2001:db8::1]");
        assert_eq!(literal("::ffff:192.0.2.1".parse().expect("one")), "[192.0.2.1]");
    }

    #[test]
    fn a_name_cannot_be_a_second_command() {
        let check = SmtpCheck::new().hello("a b\r\nDATA");
        assert_eq!(check.hello.as_deref(), Some("abDATA"));
    }
}
