//! Messages of a PostgreSQL server: "Frontend/Backend Protocol" in its manual, version 3.0.

/// How long the five bytes that a message begins with are.
pub(crate) const HEADER_LEN: usize = 5;

/// What the first message of a server may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PostgresMessageHeader {
    /// `R`: it asks us to log in, or lets us in. So many bytes follow.
    Authentication(usize),
    /// `E`: it refuses. So many bytes follow.
    Error(usize),
    /// `E` as servers said it up to 2003, and still say it where they cannot make a process for the
    /// connection: a text follows at once, up to a zero byte.
    LegacyError,
}

/// An error, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PostgresErrorResponse<'a> {
    /// The SQLSTATE, five characters.
    pub(crate) sqlstate: &'a [u8],
    /// What there is to be read by people.
    pub(crate) message: &'a [u8],
}

/// The manual's own client takes a longer "length" for letters, too.
const MAX_ERROR_LEN: u32 = 30_000;

/// Reads the beginning of a message; `None` if no server's first message begins so.
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

/// Reads what follows an [`Authentication`](PostgresMessageHeader::Authentication): the kind of login it asks for,
/// 0 for none.
pub(crate) fn parse_authentication(body: &[u8]) -> Option<u32> {
    let (kind, _) = body.split_first_chunk()?;
    Some(u32::from_be_bytes(*kind))
}

/// Reads what follows an [`PostgresErrorResponse`](PostgresMessageHeader::PostgresErrorResponse): fields, each a letter and a text with a zero
/// byte behind it, and a zero byte behind them all.
pub(crate) fn parse_error_response(body: &[u8]) -> Option<PostgresErrorResponse<'_>> {
    let mut rest = body;
    let (mut state, mut message) = (None, None);
    loop {
        let (&field, behind) = rest.split_first()?;
        if field == 0 {
            return Some(PostgresErrorResponse { sqlstate: state?, message: message? });
        }
        let end = behind.iter().position(|&byte| byte == 0)?;
        match field {
            b'C' => state = Some(&behind[..end]),
            b'M' => message = Some(&behind[..end]),
            _ => {}
        }
        rest = &behind[end + 1..];
    }
}
