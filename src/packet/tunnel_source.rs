//! The source addresses of packets by tunnels, which differ by flow.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// A network of which packets by tunnels have their source addresses: `172.16.0.0/16`, `fd00:16::/64`.
///
/// The packets of a flow have one address, and those of different flows different ones. So the network interface of a
/// server spreads them over its queues by addresses alone: IP in IP has no ports. No machine may have one of the
/// addresses, and no network that servers are connected to: a server drops packets from its own. Routers and servers must
/// not drop them as forged. An address of IPv6 differs in its last 32 bits at most.
///
/// # Examples
/// ```
/// use lvs::packet::{PacketSettings, TunnelSource};
///
/// let mut settings = PacketSettings::default();
/// settings.tunnel_sources = vec!["172.16.0.0/16".parse()?, "fd00:16::/64".parse()?];
/// assert!("172.16.0.1/16".parse::<TunnelSource>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TunnelSource {
    network: IpAddr,
    prefix_len: u8,
}

/// The error for a text that is not the network of a [`TunnelSource`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{text:?} is not a network such as 172.16.0.0/16: {reason}")]
pub struct TunnelSourceError {
    text: String,
    reason: &'static str,
}

impl TunnelSource {
    /// Returns the first address of the network.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Returns the length of the prefix in bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Returns the bits that differ by flow, of the last 32 bits of an address.
    pub(super) fn spread(&self) -> u32 {
        let len = if self.network.is_ipv4() { 32 } else { 128 };
        u32::MAX.checked_shr(32_u32.saturating_sub(len - u32::from(self.prefix_len))).unwrap_or(0)
    }

    fn has_bits_beyond_prefix(&self) -> bool {
        match self.network {
            IpAddr::V4(network) => {
                u32::from(network) & u32::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0) != 0
            }
            IpAddr::V6(network) => {
                u128::from(network) & u128::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0)
                    != 0
            }
        }
    }
}

/// Returns whether routers pass packets from addresses like this one on.
fn is_usable(address: IpAddr) -> bool {
    let is_of_link = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.to_ipv4_mapped().is_some()
        }
    };
    !is_of_link && !address.is_multicast() && !address.is_loopback() && !address.is_unspecified()
}

impl FromStr for TunnelSource {
    type Err = TunnelSourceError;

    fn from_str(text: &str) -> Result<Self, TunnelSourceError> {
        let error = |reason| TunnelSourceError { text: text.to_owned(), reason };
        let (network, prefix_len) =
            text.split_once('/').ok_or_else(|| error("the length of the prefix is missing"))?;
        let network: IpAddr =
            network.parse().map_err(|_| error("the part before the slash is not an IP address"))?;
        // Shorter ones have addresses of others.
        let lens = if network.is_ipv4() { 8..=31 } else { 16..=127 };
        let prefix_len = prefix_len.parse().ok().filter(|len| lens.contains(len));
        let prefix_len = prefix_len.ok_or_else(|| {
            error("the length of the prefix is 8 to 31 for IPv4, 16 to 127 for IPv6")
        })?;
        let source = Self { network, prefix_len };
        if source.has_bits_beyond_prefix() {
            return Err(error("the address has bits beyond the prefix"));
        }
        if !is_usable(network) {
            return Err(error("no machine sends from such addresses"));
        }
        Ok(source)
    }
}

impl fmt::Display for TunnelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_hosts_differ_by_flow() {
        for (text, spread) in [
            ("172.16.0.0/16", 0xffff),
            ("10.0.0.0/8", 0x00ff_ffff),
            ("192.0.2.0/31", 1),
            ("fd00::/64", u32::MAX),
            ("fd00::/96", u32::MAX),
            ("fd00::/112", 0xffff),
            ("fd00::/127", 1),
        ] {
            let source: TunnelSource = text.parse().unwrap();
            assert_eq!(source.spread(), spread, "{text}");
            assert_eq!(source.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        for (text, reason) in [
            ("172.16.0.0", "missing"),
            ("x/16", "not an IP address"),
            ("172.16.0.0/32", "8 to 31"),
            ("172.16.0.0/7", "8 to 31"),
            ("fd00::/128", "16 to 127"),
            ("fd00::/x", "16 to 127"),
            ("172.16.0.1/16", "beyond"),
            ("fd00::1/64", "beyond"),
            ("224.0.0.0/8", "no machine"),
            ("127.0.0.0/8", "no machine"),
            ("0.0.0.0/8", "no machine"),
            ("ff00::/16", "no machine"),
            ("::/64", "no machine"),
            ("fe80::/64", "no machine"),
            ("169.254.0.0/16", "no machine"),
            ("::ffff:0:0/96", "no machine"),
        ] {
            let error = text.parse::<TunnelSource>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{text}: {error}");
        }
    }
}
