use hickory_proto::rr::Record;
use proptest::prelude::*;

use super::*;

const ID: u16 = 0x1234;

fn www() -> DnsCheckQuery {
    DnsCheckQuery::new("www.example.com", "a").expect("a question")
}

/// An answer as a server would give it, after it has been changed.
fn answer(question: &DnsCheckQuery, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::response(ID, OpCode::Query);
    message.add_query(question.query.clone());
    change(&mut message);
    message.to_vec().expect("it can be written")
}

fn with(message: &mut Message, question: &DnsCheckQuery, record_type: RecordType, data: &str) {
    let data = RData::try_from_str(record_type, data).expect(data);
    message.add_answer(Record::from_rdata(question.query.name().clone(), 60, data));
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
fn a_question_is_what_was_asked_for() {
    let request = DnsCheckQuery::root_soa().encode(ID).expect("it can be written");
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
fn the_code_decides() {
    let mut question = www();
    assert!(question.judge(ID, &answer(&question, |_| {})).is_ok());
    let nobody = answer(&question, |m| m.metadata.response_code = ResponseCode::NXDomain);
    let reason = "answered code 3 (Non-Existent Domain)";
    assert_failed(question.judge(ID, &nobody), CheckFailureKind::Mismatch, reason);
    question.set_codes(vec![0, 3]);
    assert!(question.judge(ID, &nobody).is_ok());
    let unread = answer(&question, |m| {
        m.queries.clear();
        m.metadata.response_code = ResponseCode::FormErr;
    });
    let reason = "answered code 1 (Form Error)";
    assert_failed(question.judge(ID, &unread), CheckFailureKind::Mismatch, reason);
}

#[test]
fn another_ones_answer_is_none() {
    let question = www();
    let foreign: [fn(&mut Message); 6] = [
        |m| m.metadata.id ^= 1,
        |m| m.metadata.message_type = MessageType::Query,
        |m| m.metadata.op_code = OpCode::Notify,
        |m| m.queries.clear(),
        |m| m.queries[0] = Query::query(Name::root(), RecordType::A),
        |m| _ = m.queries[0].set_query_type(RecordType::AAAA),
    ];
    for (which, change) in foreign.into_iter().enumerate() {
        let judged = question.judge(ID, &answer(&question, change));
        assert!(matches!(judged, Err(DnsAnswerError::Unrelated(_))), "{which}: {judged:?}");
    }
    let shouted = answer(&question, |m| {
        let name = Name::from_ascii("WWW.Example.COM.").expect("a name");
        m.queries[0].set_name(name);
    });
    assert!(question.judge(ID, &shouted).is_ok(), "case does not matter");
}

#[test]
fn truncated_answers_are_asked_for_again() {
    let question = www();
    let cut = answer(&question, |m| {
        with(m, &question, RecordType::A, "192.0.2.1");
        m.metadata.truncation = true;
    });
    for len in 12..=cut.len() {
        let judged = question.judge(ID, &cut[..len]);
        assert!(matches!(judged, Err(DnsAnswerError::Truncated)), "{len}: {judged:?}");
    }
    assert!(
        matches!(question.judge(ID, &cut[..11]), Err(DnsAnswerError::Failed(_))),
        "not even a header"
    );
    assert!(matches!(question.judge(!ID, &cut[..20]), Err(DnsAnswerError::Failed(_))), "another's");
}

#[test]
fn all_that_is_expected_must_be_there() {
    let mut question = www();
    question.expect_address("192.0.2.1".parse().expect("an address"));
    question.expect_record("192.0.2.2").expect("an address");
    let both = answer(&question, |m| {
        with(m, &question, RecordType::CNAME, "elsewhere.example.com.");
        with(m, &question, RecordType::A, "192.0.2.2");
        with(m, &question, RecordType::A, "192.0.2.1");
    });
    assert!(question.judge(ID, &both).is_ok());
    let one = answer(&question, |m| with(m, &question, RecordType::A, "192.0.2.1"));
    let reason = "\"192.0.2.2\" is not among the 1 records answered";
    assert_failed(question.judge(ID, &one), CheckFailureKind::Mismatch, reason);
}

#[test]
fn names_are_compared_as_names_and_text_as_text() {
    let mut mail = DnsCheckQuery::new("example.com.", "MX").expect("a question");
    mail.expect_record("10 mx.example.com").expect("data");
    let same = answer(&mail, |m| with(m, &mail, RecordType::MX, "10 MX.Example.com."));
    assert!(mail.judge(ID, &same).is_ok());
    let other = answer(&mail, |m| with(m, &mail, RecordType::MX, "20 mx.example.com."));
    assert!(mail.judge(ID, &other).is_err());

    let mut text = DnsCheckQuery::new("example.com", "TXT").expect("a question");
    text.expect_record("\"Version 1\"").expect("data");
    let same = answer(&text, |m| with(m, &text, RecordType::TXT, "\"Version 1\""));
    assert!(text.judge(ID, &same).is_ok());
    let other = answer(&text, |m| with(m, &text, RecordType::TXT, "\"version 1\""));
    assert!(text.judge(ID, &other).is_err());
}

#[test]
fn garbage_is_no_message() {
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
    fn no_bytes_are_an_answer_by_chance(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(www().judge(ID, &bytes).is_err());
    }

    #[test]
    fn no_changed_byte_panics(place: prop::sample::Index, byte: u8) {
        let question = www();
        let mut bytes = answer(&question, |m| with(m, &question, RecordType::A, "192.0.2.1"));
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let _ = question.judge(ID, &bytes);
    }
}
