//! The address and protocol of a service.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::discovery::address::parse_socket_address;

/// An address with a port, such as `"10.0.0.1:80"` or `"[2001:db8::1]:80"`; or `"unix:"` and the
/// path of a Unix socket, such as `"unix:/run/web.sock"`.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
#[non_exhaustive]
pub enum ListenAddress {
    /// An address with a port; port 0 is any free port.
    Address(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<PathBuf> for ListenAddress {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        parse_socket_address(&text).map(Self::Address).ok_or_else(|| {
            format!(
                "{text:?} is not an address with a port, such as \"10.0.0.1:80\", nor \"unix:\" \
                 and a path"
            )
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The transport protocol of a service.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ServiceProtocol {
    /// Connections.
    #[default]
    Tcp,
    /// Flows of datagrams.
    Udp,
}
