//! Why bytes are no ClientHello.

use thiserror::Error;

use super::host_name::HostNameError;
use super::limits::{MAX_CLIENT_HELLO, MAX_HELLO_RECORDS, MAX_RECORD_LEN};

/// Why bytes are no hello that can be read.
///
/// No further byte can make them one. What to do is the caller's policy: end the connection, or
/// treat it as one without a name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SniError {
    /// The first bytes are not those of TLS.
    #[error("not TLS: byte {offset} is {found:#04x}")]
    NotTls {
        /// The byte that does not fit.
        offset: usize,
        /// What it is.
        found: u8,
    },
    /// A hello of SSL 2.0, which carries no name and which nobody may accept (RFC 6176).
    #[error("an SSL 2.0 hello carries no name")]
    SslV2,
    /// The hello is interrupted by a record of another kind.
    #[error("record of type {content_type} within the hello")]
    Interrupted {
        /// The type of the record.
        content_type: u8,
    },
    /// A record is empty, which records of a handshake must not be (RFC 8446 section 5.1).
    #[error("empty record within the hello")]
    EmptyRecord,
    /// A record is longer than TLS allows.
    #[error("record of {len} bytes, of which TLS allows {MAX_RECORD_LEN}")]
    LongRecord {
        /// The length it announces.
        len: usize,
    },
    /// The hello comes in more pieces than are put together.
    #[error("hello in more than {MAX_HELLO_RECORDS} records")]
    TooManyRecords,
    /// The first message of the handshake is another one.
    #[error("handshake begins with message {message}, not with a ClientHello")]
    NotHello {
        /// The type of the message.
        message: u8,
    },
    /// The hello is longer than is read.
    #[error("hello of {len} bytes, of which at most {MAX_CLIENT_HELLO} are read")]
    TooLong {
        /// The length it announces, with its header.
        len: usize,
    },
    /// A part of the hello does not have the form it must have.
    #[error("malformed {part} in the ClientHello")]
    Malformed {
        /// The part, as the RFCs name it.
        part: &'static str,
    },
    /// The name that the client asks for is no name of a host.
    #[error("client asks for an impossible name")]
    Name(#[from] HostNameError),
}
