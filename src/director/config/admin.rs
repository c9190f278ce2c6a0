//! The admin pages, and logs.

use std::net::SocketAddr;

use serde::Deserialize;

use super::document::{ConfigProblem, KeyPathSegment};
use super::value::{HumanDuration, SecretString};

/// `[admin]`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminConfig {
    pub(crate) listen: SocketAddr,
    /// What requests must bring with them: `Authorization: Bearer ...`.
    pub(crate) token: Option<SecretString>,
    pub(crate) max_connections: Option<usize>,
    /// How long a request may take, from its first byte to its last.
    pub(crate) request_timeout: Option<HumanDuration>,
}

/// A token that could be guessed is none.
const MIN_TOKEN_LENGTH: usize = 16;

impl AdminConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        let wrong = |key, what: String| Err(ConfigProblem::new([KeyPathSegment::Key(key)], what));
        match &self.token {
            Some(SecretString(token)) if token.len() < MIN_TOKEN_LENGTH => {
                wrong("token", format!("it has at least {MIN_TOKEN_LENGTH} characters"))
            }
            None if !self.listen.ip().is_loopback() => wrong(
                "listen",
                format!("{} is not of this machine alone: it needs a `token`", self.listen),
            ),
            _ => Ok(()),
        }
    }
}

/// `[log]`: what the program writes about itself.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LogConfig {
    /// How a line looks.
    #[serde(default)]
    pub format: LogFormat,
    /// The least that is worth a line.
    #[serde(default)]
    pub level: LogLevel,
    /// A line for each connection of TCP that has ended.
    #[serde(default)]
    pub connections: bool,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people. The default.
    #[default]
    Text,
    /// An object of JSON a line, for machines.
    Json,
}

/// The least that is worth a line of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// What fails.
    Error,
    /// What will.
    Warn,
    /// What happens. The default.
    #[default]
    Info,
    /// And why.
    Debug,
    /// Everything.
    Trace,
}
