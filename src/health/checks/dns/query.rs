//! The question and what an answer to it is worth; no I/O.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::DnsCheckError;
use crate::health::{CheckFailure, CheckFailureKind};

/// A question, and what its answer must be.
#[derive(Clone, Debug)]
pub(super) struct DnsCheckQuery {
    query: Query,
    codes: Vec<u16>,
    expected: Vec<RData>,
}

/// Why an answer is not the one hoped for.
#[derive(Debug)]
pub(super) enum DnsAnswerError {
    /// It did not fit, and is to be asked for over TCP.
    Truncated,
    /// It is no answer to this question: what is still waited for.
    Unrelated(&'static str),
    /// It speaks against the server.
    Failed(CheckFailure),
}

impl DnsCheckQuery {
    pub(super) fn root_soa() -> Self {
        Self::with_record_type(Name::root(), RecordType::SOA)
    }

    pub(super) fn new(name: &str, record_type: &str) -> Result<Self, DnsCheckError> {
        let parsed = Name::from_utf8(name).map_err(|error| DnsCheckError::Name {
            name: name.to_owned(),
            reason: error.to_string(),
        });
        let mut parsed = parsed?;
        if name.is_empty() {
            let reason = "it is empty; the root is \".\"".to_owned();
            return Err(DnsCheckError::Name { name: String::new(), reason });
        }
        parsed.set_fqdn(true);
        match record_type.to_ascii_uppercase().parse() {
            // A transfer of a zone is no question, and the rest is no record.
            Ok(
                RecordType::AXFR
                | RecordType::IXFR
                | RecordType::OPT
                | RecordType::TSIG
                | RecordType::SIG
                | RecordType::ZERO,
            )
            | Err(_) => Err(DnsCheckError::Type { record_type: record_type.to_owned() }),
            Ok(record_type) => Ok(Self::with_record_type(parsed, record_type)),
        }
    }

    fn with_record_type(name: Name, record_type: RecordType) -> Self {
        let query = Query::query(name, record_type);
        Self { query, codes: vec![ResponseCode::NoError.into()], expected: Vec::new() }
    }

    pub(super) fn set_codes(&mut self, codes: Vec<u16>) {
        self.codes = codes;
    }

    pub(super) fn expect_address(&mut self, address: IpAddr) {
        self.expected.push(RData::from(address));
    }

    pub(super) fn expect_record(&mut self, data: &str) -> Result<(), DnsCheckError> {
        let record_type = self.query.query_type();
        let parsed = RData::try_from_str(record_type, data);
        let parsed = parsed.map_err(|error| DnsCheckError::Data {
            data: data.to_owned(),
            record_type: record_type.to_string(),
            reason: error.to_string(),
        });
        self.expected.push(parsed?);
        Ok(())
    }

    /// The message that asks.
    pub(super) fn encode(&self, id: u16) -> Result<Vec<u8>, CheckFailure> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query.clone());
        let encoded = message.to_vec();
        encoded.map_err(|error| {
            CheckFailure::new(CheckFailureKind::Local, format!("writing the question: {error}"))
        })
    }

    /// Reads an answer.
    pub(super) fn judge(&self, id: u16, answer: &[u8]) -> Result<(), DnsAnswerError> {
        let failed = |kind, reason| Err(DnsAnswerError::Failed(CheckFailure::new(kind, reason)));
        // Of a truncated answer only the header counts: the rest may end anywhere.
        let message = match Message::from_vec(answer) {
            Ok(message) => message,
            Err(_) if is_truncated(id, answer) => return Err(DnsAnswerError::Truncated),
            Err(error) => {
                let reason: String = error.to_string().chars().take(100).collect();
                let reason = format!("an answer that is no DNS message: {reason}");
                return failed(CheckFailureKind::Protocol, reason);
            }
        };
        let head = &message.metadata;
        if head.id != id {
            let what = "waiting for an answer with the question's identifier";
            return Err(DnsAnswerError::Unrelated(what));
        }
        if head.message_type != MessageType::Response || head.op_code != OpCode::Query {
            return Err(DnsAnswerError::Unrelated("waiting for an answer: a question came"));
        }
        let code = head.response_code;
        // Servers that could not read the question leave it out (RFC 1035 says nothing of it).
        let unread = message.queries.is_empty() && code != ResponseCode::NoError;
        if !unread && !self.is_echoed_in(&message.queries) {
            return Err(DnsAnswerError::Unrelated("waiting for an answer to this question"));
        }
        if head.truncation {
            return Err(DnsAnswerError::Truncated);
        }
        let number = u16::from(code);
        if !self.codes.contains(&number) {
            return failed(CheckFailureKind::Mismatch, format!("answered code {number} ({code})"));
        }
        let missing = self.expected.iter().find(|wanted| {
            let wanted = canonical_text(wanted);
            !message.answers.iter().any(|record| canonical_text(&record.data) == wanted)
        });
        match missing {
            None => Ok(()),
            Some(missing) => {
                let count = message.answers.len();
                let missing: String =
                    missing.to_string().chars().filter(|c| !c.is_control()).take(100).collect();
                let reason = format!("\"{missing}\" is not among the {count} records answered");
                failed(CheckFailureKind::Mismatch, reason)
            }
        }
    }

    fn is_echoed_in(&self, queries: &[Query]) -> bool {
        // Name compares without regard to case (RFC 4343).
        matches!(queries, [query] if query.name() == self.query.name()
            && query.query_type() == self.query.query_type()
            && query.query_class() == DNSClass::IN)
    }
}

/// Tells from the header alone (RFC 1035, section 4.1.1) whether it is an answer that was cut.
fn is_truncated(id: u16, answer: &[u8]) -> bool {
    const RESPONSE: u8 = 0x80;
    const TRUNCATED: u8 = 0x02;
    match answer.first_chunk::<12>() {
        Some(&[i1, i0, flags, ..]) => {
            [i1, i0] == id.to_be_bytes() && flags & (RESPONSE | TRUNCATED) == RESPONSE | TRUNCATED
        }
        None => false,
    }
}

/// The data as text that is the same for the same: names without regard to case and to the last dot.
fn canonical_text(data: &RData) -> String {
    let text = data.to_string();
    match data {
        RData::TXT(_) => text,
        _ => text.trim_end_matches('.').to_ascii_lowercase(),
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
