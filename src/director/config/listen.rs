//! The address and protocol of a service.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// An address with a port, such as `"10.0.0.1:80"` or `"[2001:db8::1]:80"`; or `"unix:"` and the
/// path of a Unix socket, such as `"unix:/run/web.sock"`.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub(crate) enum ListenAddress {
    Address(SocketAddr),
    Unix(PathBuf),
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        text.parse().map(Self::Address).map_err(|_| {
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
pub(crate) enum ServiceProtocol {
    #[default]
    Tcp,
    Udp,
}
