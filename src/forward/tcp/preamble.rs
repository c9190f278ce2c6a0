//! What comes before the first byte that is carried: a PROXY header or a ClientHello from the
//! client, a PROXY header to the backend.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::establish::Asker;
use super::stream::Leg;
use crate::Balancer;
use crate::forward::counters::Refusal;
use crate::forward::proxy_protocol::{self, Header, Parsed, Version};
use crate::forward::sni::{self, Names, Peek};
use crate::scheduler::Rng;

/// How to send a PROXY header to backends.
///
/// # Examples
/// ```
/// use lvs::forward::ProxyOut;
///
/// let plain = ProxyOut::v1();
/// let rich = ProxyOut::v2().with_unique_id().with_checksum();
/// # let _ = (plain, rich);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct ProxyOut {
    version: Version,
    unique_id: bool,
    checksum: bool,
}

impl ProxyOut {
    /// A line of text with the addresses.
    pub const fn v1() -> Self {
        Self { version: Version::V1, unique_id: false, checksum: false }
    }

    /// The binary form. It passes on the TLVs of a header that the client sent, and names the server
    /// that the client asked for where its ClientHello was read.
    pub const fn v2() -> Self {
        Self { version: Version::V2, unique_id: false, checksum: false }
    }

    /// Adds 16 random bytes that name the connection, unless the client's header has named it. Not
    /// in version 1.
    pub const fn with_unique_id(self) -> Self {
        Self { unique_id: true, ..self }
    }

    /// Adds a checksum (CRC32c). Not in version 1.
    pub const fn with_checksum(self) -> Self {
        Self { checksum: true, ..self }
    }
}

/// What is expected of a client before it is served.
#[derive(Debug, Default)]
pub(super) struct Preamble {
    /// A PROXY header, within this time.
    pub(super) proxy: Option<Duration>,
    /// A ClientHello, within this time.
    pub(super) hello: Option<Duration>,
    /// Is the server's name the key of the flow?
    pub(super) key_by_name: bool,
    pub(super) services: Option<Names<Balancer<SocketAddr>>>,
    pub(super) send: Option<ProxyOut>,
}

/// What a client said first.
#[derive(Debug, Default)]
pub(super) struct Said {
    header: Option<Header>,
    server_name: Option<Box<str>>,
    alpn: Option<Box<[u8]>>,
    /// Read already, and still to be carried.
    pub(super) bytes: Vec<u8>,
}

impl Preamble {
    /// Reads what the client must say first.
    pub(super) async fn hear(&self, client: &Leg) -> Result<Said, Refusal> {
        let mut said = Said::default();
        if let Some(within) = self.proxy {
            let until = Instant::now() + within;
            let header = collect(client, &mut said.bytes, until, |bytes| {
                proxy_protocol::parse(bytes).map(|parsed| match parsed {
                    Parsed::Incomplete { at_least } => Err(at_least),
                    Parsed::Complete { header, len } => Ok((header, len)),
                })
            });
            let (header, len) = header.await?;
            said.header = Some(header);
            said.bytes.drain(..len);
        }
        if let Some(within) = self.hello {
            let until = Instant::now() + within;
            let hello = collect(client, &mut said.bytes, until, |bytes| {
                sni::peek(bytes).map(|peek| match peek {
                    Peek::Incomplete { at_least } => Err(at_least),
                    Peek::Hello(hello) => Ok(hello),
                })
            });
            let hello = hello.await?;
            said.server_name = hello.server_name().map(Into::into);
            said.alpn = hello.alpn().next().map(Into::into);
        }
        Ok(said)
    }

    /// The service that the client asked for; the forwarder's own where names choose none.
    pub(super) fn service<'a>(
        &'a self,
        said: &Said,
        own: &'a Balancer<SocketAddr>,
    ) -> Result<&'a Balancer<SocketAddr>, Refusal> {
        match &self.services {
            None => Ok(own),
            Some(names) => names.get(said.server_name.as_deref()).ok_or(Refusal::NoService),
        }
    }

    /// The key of the flow, where it is not the client's address.
    pub(super) fn key(&self, said: &Said) -> Option<u64> {
        let name = said.server_name.as_ref().filter(|_| self.key_by_name)?;
        crate::Flow::new().key_bytes(name.as_bytes()).hash()
    }

    /// Puts the header for the backend in front of what is carried.
    pub(super) fn introduce(&self, said: &mut Said, asker: Asker) {
        let Some(out) = self.send else { return };
        let header = said.header_for_backend(out, asker);
        let mut bytes = Vec::new();
        match header.encode(out.version, &mut bytes) {
            Ok(()) => {
                bytes.append(&mut said.bytes);
                said.bytes = bytes;
            }
            // What the client's header had was too much: the addresses alone always fit.
            Err(error) => {
                debug!(%error, "the client's TLVs are not passed on");
                asker.header().encode_v1(&mut bytes);
                bytes.append(&mut said.bytes);
                said.bytes = bytes;
            }
        }
    }
}

impl Said {
    /// The client that a PROXY header has named.
    pub(super) fn client(&self) -> Option<SocketAddr> {
        self.header.as_ref().and_then(Header::source)
    }

    fn header_for_backend(&self, out: ProxyOut, asker: Asker) -> Header {
        let mut header = asker.header();
        let received = self.header.as_ref().map(Header::tlvs);
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

impl Asker {
    fn header(self) -> Header {
        match self.client.zip(self.local) {
            Some((client, local)) => Header::proxied(client, local),
            None => Header::unknown(),
        }
    }
}

/// Reads until `parse` has what it wants; its `Err` inside says how many bytes are missing.
async fn collect<R, E: std::fmt::Display>(
    client: &Leg,
    bytes: &mut Vec<u8>,
    until: Instant,
    mut parse: impl FnMut(&[u8]) -> Result<Result<R, usize>, E>,
) -> Result<R, Refusal> {
    loop {
        match parse(bytes) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(_missing)) => {}
            Err(error) => {
                debug!(%error, "the client's first bytes are not what they must be");
                return Err(Refusal::BadPreamble);
            }
        }
        let before = bytes.len();
        bytes.resize(before + PIECE, 0);
        let read = poll_fn(|cx| client.poll_recv(cx, &mut bytes[before..]));
        match timeout_at(until, read).await {
            Err(_) => return Err(Refusal::PreambleTimeout),
            Ok(Ok(count @ 1..)) => bytes.truncate(before + count),
            Ok(Ok(0) | Err(_)) => return Err(Refusal::ClientLeft),
        }
    }
}

/// What comes first fits into one of these, nearly always.
const PIECE: usize = 2048;
