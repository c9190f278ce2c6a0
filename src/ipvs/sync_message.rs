//! Messages of the kernel's synchronization daemon, version 1 of its protocol: what a master tells of its
//! connections, and a backup learns.
//!
//! A message is one UDP datagram to a multicast group (224.0.0.81, port 8848, by default): a header of 8
//! octets, and up to 255 connections of 36 octets (IPv4) or 72 (IPv6) and their options, each aligned to
//! four octets. All numbers are in the order of the network. There is no authentication, no
//! acknowledgement and no repetition. Nothing here sends or receives.

use super::sync_connection::{
    IpvsSyncConnection, IpvsSyncError, LEN_MASK, V4_LEN, field, read_u16,
};
use crate::setting::SettingError;

/// A synchronization message that was received: a view of its bytes, which have been validated.
///
/// # Examples
/// ```
/// use lvs::ipvs::{IpvsSyncConnection, IpvsSyncMessage};
///
/// let address = |text: &str| text.parse();
/// let connection = IpvsSyncConnection::new(
///     address("192.0.2.7:50123")?, address("10.0.0.1:80")?, address("10.0.1.1:80")?,
/// );
/// let datagrams = IpvsSyncMessage::encode(7, &[connection.clone()], 1472)?;
/// let message = IpvsSyncMessage::parse(&datagrams[0])?;
/// assert_eq!(message.sync_id(), 7);
/// assert_eq!(message.connections().collect::<Vec<_>>(), [connection]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct IpvsSyncMessage<'a> {
    bytes: &'a [u8],
}

impl<'a> IpvsSyncMessage<'a> {
    /// Validates a datagram.
    ///
    /// # Errors
    /// If the kernel's daemon, as a backup, would refuse the message or a part of it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IpvsSyncError> {
        let header = bytes.first_chunk::<HEADER_LEN>().ok_or(IpvsSyncError::Truncated("header"))?;
        // In version 0 the first octet is the number of connections, which is never 0.
        let [reserved, _, size_high, size_low, _, version, spare @ ..] = *header;
        if (reserved, version, spare) != (0, 1, [0; 2]) {
            return Err(IpvsSyncError::Version);
        }
        let stated = usize::from(u16::from_be_bytes([size_high, size_low]));
        if stated != bytes.len() {
            return Err(IpvsSyncError::Size { stated, actual: bytes.len() });
        }
        let message = Self { bytes };
        message.parts().try_for_each(|part| IpvsSyncConnection::parse(part?).map(drop))?;
        Ok(message)
    }

    /// Returns the number of the pair of machines that the message is for.
    #[must_use]
    pub const fn sync_id(&self) -> u8 {
        self.bytes[1]
    }

    /// Returns the connections.
    pub fn connections(&self) -> impl Iterator<Item = IpvsSyncConnection> + 'a {
        // All were valid in `parse`.
        self.parts().filter_map(|part| IpvsSyncConnection::parse(part.ok()?).ok())
    }

    /// Encodes connections into as few datagrams as have at most `max_len` octets each.
    ///
    /// # Errors
    /// If a connection has addresses of two families, if its engine's name or data is too long, or if
    /// it does not fit into `max_len` octets.
    pub fn encode(
        sync_id: u8,
        connections: &[IpvsSyncConnection],
        max_len: u16,
    ) -> Result<Vec<Vec<u8>>, SettingError> {
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        for connection in connections {
            let part = connection.encode()?;
            if HEADER_LEN + part.len() > usize::from(max_len) {
                let needed = HEADER_LEN + part.len();
                return Err(SettingError::new("max_len", max_len, format!("at least {needed}")));
            }
            let fits = |datagram: &&mut Vec<u8>| {
                let len = datagram.len().next_multiple_of(4) + part.len();
                datagram[COUNT] < u8::MAX && len <= usize::from(max_len)
            };
            let datagram = match datagrams.last_mut().filter(fits) {
                Some(datagram) => datagram,
                None => {
                    datagrams.push(vec![0, sync_id, 0, 0, 0, 1, 0, 0]);
                    datagrams.last_mut().expect("it was pushed")
                }
            };
            datagram.resize(datagram.len().next_multiple_of(4), 0);
            datagram.extend(part);
            datagram[COUNT] += 1;
            // At most `max_len`.
            let len = datagram.len() as u16;
            datagram[2..4].copy_from_slice(&len.to_be_bytes());
        }
        Ok(datagrams)
    }

    /// Returns the bytes of each connection, and ends after the first error.
    fn parts(&self) -> impl Iterator<Item = Result<&'a [u8], IpvsSyncError>> + 'a {
        let mut rest = &self.bytes[HEADER_LEN..];
        (0..self.bytes[COUNT]).map(move |_| {
            let truncated = IpvsSyncError::Truncated("connection");
            if rest.len() < V4_LEN {
                return Err(truncated);
            }
            let len = read_u16(rest, field::LEN);
            if len & !LEN_MASK != 0 {
                return Err(IpvsSyncError::Version);
            }
            let len = usize::from(len & LEN_MASK);
            if len < V4_LEN {
                return Err(truncated);
            }
            let part = rest.get(..len).ok_or(truncated)?;
            // The last one is not followed by octets that align the next.
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            Ok(part)
        })
    }
}

const HEADER_LEN: usize = 8;
/// Where the header has the number of connections.
const COUNT: usize = 4;

#[cfg(test)]
mod tests;
