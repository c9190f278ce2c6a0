//! Messages, beside what keepalived sends.

use std::net::IpAddr;
use std::time::Duration;

use lvs::vrrp::{
    Advert, AdvertError, ChecksumCoverage, IpHeaderInfo, OutgoingAdvert, VrrpConfigError,
    VrrpVersion,
};
use proptest::prelude::*;

/// A line of the captures.
struct Captured {
    name: &'static str,
    envelope: IpHeaderInfo,
    bytes: Vec<u8>,
}

fn captured() -> Vec<Captured> {
    let lines = include_str!("fixtures/keepalived.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    let read = lines.map(|line| {
        let [name, source, destination, ttl, hex] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("five words: {line}");
        };
        let address = |text: &str| text.parse().expect("an address");
        let (source, destination) = (address(source), address(destination));
        // Between unicast peers any will do.
        let is_group = matches!(destination, IpAddr::V4(it) if it.is_multicast())
            || matches!(destination, IpAddr::V6(it) if it.is_multicast());
        let ttl = is_group.then(|| ttl.parse().expect("a number"));
        let pairs = (0..hex.len()).step_by(2);
        let bytes = pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"));
        Captured {
            name,
            envelope: IpHeaderInfo { source, destination, ttl },
            bytes: bytes.collect(),
        }
    });
    read.collect()
}

fn addresses(name: &str) -> Vec<IpAddr> {
    let texts: &[&str] = match name {
        "v2" | "v3" => &["10.88.0.100", "10.88.0.101"],
        "v6" => &["fe80::100", "fd00:88::100"],
        "v6uni" => &["fe80::100"],
        _ => &["10.88.0.100"],
    };
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn what_keepalived_sends_is_read() {
    let all = captured();
    assert_eq!(all.len(), 14);
    for (i, Captured { name, envelope, bytes }) in all.iter().enumerate() {
        let advert =
            Advert::parse(bytes, envelope).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (version, priority, millis, checksum) = match *name {
            "v2" | "v2auth" => (VrrpVersion::V2, 150, 1000, ChecksumCoverage::MessageOnly),
            "v3owner" => (VrrpVersion::V3, 255, 10, ChecksumCoverage::WithPseudoHeader),
            "v3uni" => (VrrpVersion::V3, 100, 1000, ChecksumCoverage::WithPseudoHeader),
            "v6uni" => (VrrpVersion::V3, 150, 1000, ChecksumCoverage::WithPseudoHeader),
            _ => (VrrpVersion::V3, 150, 100, ChecksumCoverage::WithPseudoHeader),
        };
        // The second of each is the farewell.
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
fn the_same_bytes_are_written() {
    for Captured { name, envelope, bytes } in captured() {
        if name == "v2auth" {
            continue; // no password is ever sent
        }
        let advert = Advert::parse(&bytes, &envelope).expect("read above");
        let addresses: Vec<_> = advert.addresses().collect();
        let message = OutgoingAdvert {
            version: advert.version(),
            vrid: advert.vrid(),
            priority: advert.priority(),
            interval: advert.interval(),
            addresses: &addresses,
        };
        let IpHeaderInfo { source, destination, .. } = envelope;
        let written = message.encode(source, destination, advert.checksum());
        assert_eq!(written.expect("it was sent"), bytes, "{name}");
    }
}

fn envelope() -> IpHeaderInfo {
    let address = |text: &str| text.parse().expect("an address");
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

/// Each with the sum that is right.
#[test]
fn each_fault_has_its_name() {
    let (envelope, own) = (envelope(), addresses("v2"));
    let sound =
        message(&own).encode(envelope.source, envelope.destination, ChecksumCoverage::MessageOnly);
    let sound = sound.expect("sound");
    let with = |at: usize, value: u8| {
        let mut bytes = sound.clone();
        // What one byte of a pair gains the other of the sum loses, in ones' complement.
        let pair = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let old = pair(&bytes, at & !1);
        bytes[at] = value;
        let (new, sum) = (pair(&bytes, at & !1), pair(&bytes, 6));
        let changed = u32::from(!sum) + u32::from(!old) + u32::from(new);
        let changed = (changed & 0xffff) + (changed >> 16);
        let changed = (changed & 0xffff) + (changed >> 16);
        bytes[6..8].copy_from_slice(&(!(changed as u16)).to_be_bytes());
        bytes
    };
    let read = |bytes: &[u8], envelope: &IpHeaderInfo| Advert::parse(bytes, envelope).map(drop);
    assert_eq!(read(&with(2, 7), &envelope), Ok(()), "the sums are right");
    assert_eq!(read(&with(0, 0x11), &envelope), Err(AdvertError::Version(1)));
    assert_eq!(read(&with(0, 0x32), &envelope), Err(AdvertError::Type(2)));
    assert_eq!(read(&with(1, 0), &envelope), Err(AdvertError::ZeroVrid));
    assert_eq!(read(&with(5, 0), &envelope), Err(AdvertError::ZeroInterval));
    let short = AdvertError::Truncated { got: 16, needs: 20 };
    assert_eq!(read(&with(3, 3), &envelope), Err(short));
    for got in 0..16 {
        // From the sixth byte on it is known how many addresses there are.
        let needs = if got < 6 { 8 } else { 16 };
        assert_eq!(read(&sound[..got], &envelope), Err(AdvertError::Truncated { got, needs }));
    }
    for at in 0..16 {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x40;
        assert!(read(&bytes, &envelope).is_err(), "byte {at}");
    }
    let far = IpHeaderInfo { ttl: Some(254), ..envelope };
    assert_eq!(read(&sound, &far), Err(AdvertError::InvalidTtl(254)));
    assert_eq!(read(&sound, &IpHeaderInfo { ttl: None, ..envelope }), Ok(()));
    let six = "ff02::12".parse().expect("an address");
    let odd = IpHeaderInfo { destination: six, ..envelope };
    assert_eq!(read(&sound, &odd), Err(AdvertError::MixedFamilies(envelope.source, six)));
    let v2 = OutgoingAdvert {
        version: VrrpVersion::V2,
        interval: Duration::from_secs(1),
        ..message(&own)
    };
    let v2 = v2
        .encode(envelope.source, envelope.destination, ChecksumCoverage::MessageOnly)
        .expect("sound");
    let source = "fe80::1".parse().expect("an address");
    let over_v6 = IpHeaderInfo { source, destination: six, ttl: Some(255) };
    assert_eq!(read(&v2, &over_v6), Err(AdvertError::Version(2)));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let IpHeaderInfo { source, destination, .. } = envelope();
    let write = |message: OutgoingAdvert<'_>| {
        message.encode(source, destination, ChecksumCoverage::MessageOnly)
    };
    let own = addresses("v2");
    assert_eq!(
        write(OutgoingAdvert { vrid: 0, ..message(&own) }).expect_err("0"),
        VrrpConfigError::Vrid(0)
    );
    for millis in [0, 5, 15, 40_960] {
        let interval = Duration::from_millis(millis);
        let error =
            write(OutgoingAdvert { interval, ..message(&own) }).expect_err("no such interval");
        assert!(matches!(error, VrrpConfigError::Interval { .. }), "{error}");
    }
    let many = vec![source; 256];
    let error = write(message(&many)).expect_err("256 addresses");
    assert_eq!(error, VrrpConfigError::Addresses { count: 256, odd: None });
    let six: IpAddr = "fe80::1".parse().expect("an address");
    let error = write(message(&[six])).expect_err("of another kind");
    assert_eq!(error, VrrpConfigError::Addresses { count: 1, odd: Some(six) });
    let v2 = OutgoingAdvert {
        version: VrrpVersion::V2,
        interval: Duration::from_secs(1),
        ..message(&[])
    };
    let error =
        v2.encode(six, six, ChecksumCoverage::MessageOnly).expect_err("version 2 over IPv6");
    assert_eq!(error, VrrpConfigError::Ipv6InVersion2(six));
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        vrid in 1..=255_u8,
        priority: u8,
        hundredths in 1..=4095_u64,
        own in prop::collection::vec(any::<[u8; 4]>(), 0..=255),
        plain: bool,
        trailer in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let addresses: Vec<IpAddr> = own.into_iter().map(IpAddr::from).collect();
        let interval = Duration::from_millis(10 * hundredths);
        let message = OutgoingAdvert { version: VrrpVersion::V3, vrid, priority, interval, addresses: &addresses };
        let checksum = if plain { ChecksumCoverage::MessageOnly } else { ChecksumCoverage::WithPseudoHeader };
        let envelope = envelope();
        let mut bytes = message.encode(envelope.source, envelope.destination, checksum).expect("fits");
        bytes.extend(&trailer);
        let advert = Advert::parse(&bytes, &envelope).expect("sound");
        prop_assert_eq!((advert.vrid(), advert.priority()), (vrid, priority));
        prop_assert_eq!((advert.interval(), advert.checksum()), (interval, checksum));
        prop_assert_eq!(advert.addresses().collect::<Vec<_>>(), addresses);
        prop_assert_eq!(advert.trailer(), trailer);
    }

    #[test]
    fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), ttl: bool) {
        let envelope = IpHeaderInfo { ttl: ttl.then_some(255), ..envelope() };
        if let Ok(advert) = Advert::parse(&bytes, &envelope) {
            let _ = (advert.addresses().count(), advert.authentication(), advert.interval());
        }
    }
}
