//! Signed advertisements. The two messages are the examples in the description of the scheme.

use std::net::IpAddr;
use std::time::Duration;

use lvs::vrrp::{
    Advert, AdvertAuthError, AdvertSigner, AdvertVerifier, AuthKey, AuthKeyLengthError,
    ChecksumCoverage, IpHeaderInfo, OutgoingAdvert, VrrpVersion,
};

const V4: &str = "3133c80100644402c0000264010100006800000080000000\
                  1b84bc4e8e43892dc6d98448f8ee2265";
const V6: &str = "3133c8010064a2e9fe800000000000000000000000000100\
                  010100006800000080000000c8c56146ebfd66ee10ec4d8186461b78";
/// When the examples were sent.
const SENT: Duration = Duration::new(0x6800_0000, 500_000_000);

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn header(source: &str, destination: &str) -> IpHeaderInfo {
    let address = |text: &str| text.parse().expect("an IP address");
    IpHeaderInfo { source: address(source), destination: address(destination), ttl: None }
}

fn examples() -> [(Vec<u8>, IpHeaderInfo, IpAddr); 2] {
    [
        (bytes(V4), header("198.51.100.10", "224.0.0.18"), "192.0.2.100"),
        (bytes(V6), header("fe80::10", "fe80::20"), "fe80::100"),
    ]
    .map(|(bytes, header, address)| (bytes, header, address.parse().expect("an IP address")))
}

fn key(id: u8) -> AuthKey {
    AuthKey::new(id, &std::array::from_fn::<u8, 32, _>(|at| at as u8)).expect("the length is valid")
}

fn verifier() -> AdvertVerifier {
    AdvertVerifier::new([key(1)], Some(Duration::from_secs(5)))
}

fn verify(
    verifier: &mut AdvertVerifier,
    bytes: &[u8],
    header: &IpHeaderInfo,
    now: Duration,
) -> Result<(), AdvertAuthError> {
    verifier.verify(
        &Advert::parse(bytes, header).expect("the message is valid"),
        header.source,
        now,
    )
}

#[test]
fn the_examples_are_verified_and_signing_gives_the_same_bytes() {
    for (bytes, header, address) in examples() {
        assert_eq!(verify(&mut verifier(), &bytes, &header, SENT), Ok(()));
        let message = OutgoingAdvert {
            version: VrrpVersion::V3,
            vrid: 51,
            priority: 200,
            interval: Duration::from_secs(1),
            addresses: &[address],
        };
        let IpHeaderInfo { source, destination, .. } = header;
        let mut written = message
            .encode(source, destination, ChecksumCoverage::MessageOnly)
            .expect("the message is valid");
        AdvertSigner::new(key(1)).sign(&mut written, source, destination, SENT);
        assert_eq!(written, bytes);
    }
}

/// Changes each byte in turn, and corrects the checksum.
#[test]
fn a_change_of_any_byte_is_detected() {
    let (valid, header, _) = &examples()[1];
    for offset in 1..valid.len() {
        let mut bytes = valid.clone();
        bytes[offset] ^= 1;
        bytes[6..8].fill(0);
        correct_checksum(&mut bytes, header);
        let Ok(advert) = Advert::parse(&bytes, header) else {
            assert!((1..6).contains(&offset), "byte {offset}: parsing fails");
            continue;
        };
        let result = verifier().verify(&advert, header.source, SENT);
        let expected = match offset {
            6 | 7 => Ok(()), // the checksum itself, corrected
            24 | 26 | 27 => Err(AdvertAuthError::Malformed),
            25 => Err(AdvertAuthError::UnknownKey(0)),
            28..=30 => Err(AdvertAuthError::Stale(Duration::from_secs(1 << (8 * (31 - offset))))),
            // With another number of addresses, the trailer has another length.
            3 => Err(AdvertAuthError::Malformed),
            _ => Err(AdvertAuthError::InvalidHmac),
        };
        assert_eq!(result, expected, "byte {offset}");
    }
    let (bytes, header, _) = &examples()[0];
    let forged =
        IpHeaderInfo { source: "198.51.100.11".parse().expect("an IP address"), ..*header };
    assert_eq!(verify(&mut verifier(), bytes, &forged, SENT), Err(AdvertAuthError::InvalidHmac));
    let unsigned = &bytes[..12];
    assert_eq!(verify(&mut verifier(), unsigned, header, SENT), Err(AdvertAuthError::Unsigned));
    let truncated = &bytes[..30];
    assert_eq!(verify(&mut verifier(), truncated, header, SENT), Err(AdvertAuthError::Malformed));
}

/// Corrects the checksum over IPv6, by RFC 1071.
fn correct_checksum(bytes: &mut [u8], header: &IpHeaderInfo) {
    let mut covered = bytes.to_vec();
    for address in [header.source, header.destination] {
        if let IpAddr::V6(address) = address {
            covered.extend(address.octets());
        }
    }
    covered.extend([0, bytes.len() as u8, 0, 112]);
    let mut sum: u32 =
        covered.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn a_replayed_or_stale_advertisement_is_refused() {
    let (bytes, header, _) = &examples()[0];
    let mut verifier = verifier();
    let second = Duration::from_secs(1);
    assert_eq!(verify(&mut verifier, bytes, header, SENT), Ok(()));
    assert_eq!(verify(&mut verifier, bytes, header, SENT), Err(AdvertAuthError::Replayed));
    for skew in [6, 60, 86_400] {
        let stale = Err(AdvertAuthError::Stale(skew * second));
        assert_eq!(verify(&mut verifier, bytes, header, SENT + skew * second), stale);
        assert_eq!(verify(&mut verifier, bytes, header, SENT - skew * second), stale);
    }
    // Without a limit of the clock skew, only a replay is refused, at any time.
    let mut order = AdvertVerifier::new([key(1)], None);
    assert_eq!(verify(&mut order, bytes, header, SENT + 86_400 * second), Ok(()));
    assert_eq!(
        verify(&mut order, bytes, header, SENT + 90_000 * second),
        Err(AdvertAuthError::Replayed)
    );
}

#[test]
fn a_signers_clock_may_stand_still_or_go_back() {
    let (_, header, address) = &examples()[0];
    let &IpHeaderInfo { source, destination, .. } = header;
    let message = OutgoingAdvert {
        version: VrrpVersion::V3,
        vrid: 51,
        priority: 200,
        interval: Duration::from_millis(10),
        addresses: &[*address],
    };
    let (mut signer, mut verifier) = (AdvertSigner::new(key(1)), verifier());
    let second = Duration::from_secs(1);
    for now in [SENT, SENT, SENT + second, SENT, SENT + second, SENT + 2 * second] {
        let mut bytes = message
            .encode(source, destination, ChecksumCoverage::default())
            .expect("the message is valid");
        signer.sign(&mut bytes, source, destination, now);
        assert_eq!(verify(&mut verifier, &bytes, header, now), Ok(()), "{now:?}");
    }
}

#[test]
fn two_keys_are_accepted_and_debug_output_hides_the_secret() {
    let (_, header, address) = &examples()[0];
    let &IpHeaderInfo { source, destination, .. } = header;
    let message = OutgoingAdvert {
        version: VrrpVersion::V3,
        vrid: 51,
        priority: 200,
        interval: Duration::from_millis(10),
        addresses: &[*address],
    };
    let mut both = AdvertVerifier::new([key(1), key(2)], None);
    for (id, now) in [(1, SENT), (2, SENT + Duration::from_secs(1))] {
        let mut bytes = message
            .encode(source, destination, ChecksumCoverage::default())
            .expect("the message is valid");
        AdvertSigner::new(key(id)).sign(&mut bytes, source, destination, now);
        assert_eq!(verify(&mut both, &bytes, header, now), Ok(()));
    }
    for length in [0, 31, 65] {
        assert_eq!(
            AuthKey::new(1, &vec![7; length]).expect_err("the length is not valid"),
            AuthKeyLengthError(length)
        );
    }
    assert_eq!(format!("{:?}", key(1)), "AuthKey { id: 1, .. }");
}
