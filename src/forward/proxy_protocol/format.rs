//! Sizes that the two formats share.

/// The longest line of version 1, its CR LF included (section 2.1).
pub const MAX_V1_LINE: usize = 107;

/// The most bytes that a header of version 2 may have behind its first 16: addresses and TLVs.
///
/// The format would allow 65 535. What senders in the field send has some hundred bytes at most,
/// and the specification wants a header to fit into one segment.
pub const MAX_V2_BLOCK: usize = 4096;

/// The longest header that is read or written: a buffer of this size holds any.
pub const MAX_PROXY_HEADER: usize = V2_FIXED_LEN + MAX_V2_BLOCK;

/// The most bytes of a [unique id](super::Tlvs::unique_id).
pub const MAX_UNIQUE_ID: usize = 128;

/// The shortest line: `PROXY UNKNOWN` and its end.
pub(super) const MIN_V1_LINE: usize = 15;

/// Signature, version and command, family and transport, length of the block behind.
pub(super) const V2_FIXED_LEN: usize = 16;

/// How many bytes both begin with.
pub(super) fn common_prefix_len(bytes: &[u8], signature: &[u8]) -> usize {
    bytes.iter().zip(signature).take_while(|(a, b)| a == b).count()
}
