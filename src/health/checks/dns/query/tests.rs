use hickory_proto::rr::Record;
use proptest::prelude::*;

use super::*;

const ID: u16 = 0x1234;

fn www() -> DnsCheckQuery {
    DnsCheckQuery::new("www.example.com", "a").expect("a query")
}

/// Returns the answer of a server, with a change.
fn answer(query: &DnsCheckQuery, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::response(ID, OpCode::Query);
    message.add_query(query.query.clone());
    change(&mut message);
    message.to_vec().expect("a message")
}

fn with(message: &mut Message, query: &DnsCheckQuery, record_type: RecordType, data: &str) {
    let data = RData::try_from_str(record_type, data).expect(data);
    message.add_answer(Record::from_rdata(query.query.name().clone(), 60, data));
}

#[track_caller]
fn assert_failed(judged: Result<(), DnsAnswerError>, kind: CheckFailureKind, reason: &str) {
    match judged {
        Err(DnsAnswerError::Failed(failure)) => {
            assert_eq!(failure.kind(), kind, "{failure}");
            assert_eq!(failure.reason(), reason);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn queries_are_encoded_and_invalid_queries_are_refused() {
    let request = DnsCheckQuery::root_soa().encode(ID).expect("a message");
    let bytes = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1];
    assert_eq!(request, bytes, "recursion desired, one question: the root's SOA");
    for (name, record_type) in
        [("", "A"), ("a..b", "A"), ("example.com", "B"), ("example.com", "AXFR")]
    {
        let refused = DnsCheckQuery::new(name, record_type);
        assert!(refused.is_err(), "{name} {record_type}");
    }
    assert!(www().expect_record("300.0.2.1").is_err());
}

#[test]
fn the_response_code_must_be_accepted() {
    let mut query = www();
    assert!(query.judge(ID, &answer(&query, |_| {})).is_ok());
    let unknown = answer(&query, |m| m.metadata.response_code = ResponseCode::NXDomain);
    let reason = "response code 3 (Non-Existent Domain), expected 0";
    assert_failed(query.judge(ID, &unknown), CheckFailureKind::Mismatch, reason);
    query.set_codes(vec![0, 3]);
    assert!(query.judge(ID, &unknown).is_ok());
    let unparsed = answer(&query, |m| {
        m.queries.clear();
        m.metadata.response_code = ResponseCode::FormErr;
    });
    let reason = "response code 1 (Form Error), expected 0, 3";
    assert_failed(query.judge(ID, &unparsed), CheckFailureKind::Mismatch, reason);
}

#[test]
fn answers_to_another_query_are_unrelated() {
    let query = www();
    let foreign: [fn(&mut Message); 6] = [
        |m| m.metadata.id ^= 1,
        |m| m.metadata.message_type = MessageType::Query,
        |m| m.metadata.op_code = OpCode::Notify,
        |m| m.queries.clear(),
        |m| m.queries[0] = Query::query(Name::root(), RecordType::A),
        |m| _ = m.queries[0].set_query_type(RecordType::AAAA),
    ];
    for (which, change) in foreign.into_iter().enumerate() {
        let judged = query.judge(ID, &answer(&query, change));
        assert!(matches!(judged, Err(DnsAnswerError::Unrelated(_))), "{which}: {judged:?}");
    }
    let upper_case = answer(&query, |m| {
        let name = Name::from_ascii("WWW.Example.COM.").expect("a name");
        m.queries[0].set_name(name);
    });
    assert!(query.judge(ID, &upper_case).is_ok(), "names are compared without regard to case");
}

#[test]
fn truncated_answers_are_recognised_by_their_header() {
    let query = www();
    let cut = answer(&query, |m| {
        with(m, &query, RecordType::A, "192.0.2.1");
        m.metadata.truncation = true;
    });
    for len in 12..=cut.len() {
        let judged = query.judge(ID, &cut[..len]);
        assert!(matches!(judged, Err(DnsAnswerError::Truncated)), "{len}: {judged:?}");
    }
    assert!(
        matches!(query.judge(ID, &cut[..11]), Err(DnsAnswerError::Failed(_))),
        "the header is incomplete"
    );
    assert!(
        matches!(query.judge(!ID, &cut[..20]), Err(DnsAnswerError::Failed(_))),
        "another identifier"
    );
}

#[test]
fn every_expected_record_is_required() {
    let mut query = www();
    query.expect_address("192.0.2.1".parse().expect("an address"));
    query.expect_record("192.0.2.2").expect("an address");
    let both = answer(&query, |m| {
        with(m, &query, RecordType::CNAME, "elsewhere.example.com.");
        with(m, &query, RecordType::A, "192.0.2.2");
        with(m, &query, RecordType::A, "192.0.2.1");
    });
    assert!(query.judge(ID, &both).is_ok());
    let incomplete = answer(&query, |m| with(m, &query, RecordType::A, "192.0.2.1"));
    let reason = "record \"192.0.2.2\" is not among the 1 records of the answer";
    assert_failed(query.judge(ID, &incomplete), CheckFailureKind::Mismatch, reason);
}

#[test]
fn names_are_compared_as_names_and_text_as_text() {
    let mut mail = DnsCheckQuery::new("example.com.", "MX").expect("a query");
    mail.expect_record("10 mx.example.com").expect("data");
    let same = answer(&mail, |m| with(m, &mail, RecordType::MX, "10 MX.Example.com."));
    assert!(mail.judge(ID, &same).is_ok());
    let other = answer(&mail, |m| with(m, &mail, RecordType::MX, "20 mx.example.com."));
    assert!(mail.judge(ID, &other).is_err());

    let mut text = DnsCheckQuery::new("example.com", "TXT").expect("a query");
    text.expect_record("\"Version 1\"").expect("data");
    let same = answer(&text, |m| with(m, &text, RecordType::TXT, "\"Version 1\""));
    assert!(text.judge(ID, &same).is_ok());
    let other = answer(&text, |m| with(m, &text, RecordType::TXT, "\"version 1\""));
    assert!(text.judge(ID, &other).is_err());
}

#[test]
fn garbage_is_a_protocol_failure() {
    for garbage in [&b""[..], b"\x12", b"\x12\x34\x80\0\0\x01\0\0\0\0\0\0", &[0xff; 100]] {
        match www().judge(ID, garbage) {
            Err(DnsAnswerError::Failed(failure)) => {
                assert_eq!(failure.kind(), CheckFailureKind::Protocol)
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_are_never_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(www().judge(ID, &bytes).is_err());
    }

    #[test]
    fn no_changed_byte_panics(position: prop::sample::Index, byte: u8) {
        let query = www();
        let mut bytes = answer(&query, |m| with(m, &query, RecordType::A, "192.0.2.1"));
        let position = position.index(bytes.len());
        bytes[position] = byte;
        let _ = query.judge(ID, &bytes);
    }
}
