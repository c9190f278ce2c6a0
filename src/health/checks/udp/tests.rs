use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> BytePattern {
    text.parse().expect(text)
}

#[test]
fn patterns_are_parsed_as_keepalived_parses_them() {
    let parsed = pattern("Ab12f 3 456 546443123");
    let same = BytePattern::from(&[0xab, 0x12, 0x0f, 3, 0x45, 6, 0x54, 0x64, 0x43, 0x12, 3]);
    assert_eq!(parsed, same);
    assert_eq!(pattern(" \t\n"), BytePattern::default());
    assert!(
        pattern("x").is_prefix_of(&[0x0d]) && !pattern("x").is_prefix_of(&[0x1d]),
        "a single digit is the low half"
    );
    assert!(pattern("4X").is_prefix_of(b"O") && !pattern("4X").is_prefix_of(b"o"));
    assert_eq!(
        "41 4g".parse::<BytePattern>().expect_err("not a digit").to_string(),
        "'g' at byte 4 is neither a hexadecimal digit nor `x`"
    );
}

#[test]
fn a_reply_is_judged_by_pattern_and_length() {
    let check = UdpCheck::new().reply_lengths(3..=5).expect_reply(pattern("61xx"));
    let expected = check.expected_reply.expect("a reply is required");
    assert_eq!(expected.lengths, 3..=5, "the pattern keeps the lengths");
    let judge = |reply: &[u8]| expected.judge(reply, reply.len()).map_err(|f| f.to_string());
    assert_eq!(judge(b"abc"), Ok(()));
    assert_eq!(judge(b"a"), Err("reply of 1 bytes, expected 3 to 5".to_owned()));
    assert_eq!(judge(b"abcdef"), Err("reply of 6 bytes, expected 3 to 5".to_owned()));
    assert_eq!(
        judge(b"\0bc"),
        Err(r#"reply "\0bc" does not begin with the pattern "61xx""#.to_owned())
    );
}

proptest! {
    #[test]
    fn a_pattern_is_equal_after_formatting_and_parsing(text in "[0-9a-fxX \t]{0,40}") {
        let parsed = pattern(&text);
        prop_assert_eq!(pattern(&parsed.to_string()), parsed);
    }

    #[test]
    fn any_text_is_a_pattern_or_an_error(text in any::<String>()) {
        let _ = text.parse::<BytePattern>();
    }

    #[test]
    fn only_masked_bits_may_differ(
        bytes in prop::collection::vec(any::<u8>(), 1..20),
        position: prop::sample::Index,
        bit in 0..8,
        wildcard in any::<[bool; 2]>(),
        tail in any::<Vec<u8>>(),
    ) {
        let position = position.index(bytes.len());
        let mut text: Vec<char> =
            bytes.iter().flat_map(|byte| format!("{byte:02x}").chars().collect::<Vec<_>>()).collect();
        for half in 0..2 {
            if wildcard[half] {
                text[position * 2 + half] = 'x';
            }
        }
        let parsed = pattern(&text.into_iter().collect::<String>());
        prop_assert!(parsed.is_prefix_of(&[&bytes[..], &tail].concat()));
        prop_assert!(!parsed.is_prefix_of(&bytes[1..]), "one byte too short");
        let mut other = bytes;
        other[position] ^= 1u8 << bit;
        prop_assert_eq!(parsed.is_prefix_of(&other), wildcard[usize::from(bit < 4)]);
    }
}
