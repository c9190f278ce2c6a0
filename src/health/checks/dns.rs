//! Does a name server answer a question, and answer it right?

mod error;
mod message;

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use self::error::DnsCheckError;
use self::message::{Question, Wrong};
use super::datagram::{hear_errors, heard_failure, receive, sent_failure};
use crate::health::{Check, Failure, FailureKind, Probe, Report};

/// The longest answer taken by UDP. None may be longer than 512 bytes, because the question allows
/// no more (RFC 1035, section 4.2.1); some are.
const LONGEST_UDP: usize = 4096;

/// Up if a name server answers a question without error, and with the records expected, if any.
///
/// The question goes by UDP, and again by TCP where the answer says that it was truncated (RFC 7766,
/// section 5). It has a random identifier and port, and asks for recursion. Only an answer with the
/// same identifier and the same question counts; another is passed over, and the wait goes on until
/// the check's timeout. Nothing is sent twice: a lost datagram is one failure, and how many of those
/// it takes is what `fall` is for.
///
/// | the answer | [`FailureKind`] |
/// |---|---|
/// | has another [code](Self::accepting) | `Mismatch` |
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
/// let own = DnsCheck::asking("www.example.com", "A")?.expecting_address("192.0.2.7".parse()?);
/// let mail = DnsCheck::asking("example.com", "MX")?.expecting_record("10 mx.example.com.")?;
/// # let _ = (resolver, own, mail);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct DnsCheck {
    question: Question,
}

impl Default for DnsCheck {
    fn default() -> Self {
        Self::new()
    }
}

impl DnsCheck {
    /// Asks for the SOA record of the root.
    pub fn new() -> Self {
        Self { question: Question::root() }
    }

    /// Asks for the records of a name, which is taken from the root whether or not it ends in a dot,
    /// of a type: `A`, `AAAA`, `MX`, `TXT`, ...
    ///
    /// # Errors
    /// [`DnsCheckError`] names what is no name or no type.
    pub fn asking(name: &str, record_type: &str) -> Result<Self, DnsCheckError> {
        Ok(Self { question: Question::new(name, record_type)? })
    }

    /// The response codes that are up. Default: 0 (NOERROR) alone.
    ///
    /// A server may be up that knows no such name: 3 (NXDOMAIN).
    pub fn accepting(mut self, codes: impl IntoIterator<Item = u16>) -> Self {
        self.question.accept(codes.into_iter().collect());
        self
    }

    /// Requires an A or AAAA record with this address among the answers, beside what was required
    /// before. Default: none.
    pub fn expecting_address(mut self, address: IpAddr) -> Self {
        self.question.expect_address(address);
        self
    }

    /// Requires a record with this data among the answers, beside what was required before: written
    /// as in a zone file, of the type that is asked for, names in full. Default: none.
    ///
    /// # Errors
    /// [`DnsCheckError`] says what is wrong with the data.
    pub fn expecting_record(mut self, data: &str) -> Result<Self, DnsCheckError> {
        self.question.expect_record(data)?;
        Ok(self)
    }

    /// Asks over TCP.
    async fn ask_again(&self, probe: &Probe, id: u16, request: &[u8]) -> Result<Report, Failure> {
        let mut stream = probe.connect().await?;
        probe.stage("sending the question over TCP");
        let failed = |error| probe.io_failure(&error);
        let len = u16::try_from(request.len()).unwrap_or(u16::MAX);
        let framed = [&len.to_be_bytes(), request].concat();
        stream.write_all(&framed).await.map_err(failed)?;
        probe.stage("waiting for the answer over TCP");
        let len = stream.read_u16().await.map_err(failed)?;
        let mut answer = vec![0; usize::from(len)];
        stream.read_exact(&mut answer).await.map_err(failed)?;
        match self.question.judge(id, &answer) {
            Ok(()) => Ok(Report::up()),
            Err(Wrong::Truncated) => Err(protocol("an answer truncated over TCP, too")),
            Err(Wrong::Foreign(what)) => Err(protocol(what)),
            Err(Wrong::Failed(failure)) => Err(failure),
        }
    }
}

impl Check for DnsCheck {
    async fn check(&self, probe: &Probe) -> Result<Report, Failure> {
        let id = fastrand::u16(..);
        let request = self.question.request(id)?;
        let socket = probe.udp().await?;
        hear_errors(&socket, probe.address());
        probe.stage("sending the question");
        let sent = socket.send(&request).await;
        sent.map_err(|error| sent_failure(probe.waits_for(), &error))?;
        probe.stage("waiting for the answer");
        let mut buffer = vec![0; LONGEST_UDP];
        loop {
            let heard = receive(&socket, &mut buffer).await;
            let len = heard.map_err(|error| heard_failure(probe.waits_for(), &error))?;
            let Some(answer) = buffer.get(..len) else {
                let reason = format!("an answer of {len} bytes, not of {LONGEST_UDP} at most");
                return Err(Failure::new(FailureKind::TooLong, reason));
            };
            match self.question.judge(id, answer) {
                Ok(()) => return Ok(Report::up()),
                Err(Wrong::Truncated) => break,
                // Not a failure yet: whoever can send in the server's name could else take it down.
                Err(Wrong::Foreign(what)) => probe.stage(what),
                Err(Wrong::Failed(failure)) => return Err(failure),
            }
        }
        self.ask_again(probe, id, &request).await
    }

    fn name(&self) -> &str {
        "dns"
    }
}

fn protocol(what: &str) -> Failure {
    Failure::new(FailureKind::Protocol, what)
}
