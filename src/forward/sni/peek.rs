//! The ClientHello out of the records that have arrived.

use super::client_hello::ClientHello;
use super::error::SniError;
use super::limits::{
    HANDSHAKE_HEADER_LEN, MAX_CLIENT_HELLO, MAX_HELLO_RECORDS, MAX_RECORD_LEN, MIN_CLIENT_HELLO,
    RECORD_HEADER_LEN,
};

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
        self.hello_len.unwrap_or(MIN_CLIENT_HELLO).saturating_sub(self.received)
    }

    fn parse(&self) -> Result<ClientHello, SniError> {
        let end = self.hello_len.unwrap_or_default();
        ClientHello::parse(self.bytes().get(HANDSHAKE_HEADER_LEN..end).unwrap_or_default())
    }
}
