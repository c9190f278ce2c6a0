//! Parsing and encoding of headers of both versions.

use super::error::{ProxyEncodeError, ProxyHeaderError};
use super::format::{MIN_V1_LINE, V2_FIXED_LEN};
use super::header::{ParsedProxyHeader, ProxyHeader, ProxyProtocolVersion};
use super::{v1, v2};

/// Parses the header, of either version, at the start of the bytes.
///
/// While the result is [`ParsedProxyHeader::Incomplete`], call again with all bytes received so
/// far. Bytes after the header are not inspected. A version 2 header costs one pass, and one
/// allocation if it has TLVs or Unix addresses; each call on a version 1 line searches again for
/// the end of the line, at most [`MAX_V1_LINE`](super::MAX_V1_LINE) bytes.
///
/// # Errors
/// [`ProxyHeaderError`] as soon as no more bytes can make a header, which is often the first byte.
/// Close the connection then.
pub fn parse(bytes: &[u8]) -> Result<ParsedProxyHeader, ProxyHeaderError> {
    match bytes {
        [] => Ok(ParsedProxyHeader::Incomplete { at_least: MIN_V1_LINE.min(V2_FIXED_LEN) }),
        [b'P', ..] => v1::parse(bytes),
        _ => v2::parse(bytes),
    }
}

impl ProxyHeader {
    /// Appends the header in the format of the given version.
    ///
    /// # Errors
    /// As [`ProxyHeader::encode_v2`]; `out` is unchanged then.
    pub fn encode(
        &self,
        version: ProxyProtocolVersion,
        out: &mut Vec<u8>,
    ) -> Result<(), ProxyEncodeError> {
        match version {
            ProxyProtocolVersion::V1 => {
                self.encode_v1(out);
                Ok(())
            }
            ProxyProtocolVersion::V2 => self.encode_v2(out),
        }
    }

    /// Appends the header as a version 1 line, at most [`MAX_V1_LINE`](super::MAX_V1_LINE) bytes
    /// (section 2.1).
    ///
    /// Version 1 describes TCP connections only: other transports and addresses are sent as
    /// `UNKNOWN`, and TLVs and checksum are omitted.
    pub fn encode_v1(&self, out: &mut Vec<u8>) {
        v1::encode(self, out);
    }

    /// Appends the header in the binary format of version 2 (section 2.2).
    ///
    /// # Errors
    /// [`ProxyEncodeError::TooLong`] if addresses, TLVs and checksum have more than
    /// [`MAX_V2_BLOCK`](super::MAX_V2_BLOCK) bytes; `out` is unchanged then.
    pub fn encode_v2(&self, out: &mut Vec<u8>) -> Result<(), ProxyEncodeError> {
        v2::encode(self, out)
    }
}
