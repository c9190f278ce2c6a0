//! Does a name server answer a question, and answer it right?

mod error;
mod query;

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use self::error::DnsCheckError;
use self::query::{DnsAnswerError, DnsCheckQuery};
use super::datagram::{enable_icmp_errors, receive, receive_failure, send_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// The longest answer taken by UDP. None may be longer than 512 bytes, because the question allows
/// no more (RFC 1035, section 4.2.1); some are.
const MAX_UDP_ANSWER_LEN: usize = 4096;

/// Up if a name server answers a question without error, and with the records expected, if any.
///
/// The question goes by UDP, and again by TCP where the answer says that it was truncated (RFC 7766,
/// section 5). It has a random identifier and port, and asks for recursion. Only an answer with the
/// same identifier and the same question counts; another is passed over, and the wait goes on until
/// the check's timeout. Nothing is sent twice: a lost datagram is one failure, and how many of those
/// it takes is what `fall` is for.
///
/// | the answer | [`CheckFailureKind`] |
/// |---|---|
/// | has another [code](Self::accept_codes) | `Mismatch` |
/// | lacks an expected record | `Mismatch` |
/// | is no DNS message, or truncated over TCP, too | `Protocol` |
/// | is an ICMP error, or the TCP connection's end | as it says |
///
/// By default it asks what keepalived's `DNS_CHECK` asks: the SOA record of the root. A server that
/// serves its own zones only refuses that; ask it for one of them.
///
/// # Examples
/// ```
/// use lvs::health::DnsCheck;
///
/// let resolver = DnsCheck::new();
/// let own = DnsCheck::asking("www.example.com", "A")?.expect_address("192.0.2.7".parse()?);
/// let mail = DnsCheck::asking("example.com", "MX")?.expect_record("10 mx.example.com.")?;
/// # let _ = (resolver, own, mail);
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
    /// Asks for the SOA record of the root.
    pub fn new() -> Self {
        Self { query: DnsCheckQuery::root_soa() }
    }

    /// Asks for the records of a name, which is taken from the root whether or not it ends in a dot,
    /// of a type: `A`, `AAAA`, `MX`, `TXT`, ...
    ///
    /// # Errors
    /// [`DnsCheckError`] names what is no name or no type.
    pub fn query(name: &str, record_type: &str) -> Result<Self, DnsCheckError> {
        Ok(Self { query: DnsCheckQuery::new(name, record_type)? })
    }

    /// The response codes that are up. Default: 0 (NOERROR) alone.
    ///
    /// A server may be up that knows no such name: 3 (NXDOMAIN).
    pub fn accept_codes(mut self, codes: impl IntoIterator<Item = u16>) -> Self {
        self.query.set_codes(codes.into_iter().collect());
        self
    }

    /// Requires an A or AAAA record with this address among the answers, beside what was required
    /// before. Default: none.
    pub fn expect_address(mut self, address: IpAddr) -> Self {
        self.query.expect_address(address);
        self
    }

    /// Requires a record with this data among the answers, beside what was required before: written
    /// as in a zone file, of the type that is asked for, names in full. Default: none.
    ///
    /// # Errors
    /// [`DnsCheckError`] says what is wrong with the data.
    pub fn expect_record(mut self, data: &str) -> Result<Self, DnsCheckError> {
        self.query.expect_record(data)?;
        Ok(self)
    }

    /// Asks over TCP.
    async fn query_over_tcp(
        &self,
        probe: &CheckContext,
        id: u16,
        request: &[u8],
    ) -> Result<CheckReport, CheckFailure> {
        let mut stream = probe.connect().await?;
        probe.set_stage("sending the question over TCP");
        let failed = |error| probe.io_failure(&error);
        let len = u16::try_from(request.len()).unwrap_or(u16::MAX);
        let framed = [&len.to_be_bytes(), request].concat();
        stream.write_all(&framed).await.map_err(failed)?;
        probe.set_stage("waiting for the answer over TCP");
        let len = stream.read_u16().await.map_err(failed)?;
        let mut answer = vec![0; usize::from(len)];
        stream.read_exact(&mut answer).await.map_err(failed)?;
        match self.query.judge(id, &answer) {
            Ok(()) => Ok(CheckReport::up()),
            Err(DnsAnswerError::Truncated) => {
                Err(dns_protocol_failure("an answer truncated over TCP, too"))
            }
            Err(DnsAnswerError::Unrelated(what)) => Err(dns_protocol_failure(what)),
            Err(DnsAnswerError::Failed(failure)) => Err(failure),
        }
    }
}

impl Check for DnsCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let id = fastrand::u16(..);
        let request = self.query.encode(id)?;
        let socket = probe.connect_udp().await?;
        enable_icmp_errors(&socket, probe.address());
        probe.set_stage("sending the question");
        let sent = socket.send(&request).await;
        sent.map_err(|error| send_failure(probe.stage(), &error))?;
        probe.set_stage("waiting for the answer");
        let mut buffer = vec![0; MAX_UDP_ANSWER_LEN];
        loop {
            let heard = receive(&socket, &mut buffer).await;
            let len = heard.map_err(|error| receive_failure(probe.stage(), &error))?;
            let Some(answer) = buffer.get(..len) else {
                let reason =
                    format!("an answer of {len} bytes, not of {MAX_UDP_ANSWER_LEN} at most");
                return Err(CheckFailure::new(CheckFailureKind::TooLong, reason));
            };
            match self.query.judge(id, answer) {
                Ok(()) => return Ok(CheckReport::up()),
                Err(DnsAnswerError::Truncated) => break,
                // Not a failure yet: whoever can send in the server's name could else take it down.
                Err(DnsAnswerError::Unrelated(what)) => probe.set_stage(what),
                Err(DnsAnswerError::Failed(failure)) => return Err(failure),
            }
        }
        self.query_over_tcp(probe, id, &request).await
    }

    fn name(&self) -> &str {
        "dns"
    }
}

fn dns_protocol_failure(what: &str) -> CheckFailure {
    CheckFailure::new(CheckFailureKind::Protocol, what)
}
