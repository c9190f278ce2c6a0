//! The content of a PROXY protocol header, independent of its version.

use std::net::SocketAddr;

use super::address::{ProxyAddresses, UnixAddress};
use super::error::TlvError;
use super::tlv::Tlv;
use super::tlvs::Tlvs;

/// The version, and so the format, of a header.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProxyProtocolVersion {
    /// A line of text: TCP addresses only.
    V1,
    /// Binary: also datagrams, Unix sockets, TLVs and a checksum.
    V2,
}

/// The command of a header: whether the connection is proxied.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ProxyCommand {
    /// A connection of the sender itself, such as a health check: the addresses of the connection
    /// apply.
    Local,
    /// A connection on behalf of a client, whose address the header holds if it is known.
    Proxy,
}

/// The transport between client and sender.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ProxyTransport {
    /// Unspecified, as in every header without addresses.
    Unspecified,
    /// TCP, or a Unix stream socket.
    Stream,
    /// UDP, or a Unix datagram socket.
    Datagram,
}

/// The content of a PROXY protocol header.
///
/// Two headers with equal content are equal, whichever version they were parsed from. A parsed
/// header that is encoded as version 2 parses to an equal header.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ProxyHeader {
    pub(super) command: ProxyCommand,
    pub(super) transport: ProxyTransport,
    pub(super) addresses: ProxyAddresses,
    pub(super) tlvs: Tlvs,
    pub(super) checksum: bool,
}

/// The result of parsing a header.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ParsedProxyHeader {
    /// The bytes are a valid prefix of a header: more bytes are needed.
    Incomplete {
        /// The minimum number of missing bytes; never 0, and never more than the header has.
        at_least: usize,
    },
    /// The header is complete.
    Complete {
        /// The content of the header.
        header: ProxyHeader,
        /// The length of the header in bytes; the client's own bytes follow.
        len: usize,
    },
}

impl ProxyHeader {
    /// Returns a header for a proxied stream, from the client's address to the address that the
    /// client connected to.
    ///
    /// A server learns the original destination from this header. Only addresses and ports are
    /// sent: neither scope nor flow label of an IPv6 address.
    #[must_use]
    pub fn proxied(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(ProxyTransport::Stream, ProxyAddresses::inet(source, destination))
    }

    /// Returns a header for a proxied stream of a Unix socket.
    #[must_use]
    pub fn unix(source: UnixAddress, destination: UnixAddress) -> Self {
        Self::new(ProxyTransport::Stream, ProxyAddresses::Unix { source, destination })
    }

    /// Returns a header for a proxied connection whose addresses are unknown, or of a family that
    /// the protocol does not define.
    #[must_use]
    pub fn unknown() -> Self {
        Self::new(ProxyTransport::Unspecified, ProxyAddresses::Unknown)
    }

    /// Returns a header for a connection of the sender itself, such as a health check.
    ///
    /// This header has no other content: version 2 sends it without TLVs and checksum, as section
    /// 2.2 requires, and the rest of a received LOCAL header is skipped unchecked. Version 1 has no
    /// LOCAL command and sends `UNKNOWN`.
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

    /// Returns the header that passes this one on: its addresses, or those of the connection that it came
    /// with if it has none, and its TLVs byte for byte; without a checksum.
    #[must_use]
    pub fn passed_on(&self, connection: Self) -> Self {
        let (transport, addresses) = match &self.addresses {
            ProxyAddresses::Unknown => (connection.transport, connection.addresses),
            addresses => (self.transport, addresses.clone()),
        };
        let tlvs = self.tlvs.clone();
        Self { command: ProxyCommand::Proxy, transport, addresses, tlvs, checksum: false }
    }

    /// Returns the header without TLVs and checksum.
    #[must_use]
    pub fn without_tlvs(self) -> Self {
        Self { tlvs: Tlvs::default(), checksum: false, ..self }
    }

    /// Returns the header with datagram instead of stream as transport, if it has addresses.
    #[must_use]
    pub fn with_datagram_transport(mut self) -> Self {
        if self.transport == ProxyTransport::Stream {
            self.transport = ProxyTransport::Datagram;
        }
        self
    }

    /// Returns the header with a checksum, which receivers that support it must verify (section
    /// 2.2.3).
    ///
    /// The checksum detects corruption by faulty memory or middleboxes, not deliberate changes.
    #[must_use]
    pub fn with_checksum(mut self) -> Self {
        self.checksum = true;
        self
    }

    /// Returns the header with a unique id of the connection, by which the logs of all proxies on
    /// the path can be correlated.
    ///
    /// # Errors
    /// [`TlvError::Length`] above [`MAX_UNIQUE_ID`](super::MAX_UNIQUE_ID) bytes, [`TlvError::Full`]
    /// if the header is full.
    pub fn with_unique_id(self, id: &[u8]) -> Result<Self, TlvError> {
        self.with_tlv(Tlv::UNIQUE_ID, id)
    }

    /// Returns the header with the host name that the client requested, such as its SNI.
    ///
    /// # Errors
    /// [`TlvError::Full`] if the header is full.
    pub fn with_authority(self, name: &str) -> Result<Self, TlvError> {
        self.with_tlv(Tlv::AUTHORITY, name.as_bytes())
    }

    /// Returns the header with the protocol negotiated above the transport, such as `h2`.
    ///
    /// # Errors
    /// [`TlvError::Full`] if the header is full.
    pub fn with_alpn(self, protocol: &[u8]) -> Result<Self, TlvError> {
        self.with_tlv(Tlv::ALPN, protocol)
    }

    /// Returns the header with the name of the network namespace of the addresses.
    ///
    /// # Errors
    /// [`TlvError::Text`] if the name is not ASCII, [`TlvError::Full`] if the header is full.
    pub fn with_netns(self, name: &str) -> Result<Self, TlvError> {
        self.with_tlv(Tlv::NETNS, name.as_bytes())
    }

    /// Returns the header with a TLV of any type, for example from a received header.
    ///
    /// A TLV of a type that the specification defines replaces an earlier TLV of this type. Other
    /// types may occur several times. Types 0xE0 to 0xEF are reserved for applications.
    ///
    /// # Errors
    /// [`TlvError::Reserved`] for the checksum and for padding; `Length`, `Text`, `Truncated` or
    /// `Duplicate` if the value violates the specification of its type; and [`TlvError::Full`] if
    /// the header is full.
    pub fn with_tlv(mut self, kind: u8, value: &[u8]) -> Result<Self, TlvError> {
        self.tlvs.set(kind, value)?;
        Ok(self)
    }

    /// Returns the command: whether the connection is proxied.
    #[must_use]
    pub fn command(&self) -> ProxyCommand {
        self.command
    }

    /// Returns the transport between client and sender.
    #[must_use]
    pub fn transport(&self) -> ProxyTransport {
        self.transport
    }

    /// Returns the source and destination addresses.
    #[must_use]
    pub fn addresses(&self) -> &ProxyAddresses {
        &self.addresses
    }

    /// Returns the client's address if it is an IP address; otherwise the address of the connection
    /// applies.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        match self.addresses {
            ProxyAddresses::Inet { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Returns the address that the client connected to if it is an IP address; otherwise the
    /// address of the connection applies.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        match self.addresses {
            ProxyAddresses::Inet { destination, .. } => Some(destination),
            _ => None,
        }
    }

    /// Returns the TLVs; none in a header of version 1.
    #[must_use]
    pub fn tlvs(&self) -> &Tlvs {
        &self.tlvs
    }

    /// Returns whether the header was received with a (verified) checksum, or is sent with a
    /// checksum.
    #[must_use]
    pub fn has_checksum(&self) -> bool {
        self.checksum
    }
}
