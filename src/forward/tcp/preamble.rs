//! The preamble of a connection: the PROXY header and the ClientHello that are read from the client,
//! and the PROXY header that is sent to the backend.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::client_info::ClientInfo;
use super::stream::ResetOnDrop;
use crate::Balancer;
use crate::forward::counters::RefusalReason;
use crate::forward::proxy_protocol::{
    self, ParsedProxyHeader, ProxyHeader, ProxyProtocolVersion, Tlv,
};
use crate::forward::sni::{self, ClientHello, PeekedHello, ServerNameTable, SniError};
use crate::scheduler::Rng;

/// The options of the PROXY header that is sent to backends.
///
/// # Examples
/// ```
/// use lvs::forward::ProxyHeaderOptions;
///
/// let plain = ProxyHeaderOptions::v1();
/// let rich = ProxyHeaderOptions::v2().unique_id(true).checksum(true);
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
    /// Selects version 1: a line of text with the addresses, those of the client's PROXY header if it had
    /// one.
    pub const fn v1() -> Self {
        Self { version: ProxyProtocolVersion::V1, unique_id: false, checksum: false }
    }

    /// Selects version 2, the binary form. The header contains the addresses and, byte for byte, the TLVs of
    /// the client's PROXY header, and the server name and ALPN protocol of the ClientHello, where these were read.
    pub const fn v2() -> Self {
        Self { version: ProxyProtocolVersion::V2, unique_id: false, checksum: false }
    }

    /// Adds 16 random bytes that identify the connection (`PP2_TYPE_UNIQUE_ID`), unless the client's
    /// header has an identifier. Default: off. Not in version 1.
    pub const fn unique_id(self, unique_id: bool) -> Self {
        Self { unique_id, ..self }
    }

    /// Adds a checksum (`PP2_TYPE_CRC32C`). Default: off. Not in version 1.
    pub const fn checksum(self, checksum: bool) -> Self {
        Self { checksum, ..self }
    }
}

/// What a client must send before it is served.
#[derive(Debug, Default)]
pub(super) struct PreambleConfig {
    /// A PROXY header is expected within this time.
    pub(super) proxy_header_timeout: Option<Duration>,
    /// A ClientHello is expected within this time.
    pub(super) client_hello_timeout: Option<Duration>,
    /// Whether the server name is the key of the flow.
    pub(super) key_by_server_name: bool,
    pub(super) services: Option<ServerNameTable<Balancer<SocketAddr>>>,
    /// Serves clients that do not speak TLS where a ClientHello is expected.
    pub(super) service_without_tls: Option<Balancer<SocketAddr>>,
    pub(super) send_proxy: Option<ProxyHeaderOptions>,
}

/// What a client begins with, where a ClientHello is expected.
enum FirstBytes {
    /// A ClientHello, and what was read from it.
    Tls(Option<ClientHello>),
    OtherProtocol,
}

/// The preamble that was read from a client.
#[derive(Debug, Default)]
pub(super) struct ParsedPreamble {
    proxy_header: Option<ProxyHeader>,
    server_name: Option<Box<str>>,
    alpn: Option<Box<[u8]>>,
    /// Whether the client does not speak TLS, and is served nevertheless.
    lacks_tls: bool,
    /// Bytes that were read and are to be sent to the backend.
    pub(super) initial_bytes: Vec<u8>,
}

impl PreambleConfig {
    /// Reads the PROXY header and the ClientHello where they are expected.
    pub(super) async fn read(&self, client: &ResetOnDrop) -> Result<ParsedPreamble, RefusalReason> {
        let mut preamble = ParsedPreamble::default();
        if let Some(timeout) = self.proxy_header_timeout {
            let deadline = Instant::now() + timeout;
            let bytes = &mut preamble.initial_bytes;
            let header = read_until_parsed(client, "PROXY header", bytes, deadline, |bytes| {
                proxy_protocol::parse(bytes).map(|parsed| match parsed {
                    ParsedProxyHeader::Incomplete { at_least } => Err(at_least),
                    ParsedProxyHeader::Complete { header, len } => Ok((header, len)),
                })
            });
            let (header, len) = header.await?;
            preamble.proxy_header = Some(header);
            preamble.initial_bytes.drain(..len);
        }
        if let Some(timeout) = self.client_hello_timeout {
            let deadline = Instant::now() + timeout;
            let bytes = &mut preamble.initial_bytes;
            let hello = read_until_parsed(client, "TLS ClientHello", bytes, deadline, |bytes| {
                match sni::peek(bytes) {
                    Ok(PeekedHello::Incomplete { at_least }) => Ok(Err(at_least)),
                    Ok(PeekedHello::Hello(hello)) => Ok(Ok(FirstBytes::Tls(Some(hello)))),
                    // Some clients ask for an IP address by name, which servers ignore. No table can
                    // list such a name: it is one of the others, as if the client had sent none.
                    Err(SniError::Name(error)) => {
                        debug!("the client's server name is ignored: {error}");
                        Ok(Ok(FirstBytes::Tls(None)))
                    }
                    Err(SniError::NotTls { .. }) if self.service_without_tls.is_some() => {
                        Ok(Ok(FirstBytes::OtherProtocol))
                    }
                    Err(error) => Err(error),
                }
            });
            match hello.await? {
                FirstBytes::Tls(Some(hello)) => {
                    preamble.server_name = hello.server_name().map(Into::into);
                    preamble.alpn = hello.alpn().next().map(Into::into);
                }
                FirstBytes::Tls(None) => {}
                FirstBytes::OtherProtocol => preamble.lacks_tls = true,
            }
        }
        Ok(preamble)
    }

    /// Returns the balancer of the server name, or the forwarder's own without a table of names; the
    /// other one for a client that does not speak TLS.
    ///
    /// # Errors
    /// [`RefusalReason::NoService`] if the name is not in the table.
    pub(super) fn select_service<'a>(
        &'a self,
        preamble: &ParsedPreamble,
        own: &'a Balancer<SocketAddr>,
    ) -> Result<&'a Balancer<SocketAddr>, RefusalReason> {
        if let Some(service) = self.service_without_tls.as_ref().filter(|_| preamble.lacks_tls) {
            return Ok(service);
        }
        match &self.services {
            None => Ok(own),
            Some(names) => {
                names.get(preamble.server_name.as_deref()).ok_or(RefusalReason::NoService)
            }
        }
    }

    /// Returns the key of the flow, if it is not the client's address.
    pub(super) fn flow_key(&self, preamble: &ParsedPreamble) -> Option<u64> {
        let name = preamble.server_name.as_ref().filter(|_| self.key_by_server_name)?;
        crate::Flow::new().key_bytes(name.as_bytes()).view().key()
    }

    /// Puts the PROXY header for the backend in front of the bytes to send.
    pub(super) fn write_proxy_header(
        &self,
        preamble: &mut ParsedPreamble,
        client_info: ClientInfo,
    ) {
        let Some(options) = self.send_proxy else { return };
        let header = preamble.header_for_backend(options, client_info);
        let mut bytes = Vec::new();
        if let Err(error) = header.encode(options.version, &mut bytes) {
            debug!("the PROXY header to the backend is sent without TLVs: {error}");
            // Of the same version, which is the one that the backend expects.
            let addresses = header.without_tlvs().encode(options.version, &mut bytes);
            debug_assert!(addresses.is_ok(), "the addresses alone always fit");
        }
        bytes.append(&mut preamble.initial_bytes);
        preamble.initial_bytes = bytes;
    }
}

impl ParsedPreamble {
    /// Returns the client that the PROXY header named, and the address that the client connected to.
    pub(super) fn proxied_addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let header = self.proxy_header.as_ref()?;
        header.source().zip(header.destination())
    }

    fn header_for_backend(
        &self,
        options: ProxyHeaderOptions,
        client_info: ClientInfo,
    ) -> ProxyHeader {
        let connection = client_info.to_proxy_header();
        let mut header = match &self.proxy_header {
            Some(received) => received.passed_on(connection),
            None => connection,
        };
        if header.tlvs().get(Tlv::AUTHORITY).is_none()
            && let Some(name) = &self.server_name
        {
            header = header.clone().with_authority(name).unwrap_or(header);
        }
        if header.tlvs().alpn().is_none()
            && let Some(alpn) = &self.alpn
        {
            header = header.clone().with_alpn(alpn).unwrap_or(header);
        }
        if options.unique_id && header.tlvs().unique_id().is_none() {
            let mut rng = Rng::from_entropy();
            let id = [rng.next_u64(), rng.next_u64()].map(u64::to_be_bytes).concat();
            header = header.clone().with_unique_id(&id).unwrap_or(header);
        }
        if options.checksum { header.with_checksum() } else { header }
    }
}

/// Reads a part of the preamble until `parse` succeeds; its inner `Err` is the number of missing bytes.
async fn read_until_parsed<R, E: std::fmt::Display>(
    client: &ResetOnDrop,
    part: &str,
    bytes: &mut Vec<u8>,
    deadline: Instant,
    mut parse: impl FnMut(&[u8]) -> Result<Result<R, usize>, E>,
) -> Result<R, RefusalReason> {
    loop {
        match parse(bytes) {
            Ok(Ok(parsed)) => return Ok(parsed),
            Ok(Err(_missing)) => {}
            Err(error) => {
                debug!("cannot parse the client's {part}: {error}");
                return Err(RefusalReason::BadPreamble);
            }
        }
        let len = bytes.len();
        bytes.resize(len + READ_CHUNK_SIZE, 0);
        let read = poll_fn(|cx| client.poll_recv(cx, &mut bytes[len..]));
        match timeout_at(deadline, read).await {
            Err(_) => return Err(RefusalReason::PreambleTimeout),
            Ok(Ok(count @ 1..)) => bytes.truncate(len + count),
            Ok(Ok(0) | Err(_)) => return Err(RefusalReason::ClientLeft),
        }
    }
}

/// Nearly every preamble fits into one chunk.
const READ_CHUNK_SIZE: usize = 2048;

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_header_whose_tlvs_do_not_fit_keeps_its_version() {
        let config = PreambleConfig {
            send_proxy: Some(ProxyHeaderOptions::v2()),
            ..PreambleConfig::default()
        };
        let (client, local) = ("192.0.2.7:50123", "198.51.100.1:443");
        let client_info = ClientInfo {
            client: Some(client.parse().expect("an address")),
            local: Some(local.parse().expect("an address")),
            flow_key: None,
        };
        let largest = vec![0; proxy_protocol::MAX_V2_BLOCK - 3];
        let header = client_info.to_proxy_header().with_tlv(0xe0, &largest);
        let mut preamble = ParsedPreamble {
            proxy_header: Some(header.expect("a TLV that fits without the addresses")),
            initial_bytes: b"request".to_vec(),
            ..ParsedPreamble::default()
        };
        config.write_proxy_header(&mut preamble, client_info);
        let mut expected = Vec::new();
        let without_tlvs = client_info.to_proxy_header();
        without_tlvs.encode_v2(&mut expected).expect("a header without TLVs");
        expected.extend(b"request");
        assert_eq!(preamble.initial_bytes, expected);
    }
}
