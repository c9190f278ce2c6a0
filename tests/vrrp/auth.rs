//! Signed advertisements. The two messages are the examples of the scheme's description.

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
/// When they were sent.
const SENT: Duration = Duration::new(0x6800_0000, 500_000_000);

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn envelope(source: &str, destination: &str) -> IpHeaderInfo {
    let address = |text: &str| text.parse().expect("an address");
    IpHeaderInfo { source: address(source), destination: address(destination), ttl: None }
}

fn both() -> [(Vec<u8>, IpHeaderInfo, IpAddr); 2] {
    [
        (bytes(V4), envelope("198.51.100.10", "224.0.0.18"), "192.0.2.100"),
        (bytes(V6), envelope("fe80::10", "fe80::20"), "fe80::100"),
    ]
    .map(|(bytes, envelope, own)| (bytes, envelope, own.parse().expect("an address")))
}

fn key(id: u8) -> AuthKey {
    AuthKey::new(id, &std::array::from_fn::<u8, 32, _>(|at| at as u8)).expect("long enough")
}

fn verifier() -> AdvertVerifier {
    AdvertVerifier::new([key(1)]).window(Duration::from_secs(5))
}

fn verify(
    by: &mut AdvertVerifier,
    bytes: &[u8],
    envelope: &IpHeaderInfo,
    now: Duration,
) -> Result<(), AdvertAuthError> {
    by.verify(&Advert::parse(bytes, envelope).expect("sound"), envelope.source, now)
}

#[test]
fn the_examples_are_believed_and_written_alike() {
    for (bytes, envelope, own) in both() {
        assert_eq!(verify(&mut verifier(), &bytes, &envelope, SENT), Ok(()));
        let message = OutgoingAdvert {
            version: VrrpVersion::V3,
            vrid: 51,
            priority: 200,
            interval: Duration::from_secs(1),
            addresses: &[own],
        };
        let IpHeaderInfo { source, destination, .. } = envelope;
        let mut written =
            message.encode(source, destination, ChecksumCoverage::MessageOnly).expect("sound");
        AdvertSigner::new(key(1)).sign(&mut written, source, destination, SENT);
        assert_eq!(written, bytes);
    }
}

/// Byte by byte, as if the sum had been mended.
#[test]
fn whatever_is_changed_is_found_out() {
    let (sound, envelope, _) = &both()[1];
    for at in 1..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes[6..8].fill(0);
        mend(&mut bytes, envelope);
        let Ok(advert) = Advert::parse(&bytes, envelope) else {
            assert!((1..6).contains(&at), "byte {at}: no message at all");
            continue;
        };
        let told = verifier().verify(&advert, envelope.source, SENT);
        let wanted = match at {
            6 | 7 => Ok(()), // the sum itself, mended
            24 | 26 | 27 => Err(AdvertAuthError::Malformed),
            25 => Err(AdvertAuthError::UnknownKey(0)),
            28..=30 => Err(AdvertAuthError::Stale(Duration::from_secs(1 << (8 * (31 - at))))),
            // Another number of addresses, and the trailer is no trailer.
            3 => Err(AdvertAuthError::Malformed),
            _ => Err(AdvertAuthError::InvalidHmac),
        };
        assert_eq!(told, wanted, "byte {at}");
    }
    let (bytes, envelope, _) = &both()[0];
    let liar = IpHeaderInfo { source: "198.51.100.11".parse().expect("an address"), ..*envelope };
    assert_eq!(verify(&mut verifier(), bytes, &liar, SENT), Err(AdvertAuthError::InvalidHmac));
    let bare = &bytes[..12];
    assert_eq!(verify(&mut verifier(), bare, envelope, SENT), Err(AdvertAuthError::Unsigned));
    let cut = &bytes[..30];
    assert_eq!(verify(&mut verifier(), cut, envelope, SENT), Err(AdvertAuthError::Malformed));
}

/// Makes the sum over IPv6 right again, by RFC 1071.
fn mend(bytes: &mut [u8], envelope: &IpHeaderInfo) {
    let mut all = bytes.to_vec();
    for address in [envelope.source, envelope.destination] {
        if let IpAddr::V6(address) = address {
            all.extend(address.octets());
        }
    }
    all.extend([0, bytes.len() as u8, 0, 112]);
    let mut sum: u32 =
        all.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn what_was_said_before_is_not_heard_again_and_what_is_old_not_at_all() {
    let (bytes, envelope, _) = &both()[0];
    let mut verifier = verifier();
    let second = Duration::from_secs(1);
    assert_eq!(verify(&mut verifier, bytes, envelope, SENT), Ok(()));
    assert_eq!(verify(&mut verifier, bytes, envelope, SENT), Err(AdvertAuthError::Replayed));
    for off in [6, 60, 86_400] {
        let stale = Err(AdvertAuthError::Stale(off * second));
        assert_eq!(verify(&mut verifier, bytes, envelope, SENT + off * second), stale);
        assert_eq!(verify(&mut verifier, bytes, envelope, SENT - off * second), stale);
    }
    // Without a window, only what was said before is refused, for ever.
    let mut order = AdvertVerifier::new([key(1)]);
    assert_eq!(verify(&mut order, bytes, envelope, SENT + 86_400 * second), Ok(()));
    assert_eq!(
        verify(&mut order, bytes, envelope, SENT + 90_000 * second),
        Err(AdvertAuthError::Replayed)
    );
}

#[test]
fn a_signers_clock_may_stand_still_and_go_back() {
    let (_, envelope, own) = &both()[0];
    let &IpHeaderInfo { source, destination, .. } = envelope;
    let message = OutgoingAdvert {
        version: VrrpVersion::V3,
        vrid: 51,
        priority: 200,
        interval: Duration::from_millis(10),
        addresses: &[*own],
    };
    let (mut signer, mut verifier) = (AdvertSigner::new(key(1)), verifier());
    let second = Duration::from_secs(1);
    for now in [SENT, SENT, SENT + second, SENT, SENT + second, SENT + 2 * second] {
        let mut bytes =
            message.encode(source, destination, ChecksumCoverage::default()).expect("sound");
        signer.sign(&mut bytes, source, destination, now);
        assert_eq!(verify(&mut verifier, &bytes, envelope, now), Ok(()), "{now:?}");
    }
}

#[test]
fn keys_are_replaced_without_a_break_and_secrets_shown_to_nobody() {
    let (_, envelope, own) = &both()[0];
    let &IpHeaderInfo { source, destination, .. } = envelope;
    let message = OutgoingAdvert {
        version: VrrpVersion::V3,
        vrid: 51,
        priority: 200,
        interval: Duration::from_millis(10),
        addresses: &[*own],
    };
    let mut both = AdvertVerifier::new([key(1), key(2)]);
    for (id, now) in [(1, SENT), (2, SENT + Duration::from_secs(1))] {
        let mut bytes =
            message.encode(source, destination, ChecksumCoverage::default()).expect("sound");
        AdvertSigner::new(key(id)).sign(&mut bytes, source, destination, now);
        assert_eq!(verify(&mut both, &bytes, envelope, now), Ok(()));
    }
    for length in [0, 31, 65] {
        assert_eq!(
            AuthKey::new(1, &vec![7; length]).expect_err("no key"),
            AuthKeyLengthError(length)
        );
    }
    assert_eq!(format!("{:?}", key(1)), "Key { id: 1, .. }");
}
