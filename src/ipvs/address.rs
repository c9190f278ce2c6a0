//! Address families, and addresses in the 16 octets that the kernel keeps of either.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::attribute::IpvsDecodeError;
use crate::setting::SettingError;

/// The address family of a service or of a destination.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum IpvsFamily {
    /// IPv4.
    V4,
    /// IPv6, which the kernel may have been built without.
    V6,
}

impl IpvsFamily {
    /// Returns the family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::V6 } else { Self::V4 }
    }

    /// Returns `AF_INET` or `AF_INET6`.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    pub(super) const fn from_number(number: u16) -> Result<Self, IpvsDecodeError> {
        match number {
            2 => Ok(Self::V4),
            10 => Ok(Self::V6),
            _ => Err(IpvsDecodeError::Family(number)),
        }
    }

    /// Reads an address of this family.
    pub(super) fn address(self, octets: [u8; 16]) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
            Self::V6 => octets.into(),
        }
    }
}

/// Returns the octets of an address, filled with zeroes.
pub(super) fn address_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// Refuses an address with a scope or a flow label, which the kernel does not keep.
pub(super) fn check_address(
    setting: &'static str,
    address: SocketAddr,
) -> Result<(), SettingError> {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 || v6.flowinfo() != 0 => {
            Err(SettingError::new(setting, address, "an address without a scope or a flow label"))
        }
        _ => Ok(()),
    }
}

/// Refuses a name that does not fit into the kernel's 16 octets with its final zero.
pub(super) fn check_name(setting: &'static str, name: &str) -> Result<(), SettingError> {
    if (1..=15).contains(&name.len()) && !name.contains('\0') {
        return Ok(());
    }
    Err(SettingError::new(setting, name, "a name of 1 to 15 octets"))
}
