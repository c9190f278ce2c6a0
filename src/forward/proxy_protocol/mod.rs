//! The PROXY protocol, versions 1 and 2: the client's address, sent ahead of the first byte.
//!
//! A server behind a forwarder sees connections from the forwarder. The PROXY protocol puts a
//! header in front of the stream (or datagram) that names the client's address and the address that
//! the client connected to. [`ProxyHeader`] is the content of such a header, [`parse`] reads a
//! header from received bytes, and [`ProxyHeader::encode`] writes one. The specification is
//! HAProxy's [proxy-protocol.txt](https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt);
//! section numbers in this module are those of the specification.
//!
//! # Trust
//! A header is not authenticated: whoever can send a header can pose as any client. Accept headers
//! only from known senders, require a header from each of them, and never guess from the bytes
//! whether a header is present (section 5). Close the connection of a sender that takes longer than
//! a few seconds.
//!
//! # Strictness
//! Version 1 is parsed literally: single spaces, no leading zeros, addresses of the named family,
//! CR LF at the end and no other CR or LF before, not even in the part of an `UNKNOWN` line that a
//! receiver ignores. Version 2 is rejected for an undefined version, command, family or transport,
//! for a wrong checksum, and for TLVs that are truncated or duplicated. The values of TLVs are passed on
//! as they are: a proxy is not their reader. Both versions
//! are rejected at the first invalid byte, as far as that byte can be judged alone, and at most
//! [`MAX_PROXY_HEADER`] bytes are read.
//!
//! # IPv4-mapped addresses
//! An IPv4 client of a dual-stack socket has an address such as `::ffff:192.0.2.1`. A header holds
//! this address as `192.0.2.1`, both when read and when built, so that flow keys, netmasks and logs
//! see one client. Where only one of the two addresses is IPv4, both are sent as IPv6.
//!
//! # Examples
//! ```
//! use lvs::forward::proxy_protocol::{ParsedProxyHeader, ProxyHeader, ProxyProtocolVersion, parse};
//!
//! // The sender: a header ahead of the client's bytes.
//! let header = ProxyHeader::proxied("192.0.2.7:50123".parse()?, "203.0.113.1:443".parse()?)
//!     .with_unique_id(b"a1b2c3")?
//!     .with_checksum();
//! let mut sent = Vec::new();
//! header.encode(ProxyProtocolVersion::V2, &mut sent)?;
//!
//! // The receiver: the same header, followed by the client's first bytes.
//! sent.extend_from_slice(b"GET /");
//! let ParsedProxyHeader::Complete { header, len } = parse(&sent)? else {
//!     unreachable!("the header is complete")
//! };
//! assert_eq!(header.source(), Some("192.0.2.7:50123".parse()?));
//! assert_eq!(header.tlvs().unique_id(), Some(&b"a1b2c3"[..]));
//! assert_eq!(&sent[len..], b"GET /");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod codec;
mod error;
mod format;
mod header;
mod ssl;
mod tlv;
mod tlvs;
mod v1;
mod v2;

#[cfg(all(test, not(lvs_loom)))]
mod properties;
#[cfg(all(test, not(lvs_loom)))]
mod tests;

pub use self::address::{ProxyAddresses, UnixAddress, UnixAddressError};
pub use self::codec::parse;
pub use self::error::{ProxyEncodeError, ProxyHeaderError, TlvError};
pub use self::format::{MAX_PROXY_HEADER, MAX_UNIQUE_ID, MAX_V1_LINE, MAX_V2_BLOCK};
pub use self::header::{
    ParsedProxyHeader, ProxyCommand, ProxyHeader, ProxyProtocolVersion, ProxyTransport,
};
pub use self::ssl::SslTlv;
pub use self::tlv::Tlv;
pub use self::tlvs::Tlvs;
