use proptest::prelude::*;

use super::*;

/// Returns the reply of a host to a request.
fn reply(request: &IcmpEchoRequest, v4: bool) -> Vec<u8> {
    let mut message = request.encode(v4).to_vec();
    message[0] = if v4 { ICMPV4_ECHO_REPLY } else { ICMPV6_ECHO_REPLY };
    fill_checksum(&mut message);
    message
}

fn fill_checksum(message: &mut [u8]) {
    message[2..4].fill(0);
    let sum = checksum(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

fn with_ip_header(words: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; usize::from(words) * 4];
    packet[0] = 0x40 | words;
    packet.extend(message);
    packet
}

#[test]
fn the_checksum_is_that_of_the_rfc() {
    // RFC 1071, section 3: the sum of these is ddf2.
    assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    assert_eq!(checksum(&[0x12]), !0x1200);
    let request = IcmpEchoRequest::random(true);
    assert_eq!(checksum(&request.encode(true)), 0);
    assert_eq!(&request.encode(false)[2..4], [0, 0], "the kernel fills in the checksum of ICMPv6");
}

#[test]
fn the_reply_counts_with_and_without_an_ip_header() {
    for own in [true, false] {
        let request = IcmpEchoRequest::random(own);
        assert!(request.is_answered_by(&reply(&request, true)));
        assert!(request.is_answered_by(&reply(&request, false)));
        for words in 5..=15 {
            assert!(request.is_answered_by(&with_ip_header(words, &reply(&request, true))));
        }
        assert!(
            !request.is_answered_by(&with_ip_header(4, &reply(&request, true))),
            "no IP header"
        );
        assert!(
            !request.is_answered_by(&with_ip_header(5, &reply(&request, false))),
            "not over IPv4"
        );
        assert!(!request.is_answered_by(&request.encode(true)), "a request is not a reply");
        assert!(!request.is_answered_by(&request.encode(false)), "a request is not a reply");
    }
}

#[test]
fn every_byte_of_the_reply_is_compared() {
    let request = IcmpEchoRequest::random(true);
    let right = reply(&request, true);
    for byte in 0..right.len() {
        let mut changed = right.clone();
        changed[byte] ^= 1;
        assert!(!request.is_answered_by(&changed), "the checksum shows byte {byte}");
        fill_checksum(&mut changed);
        assert_eq!(request.is_answered_by(&changed), (2..4).contains(&byte), "byte {byte}");
    }
    for len in 0..right.len() {
        let mut short = right[..len].to_vec();
        if len >= 4 {
            fill_checksum(&mut short);
        }
        assert!(!request.is_answered_by(&short), "{len} bytes");
    }
    let mut long = right;
    long.extend([0, 0]);
    assert!(!request.is_answered_by(&long), "a longer payload");
}

proptest! {
    #[test]
    fn random_bytes_are_never_a_reply(packet in prop::collection::vec(any::<u8>(), 0..200)) {
        for own in [true, false] {
            prop_assert!(!IcmpEchoRequest::random(own).is_answered_by(&packet));
        }
    }

    #[test]
    fn a_reply_to_another_request_does_not_count(own: bool, v4: bool) {
        let (first, second) = (IcmpEchoRequest::random(own), IcmpEchoRequest::random(own));
        prop_assert!(!first.is_answered_by(&reply(&second, v4)));
    }
}
