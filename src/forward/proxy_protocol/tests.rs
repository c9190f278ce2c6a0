//! Examples of the specification, headers recorded from HAProxy 2.6, and invalid headers.

use std::net::SocketAddr;

use super::*;

/// `send-proxy-v2` with `proxy-v2-options crc32c,unique-id`.
const HAPROXY_UNIQUE_ID: &str = "0d0a0d0a000d0a515549540a2111003a7f0000017f000001b7d24cff0300049bf5\
    529505002431356332616633392d306365322d346436322d386332622d313463623762353634333734";

/// `send-proxy-v2-ssl-cn` with all about the TLS connection, the authority and a checksum.
const HAPROXY_SSL: &str = "0d0a0d0a000d0a515549540a2111006c7f0000017f000001a7fa4d00030004501404\
    5f010002683202000f7777772e6578616d706c652e6f7267\
    20003f0100000000210007544c5376312e332500075253413230343824000a5253412d5348413235362300165\
    44c535f4145535f3235365f47434d5f534841333834";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn proxied(source: &str, destination: &str) -> ProxyHeader {
    ProxyHeader::proxied(address(source), address(destination))
}

pub(super) fn parse_whole(bytes: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    match parse(bytes)? {
        ParsedProxyHeader::Complete { header, len } => {
            assert_eq!(len, bytes.len());
            Ok(header)
        }
        ParsedProxyHeader::Incomplete { at_least } => {
            panic!("at least {at_least} bytes are missing after {}", bytes.escape_ascii())
        }
    }
}

fn parse_v1_line(text: &str) -> Result<ProxyHeader, ProxyHeaderError> {
    parse_whole(format!("{text}\r\n").as_bytes())
}

pub(super) fn encode_v1(header: &ProxyHeader) -> String {
    let mut out = Vec::new();
    header.encode_v1(&mut out);
    assert!(out.len() <= MAX_V1_LINE);
    String::from_utf8(out).unwrap()
}

pub(super) fn encode_v2(header: &ProxyHeader) -> Vec<u8> {
    let mut out = Vec::new();
    header.encode_v2(&mut out).unwrap();
    assert!(out.len() <= MAX_PROXY_HEADER);
    out
}

/// Builds a version 2 header with a command, a family and transport, and a block.
fn v2_header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut out = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    out.extend([command, family]);
    out.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    out.extend(block);
    out
}

/// Checks that each prefix of a header is incomplete, and that no more bytes are requested than the
/// header has.
pub(super) fn check_prefixes(bytes: &[u8]) {
    for len in 0..bytes.len() {
        match parse(&bytes[..len]) {
            Ok(ParsedProxyHeader::Incomplete { at_least }) => {
                assert!((1..=bytes.len() - len).contains(&at_least), "{at_least} at {len}");
            }
            result => panic!("{result:?} at {len} of {}", bytes.escape_ascii()),
        }
    }
}

#[test]
fn example_of_the_specification_is_parsed_and_encoded() {
    let text = "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
    let request = format!("{text}GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n");
    let header = proxied("192.168.0.1:56324", "192.168.0.11:443");
    let parsed = parse(request.as_bytes()).unwrap();
    assert_eq!(parsed, ParsedProxyHeader::Complete { header: header.clone(), len: text.len() });
    assert_eq!(encode_v1(&header), text);
    check_prefixes(text.as_bytes());
}

#[test]
fn longest_lines_of_the_specification_are_parsed() {
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let v4 = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535".to_owned();
    let v6 = format!("PROXY TCP6 {longest} {longest} 65535 65535");
    let unknown = format!("PROXY UNKNOWN {longest} {longest} 65535 65535");
    for (text, len) in [(v4, 56), (v6, 104), (unknown, 107), ("PROXY UNKNOWN".to_owned(), 15)] {
        assert_eq!(text.len() + 2, len);
        parse_v1_line(&text).unwrap();
        check_prefixes(format!("{text}\r\n").as_bytes());
    }
    for shortest in ["PROXY TCP4 0.0.0.0 0.0.0.0 0 0", "PROXY TCP6 :: :: 0 0"] {
        parse_v1_line(shortest).unwrap();
        check_prefixes(format!("{shortest}\r\n").as_bytes());
    }
}

#[test]
fn unterminated_line_is_rejected_at_its_maximum_length() {
    for (text, longest) in
        [("PROXY TCP4 1", 56), ("PROXY TCP6 1", MAX_V1_LINE), ("PROXY UNKNOWN 1", MAX_V1_LINE)]
    {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(longest - 2, b'1');
        assert_eq!(parse(&bytes), Ok(ParsedProxyHeader::Incomplete { at_least: 2 }), "{text}");
        bytes.push(b'1');
        assert_eq!(parse(&bytes), Err(ProxyHeaderError::Unterminated { longest }), "{text}");
    }
}

#[test]
fn malformed_line_is_rejected_at_its_first_wrong_byte() {
    let header = |at, expected| Err(ProxyHeaderError::Line { expected, at });
    for (text, error) in [
        ("PROXy", Err(ProxyHeaderError::NotProxy { offset: 4 })),
        ("PUT / HTTP/1.1", Err(ProxyHeaderError::NotProxy { offset: 1 })),
        ("PROXY  TCP4", header(6, "TCP4, TCP6 or UNKNOWN")),
        ("PROXY TCP5", header(9, "TCP4, TCP6 or UNKNOWN")),
        ("PROXY TCP4\t", header(10, "TCP4, TCP6 or UNKNOWN")),
        ("PROXY UNKNOWNS", header(13, "a space or CR")),
        ("PROXY UNKNOWN a\nb", header(15, "a space or CR")),
        ("PROXY TCP4 1.2.3.4\n", header(18, "an IPv4 address, a port or CR")),
        ("PROXY TCP4 ::1", header(11, "an IPv4 address, a port or CR")),
        ("PROXY TCP6 fe80::1%", header(18, "an IPv6 address, a port or CR")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX", header(31, "LF")),
        ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", header(11, "source address")),
        ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", header(11, "source address")),
        ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", header(11, "source address")),
        ("PROXY TCP4 256.2.3.4 1.2.3.4 1 2\r\n", header(11, "source address")),
        ("PROXY TCP4 1.2.3.4 12 1 2\r\n", header(19, "destination address")),
        ("PROXY TCP6 1.2.3.4 ::1 1 2\r\n", header(11, "source address")),
        ("PROXY TCP6 ::1 1::2::3 1 2\r\n", header(15, "destination address")),
        ("PROXY TCP6 ::12345 ::1 1 2\r\n", header(11, "source address")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", header(27, "source port")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", header(27, "source port")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n", header(29, "destination port")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", header(28, "destination port")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", header(29, "destination port")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", header(30, "CR")),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", header(30, "CR")),
        ("PROXY TCP4 \r\n", header(11, "source address")),
    ] {
        assert_eq!(parse(text.as_bytes()), error, "{text:?}");
    }
}

#[test]
fn content_of_an_unknown_line_is_ignored() {
    for text in ["PROXY UNKNOWN", "PROXY UNKNOWN ", "PROXY UNKNOWN \u{e9} x  y 99999999"] {
        assert_eq!(parse_v1_line(text), Ok(ProxyHeader::unknown()), "{text}");
    }
}

#[test]
fn mapped_addresses_are_ipv4_and_never_encoded_in_dotted_form() {
    let header = proxied("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2");
    assert_eq!(header, proxied("192.0.2.1:1", "192.0.2.2:2"));
    assert_eq!(encode_v1(&header), "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    assert_eq!(parse_v1_line("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1 2"), Ok(header));

    let mixed = proxied("192.0.2.1:1", "[2001:db8::1]:2");
    assert_eq!(encode_v1(&mixed), "PROXY TCP6 ::ffff:c000:201 2001:db8::1 1 2\r\n");
    assert_eq!(parse_v1_line(encode_v1(&mixed).trim_end()), Ok(mixed.clone()));
    let bytes = encode_v2(&mixed);
    assert_eq!((bytes[13], bytes.len()), (0x21, FIXED_V6));
    assert_eq!(parse_whole(&bytes), Ok(mixed));
}

const FIXED_V6: usize = 16 + 36;

#[test]
fn version_1_encodes_unsupported_headers_as_unknown() {
    let unix = ProxyHeader::unix(UnixAddress::default(), UnixAddress::new(b"/s").unwrap());
    let datagram = proxied("192.0.2.1:1", "192.0.2.2:2").with_datagram_transport();
    for header in [unix, datagram, ProxyHeader::local(), ProxyHeader::unknown()] {
        assert_eq!(encode_v1(&header), "PROXY UNKNOWN\r\n");
    }
}

#[test]
fn version_2_addresses_have_the_layout_of_the_specification() {
    let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xc3, 0x50, 0x01, 0xbb];
    let header = proxied("192.0.2.1:50000", "192.0.2.2:443");
    assert_eq!(encode_v2(&header), v2_header(0x21, 0x11, &v4));
    assert_eq!(encode_v2(&header.clone().with_datagram_transport()), v2_header(0x21, 0x12, &v4));
    assert_eq!(parse_whole(&v2_header(0x21, 0x11, &v4)), Ok(header));

    let mut v6 = unhex("20010db8000000000000000000000001fe800000000000000000000000000002");
    v6.extend([0xc3, 0x50, 0x01, 0xbb]);
    // The header has no field for a scope.
    let header = proxied("[2001:db8::1]:50000", "[fe80::2%3]:443");
    assert_eq!(encode_v2(&header), v2_header(0x21, 0x21, &v6));
    assert_eq!(parse_whole(&v2_header(0x21, 0x22, &v6)), Ok(header.with_datagram_transport()));

    let mut unix = vec![0; 216];
    unix[..4].copy_from_slice(b"\0abc");
    unix[108..110].copy_from_slice(b"/s");
    let header =
        ProxyHeader::unix(UnixAddress::new(b"\0abc").unwrap(), UnixAddress::new(b"/s").unwrap());
    assert_eq!(encode_v2(&header), v2_header(0x21, 0x31, &unix));
    // The field may hold arbitrary bytes after the NUL that ends a path.
    unix[112] = b'x';
    assert_eq!(parse_whole(&v2_header(0x21, 0x32, &unix)), Ok(header.with_datagram_transport()));
}

#[test]
fn local_and_unspecified_headers_are_parsed_as_the_specification_requires() {
    assert_eq!(encode_v2(&ProxyHeader::local().with_checksum()), v2_header(0x20, 0, &[]));
    // Family, transport and block of a LOCAL header are ignored, also if they are invalid.
    for (family, block) in [(0x11, &[0; 12][..]), (0x11, &[]), (0xff, &[3, 0, 4, 1, 2, 3, 4])] {
        let header = parse_whole(&v2_header(0x20, family, block)).unwrap();
        assert_eq!((header.command(), header.source()), (ProxyCommand::Local, None));
        assert_eq!(header, ProxyHeader::local());
    }
    // Without a family the length of the addresses is unknown; a block of valid TLVs is accepted.
    assert_eq!(parse_whole(&v2_header(0x21, 0, &[])), Ok(ProxyHeader::unknown()));
    assert_eq!(parse_whole(&v2_header(0x21, 0, &[9; 11])), Ok(ProxyHeader::unknown()));
    assert_eq!(parse_whole(&v2_header(0x21, 1, &[])), Ok(ProxyHeader::unknown()));
    let named = ProxyHeader::unknown().with_unique_id(b"x").unwrap();
    assert_eq!(parse_whole(&v2_header(0x21, 0, &[5, 0, 1, b'x'])), Ok(named.clone()));
    // Without a transport the addresses are ignored.
    let mut block = vec![7; 12];
    block.extend([5, 0, 1, b'x']);
    assert_eq!(parse_whole(&v2_header(0x21, 0x10, &block)), Ok(named));
    assert_eq!(ProxyHeader::unknown().with_datagram_transport(), ProxyHeader::unknown());
}

#[test]
fn undefined_values_of_version_2_are_rejected_at_their_first_byte() {
    let whole = encode_v2(&proxied("192.0.2.1:1", "192.0.2.2:2"));
    let refused = |at: usize, byte: u8, error: ProxyHeaderError| {
        let mut bytes = whole[..=at].to_vec();
        bytes[at] = byte;
        assert_eq!(parse(&bytes), Err(error));
    };
    for at in 1..12 {
        refused(at, 0xff, ProxyHeaderError::NotProxy { offset: at });
    }
    refused(0, 0x16, ProxyHeaderError::NotProxy { offset: 0 });
    refused(12, 0x11, ProxyHeaderError::Version { version: 1 });
    refused(12, 0x31, ProxyHeaderError::Version { version: 3 });
    refused(12, 0x22, ProxyHeaderError::Command { command: 2 });
    refused(13, 0x41, ProxyHeaderError::Family { family: 4 });
    refused(13, 0x13, ProxyHeaderError::Transport { transport: 3 });
    refused(15, 11, ProxyHeaderError::ShortAddresses { len: 11, needed: 12 });

    let long = v2_header(0x21, 0x11, &vec![0; MAX_V2_BLOCK + 1]);
    assert_eq!(parse(&long[..16]), Err(ProxyHeaderError::TooLong { len: MAX_V2_BLOCK + 1 }));
    let longest = v2_header(0x20, 0x11, &vec![0; MAX_V2_BLOCK]);
    assert_eq!(longest.len(), MAX_PROXY_HEADER);
    assert_eq!(parse_whole(&longest), Ok(ProxyHeader::local()));
}

#[test]
fn checksum_is_crc32c_of_rfc_3720() {
    // RFC 3720 section B.4: 32 bytes of 0, and the bytes 0 to 31.
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    assert_eq!(crc.checksum(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    let rising: Vec<u8> = (0..32).collect();
    assert_eq!(crc.checksum(&rising).to_le_bytes(), [0x4e, 0x79, 0xdd, 0x46]);
}

#[test]
fn headers_of_haproxy_are_parsed() {
    let bytes = unhex(HAPROXY_UNIQUE_ID);
    let header = parse_whole(&bytes).unwrap();
    assert_eq!(header.source(), Some(address("127.0.0.1:47058")));
    assert_eq!(header.destination(), Some(address("127.0.0.1:19711")));
    assert_eq!(header.tlvs().unique_id(), Some(&b"15c2af39-0ce2-4d62-8c2b-14cb7b564374"[..]));
    assert!(header.has_checksum());
    check_prefixes(&bytes);

    let bytes = unhex(HAPROXY_SSL);
    let header = parse_whole(&bytes).unwrap();
    let tlvs = header.tlvs();
    assert_eq!(tlvs.authority(), Some("www.example.org"));
    assert_eq!(tlvs.alpn(), Some(&b"h2"[..]));
    let ssl = tlvs.ssl().unwrap();
    assert!(ssl.is_tls() && !ssl.has_connection_certificate() && !ssl.is_verified());
    assert_eq!((ssl.flags(), ssl.verify(), ssl.common_name()), (1, 0, None));
    assert_eq!(ssl.version(), Some("TLSv1.3"));
    assert_eq!(ssl.cipher(), Some("TLS_AES_256_GCM_SHA384"));
    assert_eq!(ssl.signature_algorithm(), Some("RSA-SHA256"));
    assert_eq!(ssl.key_algorithm(), Some("RSA2048"));
    check_prefixes(&bytes);
    assert_eq!(parse_whole(&encode_v2(&header)), Ok(header));
}

#[test]
fn any_changed_byte_breaks_the_checksum() {
    let whole = unhex(HAPROXY_UNIQUE_ID);
    for at in 16..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let is_header_of_checksum = (28..31).contains(&at);
        match parse(&bytes) {
            Err(ProxyHeaderError::Checksum { .. }) => assert!(!is_header_of_checksum),
            // A changed type or length makes another TLV, or an invalid one.
            Ok(ParsedProxyHeader::Complete { header, .. }) => {
                assert!(is_header_of_checksum && !header.has_checksum(), "{at}");
            }
            Err(ProxyHeaderError::Tlv(_)) => assert!((29..38).contains(&at), "{at}"),
            result => panic!("{result:?} at {at}"),
        }
    }
}

#[test]
fn truncated_or_duplicated_tlvs_are_rejected() {
    let tlv = |list: &[u8]| {
        let mut block = vec![1; 12];
        block.extend(list);
        parse_whole(&v2_header(0x21, 0x11, &block)).map(|header| header.tlvs().clone())
    };
    let refused = |list: &[u8], error| assert_eq!(tlv(list), Err(ProxyHeaderError::Tlv(error)));
    refused(&[0xe0], TlvError::Truncated { offset: 0 });
    refused(&[0xe0, 0], TlvError::Truncated { offset: 0 });
    refused(&[0xe0, 0, 1, 9, 0xe1, 0, 2, 7], TlvError::Truncated { offset: 4 });
    refused(&[5, 0, 0, 4, 0, 0, 5, 0, 0], TlvError::Duplicate { kind: Tlv::UNIQUE_ID });
    refused(&[3, 0, 4, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 0], TlvError::Duplicate { kind: 3 });
    refused(&[3, 0, 3, 0, 0, 0], TlvError::Length { kind: Tlv::CRC32C, len: 3 });
    refused(&[0x20, 0, 4, 1, 0, 0, 0], TlvError::Length { kind: Tlv::SSL, len: 4 });
    // What is in a value is the reader's: the common name of a certificate may be in Latin-1.
    for passed in [
        &[2, 0, 1, 0xff][..],
        &[0x30, 0, 1, 0xe9],
        &[0x20, 0, 7, 1, 0, 0, 0, 0, 0x21, 0],
        &[0x20, 0, 9, 1, 0, 0, 0, 0, 0x22, 0, 1, 0xe9],
        &[0x20, 0, 11, 1, 0, 0, 0, 0, 0x22, 0, 0, 0x22, 0, 0],
    ] {
        let received = tlv(passed).expect("a list");
        assert_eq!(received.as_bytes(), passed, "byte for byte");
        assert_eq!((received.authority(), received.netns()), (None, None));
        assert!(received.ssl().is_none_or(|ssl| ssl.common_name().is_none_or(str::is_empty)));
    }
    let long = [&[5, 0, 129][..], &[0; 129]].concat();
    refused(&long, TlvError::Length { kind: Tlv::UNIQUE_ID, len: 129 });

    // Application types may occur several times, and padding is not stored.
    let own = tlv(&[0xea, 0, 1, 1, 4, 0, 2, 0, 0, 0xea, 0, 1, 2]).unwrap();
    assert_eq!(own.iter().map(|tlv| tlv.value[0]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(own.get(0xea), Some(&[1][..]));
    assert!(tlv(&[4, 0, 2, 0, 0]).unwrap().is_empty());
}

#[test]
fn built_header_can_be_parsed_again() {
    let header = proxied("192.0.2.1:1", "192.0.2.2:2");
    let built = header
        .clone()
        .with_unique_id(b"old")
        .and_then(|header| header.with_alpn(b"h2"))
        .and_then(|header| header.with_unique_id(b"new"))
        .and_then(|header| header.with_netns("blue"))
        .and_then(|header| header.with_tlv(0xe0, b"1"))
        .and_then(|header| header.with_tlv(0xe0, b"2"))
        .unwrap()
        .with_checksum();
    let kinds: Vec<u8> = built.tlvs().iter().map(|tlv| tlv.kind).collect();
    assert_eq!(kinds, [Tlv::ALPN, Tlv::UNIQUE_ID, Tlv::NETNS, 0xe0, 0xe0]);
    assert_eq!((built.tlvs().unique_id(), built.tlvs().netns()), (Some(&b"new"[..]), Some("blue")));
    assert_eq!(parse_whole(&encode_v2(&built)), Ok(built));

    let refused = |kind, value: &[u8]| header.clone().with_tlv(kind, value).unwrap_err();
    assert_eq!(refused(Tlv::CRC32C, &[0; 4]), TlvError::Reserved { kind: Tlv::CRC32C });
    assert_eq!(refused(Tlv::NOOP, &[]), TlvError::Reserved { kind: Tlv::NOOP });
    assert_eq!(refused(Tlv::SSL, &[]), TlvError::Length { kind: Tlv::SSL, len: 0 });
    assert_eq!(refused(Tlv::AUTHORITY, &[0xff]), TlvError::Text { kind: Tlv::AUTHORITY });
    assert_eq!(refused(Tlv::NETNS, "\u{e9}".as_bytes()), TlvError::Text { kind: Tlv::NETNS });
    let latin = [1, 0, 0, 0, 0, 0x22, 0, 1, 0xe9];
    assert_eq!(refused(Tlv::SSL, &latin), TlvError::Text { kind: Tlv::SSL_CN });
    assert_eq!(refused(0xe0, &[0; MAX_V2_BLOCK]), TlvError::Full { len: MAX_V2_BLOCK + 3 });

    // TLVs that leave no room for the addresses are detected when the header is encoded.
    let full = header.clone().with_tlv(0xe0, &[0; MAX_V2_BLOCK - 3]).unwrap();
    let mut out = b"before".to_vec();
    let error = ProxyEncodeError::TooLong { len: MAX_V2_BLOCK + 12 };
    assert_eq!(full.encode(ProxyProtocolVersion::V2, &mut out), Err(error));
    assert_eq!(out, b"before");
    let fits = header.with_tlv(0xe0, &[0; MAX_V2_BLOCK - 3 - 12]).unwrap();
    assert_eq!(encode_v2(&fits).len(), MAX_PROXY_HEADER);
}

#[test]
fn unix_addresses_must_be_representable_in_the_wire_format() {
    assert_eq!(UnixAddress::new(&[b'a'; 109]), Err(UnixAddressError::TooLong { len: 109 }));
    assert_eq!(UnixAddress::new(b"/a\0b"), Err(UnixAddressError::Nul));
    assert_eq!(UnixAddress::new(b"\0a\0"), Err(UnixAddressError::Nul));
    assert!(UnixAddress::new(b"").unwrap().is_unnamed());
    let longest = UnixAddress::new(&[b'a'; 108]).unwrap();
    let header = ProxyHeader::unix(UnixAddress::new(b"\0a\0b").unwrap(), longest);
    assert_eq!(parse_whole(&encode_v2(&header)), Ok(header));
}
