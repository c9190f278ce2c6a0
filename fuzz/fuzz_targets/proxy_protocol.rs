//! No bytes make the PROXY protocol's parser panic; what it reads it reads again from what it
//! writes; and a header is asked for to its last byte and refused with its first wrong one.
//!
//! ```text
//! cargo +nightly fuzz run proxy_protocol
//! ```
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lvs::forward::proxy_protocol::{Header, Parsed, UnixAddress, Version, parse};
use std::net::SocketAddr;

/// Behind the signature most bytes are of interest, which a fuzzer would hardly find by itself.
#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Bytes(&'a [u8]),
    Line(&'a [u8]),
    Binary { command: bool, family: u8, block: &'a [u8] },
    Built { whom: Whom<'a>, tlvs: Vec<(u8, &'a [u8])>, datagram: bool, checksum: bool },
}

#[derive(Arbitrary, Debug)]
enum Whom<'a> {
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
        Input::Built { whom, tlvs, datagram, checksum } => {
            let mut header = match whom {
                Whom::Local => Header::local(),
                Whom::Unknown => Header::unknown(),
                Whom::Inet(source, destination) => Header::proxied(source, destination),
                Whom::Unix(source, destination) => {
                    let (Ok(source), Ok(destination)) =
                        (UnixAddress::new(source), UnixAddress::new(destination))
                    else {
                        return;
                    };
                    Header::unix(source, destination)
                }
            };
            for (kind, value) in tlvs {
                if let Ok(with) = header.clone().with_tlv(kind, value) {
                    header = with;
                }
            }
            if datagram {
                header = header.datagram();
            }
            if checksum {
                header = header.with_checksum();
            }
            for version in [Version::V1, Version::V2] {
                let mut bytes = Vec::new();
                if header.encode(version, &mut bytes).is_ok() {
                    let parsed = parse(&bytes);
                    assert!(
                        matches!(parsed, Ok(Parsed::Complete { len, .. }) if len == bytes.len())
                    );
                    check(&bytes);
                }
            }
        }
    }
});

fn check(bytes: &[u8]) {
    let parsed = parse(bytes);
    // Whatever is said of a beginning is still so with more bytes.
    let mut wanted = 0;
    for len in 0..bytes.len() {
        match parse(&bytes[..len]) {
            Ok(Parsed::Incomplete { at_least }) => {
                assert!(at_least > 0);
                wanted = wanted.max(len + at_least);
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
    let Ok(Parsed::Complete { header, len }) = parsed else { return };
    assert!(wanted <= len);
    let mut again = b"before".to_vec();
    header.encode(Version::V2, &mut again).expect("what was read fits");
    let parsed = parse(&again["before".len()..]);
    assert_eq!(parsed, Ok(Parsed::Complete { header, len: again.len() - "before".len() }));
}
