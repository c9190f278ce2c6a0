//! What a header of version 2 says beside the addresses: type, length, value.

use std::fmt;

use super::{MAX_V2_BLOCK, SslTlv, TlvError};

/// The most bytes of a [unique id](Tlvs::unique_id).
pub const MAX_UNIQUE_ID: usize = 128;

/// One type with its value (section 2.2 of the specification).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Tlv<'a> {
    /// The type: a constant of this struct, or one of those for the application's own use, 0xE0 to
    /// 0xEF.
    pub kind: u8,
    /// The value.
    pub value: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// The protocol negotiated above the transport, or the client's list of them.
    pub const ALPN: u8 = 0x01;
    /// The name of the host that the client asked for.
    pub const AUTHORITY: u8 = 0x02;
    /// The checksum of the header.
    pub const CRC32C: u8 = 0x03;
    /// Padding.
    pub const NOOP: u8 = 0x04;
    /// What the connection is called in logs.
    pub const UNIQUE_ID: u8 = 0x05;
    /// The TLS connection between client and sender; see [`SslTlv`].
    pub const SSL: u8 = 0x20;
    /// Within [`Tlv::SSL`]: the TLS version, such as `TLSv1.3`.
    pub const SSL_VERSION: u8 = 0x21;
    /// Within [`Tlv::SSL`]: the common name in the client's certificate.
    pub const SSL_CN: u8 = 0x22;
    /// Within [`Tlv::SSL`]: the cipher.
    pub const SSL_CIPHER: u8 = 0x23;
    /// Within [`Tlv::SSL`]: the algorithm that signed the sender's certificate.
    pub const SSL_SIG_ALG: u8 = 0x24;
    /// Within [`Tlv::SSL`]: the algorithm of the key in the sender's certificate.
    pub const SSL_KEY_ALG: u8 = 0x25;
    /// The network namespace that the client's addresses belong to.
    pub const NETNS: u8 = 0x30;

    /// The type and the two bytes of the length.
    const HEADER_LEN: usize = 3;

    /// Tells whether the specification gives the type one meaning, so that a second one would
    /// contradict the first.
    const fn is_unique(kind: u8) -> bool {
        matches!(kind, Self::ALPN..=Self::CRC32C | Self::UNIQUE_ID | Self::SSL | Self::NETNS)
    }

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

/// Takes the TLV at the head of a list, if there is one, and leaves the rest.
fn split_tlv<'a>(rest: &mut &'a [u8]) -> Result<Option<Tlv<'a>>, ()> {
    match **rest {
        [] => Ok(None),
        [kind, high, low, ref tail @ ..] => {
            let len = usize::from(u16::from_be_bytes([high, low]));
            let (value, tail) = tail.split_at_checked(len).ok_or(())?;
            *rest = tail;
            Ok(Some(Tlv { kind, value }))
        }
        _ => Err(()),
    }
}

/// The TLVs of a list that has been checked.
#[derive(Clone)]
pub(super) struct TlvIter<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for TlvIter<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        split_tlv(&mut self.0).ok().flatten()
    }
}

/// The same of a list that has not: the first error ends it.
pub(super) fn parse_tlvs(list: &[u8]) -> impl Iterator<Item = Result<(usize, Tlv<'_>), TlvError>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let at = list.len() - rest.len();
        match split_tlv(&mut rest) {
            Ok(tlv) => tlv.map(|tlv| Ok((at, tlv))),
            Err(()) => {
                rest = &[];
                Some(Err(TlvError::Truncated { offset: at }))
            }
        }
    })
}

/// What a header of version 2 says beside the addresses.
///
/// Every TLV of a type that the specification names has been checked: it is there at most once,
/// and its value has the form it must have. Types that it does not name may be there more than
/// once, and hold anything. Padding and the checksum are not kept; see
/// [`Header::has_checksum`](super::Header::has_checksum).
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

/// A value that was checked to be text.
pub(super) fn as_text(value: Option<&[u8]>) -> Option<&str> {
    value.and_then(|value| str::from_utf8(value).ok())
}
