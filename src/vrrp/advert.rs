//! Advertisements: read from what came, and written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::checksum::internet_checksum;
use super::{AdvertError, ChecksumCoverage, VrrpConfigError, VrrpVersion};

/// The number of the protocol above IP.
pub(super) const IPPROTO_VRRP: u8 = 112;
const HEADER_LEN: usize = 8;
/// What version 2 has behind the addresses.
const AUTH_DATA_LEN: usize = 8;

/// From whom a message came, to whom, and over how many routers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IpHeaderInfo {
    /// The sender.
    pub source: IpAddr,
    /// Whom it was sent to: the group 224.0.0.18 or `ff02::12`, or this router.
    pub destination: IpAddr,
    /// The TTL or hop limit that it arrived with; `None` if any will do, as between unicast peers
    /// (keepalived sends 64 to those over IPv6).
    pub ttl: Option<u8>,
}

/// An advertisement that was received: a view of its bytes, which have been checked.
///
/// What is behind the message proper is kept apart ([`trailer`](Self::trailer)).
#[derive(Clone, Copy, Debug)]
pub struct Advert<'a> {
    message: &'a [u8],
    trailer: &'a [u8],
    version: VrrpVersion,
    is_v6: bool,
    checksum: ChecksumCoverage,
}

impl<'a> Advert<'a> {
    /// Reads what came as payload of IP protocol 112.
    ///
    /// The checksum may be of either kind: each peer computes its own.
    ///
    /// # Errors
    /// [`AdvertError`] says what is wrong with it, in the order of RFC 9568, section 7.1.
    ///
    /// # Examples
    /// ```
    /// use lvs::vrrp::{Advert, IpHeaderInfo};
    ///
    /// // Sent by keepalived.
    /// let bytes = [0x31, 51, 150, 2, 0, 10, 0x38, 0x5b, 10, 88, 0, 100, 10, 88, 0, 101];
    /// let envelope = IpHeaderInfo {
    ///     source: "10.88.0.1".parse()?,
    ///     destination: "224.0.0.18".parse()?,
    ///     ttl: Some(255),
    /// };
    /// let advert = Advert::read(&bytes, &envelope)?;
    /// assert_eq!((advert.vrid(), advert.priority()), (51, 150));
    /// assert_eq!(advert.interval().as_millis(), 100);
    /// assert_eq!(advert.addresses().count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parse(bytes: &'a [u8], envelope: &IpHeaderInfo) -> Result<Self, AdvertError> {
        let &IpHeaderInfo { source, destination, ttl } = envelope;
        if let Some(ttl) = ttl.filter(|&ttl| ttl != 255) {
            return Err(AdvertError::InvalidTtl(ttl));
        }
        if source.is_ipv6() != destination.is_ipv6() {
            return Err(AdvertError::MixedFamilies(source, destination));
        }
        let is_v6 = source.is_ipv6();
        let got = bytes.len();
        let &[first, router, _, count, high, low, ..] = bytes else {
            return Err(AdvertError::Truncated { got, needs: HEADER_LEN });
        };
        let version = match first >> 4 {
            2 if !is_v6 => VrrpVersion::V2,
            3 => VrrpVersion::V3,
            other => return Err(AdvertError::Version(other)),
        };
        if first & 0xf != 1 {
            return Err(AdvertError::Type(first & 0xf));
        }
        let behind = if version == VrrpVersion::V2 { AUTH_DATA_LEN } else { 0 };
        let needs = HEADER_LEN + usize::from(count) * address_len(is_v6) + behind;
        let (message, trailer) =
            bytes.split_at_checked(needs).ok_or(AdvertError::Truncated { got, needs })?;
        if router == 0 {
            return Err(AdvertError::ZeroVrid);
        }
        let interval = match version {
            VrrpVersion::V2 => u16::from(low),
            VrrpVersion::V3 => u16::from_be_bytes([high, low]) & 0xfff,
        };
        if interval == 0 {
            return Err(AdvertError::ZeroInterval);
        }
        let pseudo = Some((source, destination));
        // Over IPv6 kernels write the sum, and that of a trailer with it.
        let is_right = |bytes: &[u8]| internet_checksum(bytes, pseudo) == 0;
        let checksum = match version {
            VrrpVersion::V3 if is_right(message) || is_right(bytes) => {
                ChecksumCoverage::WithPseudoHeader
            }
            _ if !is_v6 && internet_checksum(message, None) == 0 => ChecksumCoverage::MessageOnly,
            _ => return Err(AdvertError::Checksum),
        };
        Ok(Self { message, trailer, version, is_v6, checksum })
    }

    /// The version of the protocol.
    #[must_use]
    pub fn version(&self) -> VrrpVersion {
        self.version
    }

    /// The number of the virtual router.
    #[must_use]
    pub fn vrid(&self) -> u8 {
        self.message[1]
    }

    /// The sender's priority; 0 if it gives up.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.message[2]
    }

    /// How often the sender advertises itself.
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

    /// The virtual addresses; over IPv6 the first is a link-local one.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + 'a {
        let end = HEADER_LEN + usize::from(self.message[3]) * address_len(self.is_v6);
        let addresses = self.message[HEADER_LEN..end].chunks_exact(address_len(self.is_v6));
        addresses.filter_map(|octets| match octets.len() {
            4 => octets.try_into().ok().map(|it: [u8; 4]| IpAddr::from(it)),
            _ => octets.try_into().ok().map(|it: [u8; 16]| IpAddr::from(it)),
        })
    }

    /// Which checksum the sender computes.
    #[must_use]
    pub fn checksum(&self) -> ChecksumCoverage {
        self.checksum
    }

    /// The kind of authentication of version 2 and its data: (0, zeros) where there is none, (1, a
    /// password in plain text). RFC 3768 took it out, as it keeps nobody away; version 3 has none.
    #[must_use]
    pub fn authentication(&self) -> Option<(u8, &'a [u8; 8])> {
        let data = self.message.last_chunk().filter(|_| self.version == VrrpVersion::V2)?;
        Some((self.message[4], data))
    }

    /// The message without what follows it.
    pub(super) fn message(&self) -> &'a [u8] {
        self.message
    }

    /// What follows the message: keepalived puts an HMAC there, which a
    /// [`Verifier`](super::Verifier) reads.
    #[must_use]
    pub fn trailer(&self) -> &'a [u8] {
        self.trailer
    }
}

/// What an advertisement is to say.
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
///     router: 51,
///     priority: 150,
///     interval: Duration::from_millis(100),
///     addresses: &addresses,
/// };
/// let bytes = message.encode("10.88.0.1".parse()?, "224.0.0.18".parse()?, ChecksumCoverage::OutgoingAdvert)?;
/// assert_eq!(bytes.len(), 12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OutgoingAdvert<'a> {
    /// The version.
    pub version: VrrpVersion,
    /// The number of the virtual router.
    pub vrid: u8,
    /// The sender's priority; 0 to give up.
    pub priority: u8,
    /// How often the sender advertises itself.
    pub interval: Duration,
    /// The virtual addresses, all of the sender's kind, at most 255.
    pub addresses: &'a [IpAddr],
}

impl OutgoingAdvert<'_> {
    /// The payload for IP protocol 112, from this address to that.
    ///
    /// # Errors
    /// [`VrrpConfigError`] where something does not fit into a message.
    pub fn encode(
        &self,
        source: IpAddr,
        destination: IpAddr,
        checksum: ChecksumCoverage,
    ) -> Result<Vec<u8>, VrrpConfigError> {
        let is_v6 = source.is_ipv6();
        if self.vrid == 0 {
            return Err(VrrpConfigError::Vrid(0));
        }
        if is_v6 && self.version == VrrpVersion::V2 {
            return Err(VrrpConfigError::Ipv6InVersion2(source));
        }
        let odd = self.addresses.iter().find(|it| it.is_ipv6() != is_v6).copied();
        let Some(count) = u8::try_from(self.addresses.len()).ok().filter(|_| odd.is_none()) else {
            return Err(VrrpConfigError::Addresses { count: self.addresses.len(), odd });
        };
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
        let plain = !is_v6
            && (self.version == VrrpVersion::V2 || checksum == ChecksumCoverage::MessageOnly);
        let pseudo = if plain { None } else { Some((source, destination)) };
        let sum = internet_checksum(&bytes, pseudo).to_be_bytes();
        bytes[6..HEADER_LEN].copy_from_slice(&sum);
        Ok(bytes)
    }
}

/// How long an address is.
const fn address_len(is_v6: bool) -> usize {
    if is_v6 { size_of::<Ipv6Addr>() } else { size_of::<Ipv4Addr>() }
}
