//! Sizes of the two formats.

/// The maximum length of a version 1 line, including its CR LF (section 2.1).
pub const MAX_V1_LINE: usize = 107;

/// The maximum length of the addresses and TLVs that follow the first 16 bytes of a version 2
/// header.
///
/// The format allows 65 535 bytes. Deployed senders use a few hundred bytes, and the specification
/// requires a header to fit into one segment.
pub const MAX_V2_BLOCK: usize = 4096;

/// The maximum length of a header of either version: a buffer of this size holds any header.
pub const MAX_PROXY_HEADER: usize = V2_FIXED_LEN + MAX_V2_BLOCK;

/// The maximum length of a [unique id](super::Tlvs::unique_id).
pub const MAX_UNIQUE_ID: usize = 128;

/// The minimum length of a version 1 line: `PROXY UNKNOWN` and CR LF.
pub(super) const MIN_V1_LINE: usize = 15;

/// The length of signature, version and command, family and transport, and block length.
pub(super) const V2_FIXED_LEN: usize = 16;

/// Returns the length of the longest common prefix.
pub(super) fn common_prefix_len(bytes: &[u8], signature: &[u8]) -> usize {
    bytes.iter().zip(signature).take_while(|(a, b)| a == b).count()
}
