use std::collections::HashSet;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn address(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("an address"))
}

fn finished_record() -> ConnectionRecord {
    ConnectionRecord {
        accepted_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_042),
        service: "web".into(),
        client: address("192.0.2.7:50123"),
        proxied_client: None,
        local: address("198.51.100.1:443"),
        backend: Some("web-1".into()),
        backend_address: address("10.0.0.1:8443"),
        queue_time: Duration::ZERO,
        connect_time: Some(Duration::from_nanos(1_234_999)),
        total_time: Duration::from_micros(61_002_003),
        bytes_to_backend: 517,
        bytes_to_client: 1_048_576,
        attempts: 2,
        listener_connections: 31,
        backend_connections: Some(7),
        termination: Termination::NORMAL,
        refusal: None,
    }
}

fn refused_record() -> ConnectionRecord {
    ConnectionRecord {
        client: None,
        proxied_client: address("[2001:db8::7]:50123"),
        local: None,
        backend: None,
        backend_address: None,
        queue_time: Duration::from_secs(30),
        connect_time: None,
        total_time: Duration::from_millis(30_000),
        bytes_to_backend: 0,
        bytes_to_client: 0,
        attempts: 0,
        backend_connections: None,
        termination: Termination::new(TerminationReason::BackendTimeout, ConnectionPhase::Queue),
        refusal: Some("queue_timeout"),
        ..finished_record()
    }
}

#[test]
fn a_line_has_the_documented_format() {
    assert_eq!(
        finished_record().to_string(),
        "2026-09-21T14:13:20.042Z web -- 192.0.2.7:50123 - 198.51.100.1:443 web-1 10.0.0.1:8443 \
         0.000 1.234 61002.003 517 1048576 2 31 7 -"
    );
    assert_eq!(
        refused_record().to_string(),
        "2026-09-21T14:13:20.042Z web sQ - [2001:db8::7]:50123 - - - 30000.000 - 30000.000 0 0 0 31 - \
         queue_timeout"
    );
}

#[test]
fn a_line_with_keys_has_the_documented_format() {
    assert_eq!(
        finished_record().key_values().to_string(),
        "time=2026-09-21T14:13:20.042Z service=web end=-- client=192.0.2.7:50123 proxied_client=- \
         local=198.51.100.1:443 backend=web-1 address=10.0.0.1:8443 queue_ms=0.000 \
         connect_ms=1.234 total_ms=61002.003 sent=517 received=1048576 attempts=2 on_listener=31 \
         on_backend=7 refusal=-"
    );
}

#[test]
fn names_are_escaped() {
    let named = |service: &str, backend: &str| {
        let record = ConnectionRecord {
            service: service.into(),
            backend: Some(backend.into()),
            ..finished_record()
        };
        let fields = record.fields().map(|(_, value)| value.to_string());
        let fields: Vec<_> = fields.collect();
        (fields[1].clone(), fields[6].clone())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(named("a b", "x\n\r\t\0"), pair(r"a\x20b", r"x\x0a\x0d\x09\x00"));
    assert_eq!(named("", "-"), pair(r#""""#, r"\x2d"));
    assert_eq!(named(r#"q"=\"#, "\u{1b}[31m"), pair(r"q\x22\x3d\x5c", r"\x1b[31m"));
    assert_eq!(named("é\u{7f}", "a-b"), pair(r"\xc3\xa9\x7f", "a-b"));
}

#[test]
fn every_time_is_written_without_a_panic() {
    let time_field = |accepted_at| {
        ConnectionRecord { accepted_at, ..finished_record() }.fields().next().unwrap().1.to_string()
    };
    let epoch = SystemTime::UNIX_EPOCH;
    assert_eq!(time_field(epoch), "1970-01-01T00:00:00.000Z");
    assert_eq!(time_field(epoch - Duration::from_secs(1)), "-");
    let last = epoch + Duration::from_secs(253_402_300_799);
    assert_eq!(time_field(last), "9999-12-31T23:59:59.000Z");
    assert_eq!(time_field(last + Duration::from_secs(1)), "-");
    assert_eq!(
        RecordValue(RecordValueKind::Millis(Duration::MAX)).to_string(),
        "18446744073709551615999.999"
    );
}

#[test]
fn the_effective_client_is_the_client_of_the_proxy_header() {
    assert_eq!(finished_record().effective_client(), address("192.0.2.7:50123"));
    assert_eq!(refused_record().effective_client(), address("[2001:db8::7]:50123"));
    assert_eq!((finished_record().retries(), refused_record().retries()), (1, 0));
}

const REASONS: [TerminationReason; 9] = [
    TerminationReason::Normal,
    TerminationReason::Client,
    TerminationReason::Backend,
    TerminationReason::ClientTimeout,
    TerminationReason::BackendTimeout,
    TerminationReason::Proxy,
    TerminationReason::Resources,
    TerminationReason::BackendDown,
    TerminationReason::Killed,
];
const PHASES: [ConnectionPhase; 6] = [
    ConnectionPhase::Request,
    ConnectionPhase::Queue,
    ConnectionPhase::Connect,
    ConnectionPhase::Data,
    ConnectionPhase::Last,
    ConnectionPhase::End,
];

#[test]
fn each_reason_and_each_phase_has_a_letter_of_its_own() {
    let letters = |codes: Vec<&str>, position: usize| -> HashSet<char> {
        codes.into_iter().filter_map(|code| code.chars().nth(position)).collect()
    };
    for reason in REASONS {
        let codes = PHASES.map(|phase| Termination::new(reason, phase).code()).to_vec();
        assert_eq!(letters(codes.clone(), 0).len(), 1, "{codes:?}");
        assert_eq!(letters(codes, 1), "RQCDL-".chars().collect());
    }
    let firsts =
        REASONS.map(|reason| Termination::new(reason, ConnectionPhase::Data).code()).to_vec();
    assert_eq!(letters(firsts, 0), "-CScsPRDK".chars().collect());
}

#[test]
fn codes_are_those_of_haproxy() {
    let code = |reason, phase| Termination::new(reason, phase).to_string();
    assert_eq!(Termination::NORMAL.code(), "--");
    assert_eq!(code(TerminationReason::Client, ConnectionPhase::Data), "CD");
    assert_eq!(code(TerminationReason::Backend, ConnectionPhase::Connect), "SC");
    assert_eq!(code(TerminationReason::BackendTimeout, ConnectionPhase::Connect), "sC");
    assert_eq!(code(TerminationReason::BackendTimeout, ConnectionPhase::Queue), "sQ");
    assert_eq!(code(TerminationReason::ClientTimeout, ConnectionPhase::Data), "cD");
    assert_eq!(code(TerminationReason::Proxy, ConnectionPhase::Request), "PR");
    assert_eq!(code(TerminationReason::BackendDown, ConnectionPhase::Data), "DD");
    assert_eq!(code(TerminationReason::Killed, ConnectionPhase::Data), "KD");
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_line_has_seventeen_fields(service in any::<String>(), backend in any::<String>()) {
        let record = ConnectionRecord {
            service: service.as_str().into(),
            backend: Some(backend.as_str().into()),
            ..finished_record()
        };
        let line = record.to_string();
        prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        prop_assert_eq!(line.split(' ').filter(|field| !field.is_empty()).count(), 17);
        let keyed = record.key_values().to_string();
        prop_assert!(keyed.split(' ').all(|pair| pair.matches('=').count() == 1), "{keyed:?}");
    }
}
