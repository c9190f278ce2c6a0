use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn parse(text: &str) -> Result<SchedulerExpression, SchedulerExpressionError> {
    text.parse()
}

fn plain(name: &str) -> SchedulerExpression {
    SchedulerExpression { name: name.to_owned(), arguments: Vec::new() }
}

fn value(key: &str, value: &str) -> SchedulerArgument {
    SchedulerArgument::Value { key: key.to_owned(), value: value.to_owned() }
}

#[test]
fn names_flags_values_and_nested_schedulers_are_parsed() {
    assert_eq!(parse("peak_ewma"), Ok(plain("peak_ewma")));
    let maglev = SchedulerExpression { arguments: vec![value("seed", "7")], ..plain("maglev") };
    let arguments = vec![
        SchedulerArgument::Expression(maglev),
        SchedulerArgument::Expression(plain("sh-port")),
        value("factor", "1.25"),
    ];
    let bounded = SchedulerExpression { arguments, ..plain("bounded") };
    assert_eq!(parse("bounded(maglev(seed=7), sh-port, factor=1.25)"), Ok(bounded));
}

#[test]
fn blanks_are_ignored_except_inside_a_value() {
    let expression = parse(" a ( b = c  d , e\t( f ) ) ").expect("well formed");
    assert_eq!(expression.to_string(), "a(b=c  d, e(f))");
    assert_eq!(expression.arguments()[0], value("b", "c  d"));
}

#[test]
fn an_error_names_the_character_its_offset_and_the_expected_text() {
    let unexpected = |found, offset, expected| {
        Err(SchedulerExpressionError::UnexpectedChar { found, offset, expected })
    };
    let end = |offset, expected| Err(SchedulerExpressionError::UnexpectedEnd { offset, expected });
    assert_eq!(parse(""), end(0, EXPECTED_NAME));
    assert_eq!(parse("  "), end(2, EXPECTED_NAME));
    assert_eq!(parse("(rr)"), unexpected('(', 0, EXPECTED_NAME));
    assert_eq!(parse("rr()"), unexpected(')', 3, EXPECTED_NAME));
    assert_eq!(parse("rr(a,)"), unexpected(')', 5, EXPECTED_NAME));
    assert_eq!(parse("rr(a"), end(4, EXPECTED_SEPARATOR));
    assert_eq!(parse("rr(a b)"), unexpected('b', 5, EXPECTED_SEPARATOR));
    assert_eq!(parse("rr(a="), end(5, EXPECTED_VALUE));
    assert_eq!(parse("rr(a=,b)"), unexpected(',', 5, EXPECTED_VALUE));
    assert_eq!(parse("rr(a=b(c))"), unexpected('(', 6, EXPECTED_SEPARATOR));
    assert_eq!(parse("rr)"), unexpected(')', 2, EXPECTED_END));
    assert_eq!(parse("rr=1"), unexpected('=', 2, EXPECTED_END));
    assert_eq!(parse("wörter"), unexpected('ö', 1, EXPECTED_END));
    assert_eq!(
        parse("rr(é)").expect_err("no name").to_string(),
        "unexpected 'é' at byte 3 of the scheduler, where the name of a scheduler or parameter is expected"
    );
}

#[test]
fn depth_and_length_are_bounded() {
    let nested =
        |depth: usize| format!("{}{}", "a(".repeat(depth - 1) + "z", ")".repeat(depth - 1));
    assert!(parse(&nested(SchedulerExpression::MAX_DEPTH)).is_ok());
    assert_eq!(
        parse(&nested(SchedulerExpression::MAX_DEPTH + 1)),
        Err(SchedulerExpressionError::TooDeep { name: "z".to_owned(), offset: 16 })
    );
    assert_eq!(
        parse(&"(".repeat(1024)),
        Err(SchedulerExpressionError::UnexpectedChar {
            found: '(',
            offset: 0,
            expected: EXPECTED_NAME
        })
    );
    assert!(parse(&"a".repeat(SchedulerExpression::MAX_LEN)).is_ok());
    assert_eq!(
        parse(&"a".repeat(SchedulerExpression::MAX_LEN + 1)),
        Err(SchedulerExpressionError::TooLong { len: 1025 })
    );
}

fn any_expression() -> impl Strategy<Value = SchedulerExpression> {
    let name = || "[A-Za-z0-9_-]{1,8}";
    let any_value = (name(), "[^,()\\s]([^,()]{0,6}[^,()\\s])?")
        .prop_map(|(key, value)| SchedulerArgument::Value { key, value });
    let leaf = name().prop_map(|name| SchedulerExpression { name, arguments: Vec::new() });
    leaf.prop_recursive(3, 12, 3, move |inner| {
        let argument =
            prop_oneof![any_value.clone(), inner.prop_map(SchedulerArgument::Expression)];
        (name(), prop::collection::vec(argument, 1..4))
            .prop_map(|(name, arguments)| SchedulerExpression { name, arguments })
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_displayed_expression_parses_to_itself(it in any_expression()) {
        prop_assume!(it.to_string().len() <= SchedulerExpression::MAX_LEN);
        prop_assert_eq!(parse(&it.to_string()), Ok(it));
    }

    #[test]
    fn no_text_panics_and_a_parsed_text_is_stable(text in "([a-c=,() \u{a0}é.-]|\\PC){0,40}") {
        match parse(&text) {
            Ok(it) => prop_assert_eq!(parse(&it.to_string()), Ok(it)),
            Err(SchedulerExpressionError::UnexpectedChar { found, offset, .. }) => {
                prop_assert!(text[offset..].starts_with(found));
            }
            Err(SchedulerExpressionError::UnexpectedEnd { offset, .. }) => {
                prop_assert_eq!(offset, text.len());
            },
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
