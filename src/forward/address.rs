//! Addresses in the form in which the forwarders compare them.

use std::net::SocketAddr;

/// Returns the address with an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) as IPv4, and without
/// scope and flow label.
pub(super) fn canonical_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
