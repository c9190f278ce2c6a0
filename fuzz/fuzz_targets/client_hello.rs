//! Checks that no bytes make the ClientHello parser panic, however they are split into records; that
//! each prefix of a valid ClientHello is incomplete; and that an invalid ClientHello is rejected at its
//! first invalid byte.
//!
//! ```text
//! cargo +nightly fuzz run client_hello
//! ```
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lvs::forward::sni::{PeekedHello, SniError, peek};

/// Input with and without valid nested lengths, which a fuzzer hardly finds by itself.
#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Bytes(&'a [u8]),
    Handshake { body: &'a [u8], pieces: Vec<u8> },
    Hello { session: &'a [u8], extensions: Vec<Extension<'a>>, pieces: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
enum Extension<'a> {
    Other(u16, &'a [u8]),
    ServerName(&'a str),
    Alpn(Vec<&'a [u8]>),
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Bytes(bytes) => drop(check(bytes)),
        Input::Handshake { body, pieces } => drop(check(&records(&handshake(body), &pieces))),
        Input::Hello { session, extensions, pieces } => {
            let mut body = vec![3; 34];
            body.extend(vector_8(session));
            body.extend([0, 2, 0x13, 0x01, 1, 0]);
            let list: Vec<u8> = extensions.iter().flat_map(extension).collect();
            body.extend(vector_16(&list));
            let handshake = handshake(&body);
            let whole = check(&records(&handshake, &[]));
            let cut = check(&records(&handshake, &pieces));
            if !matches!(cut, Err(SniError::TooManyRecords)) {
                assert_eq!(whole, cut);
            }
        }
    }
});

/// Parses the bytes and each of their prefixes, and compares the results.
fn check(bytes: &[u8]) -> Result<PeekedHello, SniError> {
    let whole = peek(bytes);
    let mut announced = 0;
    for len in 0..bytes.len() {
        match peek(&bytes[..len]) {
            Ok(PeekedHello::Incomplete { at_least }) => {
                assert!(at_least > 0);
                announced = announced.max(len + at_least);
            }
            // SSL 2.0 is recognised by the third byte; until then the bytes are not TLS.
            Err(SniError::NotTls { .. }) => {
                assert!(matches!(whole, Err(SniError::NotTls { .. } | SniError::SslV2)));
                return whole;
            }
            found => {
                assert_eq!(found, whole);
                break;
            }
        }
    }
    if let Ok(PeekedHello::Hello(hello)) = &whole {
        assert!(announced <= bytes.len());
        assert!(hello.alpn().all(|protocol| !protocol.is_empty()));
        if let Some(name) = hello.server_name() {
            assert!(name.len() <= 253 && !name.ends_with('.'));
            assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()));
        }
    }
    whole
}

fn extension(extension: &Extension<'_>) -> Vec<u8> {
    let (kind, data) = match extension {
        Extension::Other(kind, data) => (*kind, data.to_vec()),
        Extension::ServerName(name) => {
            (0, vector_16(&[&[0], &*vector_16(name.as_bytes())].concat()))
        }
        Extension::Alpn(protocols) => {
            let list: Vec<u8> = protocols.iter().flat_map(|protocol| vector_8(protocol)).collect();
            (16, vector_16(&list))
        }
    };
    [&kind.to_be_bytes(), &*vector_16(&data)].concat()
}

fn handshake(body: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = body.len().to_be_bytes();
    [&[1, a, b, c], body].concat()
}

/// Splits a handshake into records of the given sizes (0 counts as 1) and a record with the rest.
fn records(handshake: &[u8], sizes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = handshake;
    let sizes = sizes.iter().map(|&size| usize::from(size).max(1));
    for size in sizes.chain([usize::from(u16::MAX)]) {
        let (piece, tail) = rest.split_at(size.min(rest.len()));
        if !piece.is_empty() {
            out.extend([22, 3, 1]);
            out.extend(vector_16(piece));
        }
        rest = tail;
    }
    out
}

fn vector_8(data: &[u8]) -> Vec<u8> {
    [&[data.len() as u8], data].concat()
}

fn vector_16(data: &[u8]) -> Vec<u8> {
    [&(data.len() as u16).to_be_bytes(), data].concat()
}
