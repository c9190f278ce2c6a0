//! The PROXY protocol, versions 1 and 2: who the client is, told ahead of the first byte.
//!
//! A server behind a forwarder sees connections of the forwarder. The PROXY protocol puts a header
//! in front of the stream (or datagram) that names the client's address and the one it asked for.
//! [`ProxyHeader`] is what such a header says, [`parse`] reads one from bytes that arrived, and
//! [`ProxyHeader::encode`] writes one. The specification is HAProxy's
//! [proxy-protocol.txt](https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt); section
//! numbers here are its own.
//!
//! # Trust
//! A header is believed: whoever can send one can pose as any client. Accept headers only from
//! senders that are known, expect one whenever you accept them, and never guess from the bytes
//! whether there is one (section 5). Give up on a sender that takes longer than a few seconds.
//!
//! # What is strict
//! Version 1 is read to the letter: single spaces, no leading zeros, addresses of the family
//! named, an end of CR LF and no other CR or LF before it, not even in what `UNKNOWN` lets a reader
//! ignore. Version 2 is refused for a version, command, family or transport that it does not have,
//! for a wrong checksum, and for TLVs that are cut off, contradict each other or do not hold what
//! their type says. Both are refused at the first byte that is wrong, as far as it can be judged
//! alone, and nothing is read beyond [`MAX_PROXY_HEADER`] bytes.
//!
//! # What is made the same
//! An IPv4 client that came through a socket for both families has an address such as
//! `::ffff:192.0.2.1`. A header holds it as `192.0.2.1`, whether read or made, so that flow keys,
//! netmasks and logs see one client. Where only one of the two addresses is IPv4, both travel as
//! IPv6.
//!
//! # Examples
//! ```
//! use lvs::forward::proxy_protocol::{ProxyHeader, ParsedProxyHeader, ProxyProtocolVersion, parse};
//!
//! // Out: what to send to the server first.
//! let header = ProxyHeader::proxied("192.0.2.7:50123".parse()?, "203.0.113.1:443".parse()?)
//!     .with_unique_id(b"a1b2c3")?
//!     .with_checksum();
//! let mut sent = Vec::new();
//! header.encode(Version::V2, &mut sent)?;
//!
//! // In: the same, with the client's own first bytes behind it.
//! sent.extend_from_slice(b"GET /");
//! let ParsedProxyHeader::Complete { header, len } = parse(&sent)? else { unreachable!("all of it is there") };
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
