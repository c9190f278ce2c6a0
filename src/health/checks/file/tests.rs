use proptest::prelude::*;

use super::*;

/// The change of weight, if it is up.
fn change(check: &FileCheck, value: i32) -> Result<Option<AgentWeight>, String> {
    let FileCheckMode::Value { weight } = check.mode else { panic!("by number") };
    let judged = check.judge_value(value, weight);
    judged.map(|report| report.agent_override().weight).map_err(|failure| failure.to_string())
}

#[test]
fn a_number_is_a_number() {
    assert_eq!(parse_value(b"0\n"), Some(0));
    assert_eq!(parse_value(b" \t-7 \r\n"), Some(-7));
    assert_eq!(parse_value(b"+3"), Some(3));
    assert_eq!(parse_value(b"-2147483648"), Some(i32::MIN));
    for wrong in ["", "\n", "2147483648", "1 2", "0x10", "1.5", "up", "1\0", "\u{661}"] {
        assert_eq!(parse_value(wrong.as_bytes()), None, "{wrong:?}");
    }
    assert_eq!(parse_value(b"\xff"), None);
}

#[test]
fn without_weight_zero_is_up() {
    let check = FileCheck::value("/f");
    assert_eq!(change(&check, 0), Ok(None));
    assert_eq!(change(&check, -1), Err("/f says -1".to_owned()));
    let check = check.reversed();
    assert_eq!(change(&check, 0), Err("/f says 0".to_owned()));
    assert_eq!(change(&check, 5), Ok(None));
}

#[test]
fn with_weight_the_product_is_added() {
    let check = FileCheck::value("/f").weight(-3);
    assert_eq!(change(&check, 0), Ok(Some(AgentWeight::Plus(0))));
    assert_eq!(change(&check, 5), Ok(Some(AgentWeight::Plus(-15))));
    assert_eq!(change(&check.clone().reversed(), 5), Ok(Some(AgentWeight::Plus(15))));
    assert_eq!(change(&check, i32::MIN), Ok(Some(AgentWeight::Plus(i32::MAX))));
    let reason = "/f says 2147483647, and times -3 that is down".to_owned();
    assert_eq!(change(&check, i32::MAX), Err(reason));
    assert_eq!(change(&check.weight(0), 1), Err("/f says 1".to_owned()));
}

#[test]
fn a_file_may_be_wanted_or_not() {
    let wanted = FileCheck::exists("/f").weight(3);
    assert!(wanted.judge_existence(true).is_ok());
    assert_eq!(wanted.judge_existence(false).unwrap_err().reason(), "/f does not exist");
    let unwanted = wanted.reversed();
    assert!(unwanted.judge_existence(false).is_ok());
    assert_eq!(unwanted.judge_existence(true).unwrap_err().reason(), "/f exists");
}

proptest! {
    #[test]
    fn any_bytes_are_a_number_or_not(bytes in any::<Vec<u8>>(), number: i32) {
        let _ = parse_value(&bytes);
        prop_assert_eq!(parse_value(format!(" {number}\n").as_bytes()), Some(number));
    }

    #[test]
    fn turned_round_the_change_is_the_opposite(value: i32, weight in -99..99) {
        let check = FileCheck::value("/f").weight(weight);
        let there = change(&check, value).ok().flatten();
        let back = change(&check.reversed(), value).ok().flatten();
        if let (Some(AgentWeight::Plus(there)), Some(AgentWeight::Plus(back))) = (there, back) {
            // What would be too much is the most there is.
            prop_assert!(there == back.saturating_neg() || there.abs().max(back.abs()) == i32::MAX);
        }
    }
}
