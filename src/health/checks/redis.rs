//! Does a Redis server answer, and is it what it should be?

pub(super) mod reply;

use std::fmt;

use self::reply::{RedisReply, RedisRole};
use super::stream::{CheckStream, MAX_ANSWER_LEN, escape_message, protocol_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Up if a Redis server (or Valkey, KeyDB, Dragonfly) answers `PING` with `PONG`; on request, after
/// a login, and only as a master or only as a replica.
///
/// An error in its place is a [`Mismatch`](CheckFailureKind::Mismatch) and named with its text: so a
/// server that still loads its data, that has lost its master and does not serve stale data, or
/// that wants a password, is down. Without TLS. Reads at most 16 KiB; more is
/// [`TooLong`](CheckFailureKind::TooLong).
///
/// # Examples
/// Writes go to whoever is the master now:
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
    /// Asks without a login, and takes a server of any role.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Logs in with this password (`AUTH`). Default: no login.
    ///
    /// It goes over the wire as it is, and is not shown by `Debug`.
    #[must_use]
    pub fn password(self, password: impl Into<String>) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// Logs in as this user, of Redis 6 or later. Default: the server's default user.
    ///
    /// Without a [password](Self::password) there is no login.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// Up only if it is a master, which takes writes. Default: either.
    #[must_use]
    pub fn master(self) -> Self {
        Self { role: Some(RedisRole::Master), ..self }
    }

    /// Up only if it is a replica. Default: either.
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
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let mut talk = CheckStream::connect(probe).await?;
        if let Some(password) = &self.password {
            let login = match &self.user {
                Some(user) => encode_command(&["AUTH", user, password]),
                None => encode_command(&["AUTH", password]),
            };
            talk.send("sending AUTH", &login).await?;
            expect_status(&mut talk, b"OK", "AUTH", "waiting for the answer to AUTH").await?;
        }
        talk.send("sending PING", &encode_command(&["PING"])).await?;
        expect_status(&mut talk, b"PONG", "PING", "waiting for the answer to PING").await?;
        if let Some(wanted) = self.role {
            talk.send("sending INFO", &encode_command(&["INFO", "replication"])).await?;
            let role = read_role(&mut talk).await?;
            if role != wanted {
                let reason = format!("it is a {}, not a {}", role.name(), wanted.name());
                return Err(CheckFailure::new(CheckFailureKind::Mismatch, reason));
            }
        }
        talk.quit(&encode_command(&["QUIT"])).await;
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

/// A command as an array of bulk strings: no word of it can become a second command.
fn encode_command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

async fn expect_status(
    talk: &mut CheckStream<'_>,
    word: &[u8],
    command: &str,
    waiting_for: &'static str,
) -> Result<(), CheckFailure> {
    let bytes = talk.read_line(waiting_for).await?;
    match reply::parse_reply(&bytes) {
        Some(RedisReply::Simple(got)) if got == word => Ok(()),
        Some(RedisReply::Simple(_) | RedisReply::Error(_)) => {
            Err(unexpected_reply_failure(command, &bytes))
        }
        _ => Err(protocol_failure(&format!("the answer to {command} is none of Redis"), &bytes)),
    }
}

async fn read_role(talk: &mut CheckStream<'_>) -> Result<RedisRole, CheckFailure> {
    const WAITING: &str = "waiting for the answer to INFO";
    let bytes = talk.read_line(WAITING).await?;
    let len = match reply::parse_reply(&bytes) {
        Some(RedisReply::Bulk(len)) => len.min(MAX_ANSWER_LEN),
        Some(_) => return Err(unexpected_reply_failure("INFO", &bytes)),
        None => return Err(protocol_failure("the answer to INFO is none of Redis", &bytes)),
    };
    let info = talk.read_exact(WAITING, len + 2).await?;
    reply::parse_role(&info).ok_or_else(|| protocol_failure("no role in the answer to INFO", &info))
}

fn unexpected_reply_failure(command: &str, bytes: &[u8]) -> CheckFailure {
    let reason = format!("the answer to {command} is {}", escape_message(bytes));
    CheckFailure::new(CheckFailureKind::Mismatch, reason)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::reply::parse_reply;
    use super::*;

    #[test]
    fn lines_of_replies() {
        assert_eq!(parse_reply(b"+PONG"), Some(RedisReply::Simple(b"PONG")));
        assert_eq!(parse_reply(b"-ERR no"), Some(RedisReply::Error(b"ERR no")));
        assert_eq!(parse_reply(b"$12"), Some(RedisReply::Bulk(12)));
        for none in ["", "PONG", ":1", "$", "$-1", "$+1", "$99999999999999999999", "*1"] {
            assert_eq!(parse_reply(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn roles() {
        let info = "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\n";
        assert_eq!(reply::parse_role(info.as_bytes()), Some(RedisRole::Replica));
        assert_eq!(reply::parse_role(b"role:master"), Some(RedisRole::Master));
        assert_eq!(reply::parse_role(b"# Replication\r\nxrole:master\r\nrole:sentinel\r\n"), None);
        assert_eq!(reply::parse_role(b""), None);
    }

    #[test]
    fn commands_and_secrets() {
        assert_eq!(encode_command(&["AUTH", "a\r\nb"]), b"*2\r\n$4\r\nAUTH\r\n$4\r\na\r\nb\r\n");
        let shown = format!("{:?}", RedisCheck::new().user("me").password("secret"));
        assert!(shown.contains("me") && !shown.contains("secret"), "{shown}");
    }
}
