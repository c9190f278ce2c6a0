//! Does a MySQL server take connections?

pub(super) mod packet;

use self::packet::{
    CLIENT_PLUGIN_AUTH, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, HEADER_LEN, MysqlErrorPacket,
    MysqlPacket,
};
use super::stream::{CheckStream, escape_excerpt, escape_message, protocol_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Up if a MySQL or MariaDB server (or a proxy in front of one) greets, and answers a login.
///
/// It is told a user without a password. That it lets the user in or refuses the user is both up;
/// an error about the server, in place of the greeting or of the answer, is a
/// [`Mismatch`](CheckFailureKind::Mismatch) and named with its number and text: too many connections, a
/// shutdown, offline mode, a host it does not admit or has blocked.
///
/// # Why there is a login
/// A server counts connections that end between its greeting and the login, and blocks the address
/// they come from after `max_connect_errors` (100) of them without a completed connection between;
/// `FLUSH HOSTS` ends that. The address of a forwarder is that of all its clients, too: a check that
/// only reads the greeting can shut out everybody on a quiet server. A login that is refused is not
/// counted there. It is one in `Aborted_connects` and a warning in the log; a user who exists and
/// may come without a password, and with no rights, leaves neither:
/// ```sql
/// CREATE USER 'lvs'@'192.0.2.1';
/// ```
/// (192.0.2.1 is where the checks come from.) [`greeting_only`](Self::greeting_only) is the check
/// without the login.
///
/// Without TLS; a server that demands it says so in an error about the user, and is up. Reads at
/// most 16 KiB; more is [`TooLong`](CheckFailureKind::TooLong).
///
/// # Examples
/// ```
/// use lvs::health::MysqlCheck;
///
/// let check = MysqlCheck::new().user("director");
/// ```
#[derive(Clone, Debug)]
pub struct MysqlCheck {
    /// `None` to read the greeting only.
    user: Option<String>,
}

impl MysqlCheck {
    /// Logs in as `lvs` without a password, and takes a refusal for an answer.
    #[must_use]
    pub fn new() -> Self {
        Self { user: Some("lvs".into()) }
    }

    /// Logs in as this user, without a password. Default: `lvs`, who need not exist.
    ///
    /// A zero byte, which cannot be part of a name, is left out.
    #[must_use]
    pub fn user(self, name: impl AsRef<str>) -> Self {
        Self { user: Some(name.as_ref().replace('\0', "")) }
    }

    /// Reads the greeting, and closes.
    ///
    /// For servers that do not count, or not against this address: with a `max_connect_errors` that
    /// is never reached, with `skip_name_resolve` on, or on this machine's own address. Each check
    /// is one in `Aborted_connects`, and a warning in the log of some servers.
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
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        const WAITING: &str = "waiting for the answer to the login";
        let mut talk = CheckStream::connect(probe).await?;
        let greeting = read_packet(&mut talk, "waiting for the greeting", 0).await?;
        let capabilities = match packet::parse_greeting(&greeting) {
            Some(MysqlPacket::Handshake { capabilities, .. }) => capabilities,
            Some(MysqlPacket::Error(error)) => return Err(server_error_failure(&error)),
            _ => return Err(protocol_failure("no greeting of MySQL", &greeting)),
        };
        let Some(user) = &self.user else {
            talk.close().await;
            return Ok(CheckReport::up());
        };
        if capabilities & CLIENT_PROTOCOL_41 == 0 {
            let reason = "the server speaks the protocol from before version 4.1";
            return Err(CheckFailure::new(CheckFailureKind::Protocol, reason));
        }
        talk.send("sending the login", &encode_packet(1, &encode_login(user, capabilities)))
            .await?;
        let mut sequence = 2;
        loop {
            let answer = read_packet(&mut talk, WAITING, sequence).await?;
            match packet::parse_login_answer(&answer) {
                Some(MysqlPacket::Ok) => {
                    const QUIT: &[u8] = &[1];
                    talk.quit(&encode_packet(0, QUIT)).await;
                    return Ok(CheckReport::up());
                }
                Some(MysqlPacket::Error(error)) if is_login_error(&error) => {
                    return Ok(CheckReport::up());
                }
                Some(MysqlPacket::Error(error)) => return Err(server_error_failure(&error)),
                // Whatever it wants to be convinced by, once: an empty password.
                Some(MysqlPacket::AuthSwitch) if sequence == 2 => {
                    talk.send("sending the login", &encode_packet(3, &[])).await?;
                    sequence = 4;
                }
                _ => return Err(protocol_failure("no answer to a login", &answer)),
            }
        }
    }

    fn name(&self) -> &str {
        "mysql"
    }
}

async fn read_packet(
    talk: &mut CheckStream<'_>,
    waiting_for: &'static str,
    sequence: u8,
) -> Result<Vec<u8>, CheckFailure> {
    let bytes = talk.read_exact(waiting_for, HEADER_LEN).await?;
    let header = bytes.first_chunk().map(packet::parse_header).filter(|it| it.sequence == sequence);
    match header {
        Some(header) if header.len > 0 => talk.read_exact(waiting_for, header.len).await,
        _ => {
            let all = [&bytes, talk.unread()].concat();
            Err(protocol_failure(&format!("{waiting_for}: no packet of MySQL"), &all))
        }
    }
}

fn encode_packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&[a, b, c, sequence], body].concat()
}

/// A HandshakeResponse41 with an empty proof of the password.
fn encode_login(user: &str, capabilities: u32) -> Vec<u8> {
    const PACKET_MAX: u32 = 1 << 24;
    const UTF8: u8 = 33;
    let ours = CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | (CLIENT_PLUGIN_AUTH & capabilities);
    let mut out = [ours.to_le_bytes(), PACKET_MAX.to_le_bytes()].concat();
    out.push(UTF8);
    out.extend([0; 23]);
    out.extend(user.bytes());
    // The name's end, and the length of the proof.
    out.extend([0, 0]);
    if ours & CLIENT_PLUGIN_AUTH != 0 {
        out.extend(b"mysql_native_password\0");
    }
    out
}

/// Whether an error is about who logs in, and not about the server.
fn is_login_error(error: &MysqlErrorPacket<'_>) -> bool {
    /// Beside SQLSTATE class 28: too many connections of the user, a limit of the user, no common
    /// way to log in, an expired password, an account locked (MySQL, MariaDB), TLS required.
    const CODES: [u16; 7] = [1203, 1226, 1251, 1862, 3118, 4151, 3159];
    error.sqlstate.is_some_and(|state| state.starts_with(b"28")) || CODES.contains(&error.code)
}

fn server_error_failure(error: &MysqlErrorPacket<'_>) -> CheckFailure {
    let state = error.sqlstate.map(|state| format!(", SQLSTATE {}", escape_excerpt(state)));
    let state = state.unwrap_or_default();
    let reason =
        format!("the server says {} (error {}{state})", escape_message(error.message), error.code);
    CheckFailure::new(CheckFailureKind::Mismatch, reason)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::packet::{parse_greeting, parse_header, parse_login_answer};
    use super::*;

    const GREETING: &[u8] = b"\x0a5.5.5-10.11\0\x05\0\0\0abcdefgh\0\xfe\xf7\x2d\x02\0\xff\x81\x15\
        \0\0\0\0\0\0\x1d\0\0\0ijklmnopqrst\0mysql_native_password\0";

    #[test]
    fn greetings() {
        let handshake =
            |capabilities| Some(MysqlPacket::Handshake { version: b"5.5.5-10.11", capabilities });
        assert_eq!(parse_greeting(GREETING), handshake(0x81ff_f7fe));
        // Old servers end behind the lower capabilities.
        assert_eq!(parse_greeting(&GREETING[..28]), handshake(0xf7fe));
        for len in 0..27 {
            assert_eq!(parse_greeting(&GREETING[..len]), None, "{len}");
        }
        assert_eq!(parse_greeting(b"\x09 version 9"), None);
        let filler = GREETING.iter().enumerate().map(|(i, &byte)| if i == 25 { 1 } else { byte });
        assert_eq!(parse_greeting(&filler.collect::<Vec<_>>()), None);
    }

    #[test]
    fn errors() {
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
    fn frames() {
        let read = parse_header(b"\x01\x02\x03\x04");
        assert_eq!((read.len, read.sequence), (0x03_02_01, 4));
        assert_eq!(encode_packet(0, &[1]), [1, 0, 0, 0, 1]);
    }

    #[test]
    fn logins() {
        assert_eq!(encode_login("me", 0).len(), 32 + 4);
        assert!(encode_login("me", CLIENT_PLUGIN_AUTH).ends_with(b"me\0\0mysql_native_password\0"));
        assert_eq!(MysqlCheck::new().user("a\0b").user.as_deref(), Some("ab"));
    }
}
