//! The DNS check.

mod error;
mod query;

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use self::error::DnsCheckError;
use self::query::{DnsAnswerError, DnsCheckQuery};
use super::datagram::{enable_icmp_errors, receive, receive_failure, send_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// The longest UDP answer that is read, in bytes. A correct answer has at most 512 bytes, because
/// the query allows no more (RFC 1035, section 4.2.1); some servers send more.
const MAX_UDP_ANSWER_LEN: usize = 4096;

/// Sends a query to a name server, and requires an answer without error, and with the expected
/// records.
///
/// The query is sent by UDP, and again by TCP if the answer is truncated (RFC 7766, section 5). It
/// has a random identifier and port, and requests recursion. An answer with another identifier or
/// to another question is ignored, and the check waits on until its timeout. Nothing is sent twice:
/// a lost datagram is one failure, and `fall` sets how many failures take the server down.
///
/// | the answer | [`CheckFailureKind`] |
/// |---|---|
/// | has a response code that is [not accepted](Self::accept_codes) | `Mismatch` |
/// | lacks an expected record | `Mismatch` |
/// | is not a DNS message, or is truncated over TCP | `Protocol` |
/// | is an ICMP error, or the end of the TCP connection | the kind of that error |
///
/// By default the query is that of keepalived's `DNS_CHECK`: the SOA record of the root. A server
/// that only serves its own zones refuses this query; query one of its zones.
///
/// # Examples
/// ```
/// use lvs::health::DnsCheck;
///
/// let resolver = DnsCheck::new();
/// let web = DnsCheck::query("www.example.com", "A")?.expect_address("192.0.2.7".parse()?);
/// let mail = DnsCheck::query("example.com", "MX")?.expect_record("10 mx.example.com.")?;
/// # let _ = (resolver, web, mail);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct DnsCheck {
    query: DnsCheckQuery,
}

impl Default for DnsCheck {
    fn default() -> Self {
        Self::new()
    }
}

impl DnsCheck {
    /// Makes a check that queries the SOA record of the root.
    pub fn new() -> Self {
        Self { query: DnsCheckQuery::root_soa() }
    }

    /// Makes a check that queries the records of a name with a type: `A`, `AAAA`, `MX`, `TXT`, ...
    ///
    /// The name is absolute, with or without a final dot.
    ///
    /// # Errors
    /// [`DnsCheckError`] if the name or the type is invalid.
    pub fn query(name: &str, record_type: &str) -> Result<Self, DnsCheckError> {
        Ok(Self { query: DnsCheckQuery::new(name, record_type)? })
    }

    /// Sets the accepted response codes. Default: only 0 (NOERROR).
    ///
    /// Code 3 (NXDOMAIN) accepts a server that does not have the name.
    pub fn accept_codes(mut self, codes: impl IntoIterator<Item = u16>) -> Self {
        self.query.set_codes(codes.into_iter().collect());
        self
    }

    /// Requires an A or AAAA record with this address in the answer, beside earlier expectations.
    /// Default: no record is required.
    pub fn expect_address(mut self, address: IpAddr) -> Self {
        self.query.expect_address(address);
        self
    }

    /// Requires a record with this data in the answer, beside earlier expectations. The data is
    /// written as in a zone file, is of the queried type, and has absolute names. Default: no
    /// record is required.
    ///
    /// # Errors
    /// [`DnsCheckError::Data`] if the data is invalid.
    pub fn expect_record(mut self, data: &str) -> Result<Self, DnsCheckError> {
        self.query.expect_record(data)?;
        Ok(self)
    }

    /// Repeats the query over TCP.
    async fn query_over_tcp(
        &self,
        context: &CheckContext,
        id: u16,
        request: &[u8],
    ) -> Result<CheckReport, CheckFailure> {
        let mut stream = context.connect().await?;
        context.set_stage("sending the query over TCP");
        let failed = |error| context.io_failure(&error);
        let len = u16::try_from(request.len()).unwrap_or(u16::MAX);
        let framed = [&len.to_be_bytes(), request].concat();
        stream.write_all(&framed).await.map_err(failed)?;
        context.set_stage("waiting for the answer over TCP");
        let len = stream.read_u16().await.map_err(failed)?;
        let mut answer = vec![0; usize::from(len)];
        stream.read_exact(&mut answer).await.map_err(failed)?;
        match self.query.judge(id, &answer) {
            Ok(()) => Ok(CheckReport::up()),
            Err(DnsAnswerError::Truncated) => {
                Err(dns_protocol_failure("the answer over TCP is truncated"))
            }
            Err(DnsAnswerError::Unrelated(problem)) => Err(dns_protocol_failure(problem)),
            Err(DnsAnswerError::Failed(failure)) => Err(failure),
        }
    }
}

impl Check for DnsCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let id = fastrand::u16(..);
        let request = self.query.encode(id)?;
        let socket = context.connect_udp().await?;
        enable_icmp_errors(&socket, context.address());
        context.set_stage("sending the query");
        let sent = socket.send(&request).await;
        sent.map_err(|error| send_failure(context.stage(), &error))?;
        context.set_stage("waiting for the answer");
        let mut buffer = vec![0; MAX_UDP_ANSWER_LEN];
        loop {
            let received = receive(&socket, &mut buffer).await;
            let len = received.map_err(|error| receive_failure(context.stage(), &error))?;
            let Some(answer) = buffer.get(..len) else {
                let reason =
                    format!("answer of {len} bytes, expected at most {MAX_UDP_ANSWER_LEN}");
                return Err(CheckFailure::new(CheckFailureKind::TooLong, reason));
            };
            match self.query.judge(id, answer) {
                Ok(()) => return Ok(CheckReport::up()),
                Err(DnsAnswerError::Truncated) => break,
                // Not a failure: otherwise a forged answer could take the server down.
                Err(DnsAnswerError::Unrelated(problem)) => context.set_stage(problem),
                Err(DnsAnswerError::Failed(failure)) => return Err(failure),
            }
        }
        self.query_over_tcp(context, id, &request).await
    }

    fn name(&self) -> &str {
        "dns"
    }
}

fn dns_protocol_failure(reason: &str) -> CheckFailure {
    CheckFailure::new(CheckFailureKind::Protocol, reason)
}
