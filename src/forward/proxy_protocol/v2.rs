//! Version 2: binary (section 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc, Table};

use super::tlv::Checksum;
use super::v1::{common, wide};
use super::{
    Addresses, Command, EncodeError, Header, MAX_BLOCK, Parsed, ProxyError, Tlv, Tlvs, Transport,
    UnixAddress,
};

/// Signature, version and command, family and transport, length of the block behind.
pub(super) const FIXED: usize = 16;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A checksum as a TLV.
const CHECKSUM: usize = 3 + 4;

/// CRC32c under the name of its first user, iSCSI (RFC 3720); RFC 4960 appendix B is the same.
static CRC32C: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISCSI);

#[derive(Clone, Copy, Eq, PartialEq)]
enum Family {
    Unspecified = 0,
    V4 = 1,
    V6 = 2,
    Unix = 3,
}

impl Family {
    fn from_wire(family: u8) -> Result<Self, ProxyError> {
        [Self::Unspecified, Self::V4, Self::V6, Self::Unix]
            .into_iter()
            .find(|&known| known as u8 == family)
            .ok_or(ProxyError::Family { family })
    }

    /// How many bytes two addresses take.
    const fn len(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => 12,
            Self::V6 => 36,
            Self::Unix => 2 * UnixAddress::MAX,
        }
    }

    fn of(addresses: &Addresses) -> Self {
        match addresses {
            Addresses::Unknown => Self::Unspecified,
            Addresses::Unix { .. } => Self::Unix,
            Addresses::Inet { source, destination } => {
                match source.is_ipv4() && destination.is_ipv4() {
                    true => Self::V4,
                    false => Self::V6,
                }
            }
        }
    }
}

impl Command {
    fn from_wire(command: u8) -> Result<Self, ProxyError> {
        match command {
            0 => Ok(Self::Local),
            1 => Ok(Self::Proxy),
            _ => Err(ProxyError::Command { command }),
        }
    }
}

impl Transport {
    fn from_wire(transport: u8) -> Result<Self, ProxyError> {
        match transport {
            0 => Ok(Self::Unspecified),
            1 => Ok(Self::Stream),
            2 => Ok(Self::Datagram),
            _ => Err(ProxyError::Transport { transport }),
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

/// Reads bytes that do not begin as version 1 does.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let same = common(bytes, SIGNATURE);
    if same < SIGNATURE.len() && same < bytes.len() {
        return Err(ProxyError::NotProxy { at: same });
    }
    let mut command = Command::Proxy;
    if let Some(&byte) = bytes.get(12) {
        match byte >> 4 {
            2 => command = Command::from_wire(byte & 0x0f)?,
            version => return Err(ProxyError::Version { version }),
        }
    }
    let (mut family, mut transport) = (Family::Unspecified, Transport::Unspecified);
    // The family of a local connection is ignored along with the rest.
    if let (Some(&byte), Command::Proxy) = (bytes.get(13), command) {
        family = Family::from_wire(byte >> 4)?;
        transport = Transport::from_wire(byte & 0x0f)?;
    }
    let &[.., high, low] = match bytes.first_chunk::<FIXED>() {
        Some(fixed) => fixed,
        None => return Ok(Parsed::Incomplete { at_least: FIXED - bytes.len() }),
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_BLOCK {
        return Err(ProxyError::TooLong { len });
    }
    if len < family.len() {
        return Err(ProxyError::ShortAddresses { len, needed: family.len() });
    }
    let Some(header) = bytes.get(..FIXED + len) else {
        return Ok(Parsed::Incomplete { at_least: FIXED + len - bytes.len() });
    };
    let len = header.len();
    let header = match command {
        Command::Local => Header::local(),
        Command::Proxy => proxied(header, family, transport)?,
    };
    Ok(Parsed::Complete { header, len })
}

/// Reads a header that is there as a whole.
fn proxied(bytes: &[u8], family: Family, transport: Transport) -> Result<Header, ProxyError> {
    let (addresses, list) = bytes[FIXED..].split_at(family.len());
    let (tlvs, checksum) = match (Tlvs::parse(list), family) {
        (Ok(parsed), _) => parsed,
        // Addresses of a family that this protocol has no number for may stand here: there is no
        // telling how long they are, and the receiver should ignore them.
        (Err(_), Family::Unspecified) => (Tlvs::default(), None),
        (Err(error), _) => return Err(error.into()),
    };
    if let Some(Checksum { at, value: sent }) = checksum {
        let computed = sum(bytes, FIXED + family.len() + at);
        if computed != sent {
            return Err(ProxyError::Checksum { sent, computed });
        }
    }
    let addresses = match transport {
        Transport::Unspecified => Addresses::Unknown,
        _ => read_addresses(family, addresses),
    };
    let transport = match addresses {
        Addresses::Unknown => Transport::Unspecified,
        _ => transport,
    };
    Ok(Header { command: Command::Proxy, transport, addresses, tlvs, checksum: checksum.is_some() })
}

/// Reads two addresses from as many bytes as their family takes.
fn read_addresses(family: Family, mut bytes: &[u8]) -> Addresses {
    match family {
        Family::Unspecified => Addresses::Unknown,
        Family::V4 => {
            let ips = [(); 2].map(|()| IpAddr::V4(Ipv4Addr::from(take::<4>(&mut bytes))));
            inet(ips, bytes)
        }
        Family::V6 => {
            let ips = [(); 2].map(|()| IpAddr::V6(Ipv6Addr::from(take::<16>(&mut bytes))));
            inet(ips, bytes)
        }
        Family::Unix => {
            let [source, destination] = [(); 2]
                .map(|()| UnixAddress::from_field(&take::<{ UnixAddress::MAX }>(&mut bytes)));
            Addresses::Unix { source, destination }
        }
    }
}

fn inet([source, destination]: [IpAddr; 2], mut ports: &[u8]) -> Addresses {
    let [source_port, destination_port] =
        [(); 2].map(|()| u16::from_be_bytes(take::<2>(&mut ports)));
    Addresses::inet(
        SocketAddr::new(source, source_port),
        SocketAddr::new(destination, destination_port),
    )
}

/// Takes bytes that are there: `Family::len` has been compared with what came.
fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    match bytes.split_first_chunk() {
        Some((taken, rest)) => {
            *bytes = rest;
            *taken
        }
        None => [0; N],
    }
}

/// The checksum of a header, in which that of the header itself, at an offset, counts as 0.
fn sum(header: &[u8], at: usize) -> u32 {
    let mut digest = CRC32C.digest();
    digest.update(&header[..at]);
    digest.update(&[0; 4]);
    digest.update(&header[at + 4..]);
    digest.finalize()
}

/// Appends a header, or nothing.
pub(super) fn encode(header: &Header, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let begin = out.len();
    out.extend_from_slice(SIGNATURE);
    if header.command == Command::Local {
        out.extend_from_slice(&[0x20, 0, 0, 0]);
        return Ok(());
    }
    let family = Family::of(&header.addresses);
    let checksum = if header.checksum { CHECKSUM } else { 0 };
    let len = family.len() + header.tlvs.len() + checksum;
    if len > MAX_BLOCK {
        out.truncate(begin);
        return Err(EncodeError::TooLong { len });
    }
    let [.., high, low] = len.to_be_bytes();
    out.extend_from_slice(&[0x21, (family as u8) << 4 | header.transport.to_wire(), high, low]);
    write_addresses(&header.addresses, out);
    out.extend_from_slice(header.tlvs.as_bytes());
    if header.checksum {
        out.extend_from_slice(&[Tlv::CRC32C, 0, 4, 0, 0, 0, 0]);
        let at = out.len() - 4;
        let sum = sum(&out[begin..], at - begin);
        out[at..].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
}

fn write_addresses(addresses: &Addresses, out: &mut Vec<u8>) {
    match addresses {
        Addresses::Unknown => {}
        Addresses::Unix { source, destination } => {
            source.write_field(out);
            destination.write_field(out);
        }
        Addresses::Inet { source, destination } => {
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    out.extend_from_slice(&source.octets());
                    out.extend_from_slice(&destination.octets());
                }
                (source, destination) => {
                    out.extend_from_slice(&wide(source).octets());
                    out.extend_from_slice(&wide(destination).octets());
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
    }
}
