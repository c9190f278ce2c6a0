//! The ClientHello message (RFC 8446 section 4.1.2).

use std::fmt;

use super::error::SniError;
use super::host_name;

/// The server name and the application protocols that a TLS client requests.
#[derive(Clone, Eq, PartialEq)]
pub struct ClientHello {
    server_name: Option<Box<str>>,
    /// The ProtocolNameList of RFC 7301, without its length.
    alpn: Box<[u8]>,
}

impl ClientHello {
    /// Returns the requested server name, if there is one.
    ///
    /// In lower case, without a trailing dot, at most 253 bytes in labels of at most 63 ASCII
    /// letters, digits, hyphens and underscores: an internationalised name is in its ASCII form.
    /// Never an IP address (RFC 6066 section 3). With ECH the outer name.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Iterates over the application protocols of the client, the preferred protocol first (RFC
    /// 7301 section 3.1), such as `h2` and `http/1.1`. No protocol name is empty.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut list = ClientHelloReader { rest: &self.alpn };
        std::iter::from_fn(move || list.read_vector_8("").ok())
    }

    /// Parses a ClientHello without its handshake header.
    pub(super) fn parse(body: &[u8]) -> Result<Self, SniError> {
        let mut body = ClientHelloReader { rest: body };
        body.read_bytes(2, "legacy_version")?;
        body.read_bytes(32, "random")?;
        // What is in these is for the server to judge: the name does not depend on it.
        body.read_vector_8("legacy_session_id")?;
        body.read_vector_16("cipher_suites")?;
        body.read_vector_8("legacy_compression_methods")?;
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
            let is_duplicate = match kind {
                SERVER_NAME_EXTENSION => names.replace(data).is_some(),
                ALPN_EXTENSION => protocols.replace(data).is_some(),
                _ => false,
            };
            ensure_well_formed(!is_duplicate, "extensions")?;
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

const SERVER_NAME_EXTENSION: u16 = 0;
const ALPN_EXTENSION: u16 = 16;

/// Parses a ServerNameList and returns the host name in it (RFC 6066 section 3).
fn parse_server_name_list(data: &[u8]) -> Result<Option<Box<str>>, SniError> {
    const PART: &str = "server_name";
    let mut data = ClientHelloReader { rest: data };
    let mut list = ClientHelloReader { rest: data.read_vector_16(PART)? };
    ensure_well_formed(data.rest.is_empty() && !list.rest.is_empty(), PART)?;
    let mut host = None;
    while !list.rest.is_empty() {
        let kind = list.read_bytes(1, PART)?;
        // RFC 6066: future name types also begin with two bytes of length.
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

/// Validates a ProtocolNameList (RFC 7301 section 3.1).
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

fn ensure_well_formed(is_valid: bool, part: &'static str) -> Result<(), SniError> {
    if is_valid { Ok(()) } else { Err(SniError::Malformed { part }) }
}

/// A reader of the structures that the presentation language of RFC 8446 section 3 defines.
#[derive(Clone)]
struct ClientHelloReader<'a> {
    rest: &'a [u8],
}

impl<'a> ClientHelloReader<'a> {
    fn read_bytes(&mut self, len: usize, part: &'static str) -> Result<&'a [u8], SniError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(SniError::Malformed { part })?;
        self.rest = rest;
        Ok(bytes)
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
        let alpn: Vec<_> =
            self.alpn().map(|protocol| protocol.escape_ascii().to_string()).collect();
        f.debug_struct("ClientHello")
            .field("server_name", &self.server_name)
            .field("alpn", &alpn)
            .finish()
    }
}
