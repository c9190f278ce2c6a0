//! The admin pages.

use std::net::SocketAddr;

use serde::Deserialize;

use super::error::{ConfigProblem, KeyPathSegment};
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
