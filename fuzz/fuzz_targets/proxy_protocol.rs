//! Checks that no bytes make the PROXY protocol parser panic; that a parsed header that is encoded
//! again parses to an equal header; that each prefix of a valid header is incomplete; and that an
//! invalid header is rejected at its first invalid byte.
//!
//! ```text
//! cargo +nightly fuzz run proxy_protocol
//! ```
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lvs::forward::proxy_protocol::{
    ParsedProxyHeader, ProxyHeader, ProxyProtocolVersion, UnixAddress, parse,
};
use std::net::SocketAddr;

/// Input with and without a valid signature, which a fuzzer hardly finds by itself.
#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Bytes(&'a [u8]),
    Line(&'a [u8]),
    Binary { command: bool, family: u8, block: &'a [u8] },
    Built { addresses: Addresses<'a>, tlvs: Vec<(u8, &'a [u8])>, datagram: bool, checksum: bool },
}

#[derive(Arbitrary, Debug)]
enum Addresses<'a> {
    Local,
    Unknown,
    Inet(SocketAddr, SocketAddr),
    Unix(&'a [u8], &'a [u8]),
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Bytes(bytes) => check(bytes),
        Input::Line(rest) => check(&[b"PROXY ", rest].concat()),
        Input::Binary { command, family, block } => {
            let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            bytes.extend([0x20 | u8::from(command), family]);
            bytes.extend((block.len() as u16).to_be_bytes());
            bytes.extend(block);
            check(&bytes);
        }
        Input::Built { addresses, tlvs, datagram, checksum } => {
            let mut header = match addresses {
                Addresses::Local => ProxyHeader::local(),
                Addresses::Unknown => ProxyHeader::unknown(),
                Addresses::Inet(source, destination) => ProxyHeader::proxied(source, destination),
                Addresses::Unix(source, destination) => {
                    let (Ok(source), Ok(destination)) =
                        (UnixAddress::new(source), UnixAddress::new(destination))
                    else {
                        return;
                    };
                    ProxyHeader::unix(source, destination)
                }
            };
            for (kind, value) in tlvs {
                if let Ok(changed) = header.clone().with_tlv(kind, value) {
                    header = changed;
                }
            }
            if datagram {
                header = header.with_datagram_transport();
            }
            if checksum {
                header = header.with_checksum();
            }
            for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
                let mut bytes = Vec::new();
                if header.encode(version, &mut bytes).is_ok() {
                    let parsed = parse(&bytes);
                    assert!(
                        matches!(parsed, Ok(ParsedProxyHeader::Complete { len, .. }) if len == bytes.len())
                    );
                    check(&bytes);
                }
            }
        }
    }
});

fn check(bytes: &[u8]) {
    let parsed = parse(bytes);
    // The result for a prefix must hold with more bytes.
    let mut announced = 0;
    for len in 0..bytes.len() {
        match parse(&bytes[..len]) {
            Ok(ParsedProxyHeader::Incomplete { at_least }) => {
                assert!(at_least > 0);
                announced = announced.max(len + at_least);
            }
            Err(error) => {
                assert_eq!(parsed, Err(error));
                return;
            }
            complete => {
                assert_eq!(complete, parsed);
                break;
            }
        }
    }
    let Ok(ParsedProxyHeader::Complete { header, len }) = parsed else { return };
    assert!(announced <= len);
    let mut encoded = b"before".to_vec();
    header.encode(ProxyProtocolVersion::V2, &mut encoded).expect("a parsed header fits");
    let parsed = parse(&encoded["before".len()..]);
    let len = encoded.len() - "before".len();
    assert_eq!(parsed, Ok(ParsedProxyHeader::Complete { header, len }));
}
