//! Any header that is encoded parses to an equal header.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use super::tests::{check_prefixes, encode_v1, encode_v2, parse_whole};
use super::*;

fn any_address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn any_header() -> impl Strategy<Value = ProxyHeader> {
    let unix = || {
        prop_oneof![
            Just(Vec::new()),
            prop::collection::vec(1..=255_u8, 1..108),
            prop::collection::vec(1..=255_u8, 1..107).prop_map(|name| [&[0], &name[..]].concat()),
        ]
        .prop_map(|bytes| UnixAddress::new(&bytes).unwrap())
    };
    let header = prop_oneof![
        6 => (any_address(), any_address()).prop_map(|(s, d)| ProxyHeader::proxied(s, d)),
        2 => (unix(), unix()).prop_map(|(s, d)| ProxyHeader::unix(s, d)),
        1 => Just(ProxyHeader::unknown()),
        1 => Just(ProxyHeader::local()),
    ];
    let value = || prop::collection::vec(any::<u8>(), 0..64);
    let tlvs = prop::collection::vec(
        (prop::sample::select(&[1, 2, 5, 0x30, 0xe0, 0xea][..]), value()),
        0..6,
    );
    (header, tlvs, any::<bool>(), any::<bool>()).prop_map(
        |(mut header, tlvs, datagram, checksum)| {
            if header.command() == ProxyCommand::Proxy {
                for (kind, value) in tlvs {
                    // Some types accept valid text only.
                    if let Ok(changed) = header.clone().with_tlv(kind, &value) {
                        header = changed;
                    }
                }
                header.checksum = checksum;
            }
            if datagram { header.with_datagram_transport() } else { header }
        },
    )
}

proptest! {
    #![proptest_config(Config {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6c76_7302),
        ..Config::default()
    })]

    #[test]
    fn every_v2_header_parses_as_encoded(header in any_header(), tail: Vec<u8>) {
        let mut bytes = encode_v2(&header);
        check_prefixes(&bytes);
        prop_assert_eq!(parse_whole(&bytes).unwrap(), header.clone());
        let len = bytes.len();
        bytes.extend(tail);
        prop_assert_eq!(parse(&bytes), Ok(ParsedProxyHeader::Complete { header, len }));
    }

    #[test]
    fn every_v1_line_parses_as_encoded(source in any_address(), destination in any_address()) {
        let header = ProxyHeader::proxied(source, destination);
        let line = encode_v1(&header);
        check_prefixes(line.as_bytes());
        prop_assert_eq!(parse_whole(line.as_bytes()), Ok(header));
    }
}
