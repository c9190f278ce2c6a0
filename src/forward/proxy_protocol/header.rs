//! A PROXY protocol header, whichever version it comes in.

use std::net::SocketAddr;

use super::address::{ProxyAddresses, UnixAddress};
use super::error::TlvError;
use super::tlv::Tlv;
use super::tlvs::Tlvs;

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
    pub(super) command: ProxyCommand,
    pub(super) transport: ProxyTransport,
    pub(super) addresses: ProxyAddresses,
    pub(super) tlvs: Tlvs,
    pub(super) checksum: bool,
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
}
