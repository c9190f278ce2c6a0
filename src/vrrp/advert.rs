//! Advertisements: read from what came, and written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::checksum::over;
use super::{AdvertError, Checksum, ConfigError, Version};

/// The number of the protocol above IP.
pub(super) const PROTOCOL: u8 = 112;
const HEADER: usize = 8;
/// What version 2 has behind the addresses.
const AUTHENTICATION: usize = 8;

/// From whom a message came, to whom, and over how many routers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Envelope {
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
    version: Version,
    is_v6: bool,
    checksum: Checksum,
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
    /// use lvs::vrrp::{Advert, Envelope};
    ///
    /// // Sent by keepalived.
    /// let bytes = [0x31, 51, 150, 2, 0, 10, 0x38, 0x5b, 10, 88, 0, 100, 10, 88, 0, 101];
    /// let envelope = Envelope {
    ///     source: "10.88.0.1".parse()?,
    ///     destination: "224.0.0.18".parse()?,
    ///     ttl: Some(255),
    /// };
    /// let advert = Advert::read(&bytes, &envelope)?;
    /// assert_eq!((advert.router(), advert.priority()), (51, 150));
    /// assert_eq!(advert.interval().as_millis(), 100);
    /// assert_eq!(advert.addresses().count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(bytes: &'a [u8], envelope: &Envelope) -> Result<Self, AdvertError> {
        let &Envelope { source, destination, ttl } = envelope;
        if let Some(ttl) = ttl.filter(|&ttl| ttl != 255) {
            return Err(AdvertError::Forwarded(ttl));
        }
        if source.is_ipv6() != destination.is_ipv6() {
            return Err(AdvertError::Families(source, destination));
        }
        let is_v6 = source.is_ipv6();
        let got = bytes.len();
        let &[first, router, _, count, high, low, ..] = bytes else {
            return Err(AdvertError::Short { got, needs: HEADER });
        };
        let version = match first >> 4 {
            2 if !is_v6 => Version::V2,
            3 => Version::V3,
            other => return Err(AdvertError::Version(other)),
        };
        if first & 0xf != 1 {
            return Err(AdvertError::Type(first & 0xf));
        }
        let behind = if version == Version::V2 { AUTHENTICATION } else { 0 };
        let needs = HEADER + usize::from(count) * size(is_v6) + behind;
        let (message, trailer) =
            bytes.split_at_checked(needs).ok_or(AdvertError::Short { got, needs })?;
        if router == 0 {
            return Err(AdvertError::RouterZero);
        }
        let interval = match version {
            Version::V2 => u16::from(low),
            Version::V3 => u16::from_be_bytes([high, low]) & 0xfff,
        };
        if interval == 0 {
            return Err(AdvertError::IntervalZero);
        }
        let pseudo = Some((source, destination));
        // Over IPv6 kernels write the sum, and that of a trailer with it.
        let is_right = |bytes: &[u8]| over(bytes, pseudo) == 0;
        let checksum = match version {
            Version::V3 if is_right(message) || is_right(bytes) => Checksum::PseudoHeader,
            _ if !is_v6 && over(message, None) == 0 => Checksum::Message,
            _ => return Err(AdvertError::Checksum),
        };
        Ok(Self { message, trailer, version, is_v6, checksum })
    }

    /// The version of the protocol.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The number of the virtual router.
    #[must_use]
    pub fn router(&self) -> u8 {
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
            Version::V2 => Duration::from_secs(u64::from(low)),
            Version::V3 => {
                Duration::from_millis(10 * u64::from(u16::from_be_bytes([high, low]) & 0xfff))
            }
        }
    }

    /// The virtual addresses; over IPv6 the first is a link-local one.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + 'a {
        let end = HEADER + usize::from(self.message[3]) * size(self.is_v6);
        let addresses = self.message[HEADER..end].chunks_exact(size(self.is_v6));
        addresses.filter_map(|octets| match octets.len() {
            4 => octets.try_into().ok().map(|it: [u8; 4]| IpAddr::from(it)),
            _ => octets.try_into().ok().map(|it: [u8; 16]| IpAddr::from(it)),
        })
    }

    /// Which checksum the sender computes.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// The kind of authentication of version 2 and its data: (0, zeros) where there is none, (1, a
    /// password in plain text). RFC 3768 took it out, as it keeps nobody away; version 3 has none.
    #[must_use]
    pub fn authentication(&self) -> Option<(u8, &'a [u8; 8])> {
        let data = self.message.last_chunk().filter(|_| self.version == Version::V2)?;
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
/// use lvs::vrrp::{Checksum, Message, Version};
///
/// let addresses: [IpAddr; 1] = ["10.88.0.100".parse()?];
/// let message = Message {
///     version: Version::V3,
///     router: 51,
///     priority: 150,
///     interval: Duration::from_millis(100),
///     addresses: &addresses,
/// };
/// let bytes = message.write("10.88.0.1".parse()?, "224.0.0.18".parse()?, Checksum::Message)?;
/// assert_eq!(bytes.len(), 12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The version.
    pub version: Version,
    /// The number of the virtual router.
    pub router: u8,
    /// The sender's priority; 0 to give up.
    pub priority: u8,
    /// How often the sender advertises itself.
    pub interval: Duration,
    /// The virtual addresses, all of the sender's kind, at most 255.
    pub addresses: &'a [IpAddr],
}

impl Message<'_> {
    /// The payload for IP protocol 112, from this address to that.
    ///
    /// # Errors
    /// [`ConfigError`] where something does not fit into a message.
    pub fn write(
        &self,
        source: IpAddr,
        destination: IpAddr,
        checksum: Checksum,
    ) -> Result<Vec<u8>, ConfigError> {
        let is_v6 = source.is_ipv6();
        if self.router == 0 {
            return Err(ConfigError::Router(0));
        }
        if is_v6 && self.version == Version::V2 {
            return Err(ConfigError::Family(source));
        }
        let odd = self.addresses.iter().find(|it| it.is_ipv6() != is_v6).copied();
        let Some(count) = u8::try_from(self.addresses.len()).ok().filter(|_| odd.is_none()) else {
            return Err(ConfigError::Addresses { count: self.addresses.len(), odd });
        };
        let [high, low] = self.version.units(self.interval)?.to_be_bytes();
        let first = if self.version == Version::V2 { 0x21 } else { 0x31 };
        let mut bytes = vec![first, self.router, self.priority, count, high, low, 0, 0];
        for address in self.addresses {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        if self.version == Version::V2 {
            bytes.extend([0; AUTHENTICATION]);
        }
        let plain = !is_v6 && (self.version == Version::V2 || checksum == Checksum::Message);
        let pseudo = if plain { None } else { Some((source, destination)) };
        let sum = over(&bytes, pseudo).to_be_bytes();
        bytes[6..HEADER].copy_from_slice(&sum);
        Ok(bytes)
    }
}

/// How long an address is.
const fn size(is_v6: bool) -> usize {
    if is_v6 { size_of::<Ipv6Addr>() } else { size_of::<Ipv4Addr>() }
}
