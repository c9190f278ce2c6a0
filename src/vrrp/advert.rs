//! Advertisements: received messages are parsed here, and messages to send are encoded.
//!
//! Messages have the format of RFC 9568, section 5.1, or of RFC 3768, section 5.1. Parsing borrows
//! the bytes and allocates nothing; encoding allocates the message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use thiserror::Error;

use super::checksum::internet_checksum;
use super::config::validate_vrid;
use super::{ChecksumCoverage, VrrpConfigError, VrrpVersion};

const HEADER_LEN: usize = 8;
/// The length of the authentication data behind the addresses of version 2.
const AUTH_DATA_LEN: usize = 8;

/// The fields of a received packet's IP header that the rules for advertisements use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IpHeaderInfo {
    /// The sender.
    pub source: IpAddr,
    /// The destination: the multicast group 224.0.0.18 or `ff02::12`, or this router.
    pub destination: IpAddr,
    /// The TTL or hop limit of the packet; `None` if it is not checked, as between unicast peers
    /// (keepalived sends 64 to those over IPv6).
    pub ttl: Option<u8>,
}

/// The error for bytes that are not a valid advertisement.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AdvertError {
    /// A router forwarded the packet: it was sent from outside the link.
    #[error("the TTL is {0}, not 255: the packet was forwarded")]
    InvalidTtl(u8),
    /// The message ends before its last field.
    #[error("the advertisement is truncated: {have} bytes of {need}")]
    Truncated {
        /// The number of bytes received.
        have: usize,
        /// The length according to the fields that could be read.
        need: usize,
    },
    /// The version is neither 2 nor 3, or is 2 over IPv6.
    #[error("VRRP version {0} is not supported over this version of IP")]
    Version(u8),
    /// The type is not 1, advertisement; the protocol has no other types.
    #[error("message type {0} is not 1, advertisement")]
    Type(u8),
    /// The number of the virtual router is 0; valid numbers are 1 to 255.
    #[error("virtual router number 0 is not valid")]
    ZeroVrid,
    /// The advertisement interval is 0.
    #[error("advertisement interval 0 is not valid")]
    ZeroInterval,
    /// The checksum is wrong: the message was changed on its way.
    #[error(
        "the checksum is wrong: was the message changed, or does the sender compute the checksum \
         without a pseudo-header (`checksum_as_v2 = true`)?"
    )]
    Checksum,
    /// Source and destination are addresses of different families.
    #[error("source {0} and destination {1} are addresses of different families")]
    MixedFamilies(IpAddr, IpAddr),
}

/// A received advertisement: a view of its bytes, which have been validated.
///
/// The bytes behind the message are available as [`trailer`](Self::trailer).
#[derive(Clone, Copy, Debug)]
pub struct Advert<'a> {
    message: &'a [u8],
    trailer: &'a [u8],
    version: VrrpVersion,
    is_v6: bool,
    checksum: ChecksumCoverage,
}

impl<'a> Advert<'a> {
    /// Parses the payload of a packet of IP protocol 112.
    ///
    /// The checksum may have either coverage: implementations differ.
    ///
    /// # Errors
    /// [`AdvertError`] for the first rule that the message breaks, in the order of RFC 9568, section
    /// 7.1.
    ///
    /// # Examples
    /// ```
    /// use lvs::vrrp::{Advert, IpHeaderInfo};
    ///
    /// // A message that keepalived sent.
    /// let bytes = [0x31, 51, 150, 2, 0, 10, 0x38, 0x5b, 10, 88, 0, 100, 10, 88, 0, 101];
    /// let header = IpHeaderInfo {
    ///     source: "10.88.0.1".parse()?,
    ///     destination: "224.0.0.18".parse()?,
    ///     ttl: Some(255),
    /// };
    /// let advert = Advert::parse(&bytes, &header)?;
    /// assert_eq!((advert.vrid(), advert.priority()), (51, 150));
    /// assert_eq!(advert.interval().as_millis(), 100);
    /// assert_eq!(advert.addresses().count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parse(bytes: &'a [u8], header: &IpHeaderInfo) -> Result<Self, AdvertError> {
        let &IpHeaderInfo { source, destination, ttl } = header;
        if let Some(ttl) = ttl.filter(|&ttl| ttl != 255) {
            return Err(AdvertError::InvalidTtl(ttl));
        }
        if source.is_ipv6() != destination.is_ipv6() {
            return Err(AdvertError::MixedFamilies(source, destination));
        }
        let is_v6 = source.is_ipv6();
        let have = bytes.len();
        let &[first, vrid, _, count, high, low, ..] = bytes else {
            return Err(AdvertError::Truncated { have, need: HEADER_LEN });
        };
        let version = match first >> 4 {
            2 if !is_v6 => VrrpVersion::V2,
            3 => VrrpVersion::V3,
            version => return Err(AdvertError::Version(version)),
        };
        if first & 0xf != 1 {
            return Err(AdvertError::Type(first & 0xf));
        }
        let auth_len = if version == VrrpVersion::V2 { AUTH_DATA_LEN } else { 0 };
        let need = HEADER_LEN + usize::from(count) * address_len(is_v6) + auth_len;
        let (message, trailer) =
            bytes.split_at_checked(need).ok_or(AdvertError::Truncated { have, need })?;
        if vrid == 0 {
            return Err(AdvertError::ZeroVrid);
        }
        let interval = match version {
            VrrpVersion::V2 => u16::from(low),
            VrrpVersion::V3 => u16::from_be_bytes([high, low]) & 0xfff,
        };
        if interval == 0 {
            return Err(AdvertError::ZeroInterval);
        }
        let pseudo_header = Some((source, destination));
        // Over IPv6 the sender's kernel computes the checksum, and includes the trailer.
        let is_valid = |bytes: &[u8]| internet_checksum(bytes, pseudo_header) == 0;
        let checksum = match version {
            VrrpVersion::V3 if is_valid(message) || is_valid(bytes) => {
                ChecksumCoverage::WithPseudoHeader
            }
            _ if !is_v6 && internet_checksum(message, None) == 0 => ChecksumCoverage::MessageOnly,
            _ => return Err(AdvertError::Checksum),
        };
        Ok(Self { message, trailer, version, is_v6, checksum })
    }

    /// Returns the version of the protocol.
    #[must_use]
    pub fn version(&self) -> VrrpVersion {
        self.version
    }

    /// Returns the number of the virtual router.
    #[must_use]
    pub fn vrid(&self) -> u8 {
        self.message[1]
    }

    /// Returns the sender's priority; 0 if the sender resigns as master.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.message[2]
    }

    /// Returns the sender's advertisement interval.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let [high, low] = [self.message[4], self.message[5]];
        match self.version {
            VrrpVersion::V2 => Duration::from_secs(u64::from(low)),
            VrrpVersion::V3 => {
                Duration::from_millis(10 * u64::from(u16::from_be_bytes([high, low]) & 0xfff))
            }
        }
    }

    /// Returns the virtual addresses; over IPv6 the first is a link-local address.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + 'a {
        let end = HEADER_LEN + usize::from(self.message[3]) * address_len(self.is_v6);
        let addresses = self.message[HEADER_LEN..end].chunks_exact(address_len(self.is_v6));
        addresses.filter_map(|octets| match octets.len() {
            4 => octets.try_into().ok().map(|octets: [u8; 4]| IpAddr::from(octets)),
            _ => octets.try_into().ok().map(|octets: [u8; 16]| IpAddr::from(octets)),
        })
    }

    /// Returns the coverage of the checksum that the sender computed.
    #[must_use]
    pub fn checksum(&self) -> ChecksumCoverage {
        self.checksum
    }

    /// Returns the authentication type of version 2 and its data: (0, zeros) without authentication,
    /// (1, a password in plain text). RFC 3768 removed authentication, because it gave no security;
    /// version 3 has none.
    #[must_use]
    pub fn authentication(&self) -> Option<(u8, &'a [u8; 8])> {
        let data = self.message.last_chunk().filter(|_| self.version == VrrpVersion::V2)?;
        Some((self.message[4], data))
    }

    /// Returns the message without its trailer.
    pub(super) fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Returns the bytes behind the message: keepalived puts an HMAC there, which an
    /// [`AdvertVerifier`](super::AdvertVerifier) verifies.
    #[must_use]
    pub fn trailer(&self) -> &'a [u8] {
        self.trailer
    }
}

/// The part of a received advertisement that an [`Election`](super::Election) uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReceivedAdvert {
    /// The sender's address.
    pub source: IpAddr,
    /// The sender's priority; 0 if the sender resigns as master.
    pub priority: u8,
    /// The sender's advertisement interval.
    pub interval: Duration,
}

impl ReceivedAdvert {
    /// Extracts the fields from an advertisement that `source` sent.
    #[must_use]
    pub fn new(advert: &Advert<'_>, source: IpAddr) -> Self {
        Self { source, priority: advert.priority(), interval: advert.interval() }
    }
}

/// The contents of an advertisement to send.
///
/// # Examples
/// ```
/// use std::net::IpAddr;
/// use std::time::Duration;
/// use lvs::vrrp::{ChecksumCoverage, OutgoingAdvert, VrrpVersion};
///
/// let addresses: [IpAddr; 1] = ["10.88.0.100".parse()?];
/// let message = OutgoingAdvert {
///     version: VrrpVersion::V3,
///     vrid: 51,
///     priority: 150,
///     interval: Duration::from_millis(100),
///     addresses: &addresses,
/// };
/// let (source, group) = ("10.88.0.1".parse()?, "224.0.0.18".parse()?);
/// let bytes = message.encode(source, group, ChecksumCoverage::MessageOnly)?;
/// assert_eq!(bytes.len(), 12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OutgoingAdvert<'a> {
    /// The version of the protocol.
    pub version: VrrpVersion,
    /// The number of the virtual router.
    pub vrid: u8,
    /// The sender's priority; 0 to resign as master.
    pub priority: u8,
    /// The sender's advertisement interval.
    pub interval: Duration,
    /// The virtual addresses, all of the sender's address family, at most 255.
    pub addresses: &'a [IpAddr],
}

impl OutgoingAdvert<'_> {
    /// Encodes the payload of a packet of IP protocol 112 from `source` to `destination`.
    ///
    /// # Errors
    /// [`VrrpConfigError`] names the field that a message cannot hold.
    pub fn encode(
        &self,
        source: IpAddr,
        destination: IpAddr,
        checksum: ChecksumCoverage,
    ) -> Result<Vec<u8>, VrrpConfigError> {
        let is_v6 = source.is_ipv6();
        validate_vrid(self.vrid)?;
        if is_v6 && self.version == VrrpVersion::V2 {
            return Err(VrrpConfigError::Ipv6InVersion2(source));
        }
        if let Some(&address) = self.addresses.iter().find(|address| address.is_ipv6() != is_v6) {
            return Err(VrrpConfigError::AddressFamily { address, source_address: source });
        }
        let count = u8::try_from(self.addresses.len())
            .map_err(|_| VrrpConfigError::TooManyAddresses(self.addresses.len()))?;
        let [high, low] = self.version.encode_interval(self.interval)?.to_be_bytes();
        let first = if self.version == VrrpVersion::V2 { 0x21 } else { 0x31 };
        let mut bytes = vec![first, self.vrid, self.priority, count, high, low, 0, 0];
        for address in self.addresses {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        if self.version == VrrpVersion::V2 {
            bytes.extend([0; AUTH_DATA_LEN]);
        }
        let is_message_only = !is_v6
            && (self.version == VrrpVersion::V2 || checksum == ChecksumCoverage::MessageOnly);
        let pseudo_header = if is_message_only { None } else { Some((source, destination)) };
        let sum = internet_checksum(&bytes, pseudo_header).to_be_bytes();
        bytes[6..HEADER_LEN].copy_from_slice(&sum);
        Ok(bytes)
    }
}

/// Returns the length of an address in bytes.
const fn address_len(is_v6: bool) -> usize {
    if is_v6 { size_of::<Ipv6Addr>() } else { size_of::<Ipv4Addr>() }
}
