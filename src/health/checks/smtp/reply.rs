//! The reply of an SMTP server: RFC 5321, section 4.2.

/// One line of a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SmtpReplyLine<'a> {
    /// Three digits, the first of them 2 to 5 and the second 0 to 5.
    pub(crate) code: u16,
    /// Whether another line follows.
    pub(crate) is_continued: bool,
    /// What is there to be read by people.
    pub(crate) text: &'a [u8],
}

/// Reads a line that was cut off at its end; `None` if it is none of a reply.
///
/// A code alone is the last line, as the RFC asks clients to allow.
pub(crate) fn parse_reply_line(bytes: &[u8]) -> Option<SmtpReplyLine<'_>> {
    let (&[a, b, c], rest) = bytes.split_first_chunk()?;
    let digits = matches!((a, b, c), (b'2'..=b'5', b'0'..=b'5', b'0'..=b'9'));
    let code = digits.then(|| [a, b, c].iter().fold(0, |n, d| n * 10 + u16::from(d - b'0')))?;
    let (goes_on, text) = match rest {
        [] => (false, rest),
        [b' ', text @ ..] => (false, text),
        [b'-', text @ ..] => (true, text),
        _ => return None,
    };
    Some(SmtpReplyLine { code, is_continued: goes_on, text })
}
