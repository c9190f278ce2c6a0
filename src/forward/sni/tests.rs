//! ClientHellos recorded from OpenSSL 3 and curl 7, whole and split into records, and invalid ones.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use super::*;

/// `openssl s_client -servername WWW.Example.org -alpn h2,http/1.1`.
const TLS_1_3: &str = "160301014e0100014a030305de311529274ccb9dcebddc4743001dd6fbe29c62bf820f2b7f\
    09865dad65cb205a0a878c6b8c6d37c55ab07f8e6acdc058ab8cfa1fe3a75fe63abb322e783cf3003e1302130313\
    01c02cc030009fcca9cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039c009c0130033009d00\
    9c003d003c0035002f00ff010000c300000014001200000f5757572e4578616d706c652e6f7267000b0004030001\
    02000a00160014001d0017001e0019001801000101010201030104002300000010000e000c02683208687474702f\
    312e310016000000170000000d002a0028040305030603080708080809080a080b08040805080604010501060103\
    0303010302040205020602002b0009080304030303020301002d00020101003300260024001d00200c4a4a3515c4\
    0ba811757aaae54ec4f961fdf411725a83e0e16a4e3f7bcb3a47";

/// `openssl s_client -tls1_2 -noservername`.
const TLS_1_2: &str = "16030100b7010000b303030303bc1cb83333f24e8e19b8c6386cf1d6b90d2286e400b7f8f5\
    5ca9ab8d7677000038c02cc030009fcca9cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039c0\
    09c0130033009d009c003d003c0035002f00ff01000052000b000403000102000a000c000a001d0017001e001900\
    18002300000016000000170000000d002a0028040305030603080708080809080a080b08040805080604010501\
    0601030303010302040205020602";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn peek_whole(bytes: &[u8]) -> Result<ClientHello, SniError> {
    match peek(bytes)? {
        PeekedHello::Hello(hello) => Ok(hello),
        PeekedHello::Incomplete { at_least } => {
            panic!("at least {at_least} bytes are missing after {}", bytes.len())
        }
    }
}

/// Checks that each prefix of a ClientHello is incomplete, and that no more bytes are requested than
/// the ClientHello has.
fn check_prefixes(bytes: &[u8]) {
    for len in 0..bytes.len() {
        match peek(&bytes[..len]) {
            Ok(PeekedHello::Incomplete { at_least }) => {
                assert!((1..=bytes.len() - len).contains(&at_least), "{at_least} at {len}");
            }
            result => panic!("{result:?} at {len} of {}", bytes.len()),
        }
    }
}

/// Puts each piece of a handshake into a record.
fn records<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        out.extend([22, 3, 1]);
        out.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
        out.extend(piece);
    }
    out
}

fn vector_16(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).unwrap().to_be_bytes(), data].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &*vector_16(data)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vector_16(&[&[0], &*vector_16(name)].concat()))
}

/// Returns the fields before the extensions.
fn fields_before_extensions() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body
}

/// Returns a ClientHello message with a body.
fn handshake(body: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = body.len().to_be_bytes();
    [&[1, a, b, c], body].concat()
}

/// Returns a ClientHello message with extensions.
fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    handshake(&[fields_before_extensions(), vector_16(&extensions.concat())].concat())
}

fn peek_extensions(extensions: &[Vec<u8>]) -> Result<ClientHello, SniError> {
    peek_whole(&records([&*hello(extensions)]))
}

#[test]
fn tls_1_3_client_hello_has_server_name_and_alpn() {
    let bytes = unhex(TLS_1_3);
    let hello = peek_whole(&bytes).unwrap();
    assert_eq!(hello.server_name(), Some("www.example.org"));
    assert_eq!(hello.alpn().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
    check_prefixes(&bytes);
    let early = [&bytes[..], b"\x14\x03\x03\0\x01\x01"].concat();
    assert_eq!(peek_whole(&early), Ok(hello));
}

#[test]
fn client_hello_without_server_name_has_none() {
    let bytes = unhex(TLS_1_2);
    let hello = peek_whole(&bytes).unwrap();
    assert_eq!((hello.server_name(), hello.alpn().count()), (None, 0));
    check_prefixes(&bytes);
    // TLS 1.0 allows a ClientHello without extensions.
    let bare = records([&*handshake(&fields_before_extensions())]);
    assert_eq!(peek_whole(&bare), Ok(hello));
    check_prefixes(&bare);
}

#[test]
fn client_hello_in_several_records_is_reassembled() {
    let whole = unhex(TLS_1_3);
    let expected = peek_whole(&whole).unwrap();
    let handshake = &whole[5..];
    for size in [6, 7, 64, handshake.len() - 1] {
        let bytes = records(handshake.chunks(size));
        assert_eq!(peek_whole(&bytes).as_ref(), Ok(&expected), "{size}");
        check_prefixes(&bytes);
    }
    // The handshake header may be split, and the next message may be in the same record.
    let cut = records([&handshake[..1], &handshake[1..3], &handshake[3..]]);
    assert_eq!(peek_whole(&cut).as_ref(), Ok(&expected));
    check_prefixes(&cut);
    let shared = records([&*[handshake, &[14, 0, 0, 0]].concat()]);
    assert_eq!(peek_whole(&shared), Ok(expected));
}

#[test]
fn client_hello_is_limited_in_length_and_records() {
    let pad = |len: usize| {
        let rest = len - hello(&[extension(21, &[])]).len();
        hello(&[extension(21, &vec![0; rest])])
    };
    let longest = pad(MAX_CLIENT_HELLO);
    assert_eq!(longest.len(), MAX_CLIENT_HELLO);
    let bytes = records(longest.chunks(MAX_CLIENT_HELLO / MAX_HELLO_RECORDS));
    assert_eq!(bytes.len(), MAX_PEEK_BYTES);
    peek_whole(&bytes).unwrap();
    let long = records([&pad(MAX_CLIENT_HELLO + 1)[..100]]);
    assert_eq!(peek(&long), Err(SniError::TooLong { len: MAX_CLIENT_HELLO + 1 }));

    let pieces = records(longest[..MAX_HELLO_RECORDS + 1].chunks(1));
    assert_eq!(peek(&pieces), Err(SniError::TooManyRecords));
    assert!(peek(&pieces[..6 * MAX_HELLO_RECORDS - 1]).is_ok());
}

#[test]
fn other_protocols_are_rejected_early() {
    let refused = |bytes: &[u8], error| assert_eq!(peek(bytes), Err(error), "{bytes:?}");
    refused(b"G", SniError::NotTls { offset: 0, found: b'G' });
    refused(b"SSH-2.0-", SniError::NotTls { offset: 0, found: b'S' });
    refused(&[21, 3, 1, 0, 2, 2, 40], SniError::NotTls { offset: 0, found: 21 });
    refused(&[22, 2], SniError::NotTls { offset: 1, found: 2 });
    refused(&[0x80, 0x2e, 1, 3, 1], SniError::SslV2);
    refused(&[0x80], SniError::NotTls { offset: 0, found: 0x80 });
    refused(&[22, 3, 1, 0, 0], SniError::EmptyRecord);
    refused(&[22, 3, 1, 0x40, 1], SniError::LongRecord { len: 0x4001 });
    refused(&[22, 3, 1, 0, 9, 2], SniError::NotHello { message: 2 });
    refused(&[22, 3, 1, 0, 1, 1, 23], SniError::Interrupted { content_type: 23 });
}

/// The name is read whatever the record's version and the offers of the client are: the server judges them.
#[test]
fn what_the_name_does_not_depend_on_is_not_checked() {
    let fields = [&[3, 3][..], &[7; 32], &[0], &[0, 0], &[0]].concat();
    let body = [&*fields, &vector_16(&server_name(b"a.b"))].concat();
    let mut bytes = records([&*handshake(&body)]);
    for version in [[3, 0], [3, 4], [3, 255]] {
        bytes[1..3].copy_from_slice(&version);
        let hello = peek_whole(&bytes).expect("a name");
        assert_eq!(hello.server_name(), Some("a.b"), "{version:?}");
        check_prefixes(&bytes);
    }
}

#[test]
fn error_names_the_malformed_part() {
    let malformed = |part| Err(SniError::Malformed { part });
    let body = fields_before_extensions();
    let cut = |body: &[u8]| peek_whole(&records([&*handshake(body)]));
    assert_eq!(cut(&body[..1]), malformed("legacy_version"));
    assert_eq!(cut(&body[..33]), malformed("random"));
    assert_eq!(cut(&body[..34]), malformed("legacy_session_id"));
    assert_eq!(cut(&body[..38]), malformed("cipher_suites"));
    assert_eq!(cut(&body[..40]), malformed("legacy_compression_methods"));
    assert_eq!(cut(&[&*body, &[0]].concat()), malformed("extensions"));
    assert_eq!(cut(&[&*body, &[0, 0, 0]].concat()), malformed("extensions"));

    let name = server_name(b"a.b");
    let alpn = |list: &[u8]| extension(16, list);
    const ALPN: &str = "application_layer_protocol_negotiation";
    for (extensions, part) in [
        (vec![name.clone(), name], "extensions"),
        (vec![vec![0, 0]], "extension_data"),
        (vec![extension(0, &[])], "server_name"),
        (vec![extension(0, &[0, 0])], "server_name"),
        (vec![extension(0, &[0, 4, 0, 0, 1, b'a', 0])], "server_name"),
        (vec![extension(0, &[0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b'])], "server_name"),
        (vec![alpn(&[0, 0])], ALPN),
        (vec![alpn(&[0, 1, 0])], ALPN),
        (vec![alpn(&[0, 2, 2, b'h'])], ALPN),
        (vec![alpn(&[0, 2, 1, b'h', 0])], ALPN),
    ] {
        assert_eq!(peek_extensions(&extensions), malformed(part), "{extensions:?}");
    }
    // Name types that are not defined yet are skipped.
    let both = peek_extensions(&[extension(0, &[0, 8, 9, 0, 1, 9, 0, 0, 1, b'a'])]).unwrap();
    assert_eq!(both.server_name(), Some("a"));
}

#[test]
fn invalid_server_name_is_rejected() {
    let refused = |name: &[u8], error| {
        assert_eq!(peek_extensions(&[server_name(name)]), Err(SniError::Name(error)), "{name:?}");
    };
    refused(b"", HostNameError::Length { len: 0 });
    refused(&[b'a'; 254], HostNameError::Length { len: 254 });
    refused(&[b'a'; 64], HostNameError::Label { offset: 0 });
    refused(b"a..b", HostNameError::Label { offset: 2 });
    refused(b".b", HostNameError::Label { offset: 0 });
    refused(b"www.-b", HostNameError::Label { offset: 4 });
    refused(b"b-.org", HostNameError::Label { offset: 0 });
    refused(b"example.org..", HostNameError::Label { offset: 12 });
    refused(b".", HostNameError::Length { len: 0 });
    refused(b"192.0.2.1", HostNameError::Address);
    refused(b"2001:db8::1", HostNameError::Byte { at: 4, found: b':' });
    refused(b"a\0b", HostNameError::Byte { at: 1, found: 0 });
    refused("b\u{fc}cher.example".as_bytes(), HostNameError::Byte { at: 1, found: 0xc3 });
    let rooted = peek_extensions(&[server_name(b"Example.org.")]).unwrap();
    assert_eq!(rooted.server_name(), Some("example.org"), "a dot at the end is the root");
    let longest = "a.".repeat(126) + "b";
    for good in ["localhost", "_a.xn--bcher-kva.example", "3.example", &longest] {
        let hello = peek_extensions(&[server_name(good.as_bytes())]).unwrap();
        assert_eq!(hello.server_name(), Some(good));
    }
}

#[test]
fn most_specific_pattern_takes_precedence() {
    let table = ServerNameTable::new()
        .with_pattern("Example.org", 1)
        .and_then(|table| table.with_pattern("*.example.org", 2))
        .and_then(|table| table.with_pattern("www.example.org", 3))
        .unwrap();
    assert_eq!((table.len(), table.get(None), table.get(Some("com"))), (3, None, None));
    let table = table.with_default(9);
    for (name, value) in [
        ("example.org", 1),
        ("EXAMPLE.ORG", 1),
        ("mail.example.org", 2),
        ("Mail.Example.Org", 2),
        ("www.example.org", 3),
        ("a.www.example.org", 9),
        (".example.org", 9),
        ("org", 9),
        ("*.example.org", 2),
    ] {
        assert_eq!(table.get(Some(name)), Some(&value), "{name}");
    }
    assert_eq!(table.get(None), Some(&9));
}

#[test]
fn invalid_and_duplicate_patterns_are_rejected() {
    let mut table = ServerNameTable::new();
    for pattern in
        ["", "*", "*.", "w*.example.org", "*.*.org", "a.*.org", "example.org..", "1.2.3.4"]
    {
        let refused = table.insert(pattern, ());
        assert!(matches!(refused, Err(ServerNameTableError::Pattern { .. })), "{pattern}");
    }
    for (pattern, again) in [("a.b", "A.B."), ("*.a.b", "*.A.b")] {
        table.insert(pattern, ()).unwrap();
        let refused = table.insert(again, ());
        assert_eq!(refused, Err(ServerNameTableError::Duplicate { pattern: again.to_owned() }));
    }
    for number in 2..MAX_SERVER_NAMES {
        table.insert(&format!("host-{number}"), ()).unwrap();
    }
    let refused = table.insert("one-more", ());
    assert_eq!(refused, Err(ServerNameTableError::Full { pattern: "one-more".to_owned() }));
}

proptest! {
    #![proptest_config(Config {
        cases: 200,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6c76_7303),
        ..Config::default()
    })]

    #[test]
    fn any_client_hello_in_any_records_is_parsed(
        name in "[a-zA-Z0-9]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9])?(\\.[a-z]{1,20}){0,4}\\.[a-z]{2}",
        protocols in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 1..4),
        others in prop::collection::vec(
            (17..999_u16, prop::collection::vec(any::<u8>(), 0..40)),
            0..4,
        ),
        sizes in prop::collection::vec(1..200_usize, 1..30),
    ) {
        let list: Vec<u8> =
            protocols.iter().flat_map(|name| [&[name.len() as u8], &name[..]].concat()).collect();
        let mut extensions: Vec<_> =
            others.iter().map(|(kind, data)| extension(*kind, data)).collect();
        extensions.push(server_name(name.as_bytes()));
        extensions.push(extension(16, &vector_16(&list)));
        let handshake = hello(&extensions);
        let mut pieces = Vec::new();
        let mut rest = &handshake[..];
        for size in sizes {
            let (piece, tail) = rest.split_at(size.min(rest.len()));
            pieces.extend((!piece.is_empty()).then_some(piece));
            rest = tail;
        }
        pieces.extend((!rest.is_empty()).then_some(rest));
        let bytes = records(pieces);
        check_prefixes(&bytes);
        let parsed = peek_whole(&bytes).unwrap();
        let lower = name.to_ascii_lowercase();
        prop_assert_eq!(parsed.server_name(), Some(&*lower));
        prop_assert!(parsed.alpn().eq(protocols.iter().map(|protocol| &protocol[..])));
    }
}
