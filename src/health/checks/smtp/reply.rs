//! Parses replies of an SMTP server: RFC 5321, section 4.2.

/// A line of a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SmtpReplyLine<'a> {
    /// The code: three digits, the first 2 to 5 and the second 0 to 5.
    pub(crate) code: u16,
    /// Whether another line follows.
    pub(crate) is_continued: bool,
    /// The text for the operator.
    pub(crate) text: &'a [u8],
}

/// Parses a line without its LF; `None` if the line is not part of a reply.
///
/// A line of a code alone is a last line, which the RFC asks clients to accept. The LF of a last line with
/// a text needs no CR in front of it, as in HAProxy's `smtpchk`.
pub(crate) fn parse_reply_line(bytes: &[u8]) -> Option<SmtpReplyLine<'_>> {
    let (line, has_cr) = bytes.strip_suffix(b"\r").map_or((bytes, false), |line| (line, true));
    let (&[a, b, c], rest) = line.split_first_chunk()?;
    let digits = matches!((a, b, c), (b'2'..=b'5', b'0'..=b'5', b'0'..=b'9'));
    let code = digits.then(|| [a, b, c].iter().fold(0, |n, d| n * 10 + u16::from(d - b'0')))?;
    let (is_continued, text) = match rest {
        [] if has_cr => (false, rest),
        [b' ', text @ ..] => (false, text),
        [b'-', text @ ..] if has_cr => (true, text),
        _ => return None,
    };
    Some(SmtpReplyLine { code, is_continued, text })
}
