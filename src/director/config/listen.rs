//! The address and protocol of a service.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
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

impl ListenAddress {
    /// Returns whether a socket cannot be bound to this address while another one is bound to `other`,
    /// with the same protocol: the same path, or the same port and addresses that overlap, since an
    /// unspecified address stands for all. Port 0 overlaps nothing.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Address(one), Self::Address(other)) => {
                let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
                // `[::]` receives IPv4 too.
                let covers = |all: IpAddr, ip: IpAddr| {
                    all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4())
                };
                one.port() == other.port()
                    && one.port() != 0
                    && (ip == other_ip || covers(ip, other_ip) || covers(other_ip, ip))
            }
            _ => false,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_addresses_overlap_all_of_their_port() {
        let overlaps = |one: &str, other: &str| {
            let parse = |text: &str| ListenAddress::try_from(text.to_owned()).expect("an address");
            let (one, other) = (parse(one), parse(other));
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        for (one, other) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("0.0.0.0:80", "10.0.0.1:80"),
            ("[::]:80", "10.0.0.1:80"),
            ("[::]:80", "[2001:db8::1]:80"),
            ("[::]:80", "0.0.0.0:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("unix:/run/a", "unix:/run/a"),
        ] {
            assert!(overlaps(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("10.0.0.1:80", "10.0.0.2:80"),
            ("0.0.0.0:80", "10.0.0.1:81"),
            ("0.0.0.0:80", "[2001:db8::1]:80"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("unix:/run/a", "unix:/run/b"),
        ] {
            assert!(!overlaps(one, other), "{one} {other}");
        }
    }
}
