//! Parses messages of a PostgreSQL server: "Frontend/Backend Protocol" in its manual, version 3.0.

/// The length of the header of a message, in bytes: type and length.
pub(crate) const HEADER_LEN: usize = 5;

/// The header of the first message of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PostgresMessageHeader {
    /// `R`: a request for a login, or a successful login; with the number of bytes that follow.
    Authentication(usize),
    /// `E`: an error response; with the number of bytes that follow.
    Error(usize),
    /// `E` in the form up to 2003, which servers still use if they cannot start a process for the
    /// connection: a text follows, up to a zero byte.
    LegacyError,
}

/// The fields of an error response that the check uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PostgresErrorResponse<'a> {
    /// The SQLSTATE, five characters.
    pub(crate) sqlstate: &'a [u8],
    /// The message for the operator.
    pub(crate) message: &'a [u8],
}

/// The longest error response; PostgreSQL's own client takes a longer length for letters, too.
const MAX_ERROR_LEN: u32 = 30_000;

/// Parses the header of a server's first message; `None` if it is no such message.
pub(crate) fn parse_header(
    &[kind, ref len @ ..]: &[u8; HEADER_LEN],
) -> Option<PostgresMessageHeader> {
    let len = u32::from_be_bytes(*len);
    // The length counts itself.
    let body = usize::try_from(len).ok()?.checked_sub(4);
    match kind {
        b'E' if !(8..=MAX_ERROR_LEN).contains(&len) => Some(PostgresMessageHeader::LegacyError),
        b'E' => body.map(PostgresMessageHeader::Error),
        b'R' => body.map(PostgresMessageHeader::Authentication),
        _ => None,
    }
}

/// Parses the body of an [`Authentication`](PostgresMessageHeader::Authentication): the login
/// method that the server requests, 0 for none.
pub(crate) fn parse_authentication(body: &[u8]) -> Option<u32> {
    let (kind, _) = body.split_first_chunk()?;
    Some(u32::from_be_bytes(*kind))
}

/// Parses the body of an [`Error`](PostgresMessageHeader::Error): fields, each a letter and a text
/// with a zero byte behind it, and a zero byte behind the last field.
pub(crate) fn parse_error_response(body: &[u8]) -> Option<PostgresErrorResponse<'_>> {
    let mut rest = body;
    let (mut sqlstate, mut message) = (None, None);
    loop {
        let (&field, behind) = rest.split_first()?;
        if field == 0 {
            return Some(PostgresErrorResponse { sqlstate: sqlstate?, message: message? });
        }
        let end = behind.iter().position(|&byte| byte == 0)?;
        match field {
            b'C' => sqlstate = Some(&behind[..end]),
            b'M' => message = Some(&behind[..end]),
            _ => {}
        }
        rest = &behind[end + 1..];
    }
}
