//! The `[admin]` table.

use std::net::SocketAddr;

use serde::Deserialize;

use super::error::ConfigProblem;
use super::table::config_table;
use super::value::{HumanDuration, SecretString, deserialize_address};
use crate::setting::check_range;

config_table! {
/// A builder of a [`AdminConfig`].
builder AdminConfigBuilder;

/// The HTTP server of the admin pages: status page `/`, `/metrics`, `/healthz` and `/api/v1/...`.
///
/// Without the table there is none. A reload that changes the table restarts the server.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct AdminConfig {
    /// The address to listen on. An address other than loopback requires a `token`.
    #[serde(deserialize_with = "deserialize_address")]
    pub(crate) listen: SocketAddr,
    /// The token that each request must carry, in the header `Authorization: Bearer TOKEN`: at
    /// least 16 bytes. Default: none, requests need no token.
    pub(crate) token: Option<SecretString>,
    /// The maximum number of concurrent connections, at least 1; one client gets at most half of them.
    /// Above it a new connection closes that whose last request is the longest ago, of the client with
    /// the most connections. Default: `64`.
    pub(crate) max_connections: Option<usize>,
    /// The maximum time of a request, from its first byte to its last, and the time after which the
    /// connection of a client that does not read its answer is closed. Default: `"10s"`.
    pub(crate) request_timeout: Option<HumanDuration>,
}
}

/// The minimum length of a token in bytes: a shorter one can be guessed.
const MIN_TOKEN_LENGTH: usize = 16;

impl AdminConfig {
    /// Returns a builder of a server that listens on an address.
    pub fn builder(listen: SocketAddr) -> AdminConfigBuilder {
        let (token, max_connections, request_timeout) = (None, None, None);
        AdminConfigBuilder { table: Self { listen, token, max_connections, request_timeout } }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        if let Some(connections) = self.max_connections {
            check_range("max_connections", connections, 1..)
                .map_err(|error| ConfigProblem::of_setting(error, &[]))?;
        }
        match &self.token {
            Some(SecretString(token)) if token.len() < MIN_TOKEN_LENGTH => {
                let length = token.len();
                let reason = format!(
                    "the token has {length} bytes, and must have at least {MIN_TOKEN_LENGTH}"
                );
                Err(ConfigProblem::at_key("token", reason))
            }
            None if !self.listen.ip().is_loopback() => {
                let reason = format!(
                    "{} is not a loopback address: set `token`, or listen on 127.0.0.1 or ::1",
                    self.listen
                );
                Err(ConfigProblem::at_key("listen", reason))
            }
            _ => Ok(()),
        }
    }
}
