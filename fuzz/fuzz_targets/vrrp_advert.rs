//! Parsing a VRRP advertisement does not panic on any bytes, and encoding the parsed message gives an
//! equal message.
//!
//! ```text
//! cargo +nightly fuzz run vrrp_advert
//! ```
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lvs::vrrp::{Advert, IpHeaderInfo, OutgoingAdvert};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    is_v6: bool,
    /// Whether length and checksum are corrected, for version 2 or 3: a fuzzer rarely finds them.
    correct: Option<bool>,
    bytes: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let texts = if input.is_v6 { ["fe80::1", "ff02::12"] } else { ["10.0.0.1", "224.0.0.18"] };
    let [source, destination] = texts.map(|text| text.parse().expect("an IP address"));
    let header = IpHeaderInfo { source, destination, ttl: Some(255) };
    let mut bytes = input.bytes.to_vec();
    if let Some(is_v2) = input.correct.filter(|_| bytes.len() >= 8) {
        bytes[0] = if is_v2 { 0x21 } else { 0x31 };
        let size = if input.is_v6 { 16 } else { 4 };
        let fixed_len = 8 + if is_v2 { 8 } else { 0 };
        bytes[3] = (bytes.len().saturating_sub(fixed_len) / size).min(255) as u8;
        bytes.truncate(fixed_len + usize::from(bytes[3]) * size);
        bytes[6..8].fill(0);
        let checksum = !sum_words(&bytes, if is_v2 || !input.is_v6 { None } else { Some(texts) });
        bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
    let Ok(advert) = Advert::parse(&bytes, &header) else { return };
    let addresses: Vec<_> = advert.addresses().collect();
    let message = OutgoingAdvert {
        version: advert.version(),
        vrid: advert.vrid(),
        priority: advert.priority(),
        interval: advert.interval(),
        addresses: &addresses,
    };
    let encoded = message.encode(source, destination, advert.checksum()).expect("the fields fit");
    let again = Advert::parse(&encoded, &header).expect("an encoded message is valid");
    assert_eq!(again.addresses().collect::<Vec<_>>(), addresses);
    assert_eq!((again.vrid(), again.priority()), (advert.vrid(), advert.priority()));
    assert_eq!((again.interval(), again.checksum()), (advert.interval(), advert.checksum()));
    let _ = (advert.authentication(), advert.trailer());
});

fn sum_words(bytes: &[u8], pseudo_header: Option<[&str; 2]>) -> u16 {
    let mut covered = bytes.to_vec();
    if covered.len() % 2 == 1 {
        covered.push(0);
    }
    for text in pseudo_header.into_iter().flatten() {
        covered.extend(text.parse::<std::net::Ipv6Addr>().expect("an IP address").octets());
    }
    if pseudo_header.is_some() {
        covered.extend([(bytes.len() >> 8) as u8, bytes.len() as u8, 0, 112]);
    }
    let words = covered.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
