//! Version 2: binary (section 2.2 of the specification).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc, Table};

use super::address::{ProxyAddresses, UnixAddress, to_ipv6};
use super::error::{ProxyEncodeError, ProxyHeaderError};
use super::format::{MAX_V2_BLOCK, V2_FIXED_LEN, common_prefix_len};
use super::header::{ParsedProxyHeader, ProxyCommand, ProxyHeader, ProxyTransport};
use super::tlv::Tlv;
use super::tlvs::{ChecksumTlv, Tlvs};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The length of a checksum TLV.
const CHECKSUM_TLV_LEN: usize = 3 + 4;

/// CRC32c, named after iSCSI (RFC 3720); the same as RFC 4960 appendix B.
static CRC32C: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISCSI);

#[derive(Clone, Copy, Eq, PartialEq)]
enum V2AddressFamily {
    Unspecified = 0,
    V4 = 1,
    V6 = 2,
    Unix = 3,
}

impl V2AddressFamily {
    fn from_wire(family: u8) -> Result<Self, ProxyHeaderError> {
        [Self::Unspecified, Self::V4, Self::V6, Self::Unix]
            .into_iter()
            .find(|&known| known as u8 == family)
            .ok_or(ProxyHeaderError::Family { family })
    }

    /// Returns the length of two addresses with their ports.
    const fn addresses_len(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => 12,
            Self::V6 => 36,
            Self::Unix => 2 * UnixAddress::MAX,
        }
    }

    fn from_addresses(addresses: &ProxyAddresses) -> Self {
        match addresses {
            ProxyAddresses::Unknown => Self::Unspecified,
            ProxyAddresses::Unix { .. } => Self::Unix,
            ProxyAddresses::Inet { source, destination } => {
                match source.is_ipv4() && destination.is_ipv4() {
                    true => Self::V4,
                    false => Self::V6,
                }
            }
        }
    }
}

impl ProxyCommand {
    fn from_wire(command: u8) -> Result<Self, ProxyHeaderError> {
        match command {
            0 => Ok(Self::Local),
            1 => Ok(Self::Proxy),
            _ => Err(ProxyHeaderError::Command { command }),
        }
    }
}

impl ProxyTransport {
    fn from_wire(transport: u8) -> Result<Self, ProxyHeaderError> {
        match transport {
            0 => Ok(Self::Unspecified),
            1 => Ok(Self::Stream),
            2 => Ok(Self::Datagram),
            _ => Err(ProxyHeaderError::Transport { transport }),
        }
    }

    const fn to_wire(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::Stream => 1,
            Self::Datagram => 2,
        }
    }
}

/// Parses bytes that do not begin like version 1.
pub(super) fn parse(bytes: &[u8]) -> Result<ParsedProxyHeader, ProxyHeaderError> {
    let matched = common_prefix_len(bytes, SIGNATURE);
    if matched < SIGNATURE.len() && matched < bytes.len() {
        return Err(ProxyHeaderError::NotProxy { offset: matched });
    }
    let mut command = ProxyCommand::Proxy;
    if let Some(&byte) = bytes.get(12) {
        match byte >> 4 {
            2 => command = ProxyCommand::from_wire(byte & 0x0f)?,
            version => return Err(ProxyHeaderError::Version { version }),
        }
    }
    let (mut family, mut transport) = (V2AddressFamily::Unspecified, ProxyTransport::Unspecified);
    // Family and transport of a LOCAL header are ignored, as is the rest of the header.
    if let (Some(&byte), ProxyCommand::Proxy) = (bytes.get(13), command) {
        family = V2AddressFamily::from_wire(byte >> 4)?;
        transport = ProxyTransport::from_wire(byte & 0x0f)?;
    }
    let &[.., high, low] = match bytes.first_chunk::<V2_FIXED_LEN>() {
        Some(fixed) => fixed,
        None => return Ok(ParsedProxyHeader::Incomplete { at_least: V2_FIXED_LEN - bytes.len() }),
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_V2_BLOCK {
        return Err(ProxyHeaderError::TooLong { len });
    }
    if len < family.addresses_len() {
        return Err(ProxyHeaderError::ShortAddresses { len, needed: family.addresses_len() });
    }
    let Some(header) = bytes.get(..V2_FIXED_LEN + len) else {
        return Ok(ParsedProxyHeader::Incomplete { at_least: V2_FIXED_LEN + len - bytes.len() });
    };
    let len = header.len();
    let header = match command {
        ProxyCommand::Local => ProxyHeader::local(),
        ProxyCommand::Proxy => parse_proxy_command(header, family, transport)?,
    };
    Ok(ParsedProxyHeader::Complete { header, len })
}

/// Parses a complete header with the PROXY command.
fn parse_proxy_command(
    bytes: &[u8],
    family: V2AddressFamily,
    transport: ProxyTransport,
) -> Result<ProxyHeader, ProxyHeaderError> {
    let (addresses, list) = bytes[V2_FIXED_LEN..].split_at(family.addresses_len());
    let (tlvs, checksum) = match (Tlvs::parse(list), family) {
        (Ok(parsed), _) => parsed,
        // The sender may use a family without a number in this protocol. The length of such
        // addresses is unknown, and the specification says to ignore them.
        (Err(_), V2AddressFamily::Unspecified) => (Tlvs::default(), None),
        (Err(error), _) => return Err(error.into()),
    };
    if let Some(ChecksumTlv { offset, value: sent }) = checksum {
        let computed = header_crc32c(bytes, V2_FIXED_LEN + family.addresses_len() + offset);
        if computed != sent {
            return Err(ProxyHeaderError::Checksum { sent, computed });
        }
    }
    let addresses = match transport {
        ProxyTransport::Unspecified => ProxyAddresses::Unknown,
        _ => read_addresses(family, addresses),
    };
    let transport = match addresses {
        ProxyAddresses::Unknown => ProxyTransport::Unspecified,
        _ => transport,
    };
    Ok(ProxyHeader {
        command: ProxyCommand::Proxy,
        transport,
        addresses,
        tlvs,
        checksum: checksum.is_some(),
    })
}

/// Reads two addresses from a block of the length that their family requires.
fn read_addresses(family: V2AddressFamily, mut bytes: &[u8]) -> ProxyAddresses {
    match family {
        V2AddressFamily::Unspecified => ProxyAddresses::Unknown,
        V2AddressFamily::V4 => {
            let ips = [(); 2].map(|()| IpAddr::V4(Ipv4Addr::from(take_array::<4>(&mut bytes))));
            read_inet_addresses(ips, bytes)
        }
        V2AddressFamily::V6 => {
            let ips = [(); 2].map(|()| IpAddr::V6(Ipv6Addr::from(take_array::<16>(&mut bytes))));
            read_inet_addresses(ips, bytes)
        }
        V2AddressFamily::Unix => {
            let [source, destination] = [(); 2]
                .map(|()| UnixAddress::from_field(&take_array::<{ UnixAddress::MAX }>(&mut bytes)));
            ProxyAddresses::Unix { source, destination }
        }
    }
}

fn read_inet_addresses([source, destination]: [IpAddr; 2], mut ports: &[u8]) -> ProxyAddresses {
    let [source_port, destination_port] =
        [(); 2].map(|()| u16::from_be_bytes(take_array::<2>(&mut ports)));
    ProxyAddresses::inet(
        SocketAddr::new(source, source_port),
        SocketAddr::new(destination, destination_port),
    )
}

/// Splits off bytes; the caller has checked their presence by `V2AddressFamily::addresses_len`.
fn take_array<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    match bytes.split_first_chunk() {
        Some((array, rest)) => {
            *bytes = rest;
            *array
        }
        None => [0; N],
    }
}

/// Computes the checksum of a header, with the four bytes of its checksum field, at `offset`, as 0.
fn header_crc32c(header: &[u8], offset: usize) -> u32 {
    let mut digest = CRC32C.digest();
    digest.update(&header[..offset]);
    digest.update(&[0; 4]);
    digest.update(&header[offset + 4..]);
    digest.finalize()
}

/// Appends the header; nothing on error.
pub(super) fn encode(header: &ProxyHeader, out: &mut Vec<u8>) -> Result<(), ProxyEncodeError> {
    let begin = out.len();
    out.extend_from_slice(SIGNATURE);
    if header.command == ProxyCommand::Local {
        out.extend_from_slice(&[0x20, 0, 0, 0]);
        return Ok(());
    }
    let family = V2AddressFamily::from_addresses(&header.addresses);
    let checksum = if header.checksum { CHECKSUM_TLV_LEN } else { 0 };
    let len = family.addresses_len() + header.tlvs.len() + checksum;
    if len > MAX_V2_BLOCK {
        out.truncate(begin);
        return Err(ProxyEncodeError::TooLong { len });
    }
    let [.., high, low] = len.to_be_bytes();
    out.extend_from_slice(&[0x21, (family as u8) << 4 | header.transport.to_wire(), high, low]);
    write_addresses(&header.addresses, out);
    out.extend_from_slice(header.tlvs.as_bytes());
    if header.checksum {
        out.extend_from_slice(&[Tlv::CRC32C, 0, 4, 0, 0, 0, 0]);
        let field = out.len() - 4;
        let checksum = header_crc32c(&out[begin..], field - begin);
        out[field..].copy_from_slice(&checksum.to_be_bytes());
    }
    Ok(())
}

fn write_addresses(addresses: &ProxyAddresses, out: &mut Vec<u8>) {
    match addresses {
        ProxyAddresses::Unknown => {}
        ProxyAddresses::Unix { source, destination } => {
            source.write_field(out);
            destination.write_field(out);
        }
        ProxyAddresses::Inet { source, destination } => {
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    out.extend_from_slice(&source.octets());
                    out.extend_from_slice(&destination.octets());
                }
                (source, destination) => {
                    out.extend_from_slice(&to_ipv6(source).octets());
                    out.extend_from_slice(&to_ipv6(destination).octets());
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
    }
}
