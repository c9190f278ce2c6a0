//! The PostgreSQL check.

pub(super) mod message;

use self::message::{HEADER_LEN, PostgresMessageHeader};
use super::CheckNameError;
use super::quote::{quoted_excerpt, quoted_message};
use super::stream::{CheckStream, MAX_ANSWER_LEN, protocol_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Requests a session of a PostgreSQL server (or a pooler in front of one), without TLS.
///
/// | answer | result |
/// |---|---|
/// | a request for a password, or a session | up |
/// | an error about the client: no such user or database, no entry in `pg_hba.conf`, TLS required (any SQLSTATE but those below) | up |
/// | an error about the server: SQLSTATE class 53 (too many clients, no memory, no disk), 57 (starting up, shutting down, in recovery without hot standby), 58 (system error), XX (internal error) | [`Mismatch`](CheckFailureKind::Mismatch) |
/// | the server cannot start a process for the connection | [`Mismatch`](CheckFailureKind::Mismatch) |
/// | anything else | [`Protocol`](CheckFailureKind::Protocol) |
///
/// So no account is needed, and the user need not exist. But each error is a line in the server's
/// log; a user that exists and has a password, or needs none, avoids that line. The check does not
/// tell a primary from a standby, which needs a login.
///
/// HAProxy's `pgsql-check` calls a server down that answers with any error.
///
/// Reads at most 16 KiB; more is [`TooLong`](CheckFailureKind::TooLong).
///
/// # Examples
/// ```
/// use lvs::health::PostgresCheck;
///
/// let check = PostgresCheck::new().user("director")?.database("postgres")?;
/// # let _ = check;
/// # Ok::<(), lvs::health::CheckNameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PostgresCheck {
    user: String,
    database: Option<String>,
}

const TERMINATE: &[u8] = b"X\0\0\0\x04";

impl PostgresCheck {
    /// Makes a check that requests a session of the user `lvs`.
    #[must_use]
    pub fn new() -> Self {
        Self { user: "lvs".into(), database: None }
    }

    /// Sets the user of the session. Default: `lvs`, which need not exist.
    ///
    /// # Errors
    /// [`CheckNameError::ZeroByte`] if the name contains a zero byte.
    pub fn user(self, name: impl Into<String>) -> Result<Self, CheckNameError> {
        let user = name.into();
        CheckNameError::check_no_zero_byte(&user)?;
        Ok(Self { user, ..self })
    }

    /// Sets the database of the session, which poolers may require. Default: the server uses the
    /// user's name.
    ///
    /// # Errors
    /// [`CheckNameError::ZeroByte`] if the name contains a zero byte.
    pub fn database(self, name: impl Into<String>) -> Result<Self, CheckNameError> {
        let database = name.into();
        CheckNameError::check_no_zero_byte(&database)?;
        Ok(Self { database: Some(database), ..self })
    }

    /// Encodes the StartupMessage: length, version 3.0, and pairs of texts.
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
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        const WAITING: &str = "waiting for the answer to the startup message";
        let mut stream = CheckStream::connect(context).await?;
        stream.send("sending the startup message", &self.startup_message()).await?;
        let bytes = stream.read_exact(WAITING, HEADER_LEN).await?;
        let header: Option<&[u8; HEADER_LEN]> = bytes.first_chunk();
        match header.and_then(message::parse_header) {
            Some(PostgresMessageHeader::Authentication(len)) => {
                let body = stream.read_exact(WAITING, len.min(MAX_ANSWER_LEN)).await?;
                match message::parse_authentication(&body) {
                    Some(0) => stream.quit(TERMINATE).await,
                    // Any answer but a password would add an error to the server's log.
                    Some(_) => stream.close().await,
                    None => {
                        let problem = "the server's authentication request is malformed";
                        return Err(protocol_failure(problem, &body));
                    }
                }
                Ok(CheckReport::up())
            }
            Some(PostgresMessageHeader::Error(len)) => {
                let body = stream.read_exact(WAITING, len.min(MAX_ANSWER_LEN)).await?;
                let Some(error) = message::parse_error_response(&body) else {
                    return Err(protocol_failure(
                        "the server's error response is malformed",
                        &body,
                    ));
                };
                if !is_server_error(error.sqlstate) {
                    return Ok(CheckReport::up());
                }
                let (text, state) = (quoted_message(error.message), quoted_excerpt(error.sqlstate));
                let reason = format!("the server reports {text} (SQLSTATE {state})");
                Err(CheckFailure::new(CheckFailureKind::Mismatch, reason))
            }
            Some(PostgresMessageHeader::LegacyError) => {
                let rest = stream.read_until(WAITING, 0).await?;
                let text = [&bytes[1..], &rest].concat();
                let reason =
                    format!("the server reports {}", quoted_message(text.trim_ascii_end()));
                Err(CheckFailure::new(CheckFailureKind::Mismatch, reason))
            }
            None => {
                let received = [&bytes, stream.unread()].concat();
                Err(protocol_failure("the answer is not a PostgreSQL message", &received))
            }
        }
    }

    fn name(&self) -> &str {
        "postgres"
    }
}

/// Returns whether an error is about the server, and not about the client.
fn is_server_error(sqlstate: &[u8]) -> bool {
    [&b"53"[..], b"57", b"58", b"XX"].iter().any(|class| sqlstate.starts_with(class))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::message::{
        PostgresErrorResponse, parse_authentication, parse_error_response, parse_header,
    };
    use super::*;

    #[test]
    fn message_headers_are_parsed() {
        assert_eq!(parse_header(b"R\0\0\0\x08"), Some(PostgresMessageHeader::Authentication(4)));
        assert_eq!(parse_header(b"E\0\0\0\x30"), Some(PostgresMessageHeader::Error(44)));
        assert_eq!(parse_header(b"Ecoul"), Some(PostgresMessageHeader::LegacyError));
        assert_eq!(parse_header(b"E\0\0\0\x03"), Some(PostgresMessageHeader::LegacyError));
        assert_eq!(parse_header(b"E\0\0\x75\x30"), Some(PostgresMessageHeader::Error(29_996)));
        assert_eq!(parse_header(b"E\0\0\x75\x31"), Some(PostgresMessageHeader::LegacyError));
        for invalid in [b"R\0\0\0\x03", b"N\0\0\0\x08", b"HTTP/", b"\0\0\0\0\0", b"S\0\0\0\x08"] {
            assert_eq!(parse_header(invalid), None, "{invalid:?}");
        }
        assert_eq!(
            parse_header(b"R\xff\xff\xff\xff"),
            Some(PostgresMessageHeader::Authentication(4_294_967_291))
        );
    }

    #[test]
    fn message_bodies_are_parsed() {
        assert_eq!(parse_authentication(b"\0\0\0\x0aSCRAM-SHA-256\0\0"), Some(10));
        assert_eq!(parse_authentication(b"\0\0\x01"), None);
        let body = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        let message = &b"the database system is starting up"[..];
        assert_eq!(
            parse_error_response(body),
            Some(PostgresErrorResponse { sqlstate: b"57P03", message })
        );
        for invalid in [&b""[..], b"\0", b"C57P03\0\0", b"C57P03\0Mtext", b"C57P03\0Mtext\0", b"C"]
        {
            assert_eq!(parse_error_response(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn errors_are_about_the_server_or_the_client() {
        for state in ["57P03", "57P01", "53300", "58000", "XX000"] {
            assert!(is_server_error(state.as_bytes()), "{state}");
        }
        for state in ["28000", "28P01", "3D000", "08P01", "0A000", "42501", ""] {
            assert!(!is_server_error(state.as_bytes()), "{state}");
        }
    }

    #[test]
    fn the_startup_message_is_encoded() {
        let check = PostgresCheck::new().user("ab").expect("a name");
        let check = check.database("c").expect("a name");
        let expected = b"\0\0\0\x31\0\x03\0\0user\0ab\0database\0c\0application_name\0lvs\0\0";
        assert_eq!(check.startup_message(), expected);
    }

    #[test]
    fn a_name_with_a_zero_byte_is_refused() {
        let error = CheckNameError::ZeroByte { name: "a\0b".to_owned() };
        assert_eq!(PostgresCheck::new().user("a\0b").expect_err("a zero byte"), error);
        assert_eq!(PostgresCheck::new().database("a\0b").expect_err("a zero byte"), error);
    }
}
