//! The ClientHello itself (RFC 8446 section 4.1.2).

use std::fmt;

use super::{HANDSHAKE_HEADER, SniError, name};

/// The shortest hello, with its header: version, random, and the least of session id, cipher suites
/// and compression methods. Extensions may be left out before TLS 1.3.
pub(super) const SHORTEST: usize = HANDSHAKE_HEADER + 2 + 32 + 1 + 4 + 2;

/// What a TLS client asks for.
#[derive(Clone, Eq, PartialEq)]
pub struct ClientHello {
    server_name: Option<Box<str>>,
    /// The list as RFC 7301 writes it, without its length.
    alpn: Box<[u8]>,
}

impl ClientHello {
    /// The name of the server that the client wants, if it says so.
    ///
    /// In lower case, without a trailing dot, at most 253 bytes in labels of at most 63 ASCII
    /// letters, digits, hyphens and underscores: an internationalised name is in its ASCII form.
    /// Never an IP address (RFC 6066 section 3). With ECH it is the outer name.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The protocols that the client would speak, the one it likes best first (RFC 7301 section
    /// 3.1): `h2`, `http/1.1`, and whatever else it sends; none of them is empty.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut list = Reader { rest: &self.alpn };
        std::iter::from_fn(move || list.vector_8("").ok())
    }

    /// Reads a hello without its header.
    pub(super) fn read(body: &[u8]) -> Result<Self, SniError> {
        let mut body = Reader { rest: body };
        body.take(2, "legacy_version")?;
        body.take(32, "random")?;
        expect(body.vector_8("legacy_session_id")?.len() <= 32, "legacy_session_id")?;
        let suites = body.vector_16("cipher_suites")?;
        expect(suites.len() >= 2 && suites.len().is_multiple_of(2), "cipher_suites")?;
        expect(!body.vector_8("legacy_compression_methods")?.is_empty(), COMPRESSION)?;
        let mut hello = Self { server_name: None, alpn: Box::default() };
        if body.rest.is_empty() {
            return Ok(hello);
        }
        let mut extensions = Reader { rest: body.vector_16("extensions")? };
        expect(body.rest.is_empty(), "extensions")?;
        let (mut names, mut protocols) = (None, None);
        while !extensions.rest.is_empty() {
            let kind = extensions.u16("extension_type")?;
            let data = extensions.vector_16("extension_data")?;
            let twice = match kind {
                SERVER_NAME => names.replace(data).is_some(),
                ALPN => protocols.replace(data).is_some(),
                _ => false,
            };
            expect(!twice, "extensions")?;
        }
        if let Some(data) = names {
            hello.server_name = read_names(data)?;
        }
        if let Some(data) = protocols {
            hello.alpn = read_protocols(data)?.into();
        }
        Ok(hello)
    }
}

const COMPRESSION: &str = "legacy_compression_methods";
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Finds the host's name in a ServerNameList (RFC 6066 section 3).
fn read_names(data: &[u8]) -> Result<Option<Box<str>>, SniError> {
    const PART: &str = "server_name";
    let mut data = Reader { rest: data };
    let mut list = Reader { rest: data.vector_16(PART)? };
    expect(data.rest.is_empty() && !list.rest.is_empty(), PART)?;
    let mut host = None;
    while !list.rest.is_empty() {
        let kind = list.take(1, PART)?;
        // Types to come begin with the same two bytes of length.
        let value = list.vector_16(PART)?;
        if kind == [0] {
            expect(host.replace(name::host(value)?).is_none(), PART)?;
        }
    }
    Ok(host)
}

/// Checks a ProtocolNameList (RFC 7301 section 3.1).
fn read_protocols(data: &[u8]) -> Result<&[u8], SniError> {
    const PART: &str = "application_layer_protocol_negotiation";
    let mut data = Reader { rest: data };
    let protocols = data.vector_16(PART)?;
    expect(data.rest.is_empty() && !protocols.is_empty(), PART)?;
    let mut list = Reader { rest: protocols };
    while !list.rest.is_empty() {
        expect(!list.vector_8(PART)?.is_empty(), PART)?;
    }
    Ok(protocols)
}

fn expect(holds: bool, part: &'static str) -> Result<(), SniError> {
    if holds { Ok(()) } else { Err(SniError::Malformed { part }) }
}

/// Takes parts off bytes, in the presentation language of RFC 8446 section 3.
#[derive(Clone)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, part: &'static str) -> Result<&'a [u8], SniError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SniError::Malformed { part })?;
        self.rest = rest;
        Ok(taken)
    }

    fn u16(&mut self, part: &'static str) -> Result<u16, SniError> {
        Ok(self.take(2, part)?.iter().fold(0, |number, &byte| number << 8 | u16::from(byte)))
    }

    fn vector_8(&mut self, part: &'static str) -> Result<&'a [u8], SniError> {
        let len = self.take(1, part)?.iter().map(|&byte| usize::from(byte)).sum();
        self.take(len, part)
    }

    fn vector_16(&mut self, part: &'static str) -> Result<&'a [u8], SniError> {
        let len = usize::from(self.u16(part)?);
        self.take(len, part)
    }
}

impl fmt::Debug for ClientHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alpn: Vec<_> = self.alpn().map(|it| it.escape_ascii().to_string()).collect();
        f.debug_struct("ClientHello")
            .field("server_name", &self.server_name)
            .field("alpn", &alpn)
            .finish()
    }
}
