//! How long a hello may be, and how long its parts are.

/// The longest hello that is read, with the 4 bytes of its handshake header.
///
/// Those of browsers have up to some 2 KiB, most of it post-quantum key shares.
pub const MAX_CLIENT_HELLO: usize = 16_384;

/// The most records that a hello may come in. Most come in one.
pub const MAX_HELLO_RECORDS: usize = 64;

/// The most bytes that it takes to read any hello.
pub const MAX_PEEK_BYTES: usize = MAX_CLIENT_HELLO + MAX_HELLO_RECORDS * RECORD_HEADER_LEN;

/// Content type, legacy version, length (RFC 8446 section 5.1).
pub(super) const RECORD_HEADER_LEN: usize = 5;

/// Message type, length (RFC 8446 section 4).
pub(super) const HANDSHAKE_HEADER_LEN: usize = 4;

/// The longest plaintext in a record (RFC 8446 section 5.1).
pub(super) const MAX_RECORD_LEN: usize = 1 << 14;

/// The shortest hello, with its header: version, random, and the least of session id, cipher suites
/// and compression methods. Extensions may be left out before TLS 1.3.
pub(super) const MIN_CLIENT_HELLO: usize = HANDSHAKE_HEADER_LEN + 2 + 32 + 1 + 4 + 2;
