//! The MySQL check.

pub(super) mod packet;

use self::packet::{
    CLIENT_PLUGIN_AUTH, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, HEADER_LEN, MysqlErrorPacket,
    MysqlPacket,
};
use super::CheckNameError;
use super::quote::{quoted_excerpt, quoted_message};
use super::stream::{CheckStream, protocol_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Logs in to a MySQL or MariaDB server (or a proxy in front of one) without a password.
///
/// The server is up if it accepts or refuses the user. An error about the server itself, in place
/// of the greeting or of the answer to the login, is a [`Mismatch`](CheckFailureKind::Mismatch),
/// whose reason has the error's number and text: too many connections, a shutdown, offline mode, a
/// client host that is not allowed or is blocked.
///
/// # Why there is a login
/// A server counts connections that end between its greeting and the login. After
/// `max_connect_errors` (100) of them without a completed connection in between, the server blocks
/// the client's address until `FLUSH HOSTS`. All clients of a forwarder have the forwarder's
/// address: a check that only reads the greeting can block all clients of a quiet server. A refused
/// login is not counted there, but adds one to `Aborted_connects` and a warning to the server's
/// log. A user that exists, has no password and no privileges avoids both:
/// ```sql
/// CREATE USER 'lvs'@'192.0.2.1';
/// ```
/// (192.0.2.1 is the address of the machine that checks.) [`greeting_only`](Self::greeting_only) is
/// the check without a login.
///
/// Without TLS; a server that requires TLS answers with an error about the user, and is up. Reads
/// at most 16 KiB; more is [`TooLong`](CheckFailureKind::TooLong).
///
/// HAProxy's `mysql-check` calls a server that refuses the user down.
///
/// # Examples
/// ```
/// use lvs::health::MysqlCheck;
///
/// let check = MysqlCheck::new().user("director")?;
/// # let _ = check;
/// # Ok::<(), lvs::health::CheckNameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MysqlCheck {
    /// The user of the login; `None` reads only the greeting.
    user: Option<String>,
}

impl MysqlCheck {
    /// Makes a check that logs in as the user `lvs`.
    #[must_use]
    pub fn new() -> Self {
        Self { user: Some("lvs".into()) }
    }

    /// Sets the user of the login. Default: `lvs`, which need not exist.
    ///
    /// # Errors
    /// [`CheckNameError::ZeroByte`] if the name contains a zero byte.
    pub fn user(self, name: impl Into<String>) -> Result<Self, CheckNameError> {
        let name = name.into();
        CheckNameError::check_no_zero_byte(&name)?;
        Ok(Self { user: Some(name) })
    }

    /// Reads only the greeting, without a login.
    ///
    /// For servers that do not block this machine's address: `max_connect_errors` is never reached,
    /// `skip_name_resolve` is on, or the check comes from the server's own machine. Each check adds
    /// one to `Aborted_connects`, and a warning to the log of some servers.
    #[must_use]
    pub fn greeting_only(self) -> Self {
        Self { user: None }
    }
}

impl Default for MysqlCheck {
    fn default() -> Self {
        Self::new()
    }
}

impl Check for MysqlCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        const WAITING: &str = "waiting for the answer to the login";
        let mut stream = CheckStream::connect(context).await?;
        let greeting = read_packet(&mut stream, "waiting for the greeting", 0).await?;
        let capabilities = match packet::parse_greeting(&greeting) {
            Some(MysqlPacket::Handshake { capabilities, .. }) => capabilities,
            Some(MysqlPacket::Error(error)) => return Err(server_error_failure(&error)),
            _ => {
                return Err(protocol_failure(
                    "the server's first packet is not a MySQL greeting",
                    &greeting,
                ));
            }
        };
        let Some(user) = &self.user else {
            stream.close().await;
            return Ok(CheckReport::up());
        };
        if capabilities & CLIENT_PROTOCOL_41 == 0 {
            let reason = "the server has a protocol version older than 4.1, which is not supported";
            return Err(CheckFailure::new(CheckFailureKind::Protocol, reason));
        }
        stream
            .send("sending the login", &encode_packet(1, &encode_login(user, capabilities)))
            .await?;
        let mut sequence = 2;
        loop {
            let answer = read_packet(&mut stream, WAITING, sequence).await?;
            match packet::parse_login_answer(&answer) {
                Some(MysqlPacket::Ok) => {
                    const QUIT: &[u8] = &[1];
                    stream.quit(&encode_packet(0, QUIT)).await;
                    return Ok(CheckReport::up());
                }
                Some(MysqlPacket::Error(error)) if is_login_error(&error) => {
                    return Ok(CheckReport::up());
                }
                Some(MysqlPacket::Error(error)) => return Err(server_error_failure(&error)),
                // Any other login method, once: with an empty password.
                Some(MysqlPacket::AuthSwitch) if sequence == 2 => {
                    stream.send("sending the login", &encode_packet(3, &[])).await?;
                    sequence = 4;
                }
                _ => {
                    return Err(protocol_failure(
                        "the server's packet is not an answer to the login",
                        &answer,
                    ));
                }
            }
        }
    }

    fn name(&self) -> &str {
        "mysql"
    }
}

async fn read_packet(
    stream: &mut CheckStream<'_>,
    stage: &'static str,
    sequence: u8,
) -> Result<Vec<u8>, CheckFailure> {
    let bytes = stream.read_exact(stage, HEADER_LEN).await?;
    let header =
        bytes.first_chunk().map(packet::parse_header).filter(|header| header.sequence == sequence);
    match header {
        Some(header) if header.len > 0 => stream.read_exact(stage, header.len).await,
        _ => {
            let received = [&bytes, stream.unread()].concat();
            Err(protocol_failure(&format!("{stage}: not a MySQL packet"), &received))
        }
    }
}

fn encode_packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&[a, b, c, sequence], body].concat()
}

/// Encodes a HandshakeResponse41 with an empty password.
fn encode_login(user: &str, capabilities: u32) -> Vec<u8> {
    const MAX_PACKET_LEN: u32 = 1 << 24;
    const UTF8_CHARSET: u8 = 33;
    let flags = CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | (CLIENT_PLUGIN_AUTH & capabilities);
    let mut out = [flags.to_le_bytes(), MAX_PACKET_LEN.to_le_bytes()].concat();
    out.push(UTF8_CHARSET);
    out.extend([0; 23]);
    out.extend(user.bytes());
    // The end of the name, and the length of the password's hash.
    out.extend([0, 0]);
    if flags & CLIENT_PLUGIN_AUTH != 0 {
        out.extend(b"mysql_native_password\0");
    }
    out
}

/// Returns whether an error is about the user of the login, and not about the server.
fn is_login_error(error: &MysqlErrorPacket<'_>) -> bool {
    /// Beside SQLSTATE class 28: too many connections of the user, a limit of the user, no common
    /// login method, an expired password, a locked account (MySQL, MariaDB), TLS required.
    const LOGIN_ERROR_CODES: [u16; 7] = [1203, 1226, 1251, 1862, 3118, 4151, 3159];
    error.sqlstate.is_some_and(|state| state.starts_with(b"28"))
        || LOGIN_ERROR_CODES.contains(&error.code)
}

fn server_error_failure(error: &MysqlErrorPacket<'_>) -> CheckFailure {
    let state = error.sqlstate.map(|state| format!(", SQLSTATE {}", quoted_excerpt(state)));
    let state = state.unwrap_or_default();
    let (message, code) = (quoted_message(error.message), error.code);
    let reason = format!("the server reports {message} (error {code}{state})");
    CheckFailure::new(CheckFailureKind::Mismatch, reason)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::packet::{parse_greeting, parse_header, parse_login_answer};
    use super::*;

    const GREETING: &[u8] = b"\x0a5.5.5-10.11\0\x05\0\0\0abcdefgh\0\xfe\xf7\x2d\x02\0\xff\x81\x15\
        \0\0\0\0\0\0\x1d\0\0\0ijklmnopqrst\0mysql_native_password\0";

    #[test]
    fn greetings_are_parsed() {
        let handshake =
            |capabilities| Some(MysqlPacket::Handshake { version: b"5.5.5-10.11", capabilities });
        assert_eq!(parse_greeting(GREETING), handshake(0x81ff_f7fe));
        // Old servers send only the lower capabilities.
        assert_eq!(parse_greeting(&GREETING[..28]), handshake(0xf7fe));
        for len in 0..27 {
            assert_eq!(parse_greeting(&GREETING[..len]), None, "{len}");
        }
        assert_eq!(parse_greeting(b"\x09 version 9"), None);
        let filler = GREETING.iter().enumerate().map(|(i, &byte)| if i == 25 { 1 } else { byte });
        assert_eq!(parse_greeting(&filler.collect::<Vec<_>>()), None);
    }

    #[test]
    fn errors_are_parsed() {
        let blocked = MysqlErrorPacket { code: 1129, sqlstate: None, message: b"Host is blocked" };
        assert_eq!(
            parse_greeting(b"\xff\x69\x04Host is blocked"),
            Some(MysqlPacket::Error(blocked))
        );
        let denied =
            MysqlErrorPacket { code: 1045, sqlstate: Some(b"28000"), message: b"Access denied" };
        assert_eq!(
            parse_login_answer(b"\xff\x15\x04#28000Access denied"),
            Some(MysqlPacket::Error(denied))
        );
        assert!(is_login_error(&denied) && !is_login_error(&blocked));
        assert_eq!(parse_login_answer(b"\xff\x15"), None);
        assert_eq!(parse_greeting(b""), None);
        let odd = MysqlErrorPacket { code: 0x2121, sqlstate: None, message: b"#123" };
        assert_eq!(parse_login_answer(b"\xff!!#123"), Some(MysqlPacket::Error(odd)));
    }

    #[test]
    fn packet_headers_are_parsed_and_encoded() {
        let header = parse_header(b"\x01\x02\x03\x04");
        assert_eq!((header.len, header.sequence), (0x03_02_01, 4));
        assert_eq!(encode_packet(0, &[1]), [1, 0, 0, 0, 1]);
    }

    #[test]
    fn logins_are_encoded() {
        assert_eq!(encode_login("me", 0).len(), 32 + 4);
        assert!(encode_login("me", CLIENT_PLUGIN_AUTH).ends_with(b"me\0\0mysql_native_password\0"));
        let error = MysqlCheck::new().user("a\0b").expect_err("a zero byte");
        assert_eq!(error.to_string(), r#"the name "a\0b" contains a zero byte"#);
    }
}
