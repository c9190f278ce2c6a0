//! The options of a TCP forwarder whose values have a range.

use super::socket_options::SocketOptions;
use crate::forward::limits::ClientPrefixes;
use crate::setting::{SettingError, check_range};

/// The options of a TCP forwarder whose values have a range, without what they apply to: a
/// configuration is checked by them before a socket is bound.
#[derive(Clone, Debug)]
pub(crate) struct TcpOptions {
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_client: Option<u32>,
    pub(crate) client_prefixes: ClientPrefixes,
    /// How many backends are tried for a connection, the first included.
    pub(crate) connect_attempts: u32,
    pub(crate) socket_options: SocketOptions,
}

/// Fits a limit of 20 480 open files: each connection takes two descriptors.
const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

impl TcpOptions {
    /// Checks the values; their names are those of the forwarder's setters.
    pub(crate) fn validate(&self) -> Result<(), SettingError> {
        check_range("max_connections", self.max_connections, 1..)?;
        if let Some(connections) = self.max_connections_per_client {
            check_range("max_connections_per_client", connections, 1..)?;
        }
        self.client_prefixes.validate()?;
        check_range("connect_attempts", self.connect_attempts, 1..)?;
        self.socket_options.validate()
    }
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_connections_per_client: None,
            client_prefixes: ClientPrefixes::default(),
            connect_attempts: 3,
            socket_options: SocketOptions::default(),
        }
    }
}
