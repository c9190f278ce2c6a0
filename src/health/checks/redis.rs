//! Does a Redis server answer, and is it what it should be?

pub(super) mod reply;

use std::fmt;

use self::reply::{Reply, Role};
use super::conversation::{ANSWER_MAX, Conversation, not_understood, said};
use crate::health::{Check, Failure, FailureKind, Probe, Report};

/// Up if a Redis server (or Valkey, KeyDB, Dragonfly) answers `PING` with `PONG`; on request, after
/// a login, and only as a master or only as a replica.
///
/// An error in its place is a [`Mismatch`](FailureKind::Mismatch) and named with its text: so a
/// server that still loads its data, that has lost its master and does not serve stale data, or
/// that wants a password, is down. Without TLS. Reads at most 16 KiB; more is
/// [`TooLong`](FailureKind::TooLong).
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
    role: Option<Role>,
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
        Self { role: Some(Role::Master), ..self }
    }

    /// Up only if it is a replica. Default: either.
    #[must_use]
    pub fn replica(self) -> Self {
        Self { role: Some(Role::Replica), ..self }
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
    async fn check(&self, probe: &Probe) -> Result<Report, Failure> {
        let mut talk = Conversation::open(probe).await?;
        if let Some(password) = &self.password {
            let login = match &self.user {
                Some(user) => command(&["AUTH", user, password]),
                None => command(&["AUTH", password]),
            };
            talk.send("sending AUTH", &login).await?;
            expect(&mut talk, b"OK", "AUTH", "waiting for the answer to AUTH").await?;
        }
        talk.send("sending PING", &command(&["PING"])).await?;
        expect(&mut talk, b"PONG", "PING", "waiting for the answer to PING").await?;
        if let Some(wanted) = self.role {
            talk.send("sending INFO", &command(&["INFO", "replication"])).await?;
            let role = role(&mut talk).await?;
            if role != wanted {
                let reason = format!("it is a {}, not a {}", role.name(), wanted.name());
                return Err(Failure::new(FailureKind::Mismatch, reason));
            }
        }
        talk.farewell(&command(&["QUIT"])).await;
        Ok(Report::up())
    }

    fn name(&self) -> &str {
        "redis"
    }
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "replica",
        }
    }
}

/// A command as an array of bulk strings: no word of it can become a second command.
fn command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

async fn expect(
    talk: &mut Conversation<'_>,
    word: &[u8],
    command: &str,
    waiting_for: &'static str,
) -> Result<(), Failure> {
    let bytes = talk.line(waiting_for).await?;
    match reply::line(&bytes) {
        Some(Reply::Simple(got)) if got == word => Ok(()),
        Some(Reply::Simple(_) | Reply::Error(_)) => Err(refused(command, &bytes)),
        _ => Err(not_understood(&format!("the answer to {command} is none of Redis"), &bytes)),
    }
}

async fn role(talk: &mut Conversation<'_>) -> Result<Role, Failure> {
    const WAITING: &str = "waiting for the answer to INFO";
    let bytes = talk.line(WAITING).await?;
    let len = match reply::line(&bytes) {
        Some(Reply::Bulk(len)) => len.min(ANSWER_MAX),
        Some(_) => return Err(refused("INFO", &bytes)),
        None => return Err(not_understood("the answer to INFO is none of Redis", &bytes)),
    };
    let info = talk.exact(WAITING, len + 2).await?;
    reply::role(&info).ok_or_else(|| not_understood("no role in the answer to INFO", &info))
}

fn refused(command: &str, bytes: &[u8]) -> Failure {
    let reason = format!("the answer to {command} is {}", said(bytes));
    Failure::new(FailureKind::Mismatch, reason)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::reply::line;
    use super::*;

    #[test]
    fn lines_of_replies() {
        assert_eq!(line(b"+PONG"), Some(Reply::Simple(b"PONG")));
        assert_eq!(line(b"-ERR no"), Some(Reply::Error(b"ERR no")));
        assert_eq!(line(b"$12"), Some(Reply::Bulk(12)));
        for none in ["", "PONG", ":1", "$", "$-1", "$+1", "$99999999999999999999", "*1"] {
            assert_eq!(line(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn roles() {
        let info = "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\n";
        assert_eq!(reply::role(info.as_bytes()), Some(Role::Replica));
        assert_eq!(reply::role(b"role:master"), Some(Role::Master));
        assert_eq!(reply::role(b"# Replication\r\nxrole:master\r\nrole:sentinel\r\n"), None);
        assert_eq!(reply::role(b""), None);
    }

    #[test]
    fn commands_and_secrets() {
        assert_eq!(command(&["AUTH", "a\r\nb"]), b"*2\r\n$4\r\nAUTH\r\n$4\r\na\r\nb\r\n");
        let shown = format!("{:?}", RedisCheck::new().user("me").password("secret"));
        assert!(shown.contains("me") && !shown.contains("secret"), "{shown}");
    }
}
