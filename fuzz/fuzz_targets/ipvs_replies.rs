//! Decoding an answer of the kernel's IPVS, or a request to it, does not panic on any bytes, and encoding
//! what was decoded gives an equal object.
//!
//! ```text
//! cargo +nightly fuzz run ipvs_replies
//! ```
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lvs::ipvs::fuzzing::{check_reply, check_request};

#[derive(Arbitrary, Debug)]
struct Input {
    /// The type of the nest, such as 1 for a service; `None` for attributes as they are.
    nest: Option<u8>,
    /// The type and the value of each attribute: a fuzzer rarely finds lengths.
    attributes: Vec<(u8, Vec<u8>)>,
    command: u8,
    /// Bytes behind the attributes.
    trailer: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let mut bytes = Vec::new();
    for (kind, value) in &input.attributes {
        push(&mut bytes, *kind, value);
    }
    bytes.extend(&input.trailer);
    if let Some(kind) = input.nest {
        let inner = std::mem::take(&mut bytes);
        push(&mut bytes, kind, &inner);
    }
    check_reply(input.command, &bytes);
    check_request(input.command, &bytes);
});

fn push(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let len = value.len().min(usize::from(u16::MAX) - 4);
    bytes.extend((len as u16 + 4).to_ne_bytes());
    bytes.extend(u16::from(kind).to_ne_bytes());
    bytes.extend(&value[..len]);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
