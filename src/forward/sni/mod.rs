//! Which name a TLS client asks for, read without ending its TLS.
//!
//! A TLS client says in its first message, the ClientHello, which server it wants (SNI, RFC 6066
//! section 3) and which protocols it would speak (ALPN, RFC 7301). Both are readable before any key
//! is agreed. [`peek`] reads them from the bytes that have arrived, so that a forwarder can choose
//! a service by [`ServerNameTable`] or hash the name, and then pass on the very same bytes.
//!
//! # What it is not
//! Nothing is proven by the name: a client can ask for any. A client that uses Encrypted Client
//! Hello (ECH) shows the outer name only, which is that of the provider in front and the same for
//! all services behind it. That a hello can be read does not mean that it is a good one: only what
//! is asked for here is checked.
//!
//! # Bounds
//! A hello has at most [`MAX_CLIENT_HELLO`] bytes and comes in at most [`MAX_HELLO_RECORDS`] records: a buffer of
//! [`MAX_PEEK_BYTES`] bytes holds any. How long a client may take is for the caller to say.
//!
//! # Examples
//! ```
//! use lvs::forward::sni::{ServerNameTable, PeekedHello, peek};
//!
//! let services = ServerNameTable::new()
//!     .with("shop.example.org", "shop")?
//!     .with("*.example.org", "web")?
//!     .or("sorry");
//!
//! # fn example(services: ServerNameTable<&str>, arrived: &[u8]) -> Result<(), lvs::forward::sni::SniError> {
//! match peek(arrived)? {
//!     PeekedHello::Incomplete { at_least } => println!("{at_least} bytes or more to come"),
//!     PeekedHello::Hello(hello) => println!("goes to {:?}", services.get(hello.server_name())),
//!     _ => {}
//! }
//! # Ok(())
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod client_hello;
mod host_name;
mod server_name_table;

#[cfg(all(test, not(lvs_loom)))]
mod tests;

use thiserror::Error;

pub use self::client_hello::ClientHello;
pub use self::host_name::HostNameError;
pub use self::server_name_table::{MAX_SERVER_NAMES, ServerNameTable, ServerNameTableError};

/// The longest hello that is read, with the 4 bytes of its handshake header.
///
/// Those of browsers have up to some 2 KiB, most of it post-quantum key shares.
pub const MAX_CLIENT_HELLO: usize = 16_384;

/// The most records that a hello may come in. Most come in one.
pub const MAX_HELLO_RECORDS: usize = 64;

/// The most bytes that it takes to read any hello.
pub const MAX_PEEK_BYTES: usize = MAX_CLIENT_HELLO + MAX_HELLO_RECORDS * RECORD_HEADER_LEN;

/// Content type, legacy version, length (RFC 8446 section 5.1).
const RECORD_HEADER_LEN: usize = 5;

/// Message type, length (RFC 8446 section 4).
const HANDSHAKE_HEADER_LEN: usize = 4;

/// The longest plaintext in a record (RFC 8446 section 5.1).
const MAX_RECORD_LEN: usize = 1 << 14;

/// What has become of reading a hello.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PeekedHello {
    /// The bytes are the beginning of a hello: more must come.
    Incomplete {
        /// How many more at the least; never 0, and never more than there can be.
        at_least: usize,
    },
    /// The hello is there.
    Hello(ClientHello),
}

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

/// Reads the hello that the bytes of a connection begin with.
///
/// To be called again from the beginning with more bytes while the answer is [`PeekedHello::Incomplete`];
/// bytes behind the hello are not looked at. Costs a look at each record while it is incomplete,
/// and then one pass and two small allocations; a hello in several records is copied together once.
///
/// # Errors
/// [`SniError`] as soon as the bytes cannot become a hello any more. What is not TLS is mostly known
/// by its first byte.
pub fn peek(bytes: &[u8]) -> Result<PeekedHello, SniError> {
    check_first_bytes(bytes)?;
    let mut pieces = HelloFragments::default();
    let mut rest = bytes;
    for _ in 0..MAX_HELLO_RECORDS {
        let (available, len) = match split_record(rest, pieces.received > 0)? {
            Ok(record) => record,
            Err(header) => {
                return Ok(PeekedHello::Incomplete { at_least: header + pieces.missing() });
            }
        };
        pieces.push(available)?;
        let missing = pieces.missing();
        if missing == 0 {
            return pieces.parse().map(PeekedHello::Hello);
        }
        let to_come = len - available.len();
        if to_come > 0 {
            let headers = if missing > to_come { RECORD_HEADER_LEN } else { 0 };
            return Ok(PeekedHello::Incomplete { at_least: missing + headers });
        }
        rest = &rest[RECORD_HEADER_LEN + len..];
    }
    Err(SniError::TooManyRecords)
}

/// Content type of a record with a piece of a handshake.
const HANDSHAKE_CONTENT_TYPE: u8 = 22;

/// Tells what is not TLS from its first bytes.
fn check_first_bytes(bytes: &[u8]) -> Result<(), SniError> {
    match *bytes {
        [] | [HANDSHAKE_CONTENT_TYPE] | [HANDSHAKE_CONTENT_TYPE, 3, ..] => Ok(()),
        [HANDSHAKE_CONTENT_TYPE, found, ..] => Err(SniError::NotTls { offset: 1, found }),
        // Two bytes of length with the highest bit set, then message CLIENT-HELLO.
        [0x80..=0xff, _, 1, ..] => Err(SniError::SslV2),
        [found, ..] => Err(SniError::NotTls { offset: 0, found }),
    }
}

/// Splits off what has arrived of a record and tells its length, or else how many bytes are missing
/// of its header.
fn split_record(bytes: &[u8], is_later: bool) -> Result<Result<(&[u8], usize), usize>, SniError> {
    // The legacy version is "to be ignored for all purposes"; that of the first record only told
    // TLS from other protocols.
    match *bytes {
        [content_type, ..] if is_later && content_type != HANDSHAKE_CONTENT_TYPE => {
            Err(SniError::Interrupted { content_type })
        }
        [_, _, _, high, low, ref fragment @ ..] => {
            match usize::from(u16::from_be_bytes([high, low])) {
                0 => Err(SniError::EmptyRecord),
                len if len > MAX_RECORD_LEN => Err(SniError::LongRecord { len }),
                len => Ok(Ok((&fragment[..len.min(fragment.len())], len))),
            }
        }
        _ => Ok(Err(RECORD_HEADER_LEN - bytes.len())),
    }
}

/// What has arrived of a hello.
#[derive(Default)]
struct HelloFragments<'a> {
    /// The first piece, which most often is the whole.
    first: &'a [u8],
    /// All of them, where there are several.
    joined: Vec<u8>,
    received: usize,
    /// The length of the hello with its header, once known.
    hello_len: Option<usize>,
}

impl<'a> HelloFragments<'a> {
    fn push(&mut self, piece: &'a [u8]) -> Result<(), SniError> {
        if self.received == 0 {
            self.first = piece;
        } else {
            if self.joined.is_empty() {
                self.joined.extend_from_slice(self.first);
            }
            self.joined.extend_from_slice(piece);
        }
        self.received += piece.len();
        if let Some(&message) = self.bytes().first()
            && message != 1
        {
            return Err(SniError::NotHello { message });
        }
        if let Some(&[_, a, b, c]) = self.bytes().first_chunk::<HANDSHAKE_HEADER_LEN>() {
            let body = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let len = HANDSHAKE_HEADER_LEN + body;
            if len > MAX_CLIENT_HELLO {
                return Err(SniError::TooLong { len });
            }
            self.hello_len = Some(len);
        }
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        if self.joined.is_empty() { self.first } else { &self.joined }
    }

    /// How many bytes of the hello are missing, of those that are known to come.
    fn missing(&self) -> usize {
        self.hello_len.unwrap_or(client_hello::MIN_CLIENT_HELLO).saturating_sub(self.received)
    }

    fn parse(&self) -> Result<ClientHello, SniError> {
        let end = self.hello_len.unwrap_or_default();
        ClientHello::parse(self.bytes().get(HANDSHAKE_HEADER_LEN..end).unwrap_or_default())
    }
}
