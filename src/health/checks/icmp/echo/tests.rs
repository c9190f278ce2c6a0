use proptest::prelude::*;

use super::*;

/// What a host makes of a request.
fn reply(echo: &IcmpEchoRequest, v4: bool) -> Vec<u8> {
    let mut message = echo.encode(v4).to_vec();
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
    let echo = IcmpEchoRequest::random(true);
    assert_eq!(checksum(&echo.encode(true)), 0);
    assert_eq!(&echo.encode(false)[2..4], [0, 0], "the kernel's to fill");
}

#[test]
fn its_own_answer_counts_with_and_without_ip_header() {
    for own in [true, false] {
        let echo = IcmpEchoRequest::random(own);
        assert!(echo.is_answered_by(&reply(&echo, true)));
        assert!(echo.is_answered_by(&reply(&echo, false)));
        for words in 5..=15 {
            assert!(echo.is_answered_by(&with_ip_header(words, &reply(&echo, true))));
        }
        assert!(!echo.is_answered_by(&with_ip_header(4, &reply(&echo, true))), "no IP header");
        assert!(!echo.is_answered_by(&with_ip_header(5, &reply(&echo, false))), "not over IPv4");
        assert!(!echo.is_answered_by(&echo.encode(true)), "its own request");
        assert!(!echo.is_answered_by(&echo.encode(false)), "its own request");
    }
}

#[test]
fn no_part_of_an_answer_may_differ() {
    let echo = IcmpEchoRequest::random(true);
    let right = reply(&echo, true);
    for byte in 0..right.len() {
        let mut wrong = right.clone();
        wrong[byte] ^= 1;
        assert!(!echo.is_answered_by(&wrong), "the checksum shows byte {byte}");
        fill_checksum(&mut wrong);
        assert_eq!(echo.is_answered_by(&wrong), (2..4).contains(&byte), "byte {byte}");
    }
    for len in 0..right.len() {
        let mut short = right[..len].to_vec();
        if len >= 4 {
            fill_checksum(&mut short);
        }
        assert!(!echo.is_answered_by(&short), "{len} bytes");
    }
    let mut long = right;
    long.extend([0, 0]);
    assert!(!echo.is_answered_by(&long), "a payload that goes on");
}

proptest! {
    #[test]
    fn no_bytes_are_an_answer_by_chance(packet in prop::collection::vec(any::<u8>(), 0..200)) {
        for own in [true, false] {
            prop_assert!(!IcmpEchoRequest::random(own).is_answered_by(&packet));
        }
    }

    #[test]
    fn another_request_has_another_answer(own: bool, v4: bool) {
        let (mine, other) = (IcmpEchoRequest::random(own), IcmpEchoRequest::random(own));
        prop_assert!(!mine.is_answered_by(&reply(&other, v4)));
    }
}
