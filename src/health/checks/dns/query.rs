//! Encodes the query and evaluates the answer. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::error::DnsCheckError;
use crate::health::checks::quote::{quoted_excerpt, quoted_message};
use crate::health::{CheckFailure, CheckFailureKind};

/// A query, with the accepted codes and the expected records of its answer.
#[derive(Clone, Debug)]
pub(super) struct DnsCheckQuery {
    query: Query,
    codes: Vec<u16>,
    expected: Vec<RData>,
}

/// The reason why an answer does not count as up.
#[derive(Debug)]
pub(super) enum DnsAnswerError {
    /// The answer did not fit, and must be queried over TCP.
    Truncated,
    /// The message is not an answer to this query; with the stage of the further wait.
    Unrelated(&'static str),
    /// The answer fails the check.
    Failed(CheckFailure),
}

impl DnsCheckQuery {
    pub(super) fn root_soa() -> Self {
        Self::with_record_type(Name::root(), RecordType::SOA)
    }

    pub(super) fn new(name: &str, record_type: &str) -> Result<Self, DnsCheckError> {
        let parsed = Name::from_utf8(name).map_err(|error| DnsCheckError::Name {
            name: name.to_owned(),
            reason: match name.contains("..") {
                // The parser's text ends with the label, which is empty.
                true => "it has an empty label".to_owned(),
                false => error.to_string(),
            },
        });
        let mut parsed = parsed?;
        if name.is_empty() {
            let reason = "the name is empty; the root is \".\"".to_owned();
            return Err(DnsCheckError::Name { name: String::new(), reason });
        }
        parsed.set_fqdn(true);
        match record_type.to_ascii_uppercase().parse() {
            // AXFR and IXFR transfer a zone; the other types are no records of a zone.
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

    /// Encodes the query.
    pub(super) fn encode(&self, id: u16) -> Result<Vec<u8>, CheckFailure> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query.clone());
        let encoded = message.to_vec();
        encoded.map_err(|error| {
            CheckFailure::new(CheckFailureKind::Local, format!("encoding the query: {error}"))
        })
    }

    /// Evaluates an answer.
    pub(super) fn judge(&self, id: u16, answer: &[u8]) -> Result<(), DnsAnswerError> {
        let failed = |kind, reason| Err(DnsAnswerError::Failed(CheckFailure::new(kind, reason)));
        // A truncated answer may end anywhere: only its header is read.
        let message = match Message::from_vec(answer) {
            Ok(message) => message,
            Err(_) if is_truncated(id, answer) => return Err(DnsAnswerError::Truncated),
            Err(error) => {
                let error = quoted_message(error.to_string().as_bytes());
                let reason = format!("the answer is not a DNS message: {error}");
                return failed(CheckFailureKind::Protocol, reason);
            }
        };
        let head = &message.metadata;
        if head.id != id {
            return Err(DnsAnswerError::Unrelated(
                "waiting for an answer with the identifier of the query",
            ));
        }
        if head.message_type != MessageType::Response || head.op_code != OpCode::Query {
            return Err(DnsAnswerError::Unrelated("waiting for an answer: received a query"));
        }
        let code = head.response_code;
        // A server that could not parse the query omits the question (RFC 1035 does not define it).
        let is_unparsed = message.queries.is_empty() && code != ResponseCode::NoError;
        if !is_unparsed && !self.is_echoed_in(&message.queries) {
            return Err(DnsAnswerError::Unrelated(
                "waiting for an answer to the question of the query",
            ));
        }
        if head.truncation {
            return Err(DnsAnswerError::Truncated);
        }
        let number = u16::from(code);
        if !self.codes.contains(&number) {
            let accepted: Vec<_> = self.codes.iter().map(ToString::to_string).collect();
            let accepted = accepted.join(", ");
            let reason = format!("response code {number} ({code}), expected {accepted}");
            return failed(CheckFailureKind::Mismatch, reason);
        }
        let missing = self.expected.iter().find(|expected| {
            let expected = canonical_text(expected);
            !message.answers.iter().any(|record| canonical_text(&record.data) == expected)
        });
        match missing {
            None => Ok(()),
            Some(missing) => {
                let count = message.answers.len();
                let missing = quoted_excerpt(missing.to_string().as_bytes());
                let reason =
                    format!("record {missing} is not among the {count} records of the answer");
                failed(CheckFailureKind::Mismatch, reason)
            }
        }
    }

    fn is_echoed_in(&self, queries: &[Query]) -> bool {
        // Names are compared without regard to case (RFC 4343).
        matches!(queries, [query] if query.name() == self.query.name()
            && query.query_type() == self.query.query_type()
            && query.query_class() == DNSClass::IN)
    }
}

/// Returns whether the header (RFC 1035, section 4.1.1) is that of a truncated answer.
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

/// Returns the data as text in a canonical form: names in lower case, without the final dot.
fn canonical_text(data: &RData) -> String {
    let text = data.to_string();
    match data {
        RData::TXT(_) => text,
        _ => text.trim_end_matches('.').to_ascii_lowercase(),
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
