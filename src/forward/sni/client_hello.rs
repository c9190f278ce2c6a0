//! The ClientHello itself (RFC 8446 section 4.1.2).

use std::fmt;

use super::error::SniError;
use super::host_name;

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
        let mut list = ClientHelloReader { rest: &self.alpn };
        std::iter::from_fn(move || list.read_vector_8("").ok())
    }

    /// Reads a hello without its header.
    pub(super) fn parse(body: &[u8]) -> Result<Self, SniError> {
        let mut body = ClientHelloReader { rest: body };
        body.read_bytes(2, "legacy_version")?;
        body.read_bytes(32, "random")?;
        ensure_well_formed(
            body.read_vector_8("legacy_session_id")?.len() <= 32,
            "legacy_session_id",
        )?;
        let suites = body.read_vector_16("cipher_suites")?;
        ensure_well_formed(suites.len() >= 2 && suites.len().is_multiple_of(2), "cipher_suites")?;
        ensure_well_formed(
            !body.read_vector_8("legacy_compression_methods")?.is_empty(),
            COMPRESSION_METHODS,
        )?;
        let mut hello = Self { server_name: None, alpn: Box::default() };
        if body.rest.is_empty() {
            return Ok(hello);
        }
        let mut extensions = ClientHelloReader { rest: body.read_vector_16("extensions")? };
        ensure_well_formed(body.rest.is_empty(), "extensions")?;
        let (mut names, mut protocols) = (None, None);
        while !extensions.rest.is_empty() {
            let kind = extensions.read_u16("extension_type")?;
            let data = extensions.read_vector_16("extension_data")?;
            let twice = match kind {
                SERVER_NAME_EXTENSION => names.replace(data).is_some(),
                ALPN_EXTENSION => protocols.replace(data).is_some(),
                _ => false,
            };
            ensure_well_formed(!twice, "extensions")?;
        }
        if let Some(data) = names {
            hello.server_name = parse_server_name_list(data)?;
        }
        if let Some(data) = protocols {
            hello.alpn = parse_alpn_list(data)?.into();
        }
        Ok(hello)
    }
}

const COMPRESSION_METHODS: &str = "legacy_compression_methods";
const SERVER_NAME_EXTENSION: u16 = 0;
const ALPN_EXTENSION: u16 = 16;

/// Finds the host's name in a ServerNameList (RFC 6066 section 3).
fn parse_server_name_list(data: &[u8]) -> Result<Option<Box<str>>, SniError> {
    const PART: &str = "server_name";
    let mut data = ClientHelloReader { rest: data };
    let mut list = ClientHelloReader { rest: data.read_vector_16(PART)? };
    ensure_well_formed(data.rest.is_empty() && !list.rest.is_empty(), PART)?;
    let mut host = None;
    while !list.rest.is_empty() {
        let kind = list.read_bytes(1, PART)?;
        // Types to come begin with the same two bytes of length.
        let value = list.read_vector_16(PART)?;
        if kind == [0] {
            ensure_well_formed(
                host.replace(host_name::normalize_host_name(value)?).is_none(),
                PART,
            )?;
        }
    }
    Ok(host)
}

/// Checks a ProtocolNameList (RFC 7301 section 3.1).
fn parse_alpn_list(data: &[u8]) -> Result<&[u8], SniError> {
    const PART: &str = "application_layer_protocol_negotiation";
    let mut data = ClientHelloReader { rest: data };
    let protocols = data.read_vector_16(PART)?;
    ensure_well_formed(data.rest.is_empty() && !protocols.is_empty(), PART)?;
    let mut list = ClientHelloReader { rest: protocols };
    while !list.rest.is_empty() {
        ensure_well_formed(!list.read_vector_8(PART)?.is_empty(), PART)?;
    }
    Ok(protocols)
}

fn ensure_well_formed(holds: bool, part: &'static str) -> Result<(), SniError> {
    if holds { Ok(()) } else { Err(SniError::Malformed { part }) }
}

/// Takes parts off bytes, in the presentation language of RFC 8446 section 3.
#[derive(Clone)]
struct ClientHelloReader<'a> {
    rest: &'a [u8],
}

impl<'a> ClientHelloReader<'a> {
    fn read_bytes(&mut self, len: usize, part: &'static str) -> Result<&'a [u8], SniError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SniError::Malformed { part })?;
        self.rest = rest;
        Ok(taken)
    }

    fn read_u16(&mut self, part: &'static str) -> Result<u16, SniError> {
        Ok(self.read_bytes(2, part)?.iter().fold(0, |number, &byte| number << 8 | u16::from(byte)))
    }

    fn read_vector_8(&mut self, part: &'static str) -> Result<&'a [u8], SniError> {
        let len = self.read_bytes(1, part)?.iter().map(|&byte| usize::from(byte)).sum();
        self.read_bytes(len, part)
    }

    fn read_vector_16(&mut self, part: &'static str) -> Result<&'a [u8], SniError> {
        let len = usize::from(self.read_u16(part)?);
        self.read_bytes(len, part)
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
