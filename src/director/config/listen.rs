//! The address and protocol of a service.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use crate::discovery::address::parse_socket_address;
use crate::engine::FirewallMark;

/// An address with a port, such as `"10.0.0.1:80"` or `"[2001:db8::1]:80"`; or `"unix:"` and the
/// path of a Unix socket, such as `"unix:/run/web.sock"`; or, with `engine = "ipvs"` alone, `"fwmark:"` and
/// a firewall mark: `"fwmark:7"` are the IPv4 packets, and `"fwmark:7/ipv6"` the IPv6 packets, to which a
/// packet filter of this machine has given the mark 7.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
#[non_exhaustive]
pub enum ListenAddress {
    /// An address with a port; port 0 is any free port.
    Address(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A firewall mark, for engines of the kernel.
    Mark(FirewallMark),
}

impl ListenAddress {
    /// Returns whether a socket cannot be bound to this address while another one is bound to `other`,
    /// with the same protocol: the same path, or the same port and addresses that overlap, since an
    /// unspecified address stands for all. Port 0 overlaps nothing. Nor can two services have one mark.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Mark(one), Self::Mark(other)) => one == other,
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

    /// Returns the address with the protocol by which it is compared with others: a mark has that of no
    /// service.
    pub(crate) fn with_protocol(&self, of_service: ServiceProtocol) -> (ServiceProtocol, Self) {
        let protocol = match self {
            Self::Mark(_) => ServiceProtocol::default(),
            Self::Address(_) | Self::Unix(_) => of_service,
        };
        (protocol, self.clone())
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

impl From<FirewallMark> for ListenAddress {
    fn from(mark: FirewallMark) -> Self {
        Self::Mark(mark)
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        if let Some(mark) = text.strip_prefix("fwmark:") {
            return parse_mark(mark).map(Self::Mark).ok_or_else(|| {
                format!(
                    "{text:?} is not a firewall mark, such as \"fwmark:7\", or \"fwmark:7/ipv6\" for \
                     packets of IPv6: a number from 1 to 4294967295 is required, and no port"
                )
            });
        }
        parse_socket_address(&text).map(Self::Address).ok_or_else(|| {
            format!(
                "{text:?} is not an address with a port, such as \"10.0.0.1:80\", nor \"unix:\" \
                 and a path, nor \"fwmark:\" and a number"
            )
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Mark(mark) => mark.fmt(f),
        }
    }
}

fn parse_mark(text: &str) -> Option<FirewallMark> {
    let (number, is_ipv6) = match text.strip_suffix("/ipv6") {
        Some(number) => (number, true),
        None => (text, false),
    };
    // `parse` accepts a sign.
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let mark = number.parse().ok().filter(|_| is_number)?;
    Some(if is_ipv6 { FirewallMark::ipv6(mark) } else { FirewallMark::ipv4(mark) })
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
            ("fwmark:7", "fwmark:7"),
        ] {
            assert!(overlaps(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("10.0.0.1:80", "10.0.0.2:80"),
            ("0.0.0.0:80", "10.0.0.1:81"),
            ("0.0.0.0:80", "[2001:db8::1]:80"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("unix:/run/a", "unix:/run/b"),
            ("fwmark:7", "fwmark:8"),
            ("fwmark:7", "fwmark:7/ipv6"),
            ("fwmark:80", "0.0.0.0:80"),
        ] {
            assert!(!overlaps(one, other), "{one} {other}");
        }
    }

    #[test]
    fn marks_are_written_as_they_are_read() {
        let parse = |text: &str| ListenAddress::try_from(text.to_owned());
        for text in ["fwmark:7", "fwmark:7/ipv6", "fwmark:4294967295"] {
            let listen = parse(text).expect(text);
            assert!(matches!(listen, ListenAddress::Mark(_)), "{listen:?}");
            assert_eq!(listen.to_string(), text);
        }
        for text in [
            "fwmark:",
            "fwmark:0",
            "fwmark:+7",
            "fwmark:-7",
            "fwmark:0x7",
            "fwmark:7:80",
            "fwmark:7/80",
            "fwmark:4294967296",
            "fwmark:7/ipv4",
            "fwmark:7/ipv6/ipv6",
            "fwmark: 7",
            "fwmark",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
