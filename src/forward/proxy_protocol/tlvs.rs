//! The TLVs of one header.

use std::fmt;

use super::error::TlvError;
use super::format::{MAX_UNIQUE_ID, MAX_V2_BLOCK};
use super::ssl::SslTlv;
use super::tlv::{Tlv, TlvIter, as_text, parse_tlvs};

/// What a header of version 2 says beside the addresses.
///
/// Every TLV of a type that the specification names has been checked: it is there at most once,
/// and its value has the form it must have. Types that it does not name may be there more than
/// once, and hold anything. Padding and the checksum are not kept; see
/// [`ProxyHeader::has_checksum`](super::ProxyHeader::has_checksum).
///
/// Costs one allocation of the TLVs' own length, none if there are none; each question walks over
/// them, at most [`MAX_V2_BLOCK`] bytes.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Tlvs {
    /// As on the wire.
    bytes: Vec<u8>,
}

/// The checksum in a list: where its value begins, and what it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ChecksumTlv {
    pub(super) offset: usize,
    pub(super) value: u32,
}

impl Tlvs {
    /// Reads a list, and the checksum that it may have.
    pub(super) fn parse(list: &[u8]) -> Result<(Self, Option<ChecksumTlv>), TlvError> {
        let mut tlvs = Self::default();
        let mut checksum = None;
        for item in parse_tlvs(list) {
            let (at, tlv) = item?;
            tlv.check()?;
            let kind = tlv.kind;
            match kind {
                Tlv::NOOP => continue,
                Tlv::CRC32C if checksum.is_some() => return Err(TlvError::Duplicate { kind }),
                Tlv::CRC32C => {
                    let value = tlv.value.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
                    checksum = Some(ChecksumTlv { offset: at + Tlv::HEADER_LEN, value });
                }
                _ if Tlv::is_unique(kind) && tlvs.get(kind).is_some() => {
                    return Err(TlvError::Duplicate { kind });
                }
                _ => {
                    // One allocation for all of them.
                    tlvs.bytes.reserve_exact(match tlvs.bytes.capacity() {
                        0 => list.len() - at,
                        _ => 0,
                    });
                    tlvs.push(tlv);
                }
            }
        }
        Ok((tlvs, checksum))
    }

    /// Puts in a value: in the place of that which is there, or, where a type may be there more
    /// than once, behind it.
    ///
    /// # Errors
    /// Any [`TlvError`] but `Truncated` and `Duplicate`; nothing has changed then.
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
            let mut others = Self { bytes: Vec::with_capacity(len) };
            self.iter().filter(|old| old.kind != kind).for_each(|old| others.push(old));
            *self = others;
        }
        self.push(tlv);
        Ok(())
    }

    /// Adds a TLV of which the length is known to fit into two bytes.
    fn push(&mut self, Tlv { kind, value }: Tlv<'_>) {
        debug_assert!(value.len() <= MAX_V2_BLOCK);
        let [.., high, low] = value.len().to_be_bytes();
        self.bytes.extend_from_slice(&[kind, high, low]);
        self.bytes.extend_from_slice(value);
    }

    /// All of them, as they are sent.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes they take in a header.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Goes through all of them, in the order of the header.
    pub fn iter(&self) -> impl Iterator<Item = Tlv<'_>> + Clone {
        TlvIter(&self.bytes)
    }

    /// The first value of a type.
    ///
    /// For the types that are the application's own, such as 0xEA, where AWS names the VPC
    /// endpoint.
    #[must_use]
    pub fn get(&self, kind: u8) -> Option<&[u8]> {
        self.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// What the sender calls the connection: at most [`MAX_UNIQUE_ID`] bytes of any kind (section
    /// 2.2.5).
    #[must_use]
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.get(Tlv::UNIQUE_ID)
    }

    /// The name that the client asked for, where the client used TLS its SNI (section 2.2.2).
    ///
    /// UTF-8 and nothing more: no name that DNS would know need stand there.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        as_text(self.get(Tlv::AUTHORITY))
    }

    /// The protocol above the transport (section 2.2.1).
    ///
    /// Senders disagree on what it is: most send the one protocol negotiated, such as `h2`, some
    /// the client's list as RFC 7301 writes it.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.get(Tlv::ALPN)
    }

    /// The network namespace that the addresses belong to (section 2.2.7).
    #[must_use]
    pub fn netns(&self) -> Option<&str> {
        as_text(self.get(Tlv::NETNS))
    }

    /// The TLS connection that the sender ended (section 2.2.6).
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
    /// Checks what the specification says of the value of this type.
    fn check(self) -> Result<(), TlvError> {
        let Self { kind, value } = self;
        let fits = match kind {
            Self::UNIQUE_ID => value.len() <= MAX_UNIQUE_ID,
            Self::CRC32C => value.len() == 4,
            Self::SSL => value.len() >= SslTlv::FIXED_LEN,
            _ => true,
        };
        if !fits {
            return Err(TlvError::Length { kind, len: value.len() });
        }
        match kind {
            Self::AUTHORITY if str::from_utf8(value).is_err() => Err(TlvError::Text { kind }),
            Self::NETNS if !value.is_ascii() => Err(TlvError::Text { kind }),
            Self::SSL => SslTlv::new(value).check(),
            _ => Ok(()),
        }
    }
}
