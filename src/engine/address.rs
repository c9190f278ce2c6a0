//! The packets that a virtual service is for.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;

/// The transport protocol of a virtual address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum EngineProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl EngineProtocol {
    /// Returns the name in a configuration: `tcp` or `udp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The packets that a virtual service is for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum EngineAddress {
    /// Packets of a protocol to an address and port.
    Socket {
        /// The transport protocol.
        protocol: EngineProtocol,
        /// The virtual address.
        address: SocketAddr,
    },
    /// Packets with a firewall mark, of any protocol, to any address and port.
    Mark(FirewallMark),
}

impl EngineAddress {
    /// Returns whether the packets are of IPv6.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        match self {
            Self::Socket { address, .. } => address.is_ipv6(),
            Self::Mark(mark) => mark.is_ipv6,
        }
    }

    /// Returns whether datagrams of UDP may be among the packets.
    #[must_use]
    pub const fn has_udp(self) -> bool {
        !matches!(self, Self::Socket { protocol: EngineProtocol::Tcp, .. })
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { address, .. } => address.fmt(f),
            Self::Mark(mark) => mark.fmt(f),
        }
    }
}

/// A number that a packet filter of the director's machine gives packets, such as `nft` by `meta mark set 7`.
///
/// # Examples
/// ```
/// use lvs::engine::FirewallMark;
///
/// let mark = FirewallMark::ipv6(7.try_into()?);
/// assert_eq!(mark.to_string(), "fwmark:7/ipv6");
/// # Ok::<(), std::num::TryFromIntError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct FirewallMark {
    /// The number.
    pub mark: NonZeroU32,
    /// Whether the packets are of IPv6, and not of IPv4: one service is for one of them.
    pub is_ipv6: bool,
}

impl FirewallMark {
    /// Returns a mark of IPv4 packets.
    #[must_use]
    pub const fn ipv4(mark: NonZeroU32) -> Self {
        Self { mark, is_ipv6: false }
    }

    /// Returns a mark of IPv6 packets.
    #[must_use]
    pub const fn ipv6(mark: NonZeroU32) -> Self {
        Self { mark, is_ipv6: true }
    }
}

impl fmt::Display for FirewallMark {
    /// Writes what a configuration has: `fwmark:7`, or `fwmark:7/ipv6`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fwmark:{}{}", self.mark, if self.is_ipv6 { "/ipv6" } else { "" })
    }
}
