//! Messages, beside what keepalived sends.

use std::net::IpAddr;
use std::time::Duration;

use lvs::vrrp::{Advert, AdvertError, Checksum, ConfigError, Envelope, Message, Version};
use proptest::prelude::*;

/// A line of the captures.
struct Captured {
    name: &'static str,
    envelope: Envelope,
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
        Captured { name, envelope: Envelope { source, destination, ttl }, bytes: bytes.collect() }
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
            Advert::read(bytes, envelope).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (version, priority, millis, checksum) = match *name {
            "v2" | "v2auth" => (Version::V2, 150, 1000, Checksum::Message),
            "v3owner" => (Version::V3, 255, 10, Checksum::PseudoHeader),
            "v3uni" => (Version::V3, 100, 1000, Checksum::PseudoHeader),
            "v6uni" => (Version::V3, 150, 1000, Checksum::PseudoHeader),
            _ => (Version::V3, 150, 100, Checksum::PseudoHeader),
        };
        // The second of each is the farewell.
        let priority = if i % 2 == 1 { 0 } else { priority };
        assert_eq!((advert.version(), advert.router(), advert.priority()), (version, 51, priority));
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
        let advert = Advert::read(&bytes, &envelope).expect("read above");
        let addresses: Vec<_> = advert.addresses().collect();
        let message = Message {
            version: advert.version(),
            router: advert.router(),
            priority: advert.priority(),
            interval: advert.interval(),
            addresses: &addresses,
        };
        let Envelope { source, destination, .. } = envelope;
        let written = message.write(source, destination, advert.checksum());
        assert_eq!(written.expect("it was sent"), bytes, "{name}");
    }
}

fn envelope() -> Envelope {
    let address = |text: &str| text.parse().expect("an address");
    Envelope { source: address("10.88.0.1"), destination: address("224.0.0.18"), ttl: Some(255) }
}

fn message(addresses: &[IpAddr]) -> Message<'_> {
    let interval = Duration::from_millis(100);
    Message { version: Version::V3, router: 51, priority: 150, interval, addresses }
}

/// Each with the sum that is right.
#[test]
fn each_fault_has_its_name() {
    let (envelope, own) = (envelope(), addresses("v2"));
    let sound = message(&own).write(envelope.source, envelope.destination, Checksum::Message);
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
    let read = |bytes: &[u8], envelope: &Envelope| Advert::read(bytes, envelope).map(drop);
    assert_eq!(read(&with(2, 7), &envelope), Ok(()), "the sums are right");
    assert_eq!(read(&with(0, 0x11), &envelope), Err(AdvertError::Version(1)));
    assert_eq!(read(&with(0, 0x32), &envelope), Err(AdvertError::Type(2)));
    assert_eq!(read(&with(1, 0), &envelope), Err(AdvertError::RouterZero));
    assert_eq!(read(&with(5, 0), &envelope), Err(AdvertError::IntervalZero));
    let short = AdvertError::Short { got: 16, needs: 20 };
    assert_eq!(read(&with(3, 3), &envelope), Err(short));
    for got in 0..16 {
        // From the sixth byte on it is known how many addresses there are.
        let needs = if got < 6 { 8 } else { 16 };
        assert_eq!(read(&sound[..got], &envelope), Err(AdvertError::Short { got, needs }));
    }
    for at in 0..16 {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x40;
        assert!(read(&bytes, &envelope).is_err(), "byte {at}");
    }
    let far = Envelope { ttl: Some(254), ..envelope };
    assert_eq!(read(&sound, &far), Err(AdvertError::Forwarded(254)));
    assert_eq!(read(&sound, &Envelope { ttl: None, ..envelope }), Ok(()));
    let six = "ff02::12".parse().expect("an address");
    let odd = Envelope { destination: six, ..envelope };
    assert_eq!(read(&sound, &odd), Err(AdvertError::Families(envelope.source, six)));
    let v2 = Message { version: Version::V2, interval: Duration::from_secs(1), ..message(&own) };
    let v2 = v2.write(envelope.source, envelope.destination, Checksum::Message).expect("sound");
    let source = "fe80::1".parse().expect("an address");
    let over_v6 = Envelope { source, destination: six, ttl: Some(255) };
    assert_eq!(read(&v2, &over_v6), Err(AdvertError::Version(2)));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let Envelope { source, destination, .. } = envelope();
    let write = |message: Message<'_>| message.write(source, destination, Checksum::Message);
    let own = addresses("v2");
    assert_eq!(
        write(Message { router: 0, ..message(&own) }).expect_err("0"),
        ConfigError::Router(0)
    );
    for millis in [0, 5, 15, 40_960] {
        let interval = Duration::from_millis(millis);
        let error = write(Message { interval, ..message(&own) }).expect_err("no such interval");
        assert!(matches!(error, ConfigError::Interval { .. }), "{error}");
    }
    let many = vec![source; 256];
    let error = write(message(&many)).expect_err("256 addresses");
    assert_eq!(error, ConfigError::Addresses { count: 256, odd: None });
    let six: IpAddr = "fe80::1".parse().expect("an address");
    let error = write(message(&[six])).expect_err("of another kind");
    assert_eq!(error, ConfigError::Addresses { count: 1, odd: Some(six) });
    let v2 = Message { version: Version::V2, interval: Duration::from_secs(1), ..message(&[]) };
    let error = v2.write(six, six, Checksum::Message).expect_err("version 2 over IPv6");
    assert_eq!(error, ConfigError::Family(six));
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        router in 1..=255_u8,
        priority: u8,
        hundredths in 1..=4095_u64,
        own in prop::collection::vec(any::<[u8; 4]>(), 0..=255),
        plain: bool,
        trailer in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let addresses: Vec<IpAddr> = own.into_iter().map(IpAddr::from).collect();
        let interval = Duration::from_millis(10 * hundredths);
        let message = Message { version: Version::V3, router, priority, interval, addresses: &addresses };
        let checksum = if plain { Checksum::Message } else { Checksum::PseudoHeader };
        let envelope = envelope();
        let mut bytes = message.write(envelope.source, envelope.destination, checksum).expect("fits");
        bytes.extend(&trailer);
        let advert = Advert::read(&bytes, &envelope).expect("sound");
        prop_assert_eq!((advert.router(), advert.priority()), (router, priority));
        prop_assert_eq!((advert.interval(), advert.checksum()), (interval, checksum));
        prop_assert_eq!(advert.addresses().collect::<Vec<_>>(), addresses);
        prop_assert_eq!(advert.trailer(), trailer);
    }

    #[test]
    fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), ttl: bool) {
        let envelope = Envelope { ttl: ttl.then_some(255), ..envelope() };
        if let Ok(advert) = Advert::read(&bytes, &envelope) {
            let _ = (advert.addresses().count(), advert.authentication(), advert.interval());
        }
    }
}
