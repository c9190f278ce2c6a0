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
mod error;
mod ssl;
mod tlv;
mod v1;
mod v2;

#[cfg(all(test, not(lvs_loom)))]
mod properties;
#[cfg(all(test, not(lvs_loom)))]
mod tests;

use std::net::SocketAddr;

pub use self::address::{ProxyAddresses, UnixAddress, UnixAddressError};
pub use self::error::{ProxyEncodeError, ProxyHeaderError, TlvError};
pub use self::ssl::SslTlv;
pub use self::tlv::{MAX_UNIQUE_ID, Tlv, Tlvs};

/// The longest line of version 1, its CR LF included (section 2.1).
pub const MAX_V1_LINE: usize = 107;

/// The most bytes that a header of version 2 may have behind its first 16: addresses and TLVs.
///
/// The format would allow 65 535. What senders in the field send has some hundred bytes at most,
/// and the specification wants a header to fit into one segment.
pub const MAX_V2_BLOCK: usize = 4096;

/// The longest header that is read or written: a buffer of this size holds any.
pub const MAX_PROXY_HEADER: usize = v2::V2_FIXED_LEN + MAX_V2_BLOCK;

/// The two forms of a header.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProxyProtocolVersion {
    /// A line of text; TCP only, addresses only.
    V1,
    /// Binary; also datagrams, Unix sockets, TLVs and a checksum.
    V2,
}

/// Whether a connection is carried for somebody.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ProxyCommand {
    /// The sender's own, such as a health check: the addresses are those of the connection itself.
    Local,
    /// Somebody else's, whom the header names where it can.
    Proxy,
}

/// What carries the client's bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ProxyTransport {
    /// Not said, as in every header without addresses.
    Unspecified,
    /// TCP, or a stream of a Unix socket.
    Stream,
    /// UDP, or datagrams of a Unix socket.
    Datagram,
}

/// What a PROXY protocol header says.
///
/// Two headers are equal if they say the same, whichever version they came in. A header that was
/// read and is written again as version 2 is read as the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ProxyHeader {
    command: ProxyCommand,
    transport: ProxyTransport,
    addresses: ProxyAddresses,
    tlvs: Tlvs,
    checksum: bool,
}

/// What has become of reading a header.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ParsedProxyHeader {
    /// The bytes are the beginning of a header: more must come.
    Incomplete {
        /// How many more at the least; never 0, and never more than there can be.
        at_least: usize,
    },
    /// The header is there.
    Complete {
        /// What it says.
        header: ProxyHeader,
        /// How many bytes it takes; behind them is the client's own stream.
        len: usize,
    },
}

/// Reads the header, of either version, that the bytes begin with.
///
/// To be called again from the beginning with more bytes while the answer is
/// [`ParsedProxyHeader::Incomplete`]; what is behind the header is not looked at. A version 2 header costs
/// one pass, and one allocation if it has TLVs or Unix addresses; version 1 is searched again for
/// its end with each call, at most [`MAX_V1_LINE`] bytes.
///
/// # Errors
/// [`ProxyHeaderError`] as soon as the bytes cannot become a header any more, which is often the first of
/// them. End the connection then.
pub fn parse(bytes: &[u8]) -> Result<ParsedProxyHeader, ProxyHeaderError> {
    match bytes {
        [] => Ok(ParsedProxyHeader::Incomplete { at_least: v1::MIN_V1_LINE.min(v2::V2_FIXED_LEN) }),
        [b'P', ..] => v1::parse(bytes),
        _ => v2::parse(bytes),
    }
}

impl ProxyHeader {
    /// A stream carried for a client: where it came from and where it went.
    ///
    /// The destination is the address the client asked for, which is how a server learns the
    /// original one. Only addresses and ports are carried: not the scope or flow label that an
    /// IPv6 address may have.
    #[must_use]
    pub fn proxied(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(ProxyTransport::Stream, ProxyAddresses::inet(source, destination))
    }

    /// A stream carried for the client of a Unix socket.
    #[must_use]
    pub fn unix(source: UnixAddress, destination: UnixAddress) -> Self {
        Self::new(ProxyTransport::Stream, ProxyAddresses::Unix { source, destination })
    }

    /// A connection carried for somebody whose address is not known, or of no kind that the
    /// protocol has.
    #[must_use]
    pub fn unknown() -> Self {
        Self::new(ProxyTransport::Unspecified, ProxyAddresses::Unknown)
    }

    /// A connection of the sender's own, such as a health check.
    ///
    /// Such a header says nothing else: version 2 sends it without TLVs and checksum, as section
    /// 2.2 wants it, and what a received one carries is skipped unseen. Version 1 has no
    /// word for it and sends `UNKNOWN`.
    #[must_use]
    pub fn local() -> Self {
        Self { command: ProxyCommand::Local, ..Self::unknown() }
    }

    fn new(transport: ProxyTransport, addresses: ProxyAddresses) -> Self {
        Self {
            command: ProxyCommand::Proxy,
            transport,
            addresses,
            tlvs: Tlvs::default(),
            checksum: false,
        }
    }

    /// Says datagrams instead of a stream, where there are addresses.
    #[must_use]
    pub fn with_datagram_transport(mut self) -> Self {
        if self.transport == ProxyTransport::Stream {
            self.transport = ProxyTransport::Datagram;
        }
        self
    }

    /// Sends a checksum along, which receivers that know it must check (section 2.2.3).
    ///
    /// It finds what a bad memory or a bad middlebox changed; it protects from nobody who means it.
    #[must_use]
    pub fn with_checksum(mut self) -> Self {
        self.checksum = true;
        self
    }

    /// Names the connection, so that the logs of all that carry it can be brought together.
    ///
    /// # Errors
    /// [`TlvError::Length`] above [`MAX_UNIQUE_ID`] bytes, [`TlvError::Full`] if there is no room.
    pub fn with_unique_id(self, id: &[u8]) -> Result<Self, TlvError> {
        self.with_tlv(Tlv::UNIQUE_ID, id)
    }

    /// Says which host the client asked for, as its SNI does.
    ///
    /// # Errors
    /// [`TlvError::Full`] if there is no room.
    pub fn with_authority(self, name: &str) -> Result<Self, TlvError> {
        self.with_tlv(Tlv::AUTHORITY, name.as_bytes())
    }

    /// Says which protocol was negotiated above the transport, such as `h2`.
    ///
    /// # Errors
    /// [`TlvError::Full`] if there is no room.
    pub fn with_alpn(self, protocol: &[u8]) -> Result<Self, TlvError> {
        self.with_tlv(Tlv::ALPN, protocol)
    }

    /// Says which network namespace the addresses belong to.
    ///
    /// # Errors
    /// [`TlvError::Text`] if the name is not ASCII, [`TlvError::Full`] if there is no room.
    pub fn with_netns(self, name: &str) -> Result<Self, TlvError> {
        self.with_tlv(Tlv::NETNS, name.as_bytes())
    }

    /// Says anything else, or passes on what another header said.
    ///
    /// Types that the specification names are there once: a second one takes the place of the
    /// first. Of others there may be several. 0xE0 to 0xEF are for the application's own use.
    ///
    /// # Errors
    /// [`TlvError::Reserved`] for the checksum and for padding, `Length`, `Text`, `Truncated` or
    /// `Duplicate` if the value is not what the specification says of this type, and
    /// [`TlvError::Full`] if there is no room.
    pub fn with_tlv(mut self, kind: u8, value: &[u8]) -> Result<Self, TlvError> {
        self.tlvs.set(kind, value)?;
        Ok(self)
    }

    /// Whether the connection is carried for somebody.
    #[must_use]
    pub fn command(&self) -> ProxyCommand {
        self.command
    }

    /// What carries the client's bytes.
    #[must_use]
    pub fn transport(&self) -> ProxyTransport {
        self.transport
    }

    /// From where to where.
    #[must_use]
    pub fn addresses(&self) -> &ProxyAddresses {
        &self.addresses
    }

    /// The client's address, where it is one of IP; else that of the connection itself counts.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        match self.addresses {
            ProxyAddresses::Inet { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The address that the client asked for, where it is one of IP; else that of the connection
    /// itself counts.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        match self.addresses {
            ProxyAddresses::Inet { destination, .. } => Some(destination),
            _ => None,
        }
    }

    /// All else; empty in a header of version 1.
    #[must_use]
    pub fn tlvs(&self) -> &Tlvs {
        &self.tlvs
    }

    /// Tells whether the header came with a checksum, which was right then, or will be sent with
    /// one.
    #[must_use]
    pub fn has_checksum(&self) -> bool {
        self.checksum
    }

    /// Appends the header in the form of a version.
    ///
    /// # Errors
    /// As [`ProxyHeader::encode_v2`]; `out` is as it was then.
    pub fn encode(
        &self,
        version: ProxyProtocolVersion,
        out: &mut Vec<u8>,
    ) -> Result<(), ProxyEncodeError> {
        match version {
            ProxyProtocolVersion::V1 => {
                self.encode_v1(out);
                Ok(())
            }
            ProxyProtocolVersion::V2 => self.encode_v2(out),
        }
    }

    /// Appends the header as a line of version 1, at most [`MAX_V1_LINE`] bytes (section 2.1).
    ///
    /// Version 1 has words for TCP only: all else is sent as `UNKNOWN`, and TLVs and checksum are
    /// left out.
    pub fn encode_v1(&self, out: &mut Vec<u8>) {
        v1::encode(self, out);
    }

    /// Appends the header in the binary form of version 2 (section 2.2).
    ///
    /// # Errors
    /// [`ProxyEncodeError::TooLong`] if addresses, TLVs and checksum have more than [`MAX_V2_BLOCK`] bytes;
    /// `out` is as it was then.
    pub fn encode_v2(&self, out: &mut Vec<u8>) -> Result<(), ProxyEncodeError> {
        v2::encode(self, out)
    }
}
