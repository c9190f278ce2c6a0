//! Virtual addresses and routes, as they are written down.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// An address and the length of its network's prefix: `10.88.0.100/24`, `fd00:88::100/64`. Without a
/// length it stands for itself alone (`/32`, `/128`), as in keepalived.
///
/// # Examples
/// ```
/// use lvs::vrrp::VirtualAddress;
///
/// let address: VirtualAddress = "10.88.0.100/24".parse()?;
/// assert_eq!((address.ip(), address.prefix_len()), ("10.88.0.100".parse()?, 24));
/// assert_eq!("fd00::1".parse::<VirtualAddress>()?.to_string(), "fd00::1/128");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct VirtualAddress {
    ip: IpAddr,
    prefix_len: u8,
}

/// What is written is no address with a prefix.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{text:?} is no address such as 10.88.0.100/24: {reason}")]
pub struct VirtualAddressError {
    text: String,
    reason: &'static str,
}

impl VirtualAddress {
    /// An address that is a network of its own.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        Self { ip, prefix_len: max_prefix_len(ip) }
    }

    /// One with a prefix of so many bits, if it can have as many.
    pub(super) fn with_prefix(ip: IpAddr, prefix: u8) -> Option<Self> {
        (prefix <= max_prefix_len(ip)).then_some(Self { ip, prefix_len: prefix })
    }

    /// The address itself.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The length of the prefix in bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }
}

const fn max_prefix_len(ip: IpAddr) -> u8 {
    if ip.is_ipv6() { 128 } else { 32 }
}

impl From<IpAddr> for VirtualAddress {
    fn from(ip: IpAddr) -> Self {
        Self::new(ip)
    }
}

impl FromStr for VirtualAddress {
    type Err = VirtualAddressError;

    fn from_str(text: &str) -> Result<Self, VirtualAddressError> {
        let wrong = |what| VirtualAddressError { text: text.to_owned(), reason: what };
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| wrong("what stands before the slash is none"))?;
        let prefix = match prefix {
            None => Some(max_prefix_len(ip)),
            Some(prefix) => prefix.parse().ok(),
        };
        let address = prefix.and_then(|prefix| Self::with_prefix(ip, prefix));
        address.ok_or_else(|| wrong("the prefix has 0 to 32 bits, for IPv6 to 128"))
    }
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

/// A route that the master has: to a network, by the interface of its virtual router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VirtualRoute {
    pub(super) destination: VirtualAddress,
    pub(super) via: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) metric: Option<u32>,
}

impl VirtualRoute {
    /// A route to a network; `0.0.0.0/0` is the default route.
    #[must_use]
    pub fn new(destination: VirtualAddress) -> Self {
        Self { destination, via: None, source: None, metric: None }
    }

    /// By this gateway. Without: the network is on the link.
    #[must_use]
    pub fn via(self, gateway: IpAddr) -> Self {
        Self { via: Some(gateway), ..self }
    }

    /// What goes that way comes from this address, which goes for a virtual one of this machine: when
    /// the address goes, so does a route of IPv4.
    #[must_use]
    pub fn source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Of several routes the one with the lowest metric is taken.
    #[must_use]
    pub fn metric(self, metric: u32) -> Self {
        Self { metric: Some(metric), ..self }
    }
}

impl fmt::Display for VirtualRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.via {
            write!(f, " via {gateway}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_named() {
        for text in ["", "/", "10.0.0.1/", "10.0.0.1/33", "10.0.0/8", "fd00::1/129", "a/8", "::/-1"]
        {
            let error = text.parse::<VirtualAddress>().expect_err(text);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
        assert_eq!("10.0.0.1".parse(), Ok(VirtualAddress::new([10, 0, 0, 1].into())));
    }
}
