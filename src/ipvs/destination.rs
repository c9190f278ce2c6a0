//! Destinations: the real servers of a service.

use std::fmt;
use std::net::SocketAddr;

use netlink_packet_core::DefaultNla;

use super::address::{IpvsFamily, address_octets, check_address};
use super::attribute::{AttributeList, IpvsDecodeError, attribute_types, require};
use super::stats::IpvsStats;
use crate::setting::SettingError;

/// How packets reach a destination.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum IpvsForwarding {
    /// Network address translation: the destination's answers must come back through this machine.
    Nat,
    /// Unchanged, to the destination's hardware address. Its port must be that of the service, and it
    /// must have the service's address.
    DirectRouting,
    /// Within a packet of another kind, to a destination that has the service's address.
    Tunnel(IpvsTunnel),
    /// To this machine itself.
    Local,
    /// Another number of the kernel's.
    Other(u32),
}

/// The kind of a tunnel to a destination.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum IpvsTunnel {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation, to this port of the destination. Linux 5.3 and later.
    Gue {
        /// The UDP port.
        port: u16,
        /// The checksum of the outer packet.
        checksum: IpvsTunnelChecksum,
    },
    /// Generic routing encapsulation. Linux 5.3 and later.
    Gre {
        /// The checksum of the outer packet.
        checksum: IpvsTunnelChecksum,
    },
    /// Another kind.
    Other {
        /// The number of the kind.
        kind: u8,
        /// The port.
        port: u16,
        /// The flags.
        flags: u16,
    },
}

/// The checksum of a tunnel's outer packet.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum IpvsTunnelChecksum {
    /// None.
    #[default]
    None,
    /// The packet has one.
    Present,
    /// The inner checksum is left to the destination to compute. For GUE.
    RemoteOffload,
    /// Other flags.
    Other(u16),
}

impl IpvsTunnelChecksum {
    const fn number(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Present => 1,
            Self::RemoteOffload => 2,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u16) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Present,
            2 => Self::RemoteOffload,
            number => Self::Other(number),
        }
    }
}

impl IpvsTunnel {
    /// Returns kind, port and flags.
    const fn numbers(self) -> (u8, u16, u16) {
        match self {
            Self::Ipip => (0, 0, 0),
            Self::Gue { port, checksum } => (1, port, checksum.number()),
            Self::Gre { checksum } => (2, 0, checksum.number()),
            Self::Other { kind, port, flags } => (kind, port, flags),
        }
    }

    /// Ports and flags that a kind makes no use of are left out: they are no difference.
    const fn from_numbers(kind: u8, port: u16, flags: u16) -> Self {
        let checksum = IpvsTunnelChecksum::from_number(flags);
        match kind {
            0 => Self::Ipip,
            1 => Self::Gue { port, checksum },
            2 => Self::Gre { checksum },
            kind => Self::Other { kind, port, flags },
        }
    }
}

impl IpvsForwarding {
    const fn number(self) -> u32 {
        match self {
            Self::Nat => 0,
            Self::Local => 1,
            Self::Tunnel(_) => 2,
            Self::DirectRouting => 3,
            Self::Other(number) => number,
        }
    }
}

impl fmt::Display for IpvsForwarding {
    /// Writes the name that `ipvsadm` lists.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nat => f.write_str("Masq"),
            Self::Local => f.write_str("Local"),
            Self::Tunnel(_) => f.write_str("Tunnel"),
            Self::DirectRouting => f.write_str("Route"),
            Self::Other(number) => write!(f, "method {number}"),
        }
    }
}

/// A real server of a service.
///
/// # Examples
/// ```
/// use lvs::ipvs::{IpvsDestination, IpvsForwarding};
///
/// let mut destination = IpvsDestination::new("10.0.0.2:80".parse()?, IpvsForwarding::Nat);
/// destination.weight = 3;
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct IpvsDestination {
    /// The address and port, which no other destination of the service has. Of another family than the
    /// service with [`IpvsForwarding::Tunnel`] only.
    pub address: SocketAddr,
    /// How packets reach it.
    pub forwarding: IpvsForwarding,
    /// The weight, up to 2³¹ - 1; with 0 it gets no new connections.
    pub weight: u32,
    /// The number of connections from which on it gets no new ones; 0 is no limit.
    pub upper_threshold: u32,
    /// The number of connections below which it gets new ones again; with 0, three quarters of
    /// [`upper_threshold`](Self::upper_threshold).
    pub lower_threshold: u32,
}

impl IpvsDestination {
    /// Returns a destination of weight 1 without limits.
    #[must_use]
    pub const fn new(address: SocketAddr, forwarding: IpvsForwarding) -> Self {
        Self { address, forwarding, weight: 1, upper_threshold: 0, lower_threshold: 0 }
    }

    /// Encodes all attributes. A family is written if it is another than the service's.
    pub(super) fn encode(&self, service: IpvsFamily) -> Result<DefaultNla, SettingError> {
        let mut attributes = identity(self.address)?;
        attributes.extend([
            IPVS_DEST_ATTR_FWD_METHOD.u32(self.forwarding.number()),
            IPVS_DEST_ATTR_WEIGHT.u32(self.weight),
            IPVS_DEST_ATTR_U_THRESH.u32(self.upper_threshold),
            IPVS_DEST_ATTR_L_THRESH.u32(self.lower_threshold),
        ]);
        attributes.extend(other_family(self.address, service));
        if let IpvsForwarding::Tunnel(tunnel) = self.forwarding {
            let (kind, port, flags) = tunnel.numbers();
            attributes.extend([
                IPVS_DEST_ATTR_TUN_TYPE.u8(kind),
                IPVS_DEST_ATTR_TUN_PORT.be16(port),
                IPVS_DEST_ATTR_TUN_FLAGS.u16(flags),
            ]);
        }
        Ok(IPVS_CMD_ATTR_DEST.nest(&attributes))
    }

    /// Encodes the attributes that identify a destination of a service.
    pub(super) fn encode_key(
        address: SocketAddr,
        service: IpvsFamily,
    ) -> Result<DefaultNla, SettingError> {
        let mut attributes = identity(address)?;
        attributes.extend(other_family(address, service));
        Ok(IPVS_CMD_ATTR_DEST.nest(&attributes))
    }

    /// Decodes the attributes that identify the destination of a message.
    pub(super) fn decode_key(
        message: &AttributeList<'_>,
        service: IpvsFamily,
    ) -> Result<SocketAddr, IpvsDecodeError> {
        let list = require(IPVS_CMD_ATTR_DEST, message.nest(IPVS_CMD_ATTR_DEST)?)?;
        decode_address(&list, service)
    }
}

fn decode_address(
    list: &AttributeList<'_>,
    service: IpvsFamily,
) -> Result<SocketAddr, IpvsDecodeError> {
    let family = match list.u16(IPVS_DEST_ATTR_ADDR_FAMILY)? {
        Some(number) => IpvsFamily::from_number(number)?,
        None => service,
    };
    let ip = require(IPVS_DEST_ATTR_ADDR, list.array(IPVS_DEST_ATTR_ADDR)?)?;
    let port = require(IPVS_DEST_ATTR_PORT, list.be16(IPVS_DEST_ATTR_PORT)?)?;
    Ok(SocketAddr::new(family.address(ip), port))
}

fn identity(address: SocketAddr) -> Result<Vec<DefaultNla>, SettingError> {
    check_address("address", address)?;
    Ok(vec![
        IPVS_DEST_ATTR_ADDR.bytes(&address_octets(address.ip())),
        IPVS_DEST_ATTR_PORT.be16(address.port()),
    ])
}

fn other_family(address: SocketAddr, service: IpvsFamily) -> Option<DefaultNla> {
    let family = IpvsFamily::of(address.ip());
    (family != service).then(|| IPVS_DEST_ATTR_ADDR_FAMILY.u16(family.number()))
}

/// A destination that the kernel has.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct IpvsDestinationStatus {
    /// The destination.
    pub destination: IpvsDestination,
    /// Connections that are established or are being so. None of UDP is.
    pub active_connections: u32,
    /// Other connections that the kernel remembers, such as those that were closed a while ago.
    pub inactive_connections: u32,
    /// Clients that persistence remembers.
    pub persistent_connections: u32,
    /// What the kernel counted of it.
    pub stats: IpvsStats,
}

impl IpvsDestinationStatus {
    /// Decodes the destination of a message, which is of the service's family if it does not say
    /// another.
    pub(super) fn decode(
        message: &AttributeList<'_>,
        service: IpvsFamily,
    ) -> Result<Self, IpvsDecodeError> {
        let list = require(IPVS_CMD_ATTR_DEST, message.nest(IPVS_CMD_ATTR_DEST)?)?;
        let method = list.u32(IPVS_DEST_ATTR_FWD_METHOD)?;
        let forwarding = match require(IPVS_DEST_ATTR_FWD_METHOD, method)? {
            0 => IpvsForwarding::Nat,
            1 => IpvsForwarding::Local,
            // Kernels before 5.3 have no kinds of tunnels.
            2 => IpvsForwarding::Tunnel(IpvsTunnel::from_numbers(
                list.u8(IPVS_DEST_ATTR_TUN_TYPE)?.unwrap_or_default(),
                list.be16(IPVS_DEST_ATTR_TUN_PORT)?.unwrap_or_default(),
                list.u16(IPVS_DEST_ATTR_TUN_FLAGS)?.unwrap_or_default(),
            )),
            3 => IpvsForwarding::DirectRouting,
            number => IpvsForwarding::Other(number),
        };
        let number = |kind| Ok(list.u32(kind)?.unwrap_or_default());
        let destination = IpvsDestination {
            address: decode_address(&list, service)?,
            forwarding,
            weight: require(IPVS_DEST_ATTR_WEIGHT, list.u32(IPVS_DEST_ATTR_WEIGHT)?)?,
            upper_threshold: number(IPVS_DEST_ATTR_U_THRESH)?,
            lower_threshold: number(IPVS_DEST_ATTR_L_THRESH)?,
        };
        Ok(Self {
            destination,
            active_connections: number(IPVS_DEST_ATTR_ACTIVE_CONNS)?,
            inactive_connections: number(IPVS_DEST_ATTR_INACT_CONNS)?,
            persistent_connections: number(IPVS_DEST_ATTR_PERSIST_CONNS)?,
            stats: IpvsStats::decode(&list, IPVS_DEST_ATTR_STATS, IPVS_DEST_ATTR_STATS64)?,
        })
    }
}

attribute_types! {
    2 IPVS_CMD_ATTR_DEST
    1 IPVS_DEST_ATTR_ADDR
    2 IPVS_DEST_ATTR_PORT
    3 IPVS_DEST_ATTR_FWD_METHOD
    4 IPVS_DEST_ATTR_WEIGHT
    5 IPVS_DEST_ATTR_U_THRESH
    6 IPVS_DEST_ATTR_L_THRESH
    7 IPVS_DEST_ATTR_ACTIVE_CONNS
    8 IPVS_DEST_ATTR_INACT_CONNS
    9 IPVS_DEST_ATTR_PERSIST_CONNS
    10 IPVS_DEST_ATTR_STATS
    11 IPVS_DEST_ATTR_ADDR_FAMILY
    12 IPVS_DEST_ATTR_STATS64
    13 IPVS_DEST_ATTR_TUN_TYPE
    14 IPVS_DEST_ATTR_TUN_PORT
    15 IPVS_DEST_ATTR_TUN_FLAGS
}
