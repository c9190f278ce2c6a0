//! From where to where.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::forward::address::canonical_address;

/// The addresses in a header.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ProxyAddresses {
    /// None: those of the connection itself count.
    Unknown,
    /// Two of IP, each in its own family: an IPv4 address is never wrapped into an IPv6 one.
    Inet {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
    /// Two of Unix sockets.
    Unix {
        /// The client, which seldom has a name.
        source: UnixAddress,
        /// What the client connected to.
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

/// An address among addresses of IPv6.
pub(super) fn to_ipv6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The address of a Unix socket as headers carry it: a path, an abstract name, or nothing.
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

/// Why bytes are no address of a Unix socket.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum UnixAddressError {
    /// It is longer than [`UnixAddress::MAX`].
    #[error("address of a Unix socket has {len} bytes, of which {} fit", UnixAddress::MAX)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A path with a NUL in it, or an abstract name that ends with one: the wire fills up with NULs
    /// and cannot carry it.
    #[error("address of a Unix socket has a NUL where it would end on the wire")]
    Nul,
}

impl UnixAddress {
    /// The most bytes of one.
    pub const MAX: usize = 108;

    /// An address of these bytes: a path, an abstract name with its NUL in front, or empty.
    ///
    /// # Errors
    /// [`UnixAddressError`] if the wire cannot carry it as it is.
    pub fn new(bytes: &[u8]) -> Result<Self, UnixAddressError> {
        if bytes.len() > Self::MAX {
            return Err(UnixAddressError::TooLong { len: bytes.len() });
        }
        if trim_field(bytes) != bytes {
            return Err(UnixAddressError::Nul);
        }
        Ok(Self(bytes.into()))
    }

    /// An address from the field that holds it.
    pub(super) fn from_field(field: &[u8]) -> Self {
        Self(trim_field(field).into())
    }

    /// Appends the field that holds it.
    pub(super) fn write_field(&self, out: &mut Vec<u8>) {
        let end = out.len() + Self::MAX;
        out.extend_from_slice(&self.0);
        out.resize(end, 0);
    }

    /// The bytes, without those that fill up the field.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Tells whether it is a path.
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.0.first().is_some_and(|&byte| byte != 0)
    }

    /// Tells whether there is no address, as with most clients.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.0.is_empty()
    }
}

/// What of a field is the address: a path up to its NUL, an abstract name without the NULs behind.
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
