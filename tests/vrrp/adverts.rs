//! Advertisements: parsing and encoding, compared with captures of keepalived.

use std::net::IpAddr;
use std::time::Duration;

use lvs::vrrp::{
    Advert, AdvertError, ChecksumCoverage, IpHeaderInfo, OutgoingAdvert, VrrpConfigError,
    VrrpVersion,
};
use proptest::prelude::*;

/// A line of the file of captures.
struct Captured {
    name: &'static str,
    header: IpHeaderInfo,
    bytes: Vec<u8>,
}

fn captured() -> Vec<Captured> {
    let lines = include_str!("fixtures/keepalived.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    let captures = lines.map(|line| {
        let [name, source, destination, ttl, hex] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("a capture has five words: {line}");
        };
        let address = |text: &str| text.parse::<IpAddr>().expect("an IP address");
        let (source, destination) = (address(source), address(destination));
        // Between unicast peers the TTL is not checked.
        let ttl = destination.is_multicast().then(|| ttl.parse().expect("a number"));
        let pairs = (0..hex.len()).step_by(2);
        let bytes =
            pairs.map(|start| u8::from_str_radix(&hex[start..start + 2], 16).expect("hex digits"));
        Captured { name, header: IpHeaderInfo { source, destination, ttl }, bytes: bytes.collect() }
    });
    captures.collect()
}

fn addresses(name: &str) -> Vec<IpAddr> {
    let texts: &[&str] = match name {
        "v2" | "v3" => &["10.88.0.100", "10.88.0.101"],
        "v6" => &["fe80::100", "fd00:88::100"],
        "v6uni" => &["fe80::100"],
        _ => &["10.88.0.100"],
    };
    texts.iter().map(|text| text.parse().expect("an IP address")).collect()
}

#[test]
fn advertisements_of_keepalived_are_parsed() {
    let captures = captured();
    assert_eq!(captures.len(), 14);
    for (i, Captured { name, header, bytes }) in captures.iter().enumerate() {
        let advert = Advert::parse(bytes, header).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (version, priority, millis, checksum) = match *name {
            "v2" | "v2auth" => (VrrpVersion::V2, 150, 1000, ChecksumCoverage::MessageOnly),
            "v3owner" => (VrrpVersion::V3, 255, 10, ChecksumCoverage::WithPseudoHeader),
            "v3uni" => (VrrpVersion::V3, 100, 1000, ChecksumCoverage::WithPseudoHeader),
            "v6uni" => (VrrpVersion::V3, 150, 1000, ChecksumCoverage::WithPseudoHeader),
            _ => (VrrpVersion::V3, 150, 100, ChecksumCoverage::WithPseudoHeader),
        };
        // The second capture of each name is from a master that resigns.
        let priority = if i % 2 == 1 { 0 } else { priority };
        assert_eq!((advert.version(), advert.vrid(), advert.priority()), (version, 51, priority));
        assert_eq!(advert.interval(), Duration::from_millis(millis), "{name}");
        assert_eq!(advert.checksum(), checksum, "{name}");
        assert_eq!(advert.addresses().collect::<Vec<_>>(), addresses(name), "{name}");
        let authentication = match *name {
            "v2" => Some((0, b"\0\0\0\0\0\0\0\0")),
            "v2auth" => Some((1, b"secret12")),
            _ => None,
        };
        assert_eq!(advert.authentication(), authentication, "{name}");
        assert!(advert.trailer().is_empty());
    }
}

#[test]
fn encoding_gives_the_bytes_of_keepalived() {
    for Captured { name, header, bytes } in captured() {
        if name == "v2auth" {
            continue; // this crate never sends a password
        }
        let advert = Advert::parse(&bytes, &header).expect("the test above parses it");
        let addresses: Vec<_> = advert.addresses().collect();
        let message = OutgoingAdvert {
            version: advert.version(),
            vrid: advert.vrid(),
            priority: advert.priority(),
            interval: advert.interval(),
            addresses: &addresses,
        };
        let IpHeaderInfo { source, destination, .. } = header;
        let encoded = message.encode(source, destination, advert.checksum());
        assert_eq!(encoded.expect("keepalived encoded it"), bytes, "{name}");
    }
}

fn header() -> IpHeaderInfo {
    let address = |text: &str| text.parse().expect("an IP address");
    IpHeaderInfo {
        source: address("10.88.0.1"),
        destination: address("224.0.0.18"),
        ttl: Some(255),
    }
}

fn message(addresses: &[IpAddr]) -> OutgoingAdvert<'_> {
    let interval = Duration::from_millis(100);
    OutgoingAdvert { version: VrrpVersion::V3, vrid: 51, priority: 150, interval, addresses }
}

/// Each message but those for the checksum has a valid checksum.
#[test]
fn each_malformed_message_has_its_error() {
    let (header, own) = (header(), addresses("v2"));
    let valid =
        message(&own).encode(header.source, header.destination, ChecksumCoverage::MessageOnly);
    let valid = valid.expect("the message is valid");
    let with = |offset: usize, value: u8| {
        let mut bytes = valid.clone();
        // The checksum changes by the difference of the words, in ones' complement (RFC 1624).
        let word =
            |bytes: &[u8], start: usize| u16::from_be_bytes([bytes[start], bytes[start + 1]]);
        let old = word(&bytes, offset & !1);
        bytes[offset] = value;
        let (new, sum) = (word(&bytes, offset & !1), word(&bytes, 6));
        let changed = u32::from(!sum) + u32::from(!old) + u32::from(new);
        let changed = (changed & 0xffff) + (changed >> 16);
        let changed = (changed & 0xffff) + (changed >> 16);
        bytes[6..8].copy_from_slice(&(!(changed as u16)).to_be_bytes());
        bytes
    };
    let parse = |bytes: &[u8], header: &IpHeaderInfo| Advert::parse(bytes, header).map(drop);
    assert_eq!(parse(&with(2, 7), &header), Ok(()), "the checksum is corrected");
    assert_eq!(parse(&with(0, 0x11), &header), Err(AdvertError::Version(1)));
    assert_eq!(parse(&with(0, 0x32), &header), Err(AdvertError::Type(2)));
    assert_eq!(parse(&with(1, 0), &header), Err(AdvertError::ZeroVrid));
    assert_eq!(parse(&with(5, 0), &header), Err(AdvertError::ZeroInterval));
    let truncated = AdvertError::Truncated { have: 16, need: 20 };
    assert_eq!(parse(&with(3, 3), &header), Err(truncated));
    for have in 0..16 {
        // The number of addresses is read if there are at least six bytes.
        let need = if have < 6 { 8 } else { 16 };
        assert_eq!(parse(&valid[..have], &header), Err(AdvertError::Truncated { have, need }));
    }
    for offset in 0..16 {
        let mut bytes = valid.clone();
        bytes[offset] ^= 0x40;
        assert!(parse(&bytes, &header).is_err(), "byte {offset}");
    }
    let forwarded = IpHeaderInfo { ttl: Some(254), ..header };
    assert_eq!(parse(&valid, &forwarded), Err(AdvertError::InvalidTtl(254)));
    assert_eq!(parse(&valid, &IpHeaderInfo { ttl: None, ..header }), Ok(()));
    let v6_group = "ff02::12".parse().expect("an IP address");
    let mixed = IpHeaderInfo { destination: v6_group, ..header };
    let error = AdvertError::MixedFamilies(header.source, v6_group);
    assert_eq!(parse(&valid, &mixed), Err(error));
    let v2 = OutgoingAdvert {
        version: VrrpVersion::V2,
        interval: Duration::from_secs(1),
        ..message(&own)
    };
    let v2 = v2
        .encode(header.source, header.destination, ChecksumCoverage::MessageOnly)
        .expect("the message is valid");
    let source = "fe80::1".parse().expect("an IP address");
    let over_v6 = IpHeaderInfo { source, destination: v6_group, ttl: Some(255) };
    assert_eq!(parse(&v2, &over_v6), Err(AdvertError::Version(2)));
}

#[test]
fn a_field_that_does_not_fit_is_named_in_the_error() {
    let IpHeaderInfo { source, destination, .. } = header();
    let encode = |message: OutgoingAdvert<'_>| {
        message.encode(source, destination, ChecksumCoverage::MessageOnly)
    };
    let own = addresses("v2");
    assert_eq!(
        encode(OutgoingAdvert { vrid: 0, ..message(&own) }).expect_err("the number is 0"),
        VrrpConfigError::Vrid(0)
    );
    for millis in [0, 5, 15, 40_960] {
        let interval = Duration::from_millis(millis);
        let error = encode(OutgoingAdvert { interval, ..message(&own) })
            .expect_err("the interval is not valid");
        assert!(matches!(error, VrrpConfigError::Interval { .. }), "{error}");
    }
    let many = vec![source; 256];
    let error = encode(message(&many)).expect_err("there are 256 addresses");
    assert_eq!(error, VrrpConfigError::TooManyAddresses(256));
    let v6_source: IpAddr = "fe80::1".parse().expect("an IP address");
    let error = encode(message(&[v6_source])).expect_err("the families differ");
    let expected = VrrpConfigError::AddressFamily { address: v6_source, source_address: source };
    assert_eq!(error, expected);
    let v2 = OutgoingAdvert {
        version: VrrpVersion::V2,
        interval: Duration::from_secs(1),
        ..message(&[])
    };
    let error = v2
        .encode(v6_source, v6_source, ChecksumCoverage::MessageOnly)
        .expect_err("version 2 over IPv6");
    assert_eq!(error, VrrpConfigError::Ipv6InVersion2(v6_source));
}

proptest! {
    #[test]
    fn an_encoded_message_is_parsed_back(
        vrid in 1..=255_u8,
        priority: u8,
        hundredths in 1..=4095_u64,
        own in prop::collection::vec(any::<[u8; 4]>(), 0..=255),
        is_message_only: bool,
        trailer in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let addresses: Vec<IpAddr> = own.into_iter().map(IpAddr::from).collect();
        let interval = Duration::from_millis(10 * hundredths);
        let message = OutgoingAdvert { version: VrrpVersion::V3, vrid, priority, interval, addresses: &addresses };
        let checksum = if is_message_only { ChecksumCoverage::MessageOnly } else { ChecksumCoverage::WithPseudoHeader };
        let header = header();
        let mut bytes = message.encode(header.source, header.destination, checksum).expect("the fields fit");
        bytes.extend(&trailer);
        let advert = Advert::parse(&bytes, &header).expect("the message is valid");
        prop_assert_eq!((advert.vrid(), advert.priority()), (vrid, priority));
        prop_assert_eq!((advert.interval(), advert.checksum()), (interval, checksum));
        prop_assert_eq!(advert.addresses().collect::<Vec<_>>(), addresses);
        prop_assert_eq!(advert.trailer(), trailer);
    }

    #[test]
    fn parsing_random_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), ttl: bool) {
        let header = IpHeaderInfo { ttl: ttl.then_some(255), ..header() };
        if let Ok(advert) = Advert::parse(&bytes, &header) {
            let _ = (advert.addresses().count(), advert.authentication(), advert.interval());
        }
    }
}
