//! The addresses in a header.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::forward::address::canonical_address;

/// The source and destination addresses of a header.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ProxyAddresses {
    /// No addresses: those of the connection apply.
    Unknown,
    /// Two IP addresses. An IPv4 address is never mapped to IPv6 here.
    Inet {
        /// The client's address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
    /// Two Unix socket addresses.
    Unix {
        /// The client's address, usually unnamed.
        source: UnixAddress,
        /// The address that the client connected to.
        destination: UnixAddress,
    },
}

impl ProxyAddresses {
    pub(super) fn inet(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::Inet {
            source: canonical_address(source),
            destination: canonical_address(destination),
        }
    }
}

/// Returns the address as IPv6, an IPv4 address in mapped form.
pub(super) fn to_ipv6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The address of a Unix socket in a header: a path, an abstract name, or unnamed.
///
/// # Examples
/// ```
/// use lvs::forward::proxy_protocol::UnixAddress;
///
/// let path = UnixAddress::new(b"/run/web.sock")?;
/// assert!(path.is_path());
/// let name = UnixAddress::new(b"\0web")?;
/// assert!(!name.is_path() && !name.is_unnamed());
/// # Ok::<(), lvs::forward::proxy_protocol::UnixAddressError>(())
/// ```
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct UnixAddress(Box<[u8]>);

/// The reason why bytes are not a valid Unix socket address.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum UnixAddressError {
    /// The address is longer than [`UnixAddress::MAX`].
    #[error("Unix socket address has {len} bytes; the maximum is {}", UnixAddress::MAX)]
    TooLong {
        /// The length in bytes.
        len: usize,
    },
    /// A path contains a NUL, or an abstract name ends with a NUL: the wire format pads with NULs
    /// and cannot represent such an address.
    #[error("Unix socket address has a NUL within the path or at the end of the abstract name")]
    Nul,
}

impl UnixAddress {
    /// The maximum length of an address in bytes.
    pub const MAX: usize = 108;

    /// Returns the address with these bytes: a path, an abstract name with its leading NUL, or
    /// empty.
    ///
    /// # Errors
    /// [`UnixAddressError`] if the wire format cannot represent the address.
    pub fn new(bytes: &[u8]) -> Result<Self, UnixAddressError> {
        if bytes.len() > Self::MAX {
            return Err(UnixAddressError::TooLong { len: bytes.len() });
        }
        if trim_field(bytes) != bytes {
            return Err(UnixAddressError::Nul);
        }
        Ok(Self(bytes.into()))
    }

    /// Returns the address in a NUL-padded field.
    pub(super) fn from_field(field: &[u8]) -> Self {
        Self(trim_field(field).into())
    }

    /// Appends the address as a NUL-padded field.
    pub(super) fn write_field(&self, out: &mut Vec<u8>) {
        let end = out.len() + Self::MAX;
        out.extend_from_slice(&self.0);
        out.resize(end, 0);
    }

    /// Returns the bytes of the address without padding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether the address is a path.
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.0.first().is_some_and(|&byte| byte != 0)
    }

    /// Returns whether the address is unnamed, as with most clients.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.0.is_empty()
    }
}

/// Removes the padding of a field: a path ends at its first NUL, an abstract name at its last byte
/// other than NUL.
fn trim_field(field: &[u8]) -> &[u8] {
    let end = match field.first() {
        Some(0) => field.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1),
        _ => field.iter().position(|&byte| byte == 0).unwrap_or(field.len()),
    };
    &field[..end]
}

impl fmt::Debug for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
