//! Type-length-value entries (TLVs) of version 2 headers.

use super::error::TlvError;

/// A type with its value (section 2.2 of the specification).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Tlv<'a> {
    /// The type: a constant of this struct, or an application's own type, 0xE0 to 0xEF.
    pub kind: u8,
    /// The value.
    pub value: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// The protocol negotiated above the transport, or the client's list of protocols.
    pub const ALPN: u8 = 0x01;
    /// The host name that the client requested.
    pub const AUTHORITY: u8 = 0x02;
    /// The checksum of the header.
    pub const CRC32C: u8 = 0x03;
    /// Padding.
    pub const NOOP: u8 = 0x04;
    /// The unique id of the connection.
    pub const UNIQUE_ID: u8 = 0x05;
    /// The TLS connection between client and sender; see [`SslTlv`](super::SslTlv).
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

    /// The length of the type and of the two bytes of the length.
    pub(super) const HEADER_LEN: usize = 3;

    /// Returns whether the type is defined by the specification and may occur only once.
    pub(super) const fn is_unique(kind: u8) -> bool {
        matches!(kind, Self::ALPN..=Self::CRC32C | Self::UNIQUE_ID | Self::SSL | Self::NETNS)
    }
}

/// Splits the first TLV off a list; `Ok(None)` at the end of the list.
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

/// An iterator over the TLVs of a validated list.
#[derive(Clone)]
pub(super) struct TlvIter<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for TlvIter<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        split_tlv(&mut self.0).ok().flatten()
    }
}

/// Iterates over the TLVs of a list that is not validated yet, with their offsets; ends after the
/// first error.
pub(super) fn parse_tlvs(list: &[u8]) -> impl Iterator<Item = Result<(usize, Tlv<'_>), TlvError>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let offset = list.len() - rest.len();
        match split_tlv(&mut rest) {
            Ok(tlv) => tlv.map(|tlv| Ok((offset, tlv))),
            Err(()) => {
                rest = &[];
                Some(Err(TlvError::Truncated { offset }))
            }
        }
    })
}

/// Returns a value that is text.
pub(super) fn as_text(value: Option<&[u8]>) -> Option<&str> {
    value.and_then(|value| str::from_utf8(value).ok())
}
