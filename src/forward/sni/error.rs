//! Errors of parsing a ClientHello.

use thiserror::Error;

use super::host_name::HostNameError;
use super::limits::{MAX_CLIENT_HELLO, MAX_HELLO_RECORDS, MAX_RECORD_LEN};

/// The reason why bytes are not a valid ClientHello.
///
/// More bytes cannot make the ClientHello valid. The caller chooses the policy: close the
/// connection, or treat it as a connection without a server name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SniError {
    /// The first bytes are not those of TLS.
    #[error("not TLS: byte {offset} is {found:#04x}")]
    NotTls {
        /// The first byte that is not TLS.
        offset: usize,
        /// The value of this byte.
        found: u8,
    },
    /// An SSL 2.0 ClientHello, which has no server name and must not be accepted (RFC 6176).
    #[error("SSL 2.0 ClientHello, which has no server name")]
    SslV2,
    /// A record of another content type interrupts the ClientHello.
    #[error("TLS record of type {content_type} interrupts the ClientHello")]
    Interrupted {
        /// The content type of the record.
        content_type: u8,
    },
    /// A handshake record is empty, which RFC 8446 section 5.1 forbids.
    #[error("empty TLS record within the ClientHello")]
    EmptyRecord,
    /// A record is longer than TLS allows.
    #[error("TLS record of {len} bytes; TLS allows {MAX_RECORD_LEN}")]
    LongRecord {
        /// The announced length.
        len: usize,
    },
    /// The ClientHello spans more than [`MAX_HELLO_RECORDS`] records.
    #[error("ClientHello spans more than {MAX_HELLO_RECORDS} TLS records")]
    TooManyRecords,
    /// The first handshake message is not a ClientHello.
    #[error("TLS handshake begins with message type {message} instead of a ClientHello")]
    NotHello {
        /// The type of the message.
        message: u8,
    },
    /// The announced length exceeds [`MAX_CLIENT_HELLO`].
    #[error("ClientHello of {len} bytes; the maximum is {MAX_CLIENT_HELLO}")]
    TooLong {
        /// The announced length, including the handshake header.
        len: usize,
    },
    /// A part of the ClientHello is malformed.
    #[error("malformed {part} in the ClientHello")]
    Malformed {
        /// The name of the part in the RFCs.
        part: &'static str,
    },
    /// The requested server name is not a valid host name.
    #[error("ClientHello requests an invalid server name: {0}")]
    Name(#[from] HostNameError),
}
