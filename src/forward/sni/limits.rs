//! Lengths of a ClientHello and its parts.

/// The maximum length of a ClientHello, including the 4 bytes of its handshake header.
///
/// Browsers send up to about 2 KiB, most of it post-quantum key shares.
pub const MAX_CLIENT_HELLO: usize = 16_384;

/// The maximum number of records that a ClientHello may span; usually one.
pub const MAX_HELLO_RECORDS: usize = 64;

/// The maximum number of bytes that [`peek()`](super::peek()) needs.
pub const MAX_PEEK_BYTES: usize = MAX_CLIENT_HELLO + MAX_HELLO_RECORDS * RECORD_HEADER_LEN;

/// The length of content type, legacy version and length (RFC 8446 section 5.1).
pub(super) const RECORD_HEADER_LEN: usize = 5;

/// The length of message type and length (RFC 8446 section 4).
pub(super) const HANDSHAKE_HEADER_LEN: usize = 4;

/// The maximum length of the plaintext in a record (RFC 8446 section 5.1).
pub(super) const MAX_RECORD_LEN: usize = 1 << 14;

/// The minimum length of a ClientHello, with its header: version, random, and empty lists of session
/// id, cipher suites and compression methods. Extensions are optional before TLS 1.3.
pub(super) const MIN_CLIENT_HELLO: usize = HANDSHAKE_HEADER_LEN + 2 + 32 + 1 + 2 + 1;
