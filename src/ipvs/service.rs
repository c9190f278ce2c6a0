//! Virtual services.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use netlink_packet_core::DefaultNla;

use super::address::{IpvsFamily, address_octets, check_address, check_name};
use super::attribute::{AttributeList, IpvsDecodeError, attribute_types, require};
use super::stats::IpvsStats;
use crate::setting::SettingError;

/// The transport protocol of a virtual service.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum IpvsProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Another protocol, by its number. The kernel refuses to add services of it.
    Other(u16),
}

impl IpvsProtocol {
    const fn number(self) -> u16 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u16) -> Self {
        match number {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            number => Self::Other(number),
        }
    }
}

impl fmt::Display for IpvsProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("TCP"),
            Self::Udp => f.write_str("UDP"),
            Self::Sctp => f.write_str("SCTP"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}

/// Which packets a service is for. Each service has one of its own; to change it, add another service.
///
/// # Examples
/// ```
/// use lvs::ipvs::IpvsServiceKey;
///
/// let key = IpvsServiceKey::tcp("10.0.0.1:80".parse()?);
/// assert_eq!(key.to_string(), "TCP 10.0.0.1:80");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum IpvsServiceKey {
    /// Packets to an address and port. Port 0 is every port without a service of its own; without
    /// [persistence](IpvsService::persistence) such a service is accepted, and schedules nothing.
    Address {
        /// The transport protocol.
        protocol: IpvsProtocol,
        /// The virtual address.
        address: SocketAddr,
    },
    /// Packets with a firewall mark, of any protocol.
    Mark {
        /// The address family of the packets.
        family: IpvsFamily,
        /// The mark.
        mark: NonZeroU32,
    },
}

impl IpvsServiceKey {
    /// Returns the key of a TCP service.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        Self::Address { protocol: IpvsProtocol::Tcp, address }
    }

    /// Returns the key of a UDP service.
    #[must_use]
    pub const fn udp(address: SocketAddr) -> Self {
        Self::Address { protocol: IpvsProtocol::Udp, address }
    }

    /// Returns the address family of the service.
    #[must_use]
    pub const fn family(&self) -> IpvsFamily {
        match self {
            Self::Address { address, .. } => IpvsFamily::of(address.ip()),
            Self::Mark { family, .. } => *family,
        }
    }

    fn check(&self) -> Result<(), SettingError> {
        match self {
            Self::Address { address, .. } => check_address("key.address", *address),
            Self::Mark { .. } => Ok(()),
        }
    }

    /// Encodes the attributes that identify a service.
    pub(super) fn encode(&self) -> Result<DefaultNla, SettingError> {
        self.check()?;
        Ok(IPVS_CMD_ATTR_SERVICE.nest(&self.attributes()))
    }

    fn attributes(&self) -> Vec<DefaultNla> {
        let mut attributes = vec![IPVS_SVC_ATTR_AF.u16(self.family().number())];
        match self {
            Self::Address { protocol, address } => attributes.extend([
                IPVS_SVC_ATTR_PROTOCOL.u16(protocol.number()),
                IPVS_SVC_ATTR_ADDR.bytes(&address_octets(address.ip())),
                IPVS_SVC_ATTR_PORT.be16(address.port()),
            ]),
            Self::Mark { mark, .. } => attributes.push(IPVS_SVC_ATTR_FWMARK.u32(mark.get())),
        }
        attributes
    }

    /// Decodes the key of the service that a message names, if it names one.
    pub(super) fn decode_named(
        message: &AttributeList<'_>,
    ) -> Result<Option<Self>, IpvsDecodeError> {
        message.nest(IPVS_CMD_ATTR_SERVICE)?.map(|list| Self::decode(&list)).transpose()
    }

    fn decode(list: &AttributeList<'_>) -> Result<Self, IpvsDecodeError> {
        let family = list.u16(IPVS_SVC_ATTR_AF)?;
        let family = IpvsFamily::from_number(require(IPVS_SVC_ATTR_AF, family)?)?;
        if let Some(mark) = list.u32(IPVS_SVC_ATTR_FWMARK)?.and_then(NonZeroU32::new) {
            return Ok(Self::Mark { family, mark });
        }
        let protocol = require(IPVS_SVC_ATTR_PROTOCOL, list.u16(IPVS_SVC_ATTR_PROTOCOL)?)?;
        let ip = family.address(require(IPVS_SVC_ATTR_ADDR, list.array(IPVS_SVC_ATTR_ADDR)?)?);
        let port = require(IPVS_SVC_ATTR_PORT, list.be16(IPVS_SVC_ATTR_PORT)?)?;
        Ok(Self::Address {
            protocol: IpvsProtocol::from_number(protocol),
            address: SocketAddr::new(ip, port),
        })
    }
}

impl fmt::Display for IpvsServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address } => write!(f, "{protocol} {address}"),
            Self::Mark { family: IpvsFamily::V4, mark } => write!(f, "FWM {mark}"),
            Self::Mark { family: IpvsFamily::V6, mark } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

/// The part of a client's address that persistence goes by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum IpvsNetmask {
    /// A mask for clients of an IPv4 service.
    V4(Ipv4Addr),
    /// The length of a prefix, 1 to 128, for clients of an IPv6 service.
    V6(u32),
}

impl IpvsNetmask {
    /// Returns the mask that tells single addresses of a family apart.
    #[must_use]
    pub const fn host(family: IpvsFamily) -> Self {
        match family {
            IpvsFamily::V4 => Self::V4(Ipv4Addr::BROADCAST),
            IpvsFamily::V6 => Self::V6(128),
        }
    }

    fn encode(self) -> DefaultNla {
        match self {
            // In the byte order of the network.
            Self::V4(mask) => IPVS_SVC_ATTR_NETMASK.bytes(&mask.octets()),
            Self::V6(length) => IPVS_SVC_ATTR_NETMASK.u32(length),
        }
    }

    fn decode(octets: [u8; 4], family: IpvsFamily) -> Self {
        match family {
            IpvsFamily::V4 => Self::V4(octets.into()),
            IpvsFamily::V6 => Self::V6(u32::from_ne_bytes(octets)),
        }
    }
}

/// The connections of a client go to the same destination.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct IpvsPersistence {
    /// How long a client is remembered after its last connection, in seconds.
    pub timeout_secs: u32,
    /// The clients that count as one.
    pub netmask: IpvsNetmask,
}

impl IpvsPersistence {
    /// Returns persistence for single addresses.
    #[must_use]
    pub const fn new(family: IpvsFamily, timeout_secs: u32) -> Self {
        Self { timeout_secs, netmask: IpvsNetmask::host(family) }
    }
}

/// Flags that a scheduler gives a meaning to.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct IpvsSchedulerFlags {
    /// `sh-fallback`, `mh-fallback`: another destination serves while the one of the client's is away.
    pub flag1: bool,
    /// `sh-port`, `mh-port`: the client's port is hashed with its address.
    pub flag2: bool,
    /// No scheduler of the kernel's uses it.
    pub flag3: bool,
}

/// A virtual service.
///
/// # Examples
/// ```
/// use lvs::ipvs::{IpvsService, IpvsServiceKey};
///
/// let key = IpvsServiceKey::udp("[2001:db8::1]:53".parse()?);
/// let mut service = IpvsService::new(key, "rr");
/// service.one_packet = true;
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct IpvsService {
    /// The packets that the service is for.
    pub key: IpvsServiceKey,
    /// The name of the scheduler, such as `wlc`; `none` for none. The kernel loads the module
    /// `ip_vs_NAME` by itself.
    pub scheduler: String,
    /// The flags of the scheduler.
    pub scheduler_flags: IpvsSchedulerFlags,
    /// Schedules each datagram of its own. For UDP.
    pub one_packet: bool,
    /// Sends the connections of a client to the same destination.
    pub persistence: Option<IpvsPersistence>,
    /// The persistence engine, which finds a key other than the client's address; `sip` is the one that
    /// the kernel has.
    pub persistence_engine: Option<String>,
    /// The flags of the kernel that have no meaning here.
    pub other_flags: u32,
}

impl IpvsService {
    /// Returns a service without persistence and flags.
    #[must_use]
    pub fn new(key: IpvsServiceKey, scheduler: impl Into<String>) -> Self {
        Self {
            key,
            scheduler: scheduler.into(),
            scheduler_flags: IpvsSchedulerFlags::default(),
            one_packet: false,
            persistence: None,
            persistence_engine: None,
            other_flags: 0,
        }
    }

    fn check(&self) -> Result<(), SettingError> {
        self.key.check()?;
        check_name("scheduler", &self.scheduler)?;
        if let Some(engine) = &self.persistence_engine {
            check_name("persistence_engine", engine)?;
        }
        match (self.persistence.map(|it| it.netmask), self.key.family()) {
            (Some(mask @ IpvsNetmask::V6(_)), IpvsFamily::V4) => {
                Err(SettingError::new("persistence.netmask", mask, "a mask, for IPv4"))
            }
            (Some(mask @ IpvsNetmask::V4(_)), IpvsFamily::V6) => {
                Err(SettingError::new("persistence.netmask", mask, "a prefix length, for IPv6"))
            }
            _ => Ok(()),
        }
    }

    /// Encodes all attributes of a service.
    pub(super) fn encode(&self) -> Result<DefaultNla, SettingError> {
        self.check()?;
        let mut attributes = self.key.attributes();
        attributes.push(IPVS_SVC_ATTR_SCHED_NAME.text(&self.scheduler));
        attributes
            .extend(self.persistence_engine.as_deref().map(|it| IPVS_SVC_ATTR_PE_NAME.text(it)));
        let mut flags = [0xff; 8];
        // The second half says which flags are meant: all.
        flags[..4].copy_from_slice(&self.flags().to_ne_bytes());
        let persistence = self.persistence.unwrap_or(IpvsPersistence::new(self.key.family(), 0));
        attributes.extend([
            IPVS_SVC_ATTR_FLAGS.bytes(&flags),
            IPVS_SVC_ATTR_TIMEOUT.u32(persistence.timeout_secs),
            persistence.netmask.encode(),
        ]);
        Ok(IPVS_CMD_ATTR_SERVICE.nest(&attributes))
    }

    fn flags(&self) -> u32 {
        let flag = |is_set, bit| if is_set { bit } else { 0 };
        let scheduler = &self.scheduler_flags;
        self.other_flags & !KNOWN_FLAGS
            | flag(self.persistence.is_some(), FLAG_PERSISTENT)
            | flag(self.one_packet, FLAG_ONE_PACKET)
            | flag(scheduler.flag1, FLAG_SCHEDULER_1)
            | flag(scheduler.flag2, FLAG_SCHEDULER_2)
            | flag(scheduler.flag3, FLAG_SCHEDULER_3)
    }
}

/// A virtual service that the kernel has.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct IpvsServiceStatus {
    /// The service.
    pub service: IpvsService,
    /// What the kernel counted of it.
    pub stats: IpvsStats,
}

impl IpvsServiceStatus {
    /// Decodes the service of a message.
    pub(super) fn decode(message: &AttributeList<'_>) -> Result<Self, IpvsDecodeError> {
        let list = require(IPVS_CMD_ATTR_SERVICE, message.nest(IPVS_CMD_ATTR_SERVICE)?)?;
        let key = IpvsServiceKey::decode(&list)?;
        let scheduler = require(IPVS_SVC_ATTR_SCHED_NAME, list.text(IPVS_SVC_ATTR_SCHED_NAME)?)?;
        let flags = list.array::<8>(IPVS_SVC_ATTR_FLAGS)?;
        let [a, b, c, d, ..] = require(IPVS_SVC_ATTR_FLAGS, flags)?;
        let flags = u32::from_ne_bytes([a, b, c, d]);
        let timeout_secs = require(IPVS_SVC_ATTR_TIMEOUT, list.u32(IPVS_SVC_ATTR_TIMEOUT)?)?;
        let netmask = require(IPVS_SVC_ATTR_NETMASK, list.array(IPVS_SVC_ATTR_NETMASK)?)?;
        let netmask = IpvsNetmask::decode(netmask, key.family());
        let service = IpvsService {
            key,
            scheduler,
            scheduler_flags: IpvsSchedulerFlags {
                flag1: flags & FLAG_SCHEDULER_1 != 0,
                flag2: flags & FLAG_SCHEDULER_2 != 0,
                flag3: flags & FLAG_SCHEDULER_3 != 0,
            },
            one_packet: flags & FLAG_ONE_PACKET != 0,
            persistence: (flags & FLAG_PERSISTENT != 0)
                .then_some(IpvsPersistence { timeout_secs, netmask }),
            persistence_engine: list.text(IPVS_SVC_ATTR_PE_NAME)?,
            other_flags: flags & !KNOWN_FLAGS,
        };
        let stats = IpvsStats::decode(&list, IPVS_SVC_ATTR_STATS, IPVS_SVC_ATTR_STATS64)?;
        Ok(Self { service, stats })
    }
}

const FLAG_PERSISTENT: u32 = 1;
/// The kernel's own mark of a service that can be found.
const FLAG_HASHED: u32 = 1 << 1;
const FLAG_ONE_PACKET: u32 = 1 << 2;
const FLAG_SCHEDULER_1: u32 = 1 << 3;
const FLAG_SCHEDULER_2: u32 = 1 << 4;
const FLAG_SCHEDULER_3: u32 = 1 << 5;
const KNOWN_FLAGS: u32 = FLAG_PERSISTENT
    | FLAG_HASHED
    | FLAG_ONE_PACKET
    | FLAG_SCHEDULER_1
    | FLAG_SCHEDULER_2
    | FLAG_SCHEDULER_3;

attribute_types! {
    1 IPVS_CMD_ATTR_SERVICE
    1 IPVS_SVC_ATTR_AF
    2 IPVS_SVC_ATTR_PROTOCOL
    3 IPVS_SVC_ATTR_ADDR
    4 IPVS_SVC_ATTR_PORT
    5 IPVS_SVC_ATTR_FWMARK
    6 IPVS_SVC_ATTR_SCHED_NAME
    7 IPVS_SVC_ATTR_FLAGS
    8 IPVS_SVC_ATTR_TIMEOUT
    9 IPVS_SVC_ATTR_NETMASK
    10 IPVS_SVC_ATTR_STATS
    11 IPVS_SVC_ATTR_PE_NAME
    12 IPVS_SVC_ATTR_STATS64
}
