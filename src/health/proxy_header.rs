//! The PROXY header of a check, for servers that expect one on every connection.

use std::net::SocketAddr;

/// A PROXY header that a check sends first, since a server that expects one refuses a connection
/// without.
///
/// The server must take the check for a connection of the balancer itself, and no client's.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum CheckProxyHeader {
    /// Version 1, with the addresses of the check's own connection, as HAProxy's checks: the version
    /// has no header without a client.
    V1,
    /// Version 2 with the command LOCAL.
    V2,
}

/// The signature of version 2, the command LOCAL, and no addresses (section 2.2 of the specification).
const V2_LOCAL: &[u8; 16] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

impl CheckProxyHeader {
    /// Returns the bytes of the header for a connection.
    pub(super) fn encode(self, local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
        match self {
            Self::V1 => {
                let protocol = if local.is_ipv4() { "TCP4" } else { "TCP6" };
                let ports = (local.port(), peer.port());
                let (local, peer) = (local.ip(), peer.ip());
                format!("PROXY {protocol} {local} {peer} {} {}\r\n", ports.0, ports.1).into_bytes()
            }
            Self::V2 => V2_LOCAL.to_vec(),
        }
    }

    /// Returns the version, as the configuration writes it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

#[cfg(all(test, feature = "forward", not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::forward::proxy_protocol::{ParsedProxyHeader, ProxyHeader, parse};

    #[test]
    fn headers_are_those_of_the_specification() {
        for (local, peer) in
            [("192.0.2.1:50000", "192.0.2.2:25"), ("[2001:db8::1]:50000", "[2001:db8::2]:25")]
        {
            let (local, peer) =
                (local.parse().expect("an address"), peer.parse().expect("an address"));
            let parsed = |header: CheckProxyHeader| {
                let bytes = header.encode(local, peer);
                match parse(&bytes).expect("a header") {
                    ParsedProxyHeader::Complete { header, len } if len == bytes.len() => header,
                    parsed => panic!("{parsed:?}"),
                }
            };
            assert_eq!(parsed(CheckProxyHeader::V1), ProxyHeader::proxied(local, peer));
            assert_eq!(parsed(CheckProxyHeader::V2), ProxyHeader::local());
        }
    }
}
