use proptest::prelude::*;

use super::*;

/// The change of the weight, if the check is up.
fn change(check: &FileCheck, value: i32) -> Result<Option<AgentWeight>, String> {
    let FileCheckMode::Value { weight } = check.mode else { panic!("not a check by number") };
    let judged = check.judge_value(value, weight);
    judged.map(|report| report.agent_override().weight).map_err(|failure| failure.to_string())
}

#[test]
fn decimal_numbers_are_parsed() {
    assert_eq!(parse_value(b"0\n"), Some(0));
    assert_eq!(parse_value(b" \t-7 \r\n"), Some(-7));
    assert_eq!(parse_value(b"+3"), Some(3));
    assert_eq!(parse_value(b"-2147483648"), Some(i32::MIN));
    for invalid in ["", "\n", "2147483648", "1 2", "0x10", "1.5", "up", "1\0", "\u{661}"] {
        assert_eq!(parse_value(invalid.as_bytes()), None, "{invalid:?}");
    }
    assert_eq!(parse_value(b"\xff"), None);
}

#[test]
fn without_weight_zero_is_up() {
    let check = FileCheck::value("/f");
    assert_eq!(change(&check, 0), Ok(None));
    assert_eq!(change(&check, -1), Err("/f contains -1, expected 0".to_owned()));
    let check = check.reversed();
    assert_eq!(change(&check, 0), Err("/f contains 0, expected another number than 0".to_owned()));
    assert_eq!(change(&check, 5), Ok(None));
}

#[test]
fn with_weight_the_product_is_added() {
    let check = FileCheck::value("/f").weight(-3);
    assert_eq!(change(&check, 0), Ok(Some(AgentWeight::Plus(0))));
    assert_eq!(change(&check, 5), Ok(Some(AgentWeight::Plus(-15))));
    assert_eq!(change(&check.clone().reversed(), 5), Ok(Some(AgentWeight::Plus(15))));
    assert_eq!(change(&check, i32::MIN), Ok(Some(AgentWeight::Plus(i32::MAX))));
    let reason = "/f contains 2147483647: times the weight -3, that means down".to_owned();
    assert_eq!(change(&check, i32::MAX), Err(reason));
    assert_eq!(change(&check.weight(0), 1), Err("/f contains 1, expected 0".to_owned()));
}

#[test]
fn existence_is_up_or_reversed_down() {
    let required = FileCheck::exists("/f").weight(3);
    assert!(required.judge_existence(true).is_ok());
    assert_eq!(required.judge_existence(false).unwrap_err().reason(), "/f does not exist");
    let forbidden = required.reversed();
    assert!(forbidden.judge_existence(false).is_ok());
    assert_eq!(forbidden.judge_existence(true).unwrap_err().reason(), "/f exists");
}

proptest! {
    #[test]
    fn any_bytes_are_a_number_or_not(bytes in any::<Vec<u8>>(), number: i32) {
        let _ = parse_value(&bytes);
        prop_assert_eq!(parse_value(format!(" {number}\n").as_bytes()), Some(number));
    }

    #[test]
    fn reversed_the_change_is_the_opposite(value: i32, weight in -99..99) {
        let check = FileCheck::value("/f").weight(weight);
        let plus = |check: &FileCheck| match change(check, value) {
            Ok(Some(AgentWeight::Plus(plus))) => Some(plus),
            _ => None,
        };
        if let (Some(plain), Some(reversed)) = (plus(&check), plus(&check.clone().reversed())) {
            // A change beyond the range is the largest change.
            let is_largest = plain.abs().max(reversed.abs()) == i32::MAX;
            prop_assert!(plain == reversed.saturating_neg() || is_largest);
        }
    }
}
