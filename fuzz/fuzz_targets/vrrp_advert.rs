//! No bytes make the reader of VRRP's advertisements panic, and what it has read it writes again.
//!
//! ```text
//! cargo +nightly fuzz run vrrp_advert
//! ```
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lvs::vrrp::{Advert, Envelope, Message};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    is_v6: bool,
    /// Sums are hard to find for a fuzzer: it may leave that to this program.
    mend: Option<bool>,
    bytes: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let texts = if input.is_v6 { ["fe80::1", "ff02::12"] } else { ["10.0.0.1", "224.0.0.18"] };
    let [source, destination] = texts.map(|text| text.parse().expect("an address"));
    let envelope = Envelope { source, destination, ttl: Some(255) };
    let mut bytes = input.bytes.to_vec();
    if let Some(is_v2) = input.mend.filter(|_| bytes.len() >= 8) {
        bytes[0] = if is_v2 { 0x21 } else { 0x31 };
        let size = if input.is_v6 { 16 } else { 4 };
        let behind = 8 + if is_v2 { 8 } else { 0 };
        bytes[3] = (bytes.len().saturating_sub(behind) / size).min(255) as u8;
        bytes.truncate(behind + usize::from(bytes[3]) * size);
        bytes[6..8].fill(0);
        let sum = !sum(&bytes, if is_v2 || !input.is_v6 { None } else { Some(texts) });
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    let Ok(advert) = Advert::read(&bytes, &envelope) else { return };
    let addresses: Vec<_> = advert.addresses().collect();
    let message = Message {
        version: advert.version(),
        router: advert.router(),
        priority: advert.priority(),
        interval: advert.interval(),
        addresses: &addresses,
    };
    let written = message.write(source, destination, advert.checksum()).expect("it was sent");
    let again = Advert::read(&written, &envelope).expect("sound");
    assert_eq!(again.addresses().collect::<Vec<_>>(), addresses);
    assert_eq!((again.router(), again.priority()), (advert.router(), advert.priority()));
    assert_eq!((again.interval(), again.checksum()), (advert.interval(), advert.checksum()));
    let _ = (advert.authentication(), advert.trailer());
});

fn sum(bytes: &[u8], pseudo: Option<[&str; 2]>) -> u16 {
    let mut all = bytes.to_vec();
    if all.len() % 2 == 1 {
        all.push(0);
    }
    for text in pseudo.into_iter().flatten() {
        all.extend(text.parse::<std::net::Ipv6Addr>().expect("an address").octets());
    }
    if pseudo.is_some() {
        all.extend([(bytes.len() >> 8) as u8, bytes.len() as u8, 0, 112]);
    }
    let words = all.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
