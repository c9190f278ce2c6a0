//! The list of TLVs of a header.

use std::fmt;

use super::error::TlvError;
use super::format::{MAX_UNIQUE_ID, MAX_V2_BLOCK};
use super::ssl::SslTlv;
use super::tlv::{Tlv, TlvIter, as_text, parse_tlvs};

/// The TLVs of a version 2 header.
///
/// Each type that the specification defines occurs at most once. Other types may occur several times. The
/// values of a received header are kept byte for byte, also where the specification asks for text and
/// they are none, such as the name in an old certificate; a getter returns text only. Padding and the
/// checksum are not stored; see [`ProxyHeader::has_checksum`](super::ProxyHeader::has_checksum).
///
/// Costs one allocation of the length of the TLVs, or none if there are none. Each look-up iterates
/// over at most [`MAX_V2_BLOCK`] bytes.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Tlvs {
    /// The wire format.
    bytes: Vec<u8>,
}

/// The checksum in a list: the offset of its value, and the value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ChecksumTlv {
    pub(super) offset: usize,
    pub(super) value: u32,
}

impl Tlvs {
    /// Parses a list and its optional checksum.
    pub(super) fn parse(list: &[u8]) -> Result<(Self, Option<ChecksumTlv>), TlvError> {
        let mut tlvs = Self::default();
        let mut checksum = None;
        for item in parse_tlvs(list) {
            let (offset, tlv) = item?;
            tlv.check_length()?;
            let kind = tlv.kind;
            match kind {
                Tlv::NOOP => continue,
                Tlv::CRC32C if checksum.is_some() => return Err(TlvError::Duplicate { kind }),
                Tlv::CRC32C => {
                    let value = tlv.value.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
                    checksum = Some(ChecksumTlv { offset: offset + Tlv::HEADER_LEN, value });
                }
                _ if Tlv::is_unique(kind) && tlvs.get(kind).is_some() => {
                    return Err(TlvError::Duplicate { kind });
                }
                _ => {
                    // One allocation for all TLVs.
                    tlvs.bytes.reserve_exact(match tlvs.bytes.capacity() {
                        0 => list.len() - offset,
                        _ => 0,
                    });
                    tlvs.push(tlv);
                }
            }
        }
        Ok((tlvs, checksum))
    }

    /// Replaces the TLV of a type that may occur once, or appends a TLV of any other type.
    ///
    /// # Errors
    /// Any [`TlvError`]; the list is unchanged then.
    pub(super) fn set(&mut self, kind: u8, value: &[u8]) -> Result<(), TlvError> {
        if matches!(kind, Tlv::CRC32C | Tlv::NOOP) {
            return Err(TlvError::Reserved { kind });
        }
        let tlv = Tlv { kind, value };
        tlv.check()?;
        let replaced = match Tlv::is_unique(kind) {
            true => self.get(kind).map_or(0, |old| old.len() + Tlv::HEADER_LEN),
            false => 0,
        };
        let len = self.len() - replaced + Tlv::HEADER_LEN + value.len();
        if len > MAX_V2_BLOCK {
            return Err(TlvError::Full { len });
        }
        if replaced > 0 {
            let mut remaining = Self { bytes: Vec::with_capacity(len) };
            self.iter().filter(|old| old.kind != kind).for_each(|old| remaining.push(old));
            *self = remaining;
        }
        self.push(tlv);
        Ok(())
    }

    /// Appends a TLV whose length fits into two bytes.
    fn push(&mut self, Tlv { kind, value }: Tlv<'_>) {
        debug_assert!(value.len() <= MAX_V2_BLOCK);
        let [.., high, low] = value.len().to_be_bytes();
        self.bytes.extend_from_slice(&[kind, high, low]);
        self.bytes.extend_from_slice(value);
    }

    /// Returns the list in wire format.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the length of the list in a header, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether there are no TLVs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Iterates over all TLVs in the order of the header.
    pub fn iter(&self) -> impl Iterator<Item = Tlv<'_>> + Clone {
        TlvIter(&self.bytes)
    }

    /// Returns the first value of a type.
    ///
    /// For application types, such as 0xEA, in which AWS sends the id of the VPC endpoint.
    #[must_use]
    pub fn get(&self, kind: u8) -> Option<&[u8]> {
        self.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// Returns the unique id of the connection: at most [`MAX_UNIQUE_ID`] arbitrary bytes (section
    /// 2.2.5).
    #[must_use]
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.get(Tlv::UNIQUE_ID)
    }

    /// Returns the host name that the client requested: its SNI if the client used TLS (section
    /// 2.2.2).
    ///
    /// Not necessarily a valid DNS name; `None` also if it is not UTF-8.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        as_text(self.get(Tlv::AUTHORITY))
    }

    /// Returns the protocol above the transport (section 2.2.1).
    ///
    /// Senders differ: most send the negotiated protocol, such as `h2`, some the client's list in
    /// the format of RFC 7301.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.get(Tlv::ALPN)
    }

    /// Returns the network namespace of the addresses (section 2.2.7).
    #[must_use]
    pub fn netns(&self) -> Option<&str> {
        as_text(self.get(Tlv::NETNS))
    }

    /// Returns the TLS connection that the sender terminated (section 2.2.6).
    #[must_use]
    pub fn ssl(&self) -> Option<SslTlv<'_>> {
        self.get(Tlv::SSL).map(SslTlv::new)
    }
}

impl fmt::Debug for Tlvs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Tlv<'_> {
    /// Checks the length of the value, without which the rest of the header cannot be judged.
    fn check_length(self) -> Result<(), TlvError> {
        let Self { kind, value } = self;
        let fits = match kind {
            Self::UNIQUE_ID => value.len() <= MAX_UNIQUE_ID,
            Self::CRC32C => value.len() == 4,
            Self::SSL => value.len() >= SslTlv::FIXED_LEN,
            _ => true,
        };
        if fits { Ok(()) } else { Err(TlvError::Length { kind, len: value.len() }) }
    }

    /// Checks a value that is to be sent against the specification of its type.
    fn check(self) -> Result<(), TlvError> {
        self.check_length()?;
        let Self { kind, value } = self;
        match kind {
            Self::AUTHORITY if str::from_utf8(value).is_err() => Err(TlvError::Text { kind }),
            Self::NETNS if !value.is_ascii() => Err(TlvError::Text { kind }),
            Self::SSL => SslTlv::new(value).check(),
            _ => Ok(()),
        }
    }
}
