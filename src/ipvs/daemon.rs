//! The synchronization daemon, which tells other machines of connections, and what else is configured of
//! IPVS as a whole.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_core::DefaultNla;

use super::address::check_name;
use super::attribute::{AttributeList, IpvsDecodeError, attribute_types, require};
use crate::setting::SettingError;

/// What a synchronization daemon does. Each network namespace may have one of either.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum IpvsDaemonState {
    /// Sends this machine's connections.
    Master,
    /// Receives those of another machine.
    Backup,
    /// Another number of the kernel's.
    Other(u32),
}

impl IpvsDaemonState {
    const fn number(self) -> u32 {
        match self {
            Self::Master => 1,
            Self::Backup => 2,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Master,
            2 => Self::Backup,
            number => Self::Other(number),
        }
    }

    /// Decodes the attributes that identify the daemon of a message.
    pub(super) fn decode(message: &AttributeList<'_>) -> Result<Self, IpvsDecodeError> {
        let list = require(IPVS_CMD_ATTR_DAEMON, message.nest(IPVS_CMD_ATTR_DAEMON)?)?;
        let state = list.u32(IPVS_DAEMON_ATTR_STATE)?;
        Ok(Self::from_number(require(IPVS_DAEMON_ATTR_STATE, state)?))
    }

    /// Encodes the attributes that identify a daemon.
    pub(super) fn encode(self) -> DefaultNla {
        IPVS_CMD_ATTR_DAEMON.nest(&[IPVS_DAEMON_ATTR_STATE.u32(self.number())])
    }
}

impl fmt::Display for IpvsDaemonState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("master"),
            Self::Backup => f.write_str("backup"),
            Self::Other(number) => write!(f, "state {number}"),
        }
    }
}

/// A synchronization daemon. A 0, and no group, is the kernel's default.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct IpvsDaemon {
    /// Whether it sends or receives.
    pub state: IpvsDaemonState,
    /// The interface of the multicasts.
    pub interface: String,
    /// The number of the pair, 0 to 255. A backup with 0 accepts every number.
    pub sync_id: u32,
    /// The longest message in octets. Default: what fits into a packet of the interface.
    pub max_message_len: u16,
    /// The multicast group. Default: 224.0.0.81.
    pub group: Option<IpAddr>,
    /// The UDP port. Default: 8848.
    pub port: u16,
    /// The time to live of the packets. Default: 1.
    pub ttl: u8,
}

impl IpvsDaemon {
    /// Returns a daemon with the kernel's defaults.
    #[must_use]
    pub fn new(state: IpvsDaemonState, interface: impl Into<String>, sync_id: u32) -> Self {
        Self {
            state,
            interface: interface.into(),
            sync_id,
            max_message_len: 0,
            group: None,
            port: 0,
            ttl: 0,
        }
    }

    pub(super) fn encode(&self) -> Result<DefaultNla, SettingError> {
        check_name("interface", &self.interface)?;
        let mut attributes = vec![
            IPVS_DAEMON_ATTR_STATE.u32(self.state.number()),
            IPVS_DAEMON_ATTR_MCAST_IFN.text(&self.interface),
            IPVS_DAEMON_ATTR_SYNC_ID.u32(self.sync_id),
        ];
        if self.max_message_len != 0 {
            attributes.push(IPVS_DAEMON_ATTR_SYNC_MAXLEN.u16(self.max_message_len));
        }
        if self.port != 0 {
            attributes.push(IPVS_DAEMON_ATTR_MCAST_PORT.u16(self.port));
        }
        if self.ttl != 0 {
            attributes.push(IPVS_DAEMON_ATTR_MCAST_TTL.u8(self.ttl));
        }
        attributes.extend(self.group.map(|group| match group {
            IpAddr::V4(group) => IPVS_DAEMON_ATTR_MCAST_GROUP.bytes(&group.octets()),
            IpAddr::V6(group) => IPVS_DAEMON_ATTR_MCAST_GROUP6.bytes(&group.octets()),
        }));
        Ok(IPVS_CMD_ATTR_DAEMON.nest(&attributes))
    }

    /// Decodes the daemon of a message.
    pub(super) fn decode(message: &AttributeList<'_>) -> Result<Self, IpvsDecodeError> {
        let list = require(IPVS_CMD_ATTR_DAEMON, message.nest(IPVS_CMD_ATTR_DAEMON)?)?;
        let interface = list.text(IPVS_DAEMON_ATTR_MCAST_IFN)?;
        let group4 = list.array::<4>(IPVS_DAEMON_ATTR_MCAST_GROUP)?.map(IpAddr::from);
        let group6 = list.array::<16>(IPVS_DAEMON_ATTR_MCAST_GROUP6)?.map(IpAddr::from);
        Ok(Self {
            state: IpvsDaemonState::decode(message)?,
            interface: require(IPVS_DAEMON_ATTR_MCAST_IFN, interface)?,
            sync_id: require(IPVS_DAEMON_ATTR_SYNC_ID, list.u32(IPVS_DAEMON_ATTR_SYNC_ID)?)?,
            max_message_len: list.u16(IPVS_DAEMON_ATTR_SYNC_MAXLEN)?.unwrap_or_default(),
            group: group4.or(group6),
            port: list.u16(IPVS_DAEMON_ATTR_MCAST_PORT)?.unwrap_or_default(),
            ttl: list.u8(IPVS_DAEMON_ATTR_MCAST_TTL)?.unwrap_or_default(),
        })
    }
}

/// How long connections without packets are remembered, in seconds, in one network namespace.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct IpvsTimeouts {
    /// Established TCP connections.
    pub tcp_secs: u32,
    /// TCP connections after a FIN.
    pub tcp_fin_secs: u32,
    /// UDP.
    pub udp_secs: u32,
}

impl IpvsTimeouts {
    /// Returns timeouts. To set some of them only, give 0 for the others: they stay as they are.
    #[must_use]
    pub const fn new(tcp_secs: u32, tcp_fin_secs: u32, udp_secs: u32) -> Self {
        Self { tcp_secs, tcp_fin_secs, udp_secs }
    }

    pub(super) fn encode(self) -> [DefaultNla; 3] {
        [
            IPVS_CMD_ATTR_TIMEOUT_TCP.u32(self.tcp_secs),
            IPVS_CMD_ATTR_TIMEOUT_TCP_FIN.u32(self.tcp_fin_secs),
            IPVS_CMD_ATTR_TIMEOUT_UDP.u32(self.udp_secs),
        ]
    }

    /// Decodes a message. A kernel without a protocol has no timeout of it.
    pub(super) fn decode(message: &AttributeList<'_>) -> Result<Self, IpvsDecodeError> {
        Ok(Self {
            tcp_secs: message.u32(IPVS_CMD_ATTR_TIMEOUT_TCP)?.unwrap_or_default(),
            tcp_fin_secs: message.u32(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN)?.unwrap_or_default(),
            udp_secs: message.u32(IPVS_CMD_ATTR_TIMEOUT_UDP)?.unwrap_or_default(),
        })
    }
}

/// What the kernel says of its IPVS.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct IpvsInfo {
    /// The version of the interface, of which all kernels since 2.6 have 1.2.1.
    pub version: (u8, u8, u8),
    /// The number of rows in the table of connections.
    pub connection_table_size: u32,
}

impl IpvsInfo {
    pub(super) fn decode(message: &AttributeList<'_>) -> Result<Self, IpvsDecodeError> {
        let version = require(IPVS_INFO_ATTR_VERSION, message.u32(IPVS_INFO_ATTR_VERSION)?)?;
        let [_, major, minor, patch] = version.to_be_bytes();
        let size = message.u32(IPVS_INFO_ATTR_CONN_TAB_SIZE)?;
        Ok(Self {
            version: (major, minor, patch),
            connection_table_size: require(IPVS_INFO_ATTR_CONN_TAB_SIZE, size)?,
        })
    }
}

attribute_types! {
    3 IPVS_CMD_ATTR_DAEMON
    4 IPVS_CMD_ATTR_TIMEOUT_TCP
    5 IPVS_CMD_ATTR_TIMEOUT_TCP_FIN
    6 IPVS_CMD_ATTR_TIMEOUT_UDP
    1 IPVS_DAEMON_ATTR_STATE
    2 IPVS_DAEMON_ATTR_MCAST_IFN
    3 IPVS_DAEMON_ATTR_SYNC_ID
    4 IPVS_DAEMON_ATTR_SYNC_MAXLEN
    5 IPVS_DAEMON_ATTR_MCAST_GROUP
    6 IPVS_DAEMON_ATTR_MCAST_GROUP6
    7 IPVS_DAEMON_ATTR_MCAST_PORT
    8 IPVS_DAEMON_ATTR_MCAST_TTL
    1 IPVS_INFO_ATTR_VERSION
    2 IPVS_INFO_ATTR_CONN_TAB_SIZE
}
