//! The Redis check.

pub(super) mod reply;

use std::fmt;

use self::reply::{RedisReply, RedisRole};
use super::quote::quoted_message;
use super::stream::{CheckStream, MAX_ANSWER_LEN, protocol_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Sends `PING` to a Redis server (or Valkey, KeyDB, Dragonfly), and optionally requires a role.
///
/// An error in place of `PONG` is a [`Mismatch`](CheckFailureKind::Mismatch), whose reason has the
/// error's text: a server that still loads its data, that has lost its master and does not serve
/// stale data, or that requires a password, is down. Without TLS. Reads at most 16 KiB; more is
/// [`TooLong`](CheckFailureKind::TooLong).
///
/// # Compared with HAProxy
/// As `option redis-check`, this check requires `+PONG`, ended by CR LF. HAProxy finds it anywhere in what
/// the server sends; here it is the answer to `PING`.
///
/// # Examples
/// A check that is up only at the present master, for a service that receives the writes:
/// ```
/// use lvs::health::RedisCheck;
///
/// let check = RedisCheck::new().password("secret").master();
/// ```
#[derive(Clone, Default)]
pub struct RedisCheck {
    user: Option<String>,
    password: Option<String>,
    role: Option<RedisRole>,
}

impl RedisCheck {
    /// Makes a check without a login that accepts a server of any role.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the password for the login (`AUTH`). Default: no login.
    ///
    /// The password is sent in clear text; `Debug` does not print it.
    #[must_use]
    pub fn password(self, password: impl Into<String>) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// Sets the user for the login, for Redis 6 or later. Default: the server's default user.
    ///
    /// Without a [password](Self::password) there is no login.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// Requires a master, which accepts writes. Default: any role.
    #[must_use]
    pub fn master(self) -> Self {
        Self { role: Some(RedisRole::Master), ..self }
    }

    /// Requires a replica. Default: any role.
    #[must_use]
    pub fn replica(self) -> Self {
        Self { role: Some(RedisRole::Replica), ..self }
    }
}

impl fmt::Debug for RedisCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RedisCheck");
        out.field("user", &self.user).field("role", &self.role);
        out.finish_non_exhaustive()
    }
}

impl Check for RedisCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let mut stream = CheckStream::connect(context).await?;
        if let Some(password) = &self.password {
            let login = match &self.user {
                Some(user) => encode_command(&["AUTH", user, password]),
                None => encode_command(&["AUTH", password]),
            };
            stream.send("sending AUTH", &login).await?;
            expect_status(&mut stream, b"OK", "AUTH", "waiting for the answer to AUTH").await?;
        }
        stream.send("sending PING", &encode_command(&["PING"])).await?;
        expect_status(&mut stream, b"PONG", "PING", "waiting for the answer to PING").await?;
        if let Some(expected) = self.role {
            stream.send("sending INFO", &encode_command(&["INFO", "replication"])).await?;
            let role = read_role(&mut stream).await?;
            if role != expected {
                let (role, expected) = (role.name(), expected.name());
                let reason = format!("the server is a {role}, expected a {expected}");
                return Err(CheckFailure::new(CheckFailureKind::Mismatch, reason));
            }
        }
        stream.quit(&encode_command(&["QUIT"])).await;
        Ok(CheckReport::up())
    }

    fn name(&self) -> &str {
        "redis"
    }
}

impl RedisRole {
    fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "replica",
        }
    }
}

/// Encodes a command as an array of bulk strings, so that no word can become a second command.
fn encode_command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

/// Reads the first line of a reply; returns it without its end, which is CR LF.
async fn read_line(
    stream: &mut CheckStream<'_>,
    command: &str,
    stage: &'static str,
) -> Result<Vec<u8>, CheckFailure> {
    let bytes = stream.read_until(stage, b'\n').await?;
    match bytes.strip_suffix(b"\r") {
        Some(line) => Ok(line.to_vec()),
        None => {
            let problem = format!("the answer to {command} ends without CR LF");
            Err(protocol_failure(&problem, &bytes))
        }
    }
}

async fn expect_status(
    stream: &mut CheckStream<'_>,
    status: &[u8],
    command: &str,
    stage: &'static str,
) -> Result<(), CheckFailure> {
    let bytes = read_line(stream, command, stage).await?;
    match reply::parse_reply(&bytes) {
        Some(RedisReply::Simple(got)) if got == status => Ok(()),
        Some(RedisReply::Simple(_) | RedisReply::Error(_)) => {
            Err(unexpected_reply_failure(command, &bytes))
        }
        _ => {
            Err(protocol_failure(&format!("the answer to {command} is not a Redis reply"), &bytes))
        }
    }
}

async fn read_role(stream: &mut CheckStream<'_>) -> Result<RedisRole, CheckFailure> {
    const WAITING: &str = "waiting for the answer to INFO";
    let bytes = read_line(stream, "INFO", WAITING).await?;
    let len = match reply::parse_reply(&bytes) {
        Some(RedisReply::Bulk(len)) => len.min(MAX_ANSWER_LEN),
        Some(_) => return Err(unexpected_reply_failure("INFO", &bytes)),
        None => return Err(protocol_failure("the answer to INFO is not a Redis reply", &bytes)),
    };
    let info = stream.read_exact(WAITING, len + 2).await?;
    reply::parse_role(&info)
        .ok_or_else(|| protocol_failure("the answer to INFO has no known role", &info))
}

fn unexpected_reply_failure(command: &str, bytes: &[u8]) -> CheckFailure {
    let reason = format!("the answer to {command} is {}", quoted_message(bytes));
    CheckFailure::new(CheckFailureKind::Mismatch, reason)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::reply::parse_reply;
    use super::*;

    #[test]
    fn replies_are_parsed() {
        assert_eq!(parse_reply(b"+PONG"), Some(RedisReply::Simple(b"PONG")));
        assert_eq!(parse_reply(b"-ERR no"), Some(RedisReply::Error(b"ERR no")));
        assert_eq!(parse_reply(b"$12"), Some(RedisReply::Bulk(12)));
        for invalid in ["", "PONG", ":1", "$", "$-1", "$+1", "$99999999999999999999", "*1"] {
            assert_eq!(parse_reply(invalid.as_bytes()), None, "{invalid}");
        }
    }

    #[test]
    fn roles_are_parsed() {
        let info = "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\n";
        assert_eq!(reply::parse_role(info.as_bytes()), Some(RedisRole::Replica));
        assert_eq!(reply::parse_role(b"role:master"), Some(RedisRole::Master));
        assert_eq!(reply::parse_role(b"# Replication\r\nxrole:master\r\nrole:sentinel\r\n"), None);
        assert_eq!(reply::parse_role(b""), None);
    }

    #[test]
    fn commands_are_framed_and_debug_hides_the_password() {
        assert_eq!(encode_command(&["AUTH", "a\r\nb"]), b"*2\r\n$4\r\nAUTH\r\n$4\r\na\r\nb\r\n");
        let debug = format!("{:?}", RedisCheck::new().user("me").password("secret"));
        assert!(debug.contains("me") && !debug.contains("secret"), "{debug}");
    }
}
