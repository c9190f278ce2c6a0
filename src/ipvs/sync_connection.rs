//! A connection of the synchronization protocol: 36 octets (IPv4) or 72 (IPv6), and options.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::setting::SettingError;

/// The reason why a datagram is not a synchronization message.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum IpvsSyncError {
    /// The datagram ends before a field of it does.
    #[error("the message ends within its {0}")]
    Truncated(&'static str),
    /// The header has another length than the datagram.
    #[error("the message has {actual} octets, and says {stated}")]
    Size {
        /// The length in the header.
        stated: usize,
        /// The length of the datagram.
        actual: usize,
    },
    /// The message is of another version of the protocol than 1.
    #[error("the message is not of version 1 of the protocol")]
    Version,
    /// A connection is of a type that is not known.
    #[error("a connection has the unknown type {0}")]
    ConnectionType(u8),
    /// A connection has an option that is not known and must not be ignored.
    #[error("a connection has the unknown option {0}")]
    UnknownOption(u8),
    /// An option has a wrong length, occurs twice, or is no text where it must be.
    #[error("a connection has a malformed option {0}")]
    MalformedOption(u8),
}

/// How the sequence numbers of one direction of a TCP connection are changed, because the length of its
/// text was, as with FTP.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct IpvsSequence {
    /// The sequence number from which on the change counts.
    pub initial: u32,
    /// What is added from there on.
    pub delta: u32,
    /// What is added before.
    pub previous_delta: u32,
}

impl IpvsSequence {
    /// Returns a change of sequence numbers.
    #[must_use]
    pub const fn new(initial: u32, delta: u32, previous_delta: u32) -> Self {
        Self { initial, delta, previous_delta }
    }
}

/// A connection of a synchronization message.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct IpvsSyncConnection {
    /// The number of the transport protocol; 0 for the template of a service with a firewall mark.
    pub protocol: u8,
    /// The kernel's flags of connections (`IP_VS_CONN_F_*`).
    pub flags: u32,
    /// The state, by the numbers of the protocol's states; 1 is an established TCP connection.
    pub state: u16,
    /// The client. The port of a template is 0.
    pub client: SocketAddr,
    /// The virtual address. In a template of a service with a firewall mark it is the mark.
    pub virtual_address: SocketAddr,
    /// The destination.
    pub destination: SocketAddr,
    /// The firewall mark of the service, or 0.
    pub mark: u32,
    /// How long the connection is remembered from now on, in seconds.
    pub timeout_secs: u32,
    /// How sequence numbers are changed, from and to the client.
    pub sequences: Option<[IpvsSequence; 2]>,
    /// What the persistence engine found in the packet, up to 255 octets: with SIP, the call.
    pub engine_data: Vec<u8>,
    /// The name of the persistence engine, up to 16 octets. Only with data.
    pub engine: Option<String>,
}

impl IpvsSyncConnection {
    /// Returns an established TCP connection without flags, which are network address translation.
    /// All three addresses are of one family.
    #[must_use]
    pub const fn new(
        client: SocketAddr,
        virtual_address: SocketAddr,
        destination: SocketAddr,
    ) -> Self {
        Self {
            protocol: 6,
            flags: 0,
            state: 1,
            client,
            virtual_address,
            destination,
            mark: 0,
            timeout_secs: 900,
            sequences: None,
            engine_data: Vec::new(),
            engine: None,
        }
    }

    /// Tells whether this is not a connection but what persistence remembers of a client.
    #[must_use]
    pub const fn is_template(&self) -> bool {
        self.flags & FLAG_TEMPLATE != 0
    }

    /// Tells whether the connection is not established.
    #[must_use]
    pub const fn is_inactive(&self) -> bool {
        self.flags & FLAG_INACTIVE != 0
    }

    /// Parses a connection and its options, which are all of `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, IpvsSyncError> {
        let is_v6 = match bytes[field::TYPE] {
            0 => false,
            1 => true,
            other => return Err(IpvsSyncError::ConnectionType(other)),
        };
        let (fixed_len, address_len) = if is_v6 { (V6_LEN, 16) } else { (V4_LEN, 4) };
        let truncated = IpvsSyncError::Truncated("connection");
        let (fixed, options) = bytes.split_at_checked(fixed_len).ok_or(truncated)?;
        let address = |number: usize, port: usize| {
            let start = field::ADDRESSES + number * address_len;
            let octets = &fixed[start..start + address_len];
            let ip = match (octets.first_chunk::<16>(), octets.first_chunk::<4>()) {
                (Some(octets), _) => IpAddr::from(*octets),
                (None, octets) => IpAddr::from(*octets.expect("an address has 4 or 16 octets")),
            };
            SocketAddr::new(ip, read_u16(fixed, port))
        };
        let mut connection = Self {
            protocol: fixed[field::PROTOCOL],
            flags: read_u32(fixed, field::FLAGS),
            state: read_u16(fixed, field::STATE),
            mark: read_u32(fixed, field::MARK),
            timeout_secs: read_u32(fixed, field::TIMEOUT),
            ..Self::new(
                address(0, field::CLIENT_PORT),
                address(1, field::VIRTUAL_PORT),
                address(2, field::DESTINATION_PORT),
            )
        };
        connection.parse_options(options)?;
        Ok(connection)
    }

    fn parse_options(&mut self, mut rest: &[u8]) -> Result<(), IpvsSyncError> {
        while let Some((kind, after)) = rest.split_first() {
            let truncated = IpvsSyncError::Truncated("options");
            let (len, after) = after.split_first().ok_or(truncated)?;
            let (value, after) = after.split_at_checked(usize::from(*len)).ok_or(truncated)?;
            rest = after;
            let malformed = IpvsSyncError::MalformedOption(*kind);
            match *kind & !OPTION_MAY_BE_IGNORED {
                _ if value.is_empty() => return Err(malformed),
                OPTION_SEQUENCES if self.sequences.is_none() && value.len() == SEQUENCES_LEN => {
                    self.sequences = Some([0, 12].map(|start| IpvsSequence {
                        initial: read_u32(value, start),
                        delta: read_u32(value, start + 4),
                        previous_delta: read_u32(value, start + 8),
                    }));
                }
                OPTION_ENGINE_DATA if self.engine_data.is_empty() => {
                    self.engine_data = value.to_vec();
                }
                OPTION_ENGINE if self.engine.is_none() && value.len() <= MAX_ENGINE_LEN => {
                    let name = std::str::from_utf8(value).map_err(|_| malformed)?;
                    self.engine = Some(name.to_owned());
                }
                OPTION_SEQUENCES | OPTION_ENGINE_DATA | OPTION_ENGINE => return Err(malformed),
                _ if kind & OPTION_MAY_BE_IGNORED != 0 => {}
                _ => return Err(IpvsSyncError::UnknownOption(*kind)),
            }
        }
        Ok(())
    }

    /// Encodes the connection, without the octets that align the next one.
    pub(super) fn encode(&self) -> Result<Vec<u8>, SettingError> {
        let addresses = [self.client, self.virtual_address, self.destination];
        let is_v6 = self.client.is_ipv6();
        if let Some(other) = addresses.iter().find(|address| address.is_ipv6() != is_v6) {
            return Err(SettingError::new("client", other, "of the family of the other addresses"));
        }
        let engine = self.engine.as_deref().unwrap_or_default().as_bytes();
        if engine.len() > MAX_ENGINE_LEN || self.engine.is_some() && engine.is_empty() {
            let allowed = "a name of 1 to 16 octets";
            return Err(SettingError::new("engine", &self.engine, allowed));
        }
        if self.engine_data.len() > MAX_ENGINE_DATA_LEN {
            let len = self.engine_data.len();
            return Err(SettingError::new("engine_data", len, "at most 255 octets"));
        }
        let mut bytes = vec![u8::from(is_v6), self.protocol, 0, 0];
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.state.to_be_bytes());
        for address in addresses {
            bytes.extend(address.port().to_be_bytes());
        }
        bytes.extend(self.mark.to_be_bytes());
        bytes.extend(self.timeout_secs.to_be_bytes());
        for address in addresses {
            match address.ip() {
                IpAddr::V4(ip) => bytes.extend(ip.octets()),
                IpAddr::V6(ip) => bytes.extend(ip.octets()),
            }
        }
        let mut add_option = |kind: u8, value: &[u8]| {
            if !value.is_empty() {
                // At most 255 octets, as checked above.
                bytes.extend([kind, value.len() as u8]);
                bytes.extend(value);
            }
        };
        let numbers = self.sequences.iter().flatten();
        let numbers = numbers.flat_map(|it| [it.initial, it.delta, it.previous_delta]);
        let sequences: Vec<u8> = numbers.flat_map(u32::to_be_bytes).collect();
        add_option(OPTION_SEQUENCES, &sequences);
        add_option(OPTION_ENGINE_DATA, &self.engine_data);
        add_option(OPTION_ENGINE, engine);
        // The upper four bits are the version of the connection's format, 0.
        let len = bytes.len() as u16;
        bytes[field::LEN..field::LEN + 2].copy_from_slice(&len.to_be_bytes());
        Ok(bytes)
    }
}

pub(super) fn read_u16(bytes: &[u8], start: usize) -> u16 {
    u16::from_be_bytes([bytes[start], bytes[start + 1]])
}

fn read_u32(bytes: &[u8], start: usize) -> u32 {
    let [a, b, c, d] = [0, 1, 2, 3].map(|offset| bytes[start + offset]);
    u32::from_be_bytes([a, b, c, d])
}

/// The least octets of a connection.
pub(super) const V4_LEN: usize = 36;
const V6_LEN: usize = 72;
/// The part of the length's field that is the length.
pub(super) const LEN_MASK: u16 = 0x0fff;

/// Where a connection has its fields.
pub(super) mod field {
    pub(super) const TYPE: usize = 0;
    pub(super) const PROTOCOL: usize = 1;
    pub(in super::super) const LEN: usize = 2;
    pub(super) const FLAGS: usize = 4;
    pub(super) const STATE: usize = 8;
    pub(super) const CLIENT_PORT: usize = 10;
    pub(super) const VIRTUAL_PORT: usize = 12;
    pub(super) const DESTINATION_PORT: usize = 14;
    pub(super) const MARK: usize = 16;
    pub(super) const TIMEOUT: usize = 20;
    pub(super) const ADDRESSES: usize = 24;
}

const FLAG_INACTIVE: u32 = 0x100;
const FLAG_TEMPLATE: u32 = 0x1000;

const OPTION_SEQUENCES: u8 = 1;
const OPTION_ENGINE_DATA: u8 = 2;
const OPTION_ENGINE: u8 = 3;
/// The bit of options that a receiver may ignore if it does not know them.
const OPTION_MAY_BE_IGNORED: u8 = 0x40;
const SEQUENCES_LEN: usize = 24;
const MAX_ENGINE_DATA_LEN: usize = 255;
const MAX_ENGINE_LEN: usize = 16;
