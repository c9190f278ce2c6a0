//! Reassembly of a ClientHello from the TLS records received so far.

use super::client_hello::ClientHello;
use super::error::SniError;
use super::limits::{
    HANDSHAKE_HEADER_LEN, MAX_CLIENT_HELLO, MAX_HELLO_RECORDS, MAX_RECORD_LEN, MIN_CLIENT_HELLO,
    RECORD_HEADER_LEN,
};

/// The result of parsing a ClientHello.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PeekedHello {
    /// The bytes are a valid prefix of a ClientHello: more bytes are needed.
    Incomplete {
        /// The minimum number of missing bytes; never 0, and never more than the ClientHello has.
        at_least: usize,
    },
    /// The ClientHello is complete.
    Hello(ClientHello),
}

/// Parses the ClientHello at the start of the bytes of a connection.
///
/// While the result is [`PeekedHello::Incomplete`], call again with all bytes received so far.
/// Bytes after the ClientHello are not inspected. An incomplete ClientHello costs a check of each
/// record header; a complete one costs one pass and two small allocations, and a copy if it spans
/// several records.
///
/// # Errors
/// [`SniError`] as soon as no more bytes can make a ClientHello. Protocols other than TLS are
/// mostly rejected by their first byte.
pub fn peek(bytes: &[u8]) -> Result<PeekedHello, SniError> {
    check_first_bytes(bytes)?;
    let mut fragments = HelloFragments::default();
    let mut rest = bytes;
    for _ in 0..MAX_HELLO_RECORDS {
        let (fragment, len) = match split_record(rest, fragments.received > 0)? {
            RecordStart::Fragment { received, len } => (received, len),
            RecordStart::HeaderMissing { bytes } => {
                return Ok(PeekedHello::Incomplete { at_least: bytes + fragments.missing() });
            }
        };
        fragments.push(fragment)?;
        let missing = fragments.missing();
        if missing == 0 {
            return fragments.parse().map(PeekedHello::Hello);
        }
        let missing_in_record = len - fragment.len();
        if missing_in_record > 0 {
            let headers = if missing > missing_in_record { RECORD_HEADER_LEN } else { 0 };
            return Ok(PeekedHello::Incomplete { at_least: missing + headers });
        }
        rest = &rest[RECORD_HEADER_LEN + len..];
    }
    Err(SniError::TooManyRecords)
}

/// The content type of a handshake record.
const HANDSHAKE_CONTENT_TYPE: u8 = 22;

/// Rejects protocols other than TLS by their first bytes.
fn check_first_bytes(bytes: &[u8]) -> Result<(), SniError> {
    match *bytes {
        [] | [HANDSHAKE_CONTENT_TYPE] | [HANDSHAKE_CONTENT_TYPE, 3, ..] => Ok(()),
        [HANDSHAKE_CONTENT_TYPE, found, ..] => Err(SniError::NotTls { offset: 1, found }),
        // SSL 2.0: two bytes of length with the highest bit set, then message type CLIENT-HELLO.
        [0x80..=0xff, _, 1, ..] => Err(SniError::SslV2),
        [found, ..] => Err(SniError::NotTls { offset: 0, found }),
    }
}

/// The received part of a record.
enum RecordStart<'a> {
    Fragment {
        received: &'a [u8],
        /// The announced length of the fragment.
        len: usize,
    },
    HeaderMissing {
        /// The number of missing bytes of the record header.
        bytes: usize,
    },
}

/// Splits off the received part of the first record.
fn split_record(bytes: &[u8], is_later: bool) -> Result<RecordStart<'_>, SniError> {
    // RFC 8446: the legacy version is "to be ignored for all purposes". `check_first_bytes` uses
    // that of the first record only to recognise TLS.
    match *bytes {
        [content_type, ..] if is_later && content_type != HANDSHAKE_CONTENT_TYPE => {
            Err(SniError::Interrupted { content_type })
        }
        [_, _, _, high, low, ref fragment @ ..] => {
            match usize::from(u16::from_be_bytes([high, low])) {
                0 => Err(SniError::EmptyRecord),
                len if len > MAX_RECORD_LEN => Err(SniError::LongRecord { len }),
                len => Ok(RecordStart::Fragment {
                    received: &fragment[..len.min(fragment.len())],
                    len,
                }),
            }
        }
        _ => Ok(RecordStart::HeaderMissing { bytes: RECORD_HEADER_LEN - bytes.len() }),
    }
}

/// The received part of a ClientHello.
#[derive(Default)]
struct HelloFragments<'a> {
    /// The fragment in the first record, usually the whole ClientHello.
    first: &'a [u8],
    /// All fragments, if there are several.
    joined: Vec<u8>,
    received: usize,
    /// The length of the ClientHello with its header, once known.
    hello_len: Option<usize>,
}

impl<'a> HelloFragments<'a> {
    fn push(&mut self, fragment: &'a [u8]) -> Result<(), SniError> {
        if self.received == 0 {
            self.first = fragment;
        } else {
            if self.joined.is_empty() {
                self.joined.extend_from_slice(self.first);
            }
            self.joined.extend_from_slice(fragment);
        }
        self.received += fragment.len();
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

    /// Returns how many bytes of the ClientHello are missing at least.
    fn missing(&self) -> usize {
        self.hello_len.unwrap_or(MIN_CLIENT_HELLO).saturating_sub(self.received)
    }

    fn parse(&self) -> Result<ClientHello, SniError> {
        let end = self.hello_len.unwrap_or_default();
        ClientHello::parse(self.bytes().get(HANDSHAKE_HEADER_LEN..end).unwrap_or_default())
    }
}
