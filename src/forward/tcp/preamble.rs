//! What comes before the first byte that is carried: a PROXY header or a ClientHello from the
//! client, a PROXY header to the backend.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::establish::ClientInfo;
use super::stream::ResetOnDrop;
use crate::Balancer;
use crate::forward::counters::RefusalReason;
use crate::forward::proxy_protocol::{self, ParsedProxyHeader, ProxyHeader, ProxyProtocolVersion};
use crate::forward::sni::{self, PeekedHello, ServerNameTable};
use crate::scheduler::Rng;

/// How to send a PROXY header to backends.
///
/// # Examples
/// ```
/// use lvs::forward::ProxyHeaderOptions;
///
/// let plain = ProxyHeaderOptions::v1();
/// let rich = ProxyHeaderOptions::v2().unique_id().checksum();
/// # let _ = (plain, rich);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct ProxyHeaderOptions {
    version: ProxyProtocolVersion,
    unique_id: bool,
    checksum: bool,
}

impl ProxyHeaderOptions {
    /// A line of text with the addresses.
    pub const fn v1() -> Self {
        Self { version: ProxyProtocolVersion::V1, unique_id: false, checksum: false }
    }

    /// The binary form. It passes on the TLVs of a header that the client sent, and names the server
    /// that the client asked for where its ClientHello was read.
    pub const fn v2() -> Self {
        Self { version: ProxyProtocolVersion::V2, unique_id: false, checksum: false }
    }

    /// Adds 16 random bytes that name the connection, unless the client's header has named it. Not
    /// in version 1.
    pub const fn unique_id(self) -> Self {
        Self { unique_id: true, ..self }
    }

    /// Adds a checksum (CRC32c). Not in version 1.
    pub const fn checksum(self) -> Self {
        Self { checksum: true, ..self }
    }
}

/// What is expected of a client before it is served.
#[derive(Debug, Default)]
pub(super) struct PreambleConfig {
    /// A PROXY header, within this time.
    pub(super) proxy_header_timeout: Option<Duration>,
    /// A ClientHello, within this time.
    pub(super) client_hello_timeout: Option<Duration>,
    /// Is the server's name the key of the flow?
    pub(super) key_by_server_name: bool,
    pub(super) services: Option<ServerNameTable<Balancer<SocketAddr>>>,
    pub(super) send_proxy: Option<ProxyHeaderOptions>,
}

/// What a client said first.
#[derive(Debug, Default)]
pub(super) struct ParsedPreamble {
    proxy_header: Option<ProxyHeader>,
    server_name: Option<Box<str>>,
    alpn: Option<Box<[u8]>>,
    /// Read already, and still to be carried.
    pub(super) initial_bytes: Vec<u8>,
}

impl PreambleConfig {
    /// Reads what the client must say first.
    pub(super) async fn read(&self, client: &ResetOnDrop) -> Result<ParsedPreamble, RefusalReason> {
        let mut said = ParsedPreamble::default();
        if let Some(within) = self.proxy_header_timeout {
            let until = Instant::now() + within;
            let header = read_until_parsed(client, &mut said.initial_bytes, until, |bytes| {
                proxy_protocol::parse(bytes).map(|parsed| match parsed {
                    ParsedProxyHeader::Incomplete { at_least } => Err(at_least),
                    ParsedProxyHeader::Complete { header, len } => Ok((header, len)),
                })
            });
            let (header, len) = header.await?;
            said.proxy_header = Some(header);
            said.initial_bytes.drain(..len);
        }
        if let Some(within) = self.client_hello_timeout {
            let until = Instant::now() + within;
            let hello = read_until_parsed(client, &mut said.initial_bytes, until, |bytes| {
                sni::peek(bytes).map(|peek| match peek {
                    PeekedHello::Incomplete { at_least } => Err(at_least),
                    PeekedHello::Hello(hello) => Ok(hello),
                })
            });
            let hello = hello.await?;
            said.server_name = hello.server_name().map(Into::into);
            said.alpn = hello.alpn().next().map(Into::into);
        }
        Ok(said)
    }

    /// The service that the client asked for; the forwarder's own where names choose none.
    pub(super) fn select_service<'a>(
        &'a self,
        said: &ParsedPreamble,
        own: &'a Balancer<SocketAddr>,
    ) -> Result<&'a Balancer<SocketAddr>, RefusalReason> {
        match &self.services {
            None => Ok(own),
            Some(names) => names.get(said.server_name.as_deref()).ok_or(RefusalReason::NoService),
        }
    }

    /// The key of the flow, where it is not the client's address.
    pub(super) fn flow_key(&self, said: &ParsedPreamble) -> Option<u64> {
        let name = said.server_name.as_ref().filter(|_| self.key_by_server_name)?;
        crate::Flow::new().key_bytes(name.as_bytes()).view().key()
    }

    /// Puts the header for the backend in front of what is carried.
    pub(super) fn write_proxy_header(&self, said: &mut ParsedPreamble, asker: ClientInfo) {
        let Some(out) = self.send_proxy else { return };
        let header = said.header_for_backend(out, asker);
        let mut bytes = Vec::new();
        match header.encode(out.version, &mut bytes) {
            Ok(()) => {
                bytes.append(&mut said.initial_bytes);
                said.initial_bytes = bytes;
            }
            // What the client's header had was too much: the addresses alone always fit.
            Err(error) => {
                debug!(%error, "the client's TLVs are not passed on");
                asker.to_proxy_header().encode_v1(&mut bytes);
                bytes.append(&mut said.initial_bytes);
                said.initial_bytes = bytes;
            }
        }
    }
}

impl ParsedPreamble {
    /// The client that a PROXY header has named.
    pub(super) fn proxied_client(&self) -> Option<SocketAddr> {
        self.proxy_header.as_ref().and_then(ProxyHeader::source)
    }

    fn header_for_backend(&self, out: ProxyHeaderOptions, asker: ClientInfo) -> ProxyHeader {
        let mut header = asker.to_proxy_header();
        let received = self.proxy_header.as_ref().map(ProxyHeader::tlvs);
        for tlv in received.into_iter().flat_map(|tlvs| tlvs.iter()) {
            header = header.clone().with_tlv(tlv.kind, tlv.value).unwrap_or(header);
        }
        if header.tlvs().authority().is_none()
            && let Some(name) = &self.server_name
        {
            header = header.clone().with_authority(name).unwrap_or(header);
        }
        if header.tlvs().alpn().is_none()
            && let Some(alpn) = &self.alpn
        {
            header = header.clone().with_alpn(alpn).unwrap_or(header);
        }
        if out.unique_id && header.tlvs().unique_id().is_none() {
            let mut rng = Rng::from_entropy();
            let id = [rng.next_u64(), rng.next_u64()].map(u64::to_be_bytes).concat();
            header = header.clone().with_unique_id(&id).unwrap_or(header);
        }
        if out.checksum { header.with_checksum() } else { header }
    }
}

impl ClientInfo {
    fn to_proxy_header(self) -> ProxyHeader {
        match self.client.zip(self.local) {
            Some((client, local)) => ProxyHeader::proxied(client, local),
            None => ProxyHeader::unknown(),
        }
    }
}

/// Reads until `parse` has what it wants; its `Err` inside says how many bytes are missing.
async fn read_until_parsed<R, E: std::fmt::Display>(
    client: &ResetOnDrop,
    bytes: &mut Vec<u8>,
    until: Instant,
    mut parse: impl FnMut(&[u8]) -> Result<Result<R, usize>, E>,
) -> Result<R, RefusalReason> {
    loop {
        match parse(bytes) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(_missing)) => {}
            Err(error) => {
                debug!(%error, "the client's first bytes are not what they must be");
                return Err(RefusalReason::BadPreamble);
            }
        }
        let before = bytes.len();
        bytes.resize(before + READ_CHUNK_SIZE, 0);
        let read = poll_fn(|cx| client.poll_recv(cx, &mut bytes[before..]));
        match timeout_at(until, read).await {
            Err(_) => return Err(RefusalReason::PreambleTimeout),
            Ok(Ok(count @ 1..)) => bytes.truncate(before + count),
            Ok(Ok(0) | Err(_)) => return Err(RefusalReason::ClientLeft),
        }
    }
}

/// What comes first fits into one of these, nearly always.
const READ_CHUNK_SIZE: usize = 2048;
