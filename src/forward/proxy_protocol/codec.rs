//! Reading and writing of either version.

use super::error::{ProxyEncodeError, ProxyHeaderError};
use super::format::{MIN_V1_LINE, V2_FIXED_LEN};
use super::header::{ParsedProxyHeader, ProxyHeader, ProxyProtocolVersion};
use super::{v1, v2};

/// Reads the header, of either version, that the bytes begin with.
///
/// To be called again from the beginning with more bytes while the answer is
/// [`ParsedProxyHeader::Incomplete`]; what is behind the header is not looked at. A version 2 header costs
/// one pass, and one allocation if it has TLVs or Unix addresses; version 1 is searched again for
/// its end with each call, at most [`MAX_V1_LINE`] bytes.
///
/// # Errors
/// [`ProxyHeaderError`] as soon as the bytes cannot become a header any more, which is often the first of
/// them. End the connection then.
pub fn parse(bytes: &[u8]) -> Result<ParsedProxyHeader, ProxyHeaderError> {
    match bytes {
        [] => Ok(ParsedProxyHeader::Incomplete { at_least: MIN_V1_LINE.min(V2_FIXED_LEN) }),
        [b'P', ..] => v1::parse(bytes),
        _ => v2::parse(bytes),
    }
}

impl ProxyHeader {
    /// Appends the header in the form of a version.
    ///
    /// # Errors
    /// As [`ProxyHeader::encode_v2`]; `out` is as it was then.
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

    /// Appends the header as a line of version 1, at most [`MAX_V1_LINE`] bytes (section 2.1).
    ///
    /// Version 1 has words for TCP only: all else is sent as `UNKNOWN`, and TLVs and checksum are
    /// left out.
    pub fn encode_v1(&self, out: &mut Vec<u8>) {
        v1::encode(self, out);
    }

    /// Appends the header in the binary form of version 2 (section 2.2).
    ///
    /// # Errors
    /// [`ProxyEncodeError::TooLong`] if addresses, TLVs and checksum have more than [`MAX_V2_BLOCK`] bytes;
    /// `out` is as it was then.
    pub fn encode_v2(&self, out: &mut Vec<u8>) -> Result<(), ProxyEncodeError> {
        v2::encode(self, out)
    }
}
