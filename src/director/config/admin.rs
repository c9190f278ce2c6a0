//! The admin pages, and logs.

use std::net::SocketAddr;

use serde::Deserialize;

use super::document::{Fault, Step};
use super::value::{Hidden, Time};

/// `[admin]`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminConfig {
    pub(crate) listen: SocketAddr,
    /// What requests must bring with them: `Authorization: Bearer ...`.
    pub(crate) token: Option<Hidden>,
    pub(crate) max_connections: Option<usize>,
    /// How long a request may take, from its first byte to its last.
    pub(crate) request_timeout: Option<Time>,
}

/// A token that could be guessed is none.
const TOKEN: usize = 16;

impl AdminConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        let wrong = |key, what: String| Err(Fault::new([Step::Key(key)], what));
        match &self.token {
            Some(Hidden(token)) if token.len() < TOKEN => {
                wrong("token", format!("it has at least {TOKEN} characters"))
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
