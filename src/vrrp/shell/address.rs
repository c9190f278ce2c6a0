//! Virtual addresses and virtual routes, and their text form.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// A virtual address with its prefix length: `10.88.0.100/24`, `fd00:88::100/64`. Without a prefix
/// length the prefix is the whole address (`/32`, `/128`), as in keepalived.
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

/// The error for a text that is not an address with an optional prefix length.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{text:?} is not an address such as 10.88.0.100/24: {reason}")]
pub struct VirtualAddressError {
    text: String,
    reason: &'static str,
}

impl VirtualAddress {
    /// Creates a virtual address whose prefix is the whole address.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        Self { ip, prefix_len: max_prefix_len(ip) }
    }

    /// Creates a virtual address with this prefix length in bits; `None` if the length exceeds the
    /// address.
    pub(super) fn with_prefix_len(ip: IpAddr, prefix_len: u8) -> Option<Self> {
        (prefix_len <= max_prefix_len(ip)).then_some(Self { ip, prefix_len })
    }

    /// Returns the address without the prefix length.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Returns the prefix length in bits.
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
        let error = |reason| VirtualAddressError { text: text.to_owned(), reason };
        let (ip, prefix_len) = match text.split_once('/') {
            Some((ip, prefix_len)) => (ip, Some(prefix_len)),
            None => (text, None),
        };
        let ip: IpAddr =
            ip.parse().map_err(|_| error("the part before the slash is not an IP address"))?;
        let prefix_len = match prefix_len {
            None => Some(max_prefix_len(ip)),
            Some(prefix_len) => prefix_len.parse().ok(),
        };
        let address = prefix_len.and_then(|prefix_len| Self::with_prefix_len(ip, prefix_len));
        address.ok_or_else(|| error("the prefix length is 0 to 32 for IPv4, 0 to 128 for IPv6"))
    }
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

/// A route that the master holds, on the interface of its virtual router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VirtualRoute {
    pub(super) destination: VirtualAddress,
    pub(super) via: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) metric: Option<u32>,
}

impl VirtualRoute {
    /// Creates a route to a network; `0.0.0.0/0` is the default route.
    #[must_use]
    pub fn new(destination: VirtualAddress) -> Self {
        Self { destination, via: None, source: None, metric: None }
    }

    /// Sets the gateway. Default: none, the network is on the link.
    #[must_use]
    pub fn via(self, gateway: IpAddr) -> Self {
        Self { via: Some(gateway), ..self }
    }

    /// Sets the source address of packets sent over this route, which may be a virtual address. An
    /// IPv4 route is removed with its source address. Default: none.
    #[must_use]
    pub fn source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Sets the metric: of several routes the kernel uses the one with the lowest. Default: none.
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
    fn a_text_that_is_not_an_address_is_named_in_the_error() {
        for text in ["", "/", "10.0.0.1/", "10.0.0.1/33", "10.0.0/8", "fd00::1/129", "a/8", "::/-1"]
        {
            let error = text.parse::<VirtualAddress>().expect_err(text);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
        assert_eq!("10.0.0.1".parse(), Ok(VirtualAddress::new([10, 0, 0, 1].into())));
    }
}
