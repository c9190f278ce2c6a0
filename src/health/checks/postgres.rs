//! Does a PostgreSQL server take sessions?

pub(super) mod message;

use self::message::{HEADER_LEN, PostgresMessageHeader};
use super::stream::{
    CheckStream, MAX_ANSWER_LEN, escape_excerpt, escape_message, protocol_failure,
};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Up if a PostgreSQL server (or a pooler in front of one) answers the beginning of a session.
///
/// It is told a user and asked for a session without TLS. What it says then is judged so:
///
/// | answer | verdict |
/// |---|---|
/// | it asks for a password, or lets us in | up |
/// | an error that is about us: no such user or database, no entry in `pg_hba.conf`, TLS required (any SQLSTATE but those below) | up |
/// | an error that is about the server: SQLSTATE class 53 (too many clients, no memory, no disk), 57 (starting up, shutting down, in recovery without hot standby), 58 (system error), XX (internal error) | [`Mismatch`](CheckFailureKind::Mismatch) |
/// | it could make no process for the connection | [`Mismatch`](CheckFailureKind::Mismatch) |
/// | anything else | [`Protocol`](CheckFailureKind::Protocol) |
///
/// So no account is needed, and the user need not exist. But each error is a line in the server's
/// log: a user who exists, and is asked for a password or may come without, leaves none. Whether it
/// is a primary or a standby is not seen before a login, and not asked.
///
/// Reads at most 16 KiB; more is [`TooLong`](CheckFailureKind::TooLong).
///
/// # Examples
/// ```
/// use lvs::health::PostgresCheck;
///
/// let check = PostgresCheck::new().user("director").database("postgres");
/// ```
#[derive(Clone, Debug)]
pub struct PostgresCheck {
    user: String,
    database: Option<String>,
}

const TERMINATE: &[u8] = b"X\0\0\0\x04";

impl PostgresCheck {
    /// Asks for a session of the user `lvs`.
    #[must_use]
    pub fn new() -> Self {
        Self { user: "lvs".into(), database: None }
    }

    /// Asks for a session of this user. Default: `lvs`, who need not exist.
    ///
    /// A zero byte, which cannot be part of a name, is left out.
    #[must_use]
    pub fn user(self, name: impl AsRef<str>) -> Self {
        Self { user: name.as_ref().replace('\0', ""), ..self }
    }

    /// Asks for a session in this database, which poolers may know by its name only. Default: the
    /// server takes the user's name for it.
    #[must_use]
    pub fn database(self, name: impl AsRef<str>) -> Self {
        Self { database: Some(name.as_ref().replace('\0', "")), ..self }
    }

    /// The StartupMessage: length, version 3.0, and pairs of texts.
    fn startup_message(&self) -> Vec<u8> {
        let mut pairs = format!("user\0{}\0", self.user);
        if let Some(database) = &self.database {
            pairs += &format!("database\0{database}\0");
        }
        pairs += "application_name\0lvs\0\0";
        let len = u32::try_from(pairs.len() + 8).unwrap_or(u32::MAX);
        [&len.to_be_bytes(), &[0, 3, 0, 0], pairs.as_bytes()].concat()
    }
}

impl Default for PostgresCheck {
    fn default() -> Self {
        Self::new()
    }
}

impl Check for PostgresCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        const WAITING: &str = "waiting for the answer to the startup message";
        let mut talk = CheckStream::connect(probe).await?;
        talk.send("sending the startup message", &self.startup_message()).await?;
        let bytes = talk.read_exact(WAITING, HEADER_LEN).await?;
        let header: Option<&[u8; HEADER_LEN]> = bytes.first_chunk();
        match header.and_then(message::parse_header) {
            Some(PostgresMessageHeader::Authentication(len)) => {
                let body = talk.read_exact(WAITING, len.min(MAX_ANSWER_LEN)).await?;
                match message::parse_authentication(&body) {
                    Some(0) => talk.quit(TERMINATE).await,
                    // Anything but a password would be an error in the server's log.
                    Some(_) => talk.close().await,
                    None => {
                        let what = "an authentication request that is none";
                        return Err(protocol_failure(what, &body));
                    }
                }
                Ok(CheckReport::up())
            }
            Some(PostgresMessageHeader::Error(len)) => {
                let body = talk.read_exact(WAITING, len.min(MAX_ANSWER_LEN)).await?;
                let Some(error) = message::parse_error_response(&body) else {
                    return Err(protocol_failure("an error message that is none", &body));
                };
                if !is_server_error(error.sqlstate) {
                    return Ok(CheckReport::up());
                }
                let (text, state) = (escape_message(error.message), escape_excerpt(error.sqlstate));
                let reason = format!("the server says {text} (SQLSTATE {state})");
                Err(CheckFailure::new(CheckFailureKind::Mismatch, reason))
            }
            Some(PostgresMessageHeader::LegacyError) => {
                let rest = talk.read_until(WAITING, 0).await?;
                let text = [&bytes[1..], &rest].concat();
                let reason = format!("the server says {}", escape_message(text.trim_ascii_end()));
                Err(CheckFailure::new(CheckFailureKind::Mismatch, reason))
            }
            None => {
                let all = [&bytes, talk.unread()].concat();
                Err(protocol_failure("the answer is no message of PostgreSQL", &all))
            }
        }
    }

    fn name(&self) -> &str {
        "postgres"
    }
}

/// Whether an error is about the server and not about who asks.
fn is_server_error(state: &[u8]) -> bool {
    [&b"53"[..], b"57", b"58", b"XX"].iter().any(|class| state.starts_with(class))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::message::{
        PostgresErrorResponse, parse_authentication, parse_error_response, parse_header,
    };
    use super::*;

    #[test]
    fn beginnings_of_messages() {
        assert_eq!(parse_header(b"R\0\0\0\x08"), Some(PostgresMessageHeader::Authentication(4)));
        assert_eq!(parse_header(b"E\0\0\0\x30"), Some(PostgresMessageHeader::Error(44)));
        assert_eq!(parse_header(b"Ecoul"), Some(PostgresMessageHeader::LegacyError));
        assert_eq!(parse_header(b"E\0\0\0\x03"), Some(PostgresMessageHeader::LegacyError));
        assert_eq!(parse_header(b"E\0\0\x75\x30"), Some(PostgresMessageHeader::Error(29_996)));
        assert_eq!(parse_header(b"E\0\0\x75\x31"), Some(PostgresMessageHeader::LegacyError));
        for none in [b"R\0\0\0\x03", b"N\0\0\0\x08", b"HTTP/", b"\0\0\0\0\0", b"S\0\0\0\x08"] {
            assert_eq!(parse_header(none), None, "{none:?}");
        }
        assert_eq!(
            parse_header(b"R\xff\xff\xff\xff"),
            Some(PostgresMessageHeader::Authentication(4_294_967_291))
        );
    }

    #[test]
    fn bodies_of_messages() {
        assert_eq!(parse_authentication(b"\0\0\0\x0aSCRAM-SHA-256\0\0"), Some(10));
        assert_eq!(parse_authentication(b"\0\0\x01"), None);
        let body = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        let message = &b"the database system is starting up"[..];
        assert_eq!(
            parse_error_response(body),
            Some(PostgresErrorResponse { sqlstate: b"57P03", message })
        );
        for none in [&b""[..], b"\0", b"C57P03\0\0", b"C57P03\0Mtext", b"C57P03\0Mtext\0", b"C"] {
            assert_eq!(parse_error_response(none), None, "{none:?}");
        }
    }

    #[test]
    fn whose_error_it_is() {
        for state in ["57P03", "57P01", "53300", "58000", "XX000"] {
            assert!(is_server_error(state.as_bytes()), "{state}");
        }
        for state in ["28000", "28P01", "3D000", "08P01", "0A000", "42501", ""] {
            assert!(!is_server_error(state.as_bytes()), "{state}");
        }
    }

    #[test]
    fn the_startup_message() {
        let check = PostgresCheck::new().user("a\0b").database("c");
        let expected = b"\0\0\0\x31\0\x03\0\0user\0ab\0database\0c\0application_name\0lvs\0\0";
        assert_eq!(check.startup_message(), expected);
    }
}
